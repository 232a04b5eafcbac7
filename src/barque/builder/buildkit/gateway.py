"""The gateway that a client's own frontend, such as buildx's, works through while its build is under way."""

import asyncio
import fnmatch
import os
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from barque.base.errors import BarqueError, InvalidInputError, NotFoundError, UnsupportedError
from barque.builder.buildkit import places, worker
from barque.builder.buildkit.builds import Build, Builds, Outcome
from barque.builder.buildkit.containers import FrontendContainer
from barque.builder.buildkit.control import Frontends
from barque.builder.buildkit.exec_streams import ExecStream
from barque.builder.buildkit.failures import details_of_command
from barque.builder.buildkit.llb import Translator, container_command, definition_of
from barque.builder.buildkit.pb import gateway_pb2, stat_pb2
from barque.builder.buildkit.progress import Step, told
from barque.builder.execution import CacheMounts
from barque.builder.graph import Vertex
from barque.builder.results import opened
from barque.builder.solver import Solver
from barque.builder.sources import Sources
from barque.builder.trees import FOLDER, LINK, Node, Tree, resolve
from barque.oci import digest as digests

if TYPE_CHECKING:
    from barque.engine.engine import Engine

_BUILD_ID = "buildkit-controlapi-buildid"
_LARGEST_READ = 64 << 20


class Tools(NamedTuple):
    """What gateways work with; `mounts` are for their containers."""

    builds: Builds
    solver: Solver
    frontends: Frontends
    sources: Sources
    mounts: CacheMounts


