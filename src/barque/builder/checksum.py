"""What a step takes of a tree, as one digest: names, kinds, modes, links, attributes, content; never times."""

import hashlib
import json
from collections.abc import Callable, Iterator

from barque.builder.trees import FILE, FOLDER, LINK, Node, Tree
from barque.dockerfile.patterns import Matcher

DETAILED = 2000
"""Of how many files a checksum can tell what each was."""


def selected(
    tree: Tree, path: str, *, excludes: Matcher | None = None, includes: Matcher | None = None, prefix: str = ""
) -> Iterator[tuple[str, str, Node]]:
    """Yield (path, path below the start, node) of what lies at and below path and is not excluded.

    Args:
        tree: where.
        path: the start.
        excludes: matches paths below the start that are left out.
        includes: matches paths below the start; all others are left out but for folders above them.
        prefix: put before paths below the start when they are matched.
    """
    node = tree.lstat(path)
    if node is None:
        return
    yield path, "", node
    if node.kind == FOLDER:
        keeps = _decider(excludes, includes, prefix)
        descend = includes is not None or (excludes is not None and excludes.brings_back)
        yield from _below(tree, path, keeps, descend=descend)


_Decide = Callable[[str], bool]


def _decider(excludes: Matcher | None, includes: Matcher | None, prefix: str) -> _Decide | None:
    if excludes is None and includes is None:
        return None

    def keeps(inner: str) -> bool:
        shown = prefix + inner
        if includes is not None and not includes.matches(shown):
            return False
        return excludes is None or not excludes.matches(shown)

    return keeps


class _Frame:
    """A folder being read: `given` tells whether it was yielded itself."""

    __slots__ = ("given", "inner", "names", "node", "path")

    def __init__(self, tree: Tree, path: str, inner: str, node: Node | None, given: bool) -> None:
        self.path, self.inner, self.node, self.given = path, inner, node, given
        self.names = iter(tree.names(path))


def _below(tree: Tree, path: str, keeps: _Decide | None, *, descend: bool) -> Iterator[tuple[str, str, Node]]:
    """Yield what lies below path; with descend also what is brought back below folders that are left out."""
    frames = [_Frame(tree, path, "", None, True)]
    while frames:
        top = frames[-1]
        name = next(top.names, None)
        if name is None:
            frames.pop()
            continue
        real = f"{top.path}/{name}" if top.path else name
        inner = f"{top.inner}/{name}" if top.inner else name
        node = tree.lstat(real)
        if node is None:
            continue
        kept = keeps is None or keeps(inner)
        if kept:
            for frame in frames:
                if not frame.given and frame.node is not None:
                    frame.given = True
                    yield frame.path, frame.inner, frame.node
            yield real, inner, node
        if node.kind == FOLDER and (kept or descend):
            frames.append(_Frame(tree, real, inner, node, kept))


def checksum(
    tree: Tree, path: str, *, owners: bool, excludes: Matcher | None = None, includes: Matcher | None = None,
    detail: dict[str, str] | None = None,
) -> str:  # fmt: skip
    """Return the digest of what lies at and below path.

    Args:
        tree: where.
        path: a real path.
        owners: owners count too.
        excludes: what is left out (see selected).
        includes: what alone is taken (see selected).
        detail: is given what stands for each of the first files, so that two runs can be compared.
    """
    hasher = hashlib.sha256()
    inodes: dict[object, str] = {}
    for real, inner, node in selected(tree, path, excludes=excludes, includes=includes):
        line = record(tree, real, inner, node, owners=owners, inodes=inodes)
        hasher.update(line)
        if detail is not None and len(detail) < DETAILED:
            detail[real] = hashlib.sha256(line).hexdigest()[:12]
    return hasher.hexdigest()


def record(
    tree: Tree, path: str, inner: str, node: Node, *, owners: bool, inodes: dict[object, str] | None = None
) -> bytes:
    """Return the line that stands for one file in a checksum."""
    fields: list[object] = [inner, node.kind, node.mode if node.kind != LINK else 0]
    if owners:
        fields += [node.uid, node.gid]
    if node.kind == LINK:
        fields.append(node.link)
    elif node.kind == FILE:
        first = inodes.setdefault(node.inode, inner) if inodes is not None and node.inode is not None else inner
        fields.append(tree.digest(path) if first == inner else f"={first}")
    elif node.kind != FOLDER:
        fields += node.device
    attributes = tree.xattrs(path) if node.kind in (FILE, FOLDER) else {}
    if attributes:
        fields.append(sorted((k.hex(), v.hex()) for k, v in attributes.items()))
    return json.dumps(fields).encode() + b"\n"
