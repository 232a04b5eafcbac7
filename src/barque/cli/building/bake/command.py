"""`bake`: reads the files, chooses the targets, prints them or builds them side by side."""

from __future__ import annotations

import asyncio
import glob
import json
import os
import sys
from typing import TYPE_CHECKING, Any

from barque.base.errors import BarqueError, InvalidInputError, UnsupportedError
from barque.cli.building.bake import compose
from barque.cli.building.bake.definitions import Definitions, World, read_hcl, read_json
from barque.cli.building.bake.targets import Project, pass_through, text_of_fields
from barque.cli.building.command import check_builder
from barque.cli.building.contexts import Inputs, Stdin, inputs_of, is_remote, named_context
from barque.cli.building.link import Link
from barque.cli.building.outputs import all_outputs
from barque.cli.building.request import BuildRequest, Wishes, call_of, tagged
from barque.cli.building.running import Runner, metadata, told, write_metadata
from barque.cli.building.solve import Builds, SolveError
from barque.cli.building.temporary import Temporary
from barque.oci import platform as platforms

if TYPE_CHECKING:
    from barque.cli.flags import Options
    from barque.cli.verb import Invocation

Json = dict[str, Any]
_DEFAULT_FILES = ("compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml", "docker-bake.json",
                  "docker-bake.hcl", "docker-bake.override.json", "docker-bake.override.hcl")  # fmt: skip


@told
def bake(call: Invocation) -> int:
    """Build targets of bake files.

    Raises:
        BarqueError: the files are wrong, or what is asked for cannot be done.
    """
    options = call.options
    check_builder(options)
    if call.words and is_remote(call.words[0]):
        raise UnsupportedError("bake files from elsewhere are not supported: fetch them and name them with -f")
    stdin = Stdin()
    project = Project(_definitions(options, stdin), options["set"])
    if options["list"]:
        return _list(project, options["list"])
    wanted = call.words or ["default"]
    groups, names = project.names(wanted)
    targets = project.linked(names)
    for target in targets.values():
        _flags(target, options)
    if options["print"]:
        shown: Json = {"group": {name: {"targets": members} for name, members in sorted(groups.items())}} if groups else {}
        print(json.dumps({**shown, "target": dict(sorted(targets.items()))}, indent=2, ensure_ascii=False))
        return 0
    with Temporary() as temporary:
        return _Baking(call, temporary, stdin).run(targets, names)


def _definitions(options: Options, stdin: Stdin) -> Definitions:
    names = [name for pattern in options["file"] for name in (sorted(glob.glob(pattern)) or [pattern])]
    if not names:
        names = [name for name in _DEFAULT_FILES if os.path.exists(name)]
        if not names:
            raise InvalidInputError("couldn't find a bake definition: write a docker-bake.hcl or a compose.yaml, or name a file with -f")
    environment = dict(os.environ)
    for text in options["var"]:
        name, equals, value = text.partition("=")
        if not equals:
            raise InvalidInputError(f"invalid variable {text}, expected name=value")
        environment[name] = value
    blocks, composed = [], []
    for name in names:
        text = _read(name, stdin)
        if compose.looks_like(name):
            composed.append(compose.read(text, name, environment, os.path.dirname(name) or "."))
        elif name.endswith(".json") or (name == "-" and text.lstrip().startswith("{")):
            blocks.append(read_json(text, name))
        else:
            blocks.append(read_hcl(text, name))
    known = {"BAKE_CMD_CONTEXT": os.environ.get("BUILDX_BAKE_CMD_CONTEXT", "cwd://"), "BAKE_LOCAL_PLATFORM": str(platforms.host())}
    made = World(blocks, environment, known).all()
    for one in composed:
        # What is written in HCL or JSON counts more than what Compose says.
        made.targets = {**one.targets, **{name: {**one.targets.get(name, {}), **target} for name, target in made.targets.items()}}
        made.groups = {**one.groups, **made.groups}
    return made


