"""The gateway that a client's own frontend, such as buildx's, works through while its build is under way."""

import asyncio
import fnmatch
import os
from typing import Any

from barque.base.errors import BarqueError, InvalidInputError, NotFoundError, UnsupportedError
from barque.builder.buildkit import worker
from barque.builder.buildkit.builds import Build, Builds, Outcome
from barque.builder.buildkit.control import Frontends
from barque.builder.buildkit.llb import Translator, definition_of
from barque.builder.buildkit.pb import gateway_pb2, stat_pb2
from barque.builder.buildkit.progress import Step
from barque.builder.graph import Vertex
from barque.builder.results import Result, opened
from barque.builder.solver import Solver
from barque.builder.sources import Sources
from barque.builder.trees import FOLDER, LINK, Node, Tree, resolve
from barque.oci import digest as digests
from barque.storage.snapshots import Snapshotter

_BUILD_ID = "buildkit-controlapi-buildid"
_LARGEST_READ = 64 << 20


class Gateway:
    """Serves moby.buildkit.v1.frontend.LLBBridge."""

    descriptor = gateway_pb2.DESCRIPTOR.services_by_name["LLBBridge"]

    def __init__(
        self, builds: Builds, solver: Solver, frontends: Frontends, sources: Sources, snapshots: Snapshotter,
        identity: worker.Identity,
    ) -> None:  # fmt: skip
        self._builds = builds
        self._solver = solver
        self._frontends = frontends
        self._sources = sources
        self._snapshots = snapshots
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
            outcome = await self._frontends.solve(build, request.Frontend, dict(request.FrontendOpt), inputs)
        elif getattr(request.Definition, "def"):
            outcome = Outcome({"": translator.vertex(request.Definition)})
        else:
            outcome = Outcome()
        if request.Evaluate:
            for vertex in outcome.vertices.values():
                await self._solver.solve(vertex, build.session)
        await stream.send_message(gateway_pb2.SolveResponse(result=self._result(outcome)))

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
        await self._solver.solve(self._builds.references.get(request.Ref), build.session)
        await stream.send_message(gateway_pb2.EvaluateResponse())

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

    async def _look(self, stream: Any, ref: str) -> Result:
        build = await self._build(stream)
        return await self._solver.solve(self._builds.references.get(ref), build.session)

    async def read_file(self, stream: Any) -> None:
        """Give a file's bytes, or a range of them."""
        request = await stream.recv_message()
        result = await self._look(stream, request.Ref)
        start = request.Range.Offset if request.HasField("Range") else 0
        length = request.Range.Length if request.HasField("Range") else -1
        data = await asyncio.to_thread(self._read, result, request.FilePath, start, length)
        await stream.send_message(gateway_pb2.ReadFileResponse(Data=data))

    def _read(self, result: Result, path: str, start: int, length: int) -> bytes:
        with opened(self._snapshots, result) as tree:
            real, node = _found(tree, path)
            end = node.size if length < 0 else min(node.size, start + length)
            if end - start > _LARGEST_READ:
                raise InvalidInputError(f"{path} is too large to be read at once ({end - start} bytes)")
            data = b"".join(bytes(chunk) for chunk in tree.read(real))
            return data[start:end]

    async def read_dir(self, stream: Any) -> None:
        """List a folder."""
        request = await stream.recv_message()
        result = await self._look(stream, request.Ref)
        entries = await asyncio.to_thread(self._list, result, request.DirPath, request.IncludePattern)
        await stream.send_message(gateway_pb2.ReadDirResponse(entries=entries))

    def _list(self, result: Result, path: str, pattern: str) -> list[Any]:
        with opened(self._snapshots, result) as tree:
            real, node = _found(tree, path)
            if node.kind != FOLDER:
                raise InvalidInputError(f"{path}: not a directory")
            found = []
            for name in tree.names(real):
                inner = tree.lstat(f"{real}/{name}".lstrip("/"))
                if inner is not None and (not pattern or fnmatch.fnmatchcase(name, pattern)):
                    found.append(stat_message(name, inner))
            return found

    async def stat_file(self, stream: Any) -> None:
        """Give what is known of a file."""
        request = await stream.recv_message()
        result = await self._look(stream, request.Ref)
        found = await asyncio.to_thread(self._stat, result, request.Path)
        await stream.send_message(gateway_pb2.StatFileResponse(stat=found))

    def _stat(self, result: Result, path: str) -> Any:
        with opened(self._snapshots, result) as tree:
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
