"""Compose files as bake reads them: a target for each service that is built."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from barque.base.errors import InvalidInputError
from barque.cli.building.bake.definitions import Definitions

Json = dict[str, Any]
_REFERENCE = re.compile(r"\$(?:\$|([A-Za-z_]\w*)|\{([A-Za-z_]\w*)(?:(:?[-?+])([^}]*))?\})")
_LISTS = ("tags", "cache_from", "cache_to", "platforms", "no_cache_filter", "secret", "ssh", "output", "attest", "annotations")
_PLAIN = {"dockerfile": "dockerfile", "dockerfile_inline": "dockerfile-inline", "target": "target", "network": "network",
          "no_cache": "no-cache", "pull": "pull"}  # fmt: skip
_XBAKE = {"tags": "tags", "cache-from": "cache-from", "cache-to": "cache-to", "secret": "secret", "ssh": "ssh",
          "platforms": "platforms", "output": "output", "pull": "pull", "no-cache": "no-cache",
          "no-cache-filter": "no-cache-filter", "contexts": "contexts", "args": "args", "labels": "labels", "attest": "attest",
          "annotations": "annotations", "entitlements": "entitlements"}  # fmt: skip


def looks_like(name: str) -> bool:
    """Tell whether a file is taken for a Compose file by its name."""
    return name.endswith((".yml", ".yaml"))


def read(text: str, name: str, environment: Mapping[str, str], folder: str) -> Definitions:
    """Return the targets of a Compose file.

    Raises:
        InvalidInputError: it is no Compose file, or a variable that it needs is not set.
    """
    import yaml

    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise InvalidInputError(f"{name}: {error}") from None
    if not isinstance(value, dict) or not isinstance(value.get("services"), dict):
        raise InvalidInputError(f"{name}: no services are defined")
    value = interpolated(value, {**_dotenv(folder), **environment}, name)
    found = Definitions()
    members = []
    for service, fields in sorted(value["services"].items()):
        if not isinstance(fields, dict) or not fields.get("build"):
            continue
        made = re.sub(r"[^a-zA-Z0-9_-]", "_", str(service))
        found.targets[made] = _target(fields, value, environment, name)
        members.append(made)
    found.groups["default"] = members
    return found


def _dotenv(folder: str) -> dict[str, str]:
    path = os.path.join(folder, ".env")
    if not os.path.isfile(path):
        return {}
    from barque.cli.env_files import read_file

    return dict(pair.partition("=")[::2] for pair in read_file(path, from_environment=False))


def interpolated(value: Any, environment: Mapping[str, str], name: str) -> Any:
    """Return a value with `${VARIABLE}` and its kin replaced in all its texts.

    Raises:
        InvalidInputError: a variable that must be set is not.
    """
    if isinstance(value, dict):
        return {key: interpolated(one, environment, name) for key, one in value.items()}
    if isinstance(value, list):
        return [interpolated(one, environment, name) for one in value]
    if not isinstance(value, str):
        return value

    def one(match: re.Match[str]) -> str:
        variable = match[1] or match[2]
        if not variable:
            return "$"
        sign, rest = match[3] or "", match[4] or ""
        found = environment.get(variable)
        there = bool(found) if sign.startswith(":") else found is not None
        if sign.endswith("-"):
            return str(found) if there else rest
        if sign.endswith("+"):
            return rest if there else ""
        if sign.endswith("?") and not there:
            raise InvalidInputError(f"{name}: required variable {variable} is missing a value: {rest}")
        return found or ""

    return _REFERENCE.sub(one, value)


def _target(service: Json, whole: Json, environment: Mapping[str, str], name: str) -> Json:
    build = service["build"] if isinstance(service["build"], dict) else {"context": service["build"]}
    made: Json = {"context": _path(build.get("context") or ".")}
    for key, ours in _PLAIN.items():
        if build.get(key) is not None:
            made[ours] = build[key]
    for key in _LISTS:
        if build.get(key):
            made[key.replace("_", "-")] = list(build[key])
    if service.get("image") and not made.get("tags"):
        made["tags"] = [service["image"]]
    pairs = {"args": build.get("args"), "labels": build.get("labels"), "contexts": build.get("additional_contexts")}
    for key, found in pairs.items():
        if found:
            made[key] = _pairs(found, environment if key == "args" else {})
    if "contexts" in made:
        made["contexts"] = {key: _path(value) for key, value in made["contexts"].items()}
    if build.get("extra_hosts"):
        made["extra-hosts"] = _pairs(build["extra_hosts"], {}, signs="=:")
    if build.get("shm_size"):
        made["shm-size"] = str(build["shm_size"])
    if build.get("ulimits"):
        made["ulimits"] = [_ulimit(key, value) for key, value in sorted(build["ulimits"].items())]
    if build.get("privileged"):
        made["entitlements"] = ["security.insecure"]
    secrets = [_secret(one, whole.get("secrets") or {}) for one in build.get("secrets") or []]
    if secrets:
        made["secret"] = secrets
    _extension(made, build.get("x-bake") or {}, name)
    return made


def _path(text: str) -> str:
    """Return a path without what says nothing; URLs and images stay as they are."""
    return text if ":" in text else os.path.normpath(text)


def _pairs(value: Any, environment: Mapping[str, str], *, signs: str = "=") -> Json:
    if isinstance(value, dict):
        listed = list(value.items())
    else:
        listed = []
        for text in map(str, value):
            sign = next((one for one in signs if one in text), "")
            key, _, rest = text.partition(sign) if sign else (text, "", None)
            listed.append((key, rest))
    found: Json = {}
    for key, one in listed:
        if one is not None:
            found[str(key)] = str(one).lower() if isinstance(one, bool) else str(one)
        elif key in environment:
            found[str(key)] = environment[key]
    return found


def _ulimit(name: str, value: Any) -> str:
    if isinstance(value, dict):
        return f"{name}={value.get('soft')}:{value.get('hard')}"
    return f"{name}={value}"


def _secret(value: Any, known: Json) -> Json:
    name = value.get("source") if isinstance(value, dict) else value
    target = value.get("target") if isinstance(value, dict) else None
    source = known.get(str(name)) or {}
    made: Json = {"id": target or name}
    if source.get("file"):
        made["src"] = _path(source["file"])
    elif source.get("environment"):
        made["env"] = source["environment"]
    return made


def _extension(made: Json, extension: Json, name: str) -> None:
    for key, value in extension.items():
        if key not in _XBAKE:
            raise InvalidInputError(f"{name}: x-bake has no attribute {key}")
        if key in ("contexts", "args", "labels"):
            made[key] = {**made.get(key, {}), **_pairs(value, {})}
        elif key in ("pull", "no-cache"):
            made[key] = value
        else:
            made[key] = value if isinstance(value, list) else [value]
