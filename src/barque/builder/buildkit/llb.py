"""Definitions of BuildKit's protocol (LLB) as vertices of our graph, and names of vertices as definitions."""

from dataclasses import replace
from typing import Any

from google.protobuf.message import DecodeError

from barque.base.errors import InvalidInputError, UnsupportedError
from barque.builder.buildkit.builds import References
from barque.builder.buildkit.pb import ops_pb2
from barque.builder.graph import (
    Action,
    CopyFiles,
    Diff,
    Exec,
    ExecOutput,
    Files,
    MakeFile,
    MakeFolder,
    MakeLink,
    Merge,
    Mount,
    RemovePath,
    Scratch,
    Source,
    Vertex,
    layered,
)
from barque.dockerfile.mounts import DeviceRequest
from barque.oci import digest as digests

_REFERENCE = "barque-ref://"
_NETWORKS = {ops_pb2.UNSET: "default", ops_pb2.HOST: "host", ops_pb2.NONE: "none"}
_SHARING = {ops_pb2.SHARED: "shared", ops_pb2.PRIVATE: "private", ops_pb2.LOCKED: "locked"}
_SHARED = {name: number for number, name in _SHARING.items()}
_ATTRIBUTES = {
    "http.checksum": "checksum", "http.filename": "filename", "git.fullurl": "remote", "git.keepgitdir": "keep_git",
    "git.subdir": "subdir", "git.checksum": "checksum", "image.resolvemode": "pull",
}  # fmt: skip
_MOST_OPS = 100_000


def definition_of(name: str) -> Any:
    """Return a definition that stands for a vertex known by a name; clients hand it back as it is."""
    if not name:
        return ops_pb2.Definition()
    operation = ops_pb2.Op(source=ops_pb2.SourceOp(identifier=_REFERENCE + name)).SerializeToString(deterministic=True)
    digest = digests.of(operation)
    last = ops_pb2.Op(inputs=[ops_pb2.Input(digest=digest)]).SerializeToString(deterministic=True)
    # Clients take a definition without metadata for none at all.
    parts: Any = {"def": [operation, last], "metadata": {digest: ops_pb2.OpMetadata()}}
    return ops_pb2.Definition(**parts)


class Translator:
    """Turns definitions into vertices; one for each request."""

    def __init__(self, references: References) -> None:
        self._references = references

    def vertex(self, definition: Any) -> Vertex:
        """Return the vertex that a definition describes; an empty one is nothing at all.

        Raises:
            InvalidInputError: it is broken.
            UnsupportedError: it holds an operation that is unknown.
        """
        listed = getattr(definition, "def")
        if not listed:
            return Scratch()
        if len(listed) > _MOST_OPS:
            raise InvalidInputError(f"the definition has {len(listed)} operations; at most {_MOST_OPS} are taken")
        made: dict[str, list[Vertex]] = {}
        last: Any = None
        for raw in listed:
            operation = ops_pb2.Op()
            try:
                operation.ParseFromString(raw)
            except DecodeError:
                raise InvalidInputError("failed to parse llb proto op") from None
            digest = digests.of(raw)
            inputs = [_input(made, one) for one in operation.inputs]
            kind = operation.WhichOneof("op")
            last = operation
            if kind is not None:
                made[digest] = self._make(kind, operation, inputs, definition.metadata.get(digest))
        if not last.inputs:
            raise InvalidInputError("invalid definition: no last operation")
        return _input(made, last.inputs[0])

    def _make(self, kind: str, operation: Any, inputs: list[Vertex], metadata: Any) -> list[Vertex]:
        name = metadata.description.get("llb.customname", "") if metadata is not None else ""
        no_cache = bool(metadata.ignore_cache) if metadata is not None else False
        if kind == "source":
            return [self._source(operation, name, no_cache)]
        if kind == "exec":
            return [*_exec(operation.exec, inputs, name, no_cache)]
        if kind == "file":
            return _files(operation.file, inputs, name, no_cache)
        if kind == "merge":
            needs = tuple(layered(_of(inputs, one.input)) for one in operation.merge.inputs)
            return [Merge(needs, name=name or "merge", no_cache=no_cache)]
        if kind == "diff":
            lower, upper = _of(inputs, operation.diff.lower.input), _of(inputs, operation.diff.upper.input)
            return [Diff(layered(lower), layered(upper), name=name or "diff", no_cache=no_cache)]
        raise UnsupportedError(f"unsupported operation {kind} in the build's definition")

    def _source(self, operation: Any, name: str, no_cache: bool) -> Vertex:
        identifier = operation.source.identifier
        if identifier.startswith(_REFERENCE):
            return self._references.get(identifier.removeprefix(_REFERENCE))
        scheme = identifier.partition("://")[0]
        if scheme not in ("docker-image", "local", "git", "http", "https"):
            raise UnsupportedError(f"unsupported source {identifier}")
        attributes = {}
        for key, value in operation.source.attrs.items():
            attributes[_ATTRIBUTES.get(key, key)] = value
        if operation.HasField("platform") and scheme == "docker-image":
            found = operation.platform
            attributes["platform"] = "/".join(p for p in (found.OS, found.Architecture, found.Variant) if p)
        if attributes.get("pull") == "pull":
            attributes["pull"] = "always"
        return Source(identifier, tuple(sorted(attributes.items())), name=name or identifier, no_cache=no_cache)


