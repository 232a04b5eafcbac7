"""A tree of files that steps read: a context's archive, a folder, a snapshot's root."""

from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

from barque.base.errors import InvalidInputError, NotFoundError
from barque.dockerfile.patterns import has_wildcards, wildcard
from barque.dockerfile.text import clean

FILE, FOLDER, LINK, CHAR, BLOCK, FIFO = "f", "d", "l", "c", "b", "p"
_MOST_LINKS = 255


class Node(NamedTuple):
    """One file of a tree; `inode` is the same for hard links to one file, None where there are none."""

    kind: str
    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    link: str = ""
    device: tuple[int, int] = (0, 0)
    inode: object = None


class Tree(Protocol):
    """Files by path: relative, clean, "" is the root. No method follows the last part of a path."""

    def lstat(self, path: str) -> Node | None:
        """Return the file at path, whose parents are no links; None without it."""
        ...

    def names(self, path: str) -> list[str]:
        """Return the sorted names in a folder."""
        ...

    def read(self, path: str) -> Iterator[bytes | memoryview]:
        """Yield a regular file's bytes."""
        ...

    def xattrs(self, path: str) -> dict[bytes, bytes]:
        """Return the extended attributes that copies keep."""
        ...

    def digest(self, path: str) -> str:
        """Return the sha256 digest of a regular file's bytes."""
        ...


def resolve(tree: Tree, path: str, *, last: bool = True) -> str:
    """Return path with its links followed inside the tree; what does not exist stays as written.

    Args:
        tree: where.
        path: as a user writes it; `/` and `..` do not leave the tree.
        last: follow the last part too.

    Raises:
        InvalidInputError: links lead in circles.
    """

    def link_of(here: str) -> str | None:
        node = tree.lstat(here)
        return node.link if node is not None and node.kind == LINK else None

    return followed(path, link_of, last=last)


def followed(path: str, link_of: Callable[[str], str | None], *, last: bool = True) -> str:
    """Return path with its links followed below a root.

    Args:
        path: as a user writes it; `/` and `..` do not leave the root.
        link_of: gives what a link at a clean path leads to, None where there is no link.
        last: follow the last part too.

    Raises:
        InvalidInputError: links lead in circles.
    """
    left = [part for part in path.split("/") if part not in ("", ".")]
    done: list[str] = []
    links = 0
    while left:
        part = left.pop(0)
        if part == "..":
            del done[-1:]
            continue
        here = "/".join([*done, part])
        text = link_of(here) if left or last else None
        if text is None:
            done.append(part)
            continue
        links += 1
        if links > _MOST_LINKS:
            raise InvalidInputError(f"too many links in {path}")
        if text.startswith("/"):
            done = []
        left = [p for p in text.split("/") if p not in ("", ".")] + left
    return "/".join(done)


def matching(tree: Tree, pattern: str) -> list[str]:
    """Return the paths that a source with wildcards means; one without means itself.

    Raises:
        NotFoundError: no such file, or nothing matches.
        InvalidInputError: a malformed pattern.
    """
    pattern = clean("/" + pattern).lstrip("/")
    if not has_wildcards(pattern):
        return [pattern]
    parts = pattern.split("/")
    found = [""]
    for i, part in enumerate(parts):
        if not has_wildcards(part):
            part = _unescaped(part)
            found = [f"{base}/{part}".lstrip("/") for base in found]
            continue
        expression = wildcard(part)
        following: list[str] = []
        for base in found:
            # A wildcard is looked for in a real folder: a path of a match is never through a link.
            base = resolve(tree, base, last=True)
            node = tree.lstat(base)
            if node is not None and node.kind == FOLDER:
                following += [f"{base}/{n}".lstrip("/") for n in tree.names(base) if expression.match(n)]
        found = following
        if i == len(parts) - 1:
            break
    return sorted(path for path in found if tree.lstat(resolve(tree, path)) is not None)


def _unescaped(part: str) -> str:
    out = ""
    chars = iter(part)
    for char in chars:
        out += next(chars, "") if char == "\\" else char
    return out


def source_of(tree: Tree, path: str) -> tuple[str, Node]:
    """Return the real path and the file that a source means.

    Raises:
        NotFoundError: there is none.
    """
    real = resolve(tree, path)
    node = tree.lstat(real)
    if node is None:
        raise NotFoundError(f"{path}: not found")
    return real, node
