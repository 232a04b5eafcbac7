"""From definitions to the targets that are built: inheritance, overrides, groups, and the form that is printed."""

from __future__ import annotations

import fnmatch
import os
from typing import Any

from barque.base.errors import InvalidInputError
from barque.builder.sources import is_git
from barque.cli.building.bake.definitions import Definitions
from barque.cli.building.outputs import read_list

Json = dict[str, Any]
_MAPS = ("args", "labels", "contexts", "extra-hosts")
_LISTS = ("annotations", "attest", "tags", "cache-from", "cache-to", "secret", "ssh", "platforms", "output",
          "no-cache-filter", "ulimits", "entitlements")  # fmt: skip
_TRUTHS = ("pull", "no-cache")
_TEXTS = ("context", "dockerfile", "dockerfile-inline", "target", "network", "shm-size", "call", "description")
_FIELDS = ("attest", "cache-from", "cache-to", "secret", "ssh", "output")
_ORDER = ("annotations", "attest", "context", "contexts", "dockerfile", "dockerfile-inline", "args", "labels", "tags",
          "cache-from", "cache-to", "target", "secret", "ssh", "platforms", "output", "pull", "no-cache", "network",
          "no-cache-filter", "shm-size", "ulimits", "call", "entitlements", "extra-hosts")  # fmt: skip
_OTHER_NAMES = {"secrets": "secret", "outputs": "output", "platform": "platforms", "tag": "tags", "arg": "args", "label": "labels"}


def checked(name: str, target: Json) -> Json:
    """Return a target's attributes, each of its type; lists of objects as such.

    Raises:
        InvalidInputError: an attribute is unknown, or of another type.
    """
    made: Json = {}
    for key, value in target.items():
        if value is None:
            continue
        if key == "inherits":
            made[key] = _texts(name, key, value)
        elif key in _MAPS:
            if not isinstance(value, dict):
                raise InvalidInputError(f"target {name}: {key} must be an object")
            made[key] = {k: None if v is None else _text(name, key, v) for k, v in value.items()}
        elif key in _FIELDS:
            listed = value if isinstance(value, list) else [value]
            made[key] = [fields_of(key, one) for one in listed]
        elif key in _LISTS:
            made[key] = _texts(name, key, value)
        elif key in _TRUTHS:
            if not isinstance(value, bool) and value not in ("true", "false"):
                raise InvalidInputError(f"target {name}: {key} must be true or false")
            made[key] = value in (True, "true")
        elif key in _TEXTS:
            made[key] = _text(name, key, value)
        else:
            raise InvalidInputError(f"target {name}: unsupported attribute {key!r}")
    return made


def _text(name: str, key: str, value: Any) -> str:
    from barque.cli.building.bake.expressions import text_of

    try:
        return text_of(value)
    except InvalidInputError:
        raise InvalidInputError(f"target {name}: {key} must be a text") from None


def _texts(name: str, key: str, value: Any) -> list[str]:
    if not isinstance(value, list):
        raise InvalidInputError(f"target {name}: {key} must be a list")
    return [_text(name, key, one) for one in value if one is not None]


def fields_of(kind: str, value: Any) -> Json:
    """Return one entry of a list of objects, which may be written as text.

    Raises:
        InvalidInputError: it is neither.
    """
    if isinstance(value, dict):
        return {key: one if isinstance(one, list) else _text("", kind, one) for key, one in value.items() if one is not None}
    if not isinstance(value, str):
        raise InvalidInputError(f"{kind}: an object or a text is expected")
    if kind == "ssh":
        name, equals, rest = value.partition("=")
        return {"id": name, "paths": rest.split(",")} if equals else {"id": name}
    if "=" not in value:
        if kind in ("cache-from", "cache-to"):
            return {"type": "registry", "ref": value}
        if kind == "output":
            return {"type": "tar", "dest": "-"} if value == "-" else {"type": "local", "dest": value}
    made: Json = {}
    for field in read_list(value):
        key, equals, rest = field.partition("=")
        if not equals:
            raise InvalidInputError(f"{kind}: invalid value {field}")
        made[key.strip().lower()] = rest
    return made


def text_of_fields(kind: str, fields: Json) -> str:
    """Return an entry as a flag has it."""
    if kind == "ssh":
        paths = fields.get("paths") or []
        return str(fields["id"]) + (f"={','.join(paths)}" if paths else "")
    parts = []
    for key, value in fields.items():
        part = f"{key}={value}"
        parts.append('"' + part.replace('"', '""') + '"' if any(sign in part for sign in ',"\n') else part)
    return ",".join(parts)