def container_command(request: Any, references: References) -> Exec:
    """Return the command, yet without words, that stands for the root and the mounts of a container (NewContainer).

    What is written to a mount is thrown away with the container.

    Raises:
        InvalidInputError: there is no root, or a mount is wrong.
        NotFoundError: a mount names a result that is not known.
    """
    inputs: list[Vertex] = []
    operation = ops_pb2.ExecOp(
        meta=ops_pb2.Meta(hostname=request.hostname, extraHosts=request.extraHosts), network=request.Network
    )
    outputs = 0
    for one in request.Mounts:
        made = operation.mounts.add()
        made.CopyFrom(one)
        made.input = made.output = -1
        if one.resultID:
            made.input = len(inputs)
            inputs.append(references.get(one.resultID))
        if one.dest == "/" or (not one.resultID and one.mountType == ops_pb2.BIND and not one.readonly):
            # A bind of nothing is a folder that is its container's alone.
            made.output, outputs = outputs, outputs + 1
    found = _exec(operation, inputs, f"container {request.ContainerID}", no_cache=True)[0]
    return found.command if isinstance(found, ExecOutput) else found


def operation_of(step: Exec) -> Any:
    """Return a command as an operation, with all that a container needs to have the same root, mounts and process."""
    mounts = [ops_pb2.Mount(input=0, dest="/", readonly=step.readonly_root)]
    for one in (one for one in step.mounts if one.target):
        made = ops_pb2.Mount(
            input=one.input, selector=one.selector, dest=one.target, output=-1, readonly=one.readonly,
            mountType=one.type.upper(),
        )  # fmt: skip
        if one.type == "cache":
            made.cacheOpt.ID, made.cacheOpt.sharing = one.id, _SHARED[one.sharing]
        elif one.type == "tmpfs":
            made.TmpfsOpt.size = one.size
        elif one.type == "secret":
            made.secretOpt.CopyFrom(ops_pb2.SecretOpt(ID=one.id, uid=one.uid, gid=one.gid, mode=_mode(one, 0o400), optional=not one.required))
        elif one.type == "ssh":
            made.SSHOpt.CopyFrom(ops_pb2.SSHOpt(ID=one.id, uid=one.uid, gid=one.gid, mode=_mode(one, 0o600), optional=not one.required))
        mounts.append(made)
    meta = ops_pb2.Meta(args=step.args, env=step.env, cwd=step.cwd, user=step.user, hostname=step.hostname)
    network = next(number for number, name in _NETWORKS.items() if name == step.network)
    return ops_pb2.Op(exec=ops_pb2.ExecOp(meta=meta, mounts=mounts, network=network))


def _mode(mount: Mount, default: int) -> int:
    return default if mount.mode is None else mount.mode


def process_of(container: Exec, init: Any) -> tuple[Exec, tuple[Mount, ...]]:
    """Return what a process in a container (ExecProcess) runs, and the secrets that are its variables."""
    meta = init.Meta
    security = "insecure" if init.Security == ops_pb2.INSECURE else "sandbox"
    step = replace(
        container, args=tuple(meta.args), env=tuple(meta.env), cwd=meta.cwd or "/", user=meta.user, security=security
    )  # fmt: skip
    return step, tuple(_secret_variable(one) for one in init.secretenv)