def _read(name: str, stdin: Stdin) -> str:
    try:
        if name == "-":
            return stdin.take("bake definition").read().decode()
        with open(name, encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError:
        raise InvalidInputError(f"couldn't find a bake definition: {name}: no such file or directory") from None
    except UnicodeDecodeError:
        raise InvalidInputError(f"{name}: it is no text in UTF-8") from None


def _list(project: Project, text: str) -> int:
    fields = dict(part.partition("=")[::2] for part in text.split(",")) if "=" in text else {"type": text}
    kind, form = fields.get("type", ""), fields.get("format", "table")
    if kind not in ("targets", "variables") or form not in ("table", "json"):
        raise InvalidInputError(f"invalid --list {text!r}: use targets or variables, with ,format=json for JSON")
    if kind == "targets":
        rows = [{"name": name, **({"description": text} if text else {})} for name, text in project.known()]
        head, cells = ("TARGET", "DESCRIPTION"), [(row["name"], row.get("description", "")) for row in rows]
    else:
        variables = sorted(project.definitions.variables, key=lambda row: str(row["name"]))
        rows = [{key: _shown(value) for key, value in row.items() if value not in (None, "")} for row in variables]
        head = ("VARIABLE", "VALUE", "DESCRIPTION")  # type: ignore[assignment]
        cells = [(row["name"], row.get("value", "<null>"), row.get("description", "")) for row in rows]  # type: ignore[misc]
    if form == "json":
        print(json.dumps(rows, indent=2))
        return 0
    table = [head, *cells]
    widths = [max(len(str(row[column])) for row in table) for column in range(len(head))]
    for row in table:
        print("   ".join(str(cell).ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return 0


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _flags(target: Json, options: Options) -> None:
    """Put what the command's own flags ask for into a target."""
    if options["no-cache"]:
        target["no-cache"] = True
    if options["pull"]:
        target["pull"] = True
    pass_through(target, push=options["push"], load=options["load"])
    for kind in ("provenance", "sbom"):
        value = options[kind]
        if value:
            kept = [one for one in target.get("attest", []) if one.get("type") != kind]
            fields = {"type": kind, "disabled": "true"} if value == "false" else {"type": kind}
            if value not in ("true", "false"):
                fields |= dict(part.partition("=")[::2] for part in value.split(","))
            target["attest"] = [*kept, fields]


class _Baking:
    """Builds targets side by side over one connection."""

    def __init__(self, call: Invocation, temporary: Temporary, stdin: Stdin) -> None:
        self._call, self._temporary, self._stdin = call, temporary, stdin
        self._runner = Runner(call, temporary)
        self._made: dict[str, BuildRequest] = {}

    def run(self, targets: dict[str, Json], names: list[str]) -> int:
        """Build; return the exit code."""
        for name in names:
            self._request(name, targets, ())
        self._allow()
        display = self._runner.display()
        try:
            done = asyncio.run(self._all(names, display))
        except KeyboardInterrupt:
            print("ERROR: failed to solve: Canceled: context canceled", file=sys.stderr)
            return 130
        failed = [(name, one) for name, one in done.items() if isinstance(one, BaseException)]
        for name, error in failed:
            if isinstance(error, SolveError):
                self._runner.show_failure(error, self._made[name])
            elif isinstance(error, BarqueError):
                print(f"ERROR: target {name}: {error}", file=sys.stderr)
            elif not isinstance(error, asyncio.CancelledError):
                raise error
        if failed:
            return 1
        if self._call.options["metadata-file"]:
            made = {name: metadata(*one) for name, one in done.items() if not isinstance(one, BaseException)}
            write_metadata(self._call.options["metadata-file"], made)
        return 0

    async def _all(self, names: list[str], display: Any) -> dict[str, Any]:
        async with Link(self._call.api) as link:
            await self._runner.open(link)
            builds = Builds(link, self._runner.services(), display)
            tasks = {}
            for name in names:
                request = self._made[name]
                self._runner.prepare(request)
                tasks[name] = asyncio.create_task(builds.run(request, shown=name if len(names) > 1 else ""))
            try:
                await asyncio.wait(tasks.values(), return_when=asyncio.FIRST_EXCEPTION)
                for task in tasks.values():
                    # What fails ends the others.
                    task.cancel()
                found = await asyncio.gather(*tasks.values(), return_exceptions=True)
            finally:
                self._runner.close(display)
            return dict(zip(tasks, found, strict=True))

    def _allow(self) -> None:
        """Refuse what targets may only do where the user says so.

        Raises:
            InvalidInputError: a target wants more than `--allow` gives.
        """
        allowed = set(self._call.options["allow"])
        for request in self._made.values():
            for name in request.entitlements:
                if name not in allowed:
                    raise InvalidInputError(f"target {request.name} requests privileged access: add --allow {name}")

    def _request(self, name: str, targets: dict[str, Json], through: tuple[str, ...]) -> BuildRequest:
        if name in self._made:
            return self._made[name]
        if name in through:
            raise InvalidInputError(f"target {name} is linked to itself: {' -> '.join((*through, name))}")
        target = targets[name]
        inputs = self._inputs(name, target)
        linked = {}
        for context, value in (target.get("contexts") or {}).items():
            if value.startswith("target:"):
                linked[context] = self._request(value.removeprefix("target:"), targets, (*through, name))
            else:
                named_context(context, value, inputs, prefix=f"{name}:")
        wishes = self._wishes(target)
        asked = call_of(target.get("call", ""))
        if asked:
            raise UnsupportedError(f"target {name}: call = {target['call']!r} is not supported by bake: use barque build --call")
        outputs = all_outputs([text_of_fields("output", one) for one in target.get("output", [])], push=False, load=False)
        tagged(outputs, target.get("tags", []), target.get("annotations", []))
        self._runner.offer([text_of_fields("secret", one) for one in target.get("secret", [])],
                           [text_of_fields("ssh", one) for one in target.get("ssh", [])])  # fmt: skip
        inputs.stores |= wishes.stores
        made = BuildRequest(name, inputs, wishes.options, outputs, wishes.entitlements, wishes.cache_exports, "", linked)
        self._made[name] = made
        return made

    def _inputs(self, name: str, target: Json) -> Inputs:
        context, file = target["context"], target["dockerfile"]
        inline = target.get("dockerfile-inline")
        prefix = f"{name}:"
        if inline:
            import io

            return inputs_of(context, "-", Stdin(io.BytesIO(inline.encode())), self._temporary, prefix=prefix)
        if context == "-" or is_remote(context):
            return inputs_of(context, "" if file == "Dockerfile" else file, self._stdin, self._temporary, prefix=prefix)
        path = file if os.path.isabs(file) or is_remote(file) else os.path.join(context, file)
        return inputs_of(context, path, self._stdin, self._temporary, prefix=prefix)

    def _wishes(self, target: Json) -> Wishes:
        wishes = Wishes(os.environ)
        arguments = (target.get("args") or {}).items()
        wishes.arguments([key if value is None else f"{key}={value}" for key, value in arguments])
        wishes.labels([f"{key}={value or ''}" for key, value in (target.get("labels") or {}).items()])
        wishes.hosts([f"{key}={value}" for key, value in (target.get("extra-hosts") or {}).items()])
        wishes.network(target.get("network", ""))
        wishes.allow(target.get("entitlements", []))
        wishes.platforms(target.get("platforms") or [os.environ.get("DOCKER_DEFAULT_PLATFORM", "")])
        wishes.attestations([text_of_fields("attest", one) for one in target.get("attest", [])])
        caches = ([text_of_fields(kind, one) for one in target.get(kind, [])] for kind in ("cache-from", "cache-to"))
        wishes.caches(*caches)
        size = target.get("shm-size", "")
        wishes.plain(
            target=target.get("target", ""), ulimit=",".join(target.get("ulimits", [])),
            image_resolve_mode="pull" if target.get("pull") else "", shm_size=str(_bytes(size)) if size else "",
        )  # fmt: skip
        if target.get("no-cache") or target.get("no-cache-filter"):
            wishes.options["no-cache"] = ",".join(target.get("no-cache-filter", []))
        return wishes


def _bytes(text: str) -> int:
    from barque.cli.units import parse_bytes

    try:
        return parse_bytes(text)
    except ValueError as error:
        raise InvalidInputError(str(error)) from None
