"""The mounts that a RUN asks for."""

import posixpath
from typing import TYPE_CHECKING, Any

from barque.base.errors import InvalidInputError
from barque.builder import graph
from barque.dockerfile.text import quoted

if TYPE_CHECKING:
    from barque.builder.stages import Environment


def mount_of(request: Any, needs: list[graph.Vertex], around: "Environment", folder: str) -> graph.Mount:
    """Return the mount that a RUN asks for; what it mounts is appended to `needs`.

    A relative target counts from `folder`, the working directory.

    Raises:
        InvalidInputError: it has no target where it needs one, or one that cannot be.
    """
    target = request.target
    if request.type == "secret":
        name = request.id or request.source or posixpath.basename(target)
        if not target and request.env is None:
            target = f"/run/secrets/{posixpath.basename(name)}"
        return graph.Mount(_absolute(folder, target) if target else "", "secret", id=name, required=request.required,
                           mode=request.mode, uid=request.uid or 0, gid=request.gid or 0,
                           env=request.env if request.env != "" else name)  # fmt: skip
    if request.type == "ssh":
        number = sum(need is not None for need in needs) - 1
        return graph.Mount(_absolute(folder, target or f"/run/buildkit/ssh_agent.{number}"), "ssh",
                           id=request.id or "default", required=request.required, mode=request.mode,
                           uid=request.uid or 0, gid=request.gid or 0)  # fmt: skip
    if not target:
        raise InvalidInputError(f"target must be set for mount type {quoted(request.type)}"
                                if request.type != "bind" else "missing target for bind mount")  # fmt: skip
    target = _absolute(folder, target)
    if request.type == "tmpfs":
        return graph.Mount(target, "tmpfs", size=request.size, readonly=False)
    index = -1
    if request.source_stage or request.type == "bind":
        vertex = around.source_of(request.source_stage) if request.source_stage else around.context
        needs.append(vertex)
        index = len(needs) - 1
    if request.type == "bind":
        return graph.Mount(target, input=index, selector=request.source, readonly=request.readonly)
    name = f"{around.cache_namespace}/{request.id or target}"
    return graph.Mount(target, "cache", index, request.source, request.readonly, posixpath.normpath(name),
                       request.sharing or "shared", mode=request.mode, uid=request.uid or 0,
                       gid=request.gid or 0)  # fmt: skip


def _absolute(folder: str, path: str) -> str:
    joined = posixpath.normpath(posixpath.join("/", folder or "/", path))
    if joined in ("/", "//"):
        raise InvalidInputError(f"invalid mount target {quoted(path)}")
    return "/" + joined.lstrip("/")
