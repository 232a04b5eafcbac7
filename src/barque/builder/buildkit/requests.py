"""What a client may ask of a Dockerfile instead of a build: its targets, its arguments, what can be asked."""

import base64
from collections.abc import Iterable
from typing import Any

from barque.builder.buildkit.builds import Outcome
from barque.builder.buildkit.checks import answered, index_of, location
from barque.dockerfile import instructions as of
from barque.dockerfile.errors import DockerfileError
from barque.dockerfile.scope import Scope
from barque.dockerfile.stages import Dockerfile
from barque.dockerfile.words import Rules, expand

Json = dict[str, Any]
DESCRIBE = "frontend.subrequests.describe"
OUTLINE = "frontend.outline"
TARGETS = "frontend.targets"
LINT = "frontend.lint"
_VERSION = "1.0.0"
_RESULTS = [{"name": "result.json", "description": ""}, {"name": "result.txt", "description": ""}]
_KNOWN: tuple[tuple[str, str, list[dict[str, str]] | None], ...] = (
    (OUTLINE, "List all parameters current build target supports",
     [{"name": "target", "description": "Target build stage"}]),
    (TARGETS, "List all targets current build supports", []),
    (DESCRIBE, "List available subrequest types", None),
)  # fmt: skip


def describe() -> Outcome:
    """Return what can be asked."""
    listed = [
        {"name": name, "version": _VERSION, "type": "rpc", "description": text, "opts": options, "inputs": None,
         "metadata": _RESULTS, "refs": None}
        for name, text, options in _KNOWN
    ]  # fmt: skip
    rows = [("NAME", "VERSION", "DESCRIPTION")]
    rows += [(name.removeprefix("frontend."), _VERSION, text) for name, text, _ in _KNOWN]
    return answered(listed, table(rows, 1))


def targets(parsed: Dockerfile, text: str) -> Outcome:
    """Return the stages of a Dockerfile; the last one is the default."""
    listed, rows = [], [("TARGET", "DESCRIPTION")]
    for number, stage in enumerate(parsed.stages):
        last = number == len(parsed.stages) - 1
        description = described(stage.comments, stage.name)
        made = {
            "name": stage.name, "default": last, "description": description, "base": stage.base,
            "platform": stage.platform,
        }  # fmt: skip
        listed.append({key: value for key, value in made.items() if value} | {"location": location(stage.line, stage.end, index_of(parsed, stage.file))})
        rows.append((f"{stage.name} (default)".lstrip() if last else stage.name, description))
    return answered({"targets": listed, "sources": _data(parsed, text)}, table(rows, 1))


def outline(parsed: Dockerfile, text: str, numbers: Iterable[int], wanted: int, scope: Scope) -> Outcome:
    """Return the arguments, secrets and agents that a target takes.

    Args:
        parsed: the Dockerfile.
        text: its text.
        numbers: the stages that the target needs, itself last.
        wanted: the target.
        scope: knows the values from outside.
    """
    work = _Outline(parsed, scope)
    for number in numbers:
        work.stage(parsed.stages[number])
    stage = parsed.stages[wanted]
    description = described(stage.comments, stage.name)
    value: Json = {"name": stage.name, "description": description, **work.found(), "sources": _data(parsed, text)}
    told = ""
    if stage.name or description:
        rows = [("TARGET:", stage.name or "(default)"), *([("DESCRIPTION:", description)] if description else [])]
        told = table(rows, 1) + "\n"
    if work.args:
        named = [(row["name"], row.get("value", ""), row.get("description", "")) for row in work.args_in_order()]
        told += table([("BUILD ARG", "VALUE", "DESCRIPTION"), *named], 3) + "\n"
    for title, held in (("SECRET", work.secrets), ("SSH", work.agents)):
        if held:
            needed = [(row["name"], "true" if row.get("required") else "") for row in held.values()]
            told += table([(title, "REQUIRED"), *needed], 3) + "\n"
    return answered({key: one for key, one in value.items() if one}, told)


