"""An image as the other rooms see it."""

import json
from collections.abc import Iterable
from typing import Any, NamedTuple

from barque.base.errors import InvalidInputError
from barque.base.times import parse_ns
from barque.oci import digest as digests

Json = dict[str, Any]


class PackedLayer(NamedTuple):
    """A compressed form of a layer and a repository (`domain/path`) that has it: "" where it is kept in this store."""

    digest: str
    size: int
    media_type: str
    repository: str


class Image(NamedTuple):
    """An image: its id is the digest of its config's bytes."""

    id: str
    config: Json
    """The whole config: architecture, config, rootfs, history, ..."""
    raw: bytes
    chain: tuple[str, ...]
    """Chain ids of the layers, lowest first; the last is the top snapshot's name."""
    parent: str
    size: int
    tagged_ns: int
    names: tuple[str, ...] = ()
    """Full names with a tag."""
    digests: tuple[str, ...] = ()
    """Full names with a digest."""

    @property
    def top(self) -> str:
        """Return the name of the snapshot a container is prepared on, empty without layers."""
        return self.chain[-1] if self.chain else ""

    @property
    def diff_ids(self) -> list[str]:
        """Return the layers' diffIDs, lowest first."""
        return list(self.config["rootfs"]["diff_ids"])

    @property
    def created_ns(self) -> int:
        """Return when it was made, nanoseconds since the epoch, 0 if it does not say."""
        try:
            return parse_ns(self.config.get("created") or "")
        except ValueError:
            return 0

    @property
    def run_config(self) -> Json:
        """Return how its containers run: Cmd, Env, ..."""
        return self.config.get("config") or {}


_KIND_NAMES: dict[type, str] = {str: "text", dict: "object", list: "list"}
_TEXTS = ("architecture", "author", "comment", "created", "docker_version", "os", "os.version", "variant")
_RUN_TEXTS = ("Domainname", "Hostname", "Image", "StopSignal", "User", "WorkingDir")
_RUN_LISTS = ("Cmd", "Entrypoint", "Env", "OnBuild", "Shell")
_RUN_OBJECTS = ("ExposedPorts", "Healthcheck", "Labels", "Volumes")
_STEP_TEXTS = ("author", "comment", "created", "created_by")


def check_config(raw: bytes) -> Json:
    """Return a config's content, of which everything that is read later has its type.

    Raises:
        InvalidInputError: it is no image config.
    """
    try:
        config = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"invalid image config: {error}") from None
    if not isinstance(config, dict):
        raise InvalidInputError("invalid image config: not an object")
    rootfs = config.get("rootfs")
    if not isinstance(rootfs, dict) or not isinstance(rootfs.get("diff_ids") or [], list):
        raise InvalidInputError("invalid image JSON, no RootFS key")
    rootfs["diff_ids"] = [digests.check(d) for d in rootfs.get("diff_ids") or []]
    _check_types(config, str, _TEXTS)
    _check_types(config, dict, ("config",))
    _check_types(config, list, ("history",))
    for step in config.get("history") or []:
        if not isinstance(step, dict):
            raise InvalidInputError("invalid image config: history")
        _check_types(step, str, _STEP_TEXTS)
    _check_run_config(config.get("config") or {})
    return config


def _check_run_config(config: Json) -> None:
    _check_types(config, str, _RUN_TEXTS)
    _check_types(config, dict, _RUN_OBJECTS)
    for key in ("Cmd", "Entrypoint"):
        # Old builders wrote a command of one word as a text.
        if isinstance(config.get(key), str):
            config[key] = [config[key]]
    _check_types(config, list, _RUN_LISTS)
    for key in _RUN_LISTS:
        if not all(isinstance(item, str) for item in config.get(key) or []):
            raise InvalidInputError(f"invalid image config: {key} has something that is no text")
    if not all(isinstance(value, str) for value in (config.get("Labels") or {}).values()):
        raise InvalidInputError("invalid image config: Labels has something that is no text")


def _check_types(value: Json, kind: type, keys: Iterable[str]) -> None:
    for key in keys:
        if not isinstance(value.get(key) or kind(), kind):
            raise InvalidInputError(f"invalid image config: {key} is no {_KIND_NAMES[kind]}")