def _secret_variable(one: Any) -> Mount:
    return Mount("", "secret", id=one.ID, env=one.name, required=not one.optional)


def _input(made: dict[str, list[Vertex]], one: Any) -> Vertex:
    outputs = made.get(one.digest)
    if outputs is None:
        raise InvalidInputError(f"invalid missing input digest {one.digest}")
    if not 0 <= one.index < len(outputs):
        raise InvalidInputError(f"invalid index {one.index} of input {one.digest}")
    found: Vertex = outputs[one.index]
    return found


def _of(inputs: list[Vertex], index: int) -> Vertex:
    if index == -1:
        return Scratch()
    if not 0 <= index < len(inputs):
        raise InvalidInputError(f"invalid input index {index}")
    return inputs[index]


def _exec(operation: Any, inputs: list[Vertex], name: str, no_cache: bool) -> list[Exec | ExecOutput]:
    meta = operation.meta
    if {".", ".."} & set(meta.cgroupParent.split("/")):
        raise InvalidInputError(f"invalid cgroup parent {meta.cgroupParent}: name a control group without . and ..")
    root: Vertex | None = None
    readonly = False
    needs: list[Vertex] = []
    mounts: list[Mount] = []
    outputs: dict[int, Mount | None] = {}
    for one in operation.mounts:
        made = None
        if one.dest == "/":
            root, readonly = layered(_of(inputs, one.input)), one.readonly
        else:
            made = _mount(one, inputs, needs)
            mounts.append(made)
        if one.output >= 0 and (made is None or made.output):
            if one.output in outputs:
                raise InvalidInputError(f"{one.dest}: two mounts are the output {one.output}")
            outputs[one.output] = made
    if root is None:
        raise InvalidInputError("a command needs a mount on /")
    mounts += [_secret_variable(one) for one in operation.secretenv]
    security = "insecure" if operation.security == ops_pb2.INSECURE else "sandbox"
    command = Exec(
        (root, *needs), tuple(meta.args), tuple(meta.env), meta.cwd or "/", meta.user, tuple(mounts),
        _NETWORKS.get(operation.network, "default"), security, hosts=tuple(f"{h.Host}:{h.IP}" for h in meta.extraHosts),
        hostname=meta.hostname, hidden_env=_proxies(meta.proxy_env), name=name or " ".join(meta.args), no_cache=no_cache,
        ulimits=tuple((limit.Name, limit.Soft, limit.Hard) for limit in meta.ulimit), exit_codes=tuple(meta.validExitCodes),
        cgroup_parent=meta.cgroupParent, readonly_root=readonly,
        devices=tuple(DeviceRequest(device.name, not device.optional) for device in operation.cdiDevices),
    )  # fmt: skip
    if sorted(outputs) != list(range(len(outputs))):
        raise InvalidInputError("the outputs of a command are not numbered from 0")
    # A command without outputs is still one that others may wait for.
    numbered = [outputs[number] for number in range(len(outputs))] or [None]
    return [command if mount is None else ExecOutput(command, mount, no_cache=no_cache) for mount in numbered]


def _proxies(found: Any) -> tuple[str, ...]:
    """Return a command's proxies as variables, in both cases as programs look for them."""
    values = {name: getattr(found, name) for name in ("http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy")}
    return tuple(f"{one}={value}" for name, value in values.items() if value for one in (name.upper(), name))


