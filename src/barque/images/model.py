"""An image as the other rooms see it."""

import json
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


def check_config(raw: bytes) -> Json:
    """Return a config's content.

    Raises:
        InvalidInputError: it is no image config.
    """
    try:
        config = json.loads(raw)
    except ValueError as error:
        raise InvalidInputError(f"invalid image config: {error}") from None
    if not isinstance(config, dict):
        raise InvalidInputError("invalid image config: not an object")
    rootfs = config.get("rootfs")
    if not isinstance(rootfs, dict) or not isinstance(rootfs.get("diff_ids") or [], list):
        raise InvalidInputError("invalid image JSON, no RootFS key")
    rootfs["diff_ids"] = [digests.check(d) for d in rootfs.get("diff_ids") or []]
    for key, kind in (("config", dict), ("history", list)):
        if not isinstance(config.get(key) or kind(), kind):
            raise InvalidInputError(f"invalid image config: {key}")
    if not all(isinstance(h, dict) for h in config.get("history") or []):
        raise InvalidInputError("invalid image config: history")
    return config
