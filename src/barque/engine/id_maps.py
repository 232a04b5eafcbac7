"""Id-mapped mounts: which owners a container sees, and which are written to the disk. Pure."""

import re
from typing import Any

from barque.base.errors import InvalidInputError

Json = dict[str, Any]
_TOP = (1 << 32) - 1
_TRIPLE = re.compile(r"@?(\d{1,10})-(\d{1,10})-(\d{1,10})")


def maps_of(wish: str, owner: tuple[int, int], user: tuple[int, int]) -> tuple[list[Json], list[Json]] | None:
    """Return the OCI uid and gid mappings of a mount, None where nothing has to be mapped.

    Args:
        wish: "owner": what the container's user writes belongs to the source's owner, and the other way
            round; else `uids=C-H-N#...;gids=...`: N ids from C in the container are those from H on the disk.
        owner: uid and gid of the source.
        user: uid and gid of the container's process.

    Raises:
        InvalidInputError: the wish is malformed.
    """
    if wish == "owner":
        if owner == user:
            return None
        return swapped(owner[0], user[0]), swapped(owner[1], user[1])
    found: dict[str, list[Json]] = {}
    for part in wish.split(";"):
        kind, _, text = part.partition("=")
        if kind not in ("uids", "gids") or kind in found:
            raise InvalidInputError(f"invalid idmap: {wish}: it has the form uids=C-H-N;gids=C-H-N")
        found[kind] = [_line(wish, triple) for triple in text.split("#")]
    uids = found.get("uids") or found["gids"]
    return uids, found.get("gids") or uids


def _line(wish: str, text: str) -> Json:
    match = _TRIPLE.fullmatch(text)
    if match is None:
        raise InvalidInputError(f"invalid idmap: {wish}: {text} is not of the form C-H-N")
    inside, outside, size = (int(number) for number in match.groups())
    if not size or max(inside, outside) + size > _TOP:
        raise InvalidInputError(f"invalid idmap: {wish}: {text} is beyond the ids that there are")
    # The file system's side of an id-mapped mount is the inner one of its user namespace.
    return {"containerID": outside, "hostID": inside, "size": size}


def swapped(one: int, other: int) -> list[Json]:
    """Return mappings that exchange two ids and leave all others as they are."""
    low, high = sorted((one, other))
    lines = [(0, 0, low), (low, high, 1), (low + 1, low + 1, high - low - 1), (high, low, 1),
             (high + 1, high + 1, _TOP - high - 1)]  # fmt: skip
    if low == high:
        lines = [(0, 0, _TOP)]
    return [{"containerID": a, "hostID": b, "size": size} for a, b, size in lines if size > 0]