class _Outline:
    def __init__(self, parsed: Dockerfile, scope: Scope) -> None:
        self._parsed = parsed
        self._escape = parsed.source.escape
        self._scope = scope
        self._global: dict[str, Json] = {}
        self._deps: dict[str, frozenset[str]] = {}
        self.args: dict[str, Json] = {}
        self.secrets: dict[str, Json] = {}
        self.agents: dict[str, Json] = {}
        for arg in parsed.global_args:
            self._escape = of.escape_of(arg, parsed.source.escape)
            for key, default in arg.args:
                found = expand(default or "", scope.global_values(), Rules(self._escape))
                scope.declare_global(key, None if default is None else found.text)
                self._deps[key] = found.used - {key}
                self._global[key] = self._row(key, scope.global_values().get(key), arg)
        for stage in parsed.stages:
            self._escape = of.escape_of(stage, parsed.source.escape)
            for word in (stage.base, stage.platform):
                self._use(expand(word, scope.global_values(), Rules(self._escape)).used)

    def _use(self, names: Iterable[str]) -> None:
        """Take note of global arguments that are used, and of those that they are made of."""
        todo = list(names)
        while todo:
            name = todo.pop()
            if name in self._global and name not in self.args:
                self.args[name] = self._global[name]
                todo += self._deps.get(name, ())

    def stage(self, stage: of.Stage) -> None:
        scope = self._scope.stage()
        env: dict[str, str] = {}
        for made in stage.instructions:
            self._escape = of.escape_of(made, self._parsed.source.escape)
            if isinstance(made, of.Arg):
                self._declared(made, scope, env)
            elif isinstance(made, of.Env):
                known = {**scope.values(env), **env}
                env |= {self._text(pair.key, known): self._text(pair.value, known) for pair in made.pairs}
            elif isinstance(made, of.Run):
                known = {**scope.values(env), **env}
                self._mounts(made.expanded(lambda word, known=known: self._text(word, known)))  # type: ignore[misc]

    def _text(self, word: str, values: dict[str, str]) -> str:
        try:
            return expand(word, values, Rules(self._escape)).text
        except DockerfileError:
            return word

    def _declared(self, made: of.Arg, scope: Scope, env: dict[str, str]) -> None:
        for key, default in made.args:
            value = None if default is None else self._text(default, {**scope.values(env), **env})
            scope.declare(key, value)
            if default is None and key in self._global:
                self._use([key])
                continue
            self.args.setdefault(key, self._row(key, scope.value(key), made))

    def _mounts(self, made: of.Run) -> None:
        for mount in made.mounts:
            if mount.type not in ("secret", "ssh"):
                continue
            name = mount.id or mount.source or mount.target.rpartition("/")[2]
            held = self.secrets if mount.type == "secret" else self.agents
            name = name if mount.type == "secret" else mount.id or "default"
            row = {"name": name, **({"required": True} if mount.required else {})}
            held.setdefault(name, {**row, "location": self._location(made)})

    def _row(self, name: str, value: str | None, made: of.Arg) -> Json:
        found = {"name": name, "description": described(made.comments, name), "value": value or ""}
        return {key: one for key, one in found.items() if one} | {"location": self._location(made)}

    def _location(self, made: of.Instruction) -> Json:
        return location(made.line, made.end, index_of(self._parsed, made.file))

    def args_in_order(self) -> list[Json]:
        return sorted(self.args.values(), key=_line)

    def found(self) -> Json:
        held = {"args": self.args, "secrets": self.secrets, "ssh": self.agents}
        return {name: sorted(rows.values(), key=_line) for name, rows in held.items() if rows}


def _line(row: Json) -> int:
    return int(row["location"]["ranges"][0]["start"]["line"])


def described(comments: Iterable[str], name: str) -> str:
    """Return what a comment above says of a stage or argument: the words behind its name."""
    found = (line.removeprefix(f"{name} ") for line in comments if line.startswith(f"{name} "))
    return next(found, "") if name else ""


def table(rows: Iterable[tuple[str, ...]], gap: int) -> str:
    """Return rows in columns that are as wide as their longest cell; the last one is as it is."""
    listed = [*rows]
    widths = [max(len(row[column]) for row in listed) + gap for column in range(len(listed[0]) - 1)]
    return "".join(
        "".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)) + row[-1] + "\n" for row in listed
    )


def _data(parsed: Dockerfile, text: str) -> list[str]:
    texts = [text, *(file.text for file, _ in parsed.source.included)]
    return [base64.b64encode(one.encode("utf-8", "surrogateescape")).decode() for one in texts]