class Gateway:
    """Serves moby.buildkit.v1.frontend.LLBBridge."""

    descriptor = gateway_pb2.DESCRIPTOR.services_by_name["LLBBridge"]

    def __init__(self, engine: "Engine", tools: Tools, identity: worker.Identity) -> None:
        self._engine = engine
        self._builds, self._solver, self._frontends, self._sources, self._mounts = tools
        self._identity = identity

    async def _build(self, stream: Any) -> Build:
        ref = stream.metadata.get(_BUILD_ID)
        if not ref:
            raise InvalidInputError("no buildid found in context")
        return await self._builds.get(str(ref))

    async def ping(self, stream: Any) -> None:
        """Say what the gateway can do."""
        await stream.recv_message()
        await self._build(stream)
        await stream.send_message(gateway_pb2.PongResponse(
            FrontendAPICaps=worker.caps(worker.FRONTEND_CAPS), LLBCaps=worker.caps(worker.LLB_CAPS),
            Workers=[worker.record(self._identity)],
        ))  # fmt: skip

    async def solve(self, stream: Any) -> None:
        """Run a frontend, or take a definition."""
        request = await stream.recv_message()
        build = await self._build(stream)
        translator = Translator(self._builds.references)
        if request.SourcePolicies:
            raise UnsupportedError("source policies are not supported")
        for one in request.CacheImports:
            self._frontends.take_cache(build, one.Type, dict(one.Attrs))
        if request.Frontend:
            inputs = {name: translator.vertex(one) for name, one in request.FrontendInputs.items()}
            build.frontend = build.frontend or request.Frontend
            build.options = build.options or dict(request.FrontendOpt)
            outcome = await self._solved(build, request, inputs)
        elif getattr(request.Definition, "def"):
            outcome = Outcome({"": translator.vertex(request.Definition)})
        else:
            outcome = Outcome()
        if request.Evaluate:
            await self._evaluate(build, outcome.vertices.values())
        await stream.send_message(gateway_pb2.SolveResponse(result=self._result(outcome)))

    async def _solved(self, build: Build, request: Any, inputs: dict[str, Vertex]) -> Outcome:
        try:
            return await self._frontends.solve(build, request.Frontend, dict(request.FrontendOpt), inputs)
        except InvalidInputError as error:
            # Clients put the name of an error's code before its text, and BuildKit gives what is wrong with a Dockerfile none.
            failed = BarqueError(str(error))
            failed.details = error.details
            raise failed from None

    def _result(self, outcome: Outcome) -> Any:
        made = gateway_pb2.Result(metadata=outcome.metadata)
        if set(outcome.vertices) == {""}:
            made.ref.CopyFrom(self._reference(outcome.vertices[""]))
        elif outcome.vertices:
            made.refs.CopyFrom(gateway_pb2.RefMap(
                refs={name: self._reference(vertex) for name, vertex in outcome.vertices.items()}
            ))  # fmt: skip
        return made

    def _reference(self, vertex: Vertex) -> Any:
        name = self._builds.references.add(vertex)
        return gateway_pb2.Ref(id=name, **{"def": definition_of(name)} if name else {})

    async def return_(self, stream: Any) -> None:
        """Take what the client's frontend came to."""
        request = await stream.recv_message()
        build = await self._build(stream)
        if request.HasField("error"):
            failed = BarqueError(request.error.message)
            failed.details = [(one.type_url, one.value) for one in request.error.details]
            build.answer(None, failed)
        else:
            build.answer(self._outcome(request.result), None)
        await stream.send_message(gateway_pb2.ReturnResponse())

    def _outcome(self, result: Any) -> Outcome:
        kind = result.WhichOneof("result")
        get = self._builds.references.get
        vertices: dict[str, Vertex] = {}
        if kind == "ref":
            vertices = {"": get(result.ref.id)}
        elif kind == "refDeprecated":
            vertices = {"": get(result.refDeprecated)}
        elif kind == "refs":
            vertices = {name: get(one.id) for name, one in result.refs.refs.items()}
        elif kind == "refsDeprecated":
            vertices = {name: get(one) for name, one in result.refsDeprecated.refs.items()}
        return Outcome(vertices, dict(result.metadata))

    async def inputs(self, stream: Any) -> None:
        """Give the build's inputs."""
        await stream.recv_message()
        build = await self._build(stream)
        names = {key: self._builds.references.add(one) for key, one in build.inputs.items()}
        # Clients take no empty definitions: what is nothing at all is left out.
        found = {key: definition_of(name) for key, name in names.items() if name}
        await stream.send_message(gateway_pb2.InputsResponse(Definitions=found))

    async def evaluate(self, stream: Any) -> None:
        """Solve a reference now."""
        request = await stream.recv_message()
        build = await self._build(stream)
        await self._evaluate(build, [self._builds.references.get(request.Ref)])
        await stream.send_message(gateway_pb2.EvaluateResponse())

    async def _evaluate(self, build: Build, vertices: Iterable[Vertex]) -> None:
        try:
            for vertex in vertices:
                await self._solver.solve(vertex, build.session)
        except BarqueError as error:
            failed = BarqueError(told(error))
            failed.details = [*places.of_failure(build.session), *details_of_command(build.session, self._builds.references)]
            raise failed from None

    async def warn(self, stream: Any) -> None:
        """Pass a warning of the client's frontend on to the display."""
        request = await stream.recv_message()
        build = await self._build(stream)
        step: Step | None = None
        build.report.warn(
            step, request.short.decode("utf-8", "replace"), level=request.level, detail=request.detail, url=request.url,
            info=request.info if request.HasField("info") else None, ranges=request.ranges,
        )  # fmt: skip
        await stream.send_message(gateway_pb2.WarnResponse())

    async def resolve_image_config(self, stream: Any) -> None:
        """Give an image's config."""
        request = await stream.recv_message()
        await self._build(stream)
        platform = _platform_text(request.Platform) if request.HasField("Platform") else ""
        image = await self._sources.image(request.Ref, platform, pull="always" if request.ResolveMode == "pull" else "")
        await stream.send_message(gateway_pb2.ResolveImageConfigResponse(
            Digest=digests.of(image.raw), Config=image.raw, Ref=request.Ref
        ))  # fmt: skip

    async def resolve_source_meta(self, stream: Any) -> None:
        """Give what is known of a source before it is fetched."""
        request = await stream.recv_message()
        await self._build(stream)
        made = gateway_pb2.ResolveSourceMetaResponse(Source=request.Source)
        scheme, _, rest = request.Source.identifier.partition("://")
        if scheme == "docker-image":
            platform = _platform_text(request.Platform) if request.HasField("Platform") else ""
            image = await self._sources.image(rest, platform, pull="always" if request.ResolveMode == "pull" else "")
            config = b"" if request.Image.NoConfig else image.raw
            made.Image.CopyFrom(
                gateway_pb2.ResolveSourceImageResponse(Digest=digests.of(image.raw), Config=config)
            )
        elif scheme not in ("http", "https", "git", "local"):
            raise UnsupportedError(f"unsupported source {request.Source.identifier}")
        await stream.send_message(made)

    async def _look(self, stream: Any, ref: str, work: Callable[[Tree], Any]) -> Any:
        build = await self._build(stream)
        result = await self._solver.solve(self._builds.references.get(ref), build.session)

        def look() -> Any:
            with opened(self._engine.snapshots, result) as tree:
                return work(tree)

        return await asyncio.to_thread(look)

    async def read_file(self, stream: Any) -> None:
        """Give a file's bytes, or a range of them."""
        request = await stream.recv_message()
        data = await self._look(stream, request.Ref, lambda tree: _read(tree, request.FilePath, request))
        await stream.send_message(gateway_pb2.ReadFileResponse(Data=data))

    async def read_dir(self, stream: Any) -> None:
        """List a folder."""
        request = await stream.recv_message()
        entries = await self._look(stream, request.Ref, lambda tree: _list(tree, request.DirPath, request))
        await stream.send_message(gateway_pb2.ReadDirResponse(entries=entries))

    async def stat_file(self, stream: Any) -> None:
        """Give what is known of a file."""
        request = await stream.recv_message()
        found = await self._look(stream, request.Ref, lambda tree: _stat(tree, request.Path, request))
        await stream.send_message(gateway_pb2.StatFileResponse(stat=found))

    async def new_container(self, stream: Any) -> None:
        """Make a container of results, for processes to run in."""
        request = await stream.recv_message()
        build = await self._build(stream)
        containers = self._containers(build)
        if not request.ContainerID:
            raise InvalidInputError("a container needs an id")
        step = container_command(request, self._builds.references)
        inputs = [await self._solver.solve(one, build.session) for one in step.needs]
        made = FrontendContainer(self._engine, self._mounts, build, (step, inputs), list(request.Mounts))
        try:
            await made.ready()
            if request.ContainerID in containers:
                raise InvalidInputError(f"Container {request.ContainerID} already exists")
        except BaseException:
            await made.release()
            raise
        containers[request.ContainerID] = made
        await stream.send_message(gateway_pb2.NewContainerResponse())

    async def release_container(self, stream: Any) -> None:
        """End a container."""
        request = await stream.recv_message()
        made = await self._known(stream, request.ContainerID)
        del self._containers(await self._build(stream))[request.ContainerID]
        await made.release()
        await stream.send_message(gateway_pb2.ReleaseContainerResponse())

    async def exec_process(self, stream: Any) -> None:
        """Run processes in containers."""
        build = await self._build(stream)
        await ExecStream(stream, self._containers(build)).serve()

    async def read_file_container(self, stream: Any) -> None:
        """Give the bytes of a file in a container, or a range of them."""
        request = await stream.recv_message()
        data = await self._look_into(stream, request, request.FilePath, _read)
        await stream.send_message(gateway_pb2.ReadFileResponse(Data=data))

    async def read_dir_container(self, stream: Any) -> None:
        """List a folder in a container."""
        request = await stream.recv_message()
        entries = await self._look_into(stream, request, request.DirPath, _list)
        await stream.send_message(gateway_pb2.ReadDirResponse(entries=entries))

    async def stat_file_container(self, stream: Any) -> None:
        """Give what is known of a file in a container."""
        request = await stream.recv_message()
        found = await self._look_into(stream, request, request.Path, _stat)
        await stream.send_message(gateway_pb2.StatFileResponse(stat=found))

    async def _look_into(self, stream: Any, request: Any, path: str, work: Callable[[Tree, str, Any], Any]) -> Any:
        made = await self._known(stream, request.Ref)
        return await made.look(request.MountIndex, path, lambda tree, place: work(tree, place, request))

    async def _known(self, stream: Any, name: str) -> FrontendContainer:
        try:
            return self._containers(await self._build(stream))[name]
        except KeyError:
            raise NotFoundError(f"container details for {name} not found") from None

    def _containers(self, build: Build) -> dict[str, FrontendContainer]:
        """Return the containers that this caller may use."""
        return build.containers