class Project:
    """All targets and groups, with overrides (`--set`)."""

    def __init__(self, found: Definitions, overrides: list[str]) -> None:
        self.definitions = found
        self._targets = {name: checked(name, target) for name, target in found.targets.items()}
        self.groups = found.groups
        self._overrides: dict[str, list[tuple[str, str, bool]]] = {}
        for text in overrides:
            self._override(text)

    def _override(self, text: str) -> None:
        path, equals, value = text.partition("=")
        adds = path.endswith("+")
        pattern, dot, key = path.removesuffix("+").partition(".")
        if not dot or not key or not equals:
            raise InvalidInputError(f"invalid override {text}, expected target.name=value")
        matched = [name for name in self._targets if fnmatch.fnmatchcase(name, pattern)]
        if not matched:
            raise InvalidInputError(f"could not find any target matching '{pattern}'")
        for name in matched:
            self._overrides.setdefault(name, []).append((key, value, adds))

    def resolve(self, name: str) -> Json:
        """Return a target with all that it inherits and its overrides.

        Raises:
            InvalidInputError: there is none, or it inherits from itself.
        """
        made = self._inherited(name, ())
        made["context"] = _clean(made.get("context") or ".")
        if "dockerfile" not in made:
            made["dockerfile"] = "Dockerfile"
        return {key: made[key] for key in _ORDER if made.get(key) not in (None, [], {}, "")}

    def _inherited(self, name: str, through: tuple[str, ...]) -> Json:
        if name not in self._targets:
            raise InvalidInputError(f"failed to find target {name}")
        if name in through:
            raise InvalidInputError(f"infinite loop from {name}: {' -> '.join((*through, name))}")
        own = self._targets[name]
        made: Json = {}
        for parent in own.get("inherits", []):
            made = merged(made, self._inherited(parent, (*through, name)))
        made = merged(made, {key: value for key, value in own.items() if key != "inherits"})
        seen: set[str] = set()
        for key, value, adds in self._overrides.get(name, []):
            _set(name, made, key, value, fresh=not adds and key not in seen)
            seen.add(key)
        return made

    def names(self, wanted: list[str]) -> tuple[dict[str, list[str]], list[str]]:
        """Return the groups and the targets that names mean, in order.

        Raises:
            InvalidInputError: there is none of a name.
        """
        groups: dict[str, list[str]] = {}
        targets: dict[str, None] = {}
        for name in wanted:
            self._expand(name, groups, targets, ())
        if wanted != ["default"]:
            more = [name for name in wanted if name != "default" or "default" not in self.groups]
            groups["default"] = list(dict.fromkeys([*groups.get("default", []), *more]))
        return groups, list(targets)

    def _expand(self, name: str, groups: dict[str, list[str]], targets: dict[str, None], through: tuple[str, ...]) -> None:
        if name in through:
            raise InvalidInputError(f"group {name} contains itself")
        if name in self.groups and (name not in self._targets or self.groups[name] != [name]):
            groups[name] = list(dict.fromkeys(self.groups[name]))
            for member in self.groups[name]:
                self._expand(member, groups, targets, (*through, name))
            return
        if name not in self._targets:
            raise InvalidInputError(f"failed to find target {name}")
        targets[name] = None

    def linked(self, targets: list[str]) -> dict[str, Json]:
        """Return targets by name, with those that their contexts mean (`target:name`)."""
        found: dict[str, Json] = {}
        waiting = list(targets)
        while waiting:
            name = waiting.pop(0)
            if name in found:
                continue
            found[name] = self.resolve(name)
            waiting += [value.removeprefix("target:") for value in (found[name].get("contexts") or {}).values()
                        if (value or "").startswith("target:")]  # fmt: skip
        return found

    def known(self) -> list[tuple[str, str]]:
        """Return all groups and targets, and what each is for."""
        rows = [(name, self.definitions.descriptions.get(name, "")) for name in self.groups if name not in self._targets]
        rows += [(name, str(target.get("description", ""))) for name, target in self._targets.items()]
        return sorted(rows)


def _clean(context: str) -> str:
    return context if "://" in context or is_git(context) or context == "-" else os.path.normpath(context)


def merged(one: Json, other: Json) -> Json:
    """Return a target with another's attributes over it: objects are joined, lists of annotations and attestations too."""
    made = dict(one)
    for key, value in other.items():
        if key in _MAPS:
            # What is null is as if it were not there.
            made[key] = {**made.get(key, {}), **{name: text for name, text in value.items() if text is not None}}
        elif key in ("annotations", "attest") and made.get(key):
            kinds = {entry.get("type") for entry in value} if key == "attest" else set()
            kept = [entry for entry in made[key] if key != "attest" or entry.get("type") not in kinds]
            made[key] = [*kept, *(entry for entry in value if entry not in kept)]
        else:
            made[key] = value
    return made


def _set(name: str, target: Json, path: str, value: str, *, fresh: bool) -> None:
    key, dot, inner = path.partition(".")
    key = _OTHER_NAMES.get(key, key)
    if key in _MAPS:
        if not dot:
            raise InvalidInputError(f"invalid key {path}: {key} needs a name: --set {name}.{key}.NAME=value")
        target[key] = {**target.get(key, {}), inner: value}
    elif key in _FIELDS:
        entry = [fields_of(key, value)] if value else []
        target[key] = entry if fresh and key != "attest" else merged({key: target.get(key, [])}, {key: entry})[key] if key == "attest" else [*target.get(key, []), *entry]
    elif key in _LISTS:
        entries = read_list(value) if key == "no-cache-filter" else [value]
        target[key] = entries if fresh and key != "annotations" else [*target.get(key, []), *entries]
    elif key in _TRUTHS:
        target[key] = checked(name, {key: value})[key]
    elif key in _TEXTS:
        target[key] = value
    elif key in ("push", "load"):
        pass_through(target, push=key == "push" and value == "true", load=key == "load" and value == "true")
    else:
        raise InvalidInputError(f"unknown key: {path}")


def pass_through(target: Json, *, push: bool, load: bool) -> None:
    """Give a target's outputs what `--push` and `--load` say."""
    outputs = [dict(one) for one in target.get("output", [])]
    if push:
        images = [one for one in outputs if one.get("type") in ("image", "registry")]
        for one in images:
            one["push"] = "true"
        if not images:
            outputs.append({"type": "image", "push": "true"})
    if load and not any(one.get("type") == "docker" and not one.get("dest") for one in outputs):
        outputs.append({"type": "docker"})
    if outputs:
        target["output"] = outputs