def _mount(one: Any, inputs: list[Vertex], needs: list[Vertex]) -> Mount:
    number = -1
    # Clients leave 0 in mounts that have no output of their own, as the root has that one.
    output = one.output > 0 or (one.output == 0 and one.mountType == ops_pb2.BIND and not one.readonly)
    if output and (one.mountType != ops_pb2.BIND or one.readonly):
        raise InvalidInputError(f"{one.dest}: only a bind that can be written to has an output")
    if output and one.selector.strip("/"):
        raise UnsupportedError(f"{one.dest}: an output of a part of a root (selector) is not supported; mount the whole")
    if one.input >= 0 and one.mountType in (ops_pb2.BIND, ops_pb2.CACHE):
        needs.append(layered(_of(inputs, one.input)) if output else _of(inputs, one.input))
        number = len(needs)
    if one.mountType == ops_pb2.BIND:
        return Mount(one.dest, "bind", number, one.selector, one.readonly, output=output)
    if one.mountType == ops_pb2.CACHE:
        sharing = _SHARING.get(one.cacheOpt.sharing, "shared")
        return Mount(one.dest, "cache", number, one.selector, one.readonly, one.cacheOpt.ID, sharing)
    if one.mountType == ops_pb2.TMPFS:
        return Mount(one.dest, "tmpfs", size=one.TmpfsOpt.size, readonly=False)
    if one.mountType in (ops_pb2.SECRET, ops_pb2.SSH):
        option = one.secretOpt if one.mountType == ops_pb2.SECRET else one.SSHOpt
        return Mount(
            one.dest, "secret" if one.mountType == ops_pb2.SECRET else "ssh", id=option.ID, mode=option.mode,
            uid=option.uid, gid=option.gid, required=not option.optional,
        )  # fmt: skip
    raise UnsupportedError(f"{one.dest}: unsupported mount type {one.mountType}")


def _files(operation: Any, inputs: list[Vertex], name: str, no_cache: bool) -> list[Vertex]:
    """Return the outputs of a file operation; actions that follow each other become one vertex."""
    chains: list[tuple[Vertex, list[Vertex], list[Action]]] = []
    outputs: dict[int, int] = {}
    for one in operation.actions:
        kind = one.WhichOneof("action")
        if one.input >= len(inputs):
            base, needs, actions = chains[one.input - len(inputs)] if one.input - len(inputs) < len(chains) else (None, [], [])
            if base is None:
                raise InvalidInputError(f"invalid input index {one.input}")
            needs, actions = list(needs), list(actions)
        else:
            base, needs, actions = layered(_of(inputs, one.input)), [], []
        second = 0
        if kind == "copy":
            if one.secondaryInput >= len(inputs):
                raise UnsupportedError("copying from another action's result is not supported")
            source = _of(inputs, one.secondaryInput)
            if source not in needs:
                needs.append(source)
            second = needs.index(source) + 1
        actions.append(_action(one, kind, second))
        if one.output >= 0:
            outputs[one.output] = len(chains)
        chains.append((base, needs, actions))
    made = []
    for index in range(max(outputs, default=-1) + 1):
        base, needs, actions = chains[outputs[index]]
        made.append(Files((base, *needs), tuple(actions), name=name or "files", no_cache=no_cache))
    return list(made)


def _action(one: Any, kind: str | None, source: int) -> Action:
    if kind == "copy":
        found = one.copy
        mode = found.modeStr or (f"{found.mode:o}" if found.mode >= 0 else "")
        return CopyFiles(
            source, found.src, found.dest, _owner(found, "="), mode, found.attemptUnpackDockerCompatibility,
            found.allowWildcard, found.followSymlink, found.dirCopyContents, tuple(found.exclude_patterns),
            tuple(found.include_patterns), tuple(found.required_paths), found.alwaysReplaceExistingDestPaths,
            found.allowEmptyWildcard, _time(found.timestamp),
        )  # fmt: skip
    if kind == "mkfile":
        return MakeFile(one.mkfile.path, one.mkfile.data, one.mkfile.mode & 0o7777, _owner(one.mkfile), _time(one.mkfile.timestamp))
    if kind == "mkdir":
        found = one.mkdir
        return MakeFolder(found.path, found.mode & 0o7777, found.makeParents, _owner(found), _time(found.timestamp))
    if kind == "symlink":
        return MakeLink(one.symlink.oldpath, one.symlink.newpath, _owner(one.symlink), _time(one.symlink.timestamp))
    if kind == "rm":
        return RemovePath(one.rm.path, one.rm.allowWildcard, one.rm.allowNotFound)
    raise UnsupportedError(f"unsupported file action {kind}")


def _time(value: int) -> int | None:
    return None if value == -1 else value


def _owner(found: Any, default: str = "") -> str:
    if not found.HasField("owner"):
        return default
    parts = []
    for one in (found.owner.user, found.owner.group):
        kind = one.WhichOneof("user")
        parts.append(one.byName.name if kind == "byName" else str(one.byID) if kind == "byID" else "")
    return ":".join(parts).rstrip(":")