def _read(tree: Tree, path: str, request: Any) -> bytes:
    real, node = _found(tree, path)
    start = max(0, request.Range.Offset) if request.HasField("Range") else 0
    length = request.Range.Length if request.HasField("Range") else -1
    end = node.size if length < 0 else min(node.size, start + length)
    if end - start > _LARGEST_READ:
        raise InvalidInputError(f"{path} is too large to be read at once ({end - start} bytes)")
    place, data = 0, bytearray()
    for chunk in tree.read(real):
        data += chunk[max(start - place, 0) : end - place]
        place += len(chunk)
        if place >= end:
            break
    return bytes(data)


def _list(tree: Tree, path: str, request: Any) -> list[Any]:
    real, node = _found(tree, path)
    if node.kind != FOLDER:
        raise InvalidInputError(f"{path}: not a directory")
    found, pattern = [], request.IncludePattern
    for name in tree.names(real):
        inner = tree.lstat(f"{real}/{name}".lstrip("/"))
        if inner is not None and (not pattern or fnmatch.fnmatchcase(name, pattern)):
            found.append(stat_message(name, inner))
    return found


def _stat(tree: Tree, path: str, _request: Any) -> Any:
    _, node = _found(tree, path)
    return stat_message(os.path.basename(path.rstrip("/")) or "/", node)


def _found(tree: Tree, path: str) -> tuple[str, Node]:
    real = resolve(tree, path)
    node = tree.lstat(real)
    if node is None:
        raise NotFoundError(f"open {path}: no such file or directory")
    return real, node


def _platform_text(message: Any) -> str:
    return "/".join(part for part in (message.OS, message.Architecture, message.Variant) if part)


def stat_message(path: str, node: Node) -> Any:
    """Return a file's attributes in the form of the file synchronisation."""
    from barque.builder.buildkit.sending import go_mode

    return stat_pb2.Stat(
        path=path, mode=go_mode(node), uid=node.uid, gid=node.gid, size=node.size, modTime=node.mtime_ns,
        linkname=node.link if node.kind == LINK else "", devmajor=node.device[0], devminor=node.device[1],
    )  # fmt: skip
