"""The built-in Dockerfile frontend, asked by the options of BuildKit's protocol."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

from barque.base.errors import BarqueError, InvalidInputError, NotFoundError, UnsupportedError
from barque.builder import graph
from barque.builder.buildkit import attestations, checks, option_values as options_of, places, remote, requests, sbom
from barque.builder.buildkit.builds import Build, Outcome
from barque.builder.buildkit.caching import EXPLAIN, Caches
from barque.builder.buildkit.contexts import ContextFolders, LocalSources, local_options
from barque.builder.buildkit.fragments import Fragments
from barque.builder.buildkit.named import NamedContexts
from barque.builder.buildkit.progress import Step
from barque.builder.buildkit.providers import ClientSecrets, registry_header
from barque.builder.dockerfile import Options, Surroundings, Target, convert, platform_values
from barque.builder.graph import Source, Vertex
from barque.builder.history import image_config
from barque.builder.results import Result, opened
from barque.builder.shown import without_passwords
from barque.builder.solver import Session, Solver
from barque.builder.sources import Sources, is_git, is_url, result_of
from barque.builder.trees import resolve
from barque.dockerfile import including, stages as dockerfiles
from barque.dockerfile.errors import DockerfileError
from barque.dockerfile.patterns import read_ignore
from barque.dockerfile.rules import Finding
from barque.dockerfile.scope import Scope
from barque.images.model import Image
from barque.oci import platform as platforms
from barque.oci.reference import parse

if TYPE_CHECKING:
    from barque.engine.engine import Engine

Json = dict[str, Any]
_NAMES = ("dockerfile.v0", "gateway.v0")
_CONFIG = "containerimage.config"
_LARGEST_DOCKERFILE = 100 << 20


Foreign = Callable[[Build, str, Mapping[str, str], Mapping[str, Vertex]], Awaitable[Outcome]]


async def _no_images(build: Build, name: str, options: Mapping[str, str], inputs: Mapping[str, Vertex]) -> Outcome:
    raise UnsupportedError(f"the frontend image {name} cannot be run here")


class DockerfileFrontends:
    """Runs the Dockerfile frontend for builds of one engine."""

    def __init__(
        self, engine: "Engine", solver: Solver, sources: Sources, folders: ContextFolders, caches: Caches
    ) -> None:
        self._engine = engine
        self._solver = solver
        self._sources = sources
        self._folders = folders
        self._caches = caches
        self.take_cache = caches.take
        self.foreign: Foreign = _no_images
        """Runs frontends that are images; set by the one who makes both."""

    async def solve(self, build: Build, name: str, options: dict[str, str], inputs: dict[str, Vertex]) -> Outcome:
        """Run the frontend (see control.Frontends)."""
        if name not in _NAMES:
            raise UnsupportedError(f"frontend {name} could not be found")
        if name == "gateway.v0" and (image := options_of.foreign(options.get("source", ""))):
            return await self.foreign(build, image, options, inputs)
        options_of.check_options(options)
        attestations.wishes(options)
        self._caches.explain(build, options)
        run = _Run(self, build, options, inputs)
        build.session.options["from"] = run.source
        return await run.outcome()

    def prepare(self, build: Build) -> None:
        """Give the build's session what its operations ask for (see control.Frontends)."""
        known = build.session.options
        locals_ = LocalSources(self._folders, build.client, build.session)

        async def local(name: str, attributes: dict[str, str], vertex: Vertex | None = None, *, kept: bool = True) -> Result:
            found = await locals_.get(name, local_options(attributes), kept=kept)
            step = build.report.step_of(vertex) if vertex is not None else None
            if step is not None:
                step.transferred("transferring context:", known.get("transferred", {}).get(name, 0))
            return found

        async def header(domain: str) -> str:
            return await registry_header(build.client, domain)

        # What BuildKit runs has a layer even where it changes nothing.
        known |= {"locals": local, "auth_header": header, "empty_layers": True, "keep_failed": True}
        if build.client is not None:
            secrets = ClientSecrets(build.client)
            known["secrets"] = secrets
            known.setdefault("ends", []).append(secrets.close)

    def finished_config(self, vertex: Vertex, session: Session) -> Json | None:
        """Return the image config of a solved vertex that this frontend made, None of any other."""
        found = session.options.get("targets", {}).get(vertex)
        if found is None:
            return None
        target, time_ns = found
        results = {one: task.result() for one, task in session.tasks.items() if task.done() and not task.cancelled()}
        return image_config(target, results, time_ns=time_ns)


class _Run:
    """One request to the frontend."""

    def __init__(self, owner: DockerfileFrontends, build: Build, options: dict[str, str], inputs: dict[str, Vertex]) -> None:
        self._owner = owner
        self._build = build
        self._options = options
        self._inputs = inputs
        self._session = build.session
        self._definition: Step | None = None
        self._given: Vertex | None = None
        self._beside = Result()
        self._ignores: list[str] = []
        tools = (owner._engine, owner._caches.cache, owner._sources)
        self._named = NamedContexts(tools, build, options, inputs, self._image, self._ignored_in)
        self._fragments = Fragments((owner._solver, owner._engine.snapshots), build, options, self._named)

    async def outcome(self) -> Outcome:
        text = await self._read()
        request = self._options.get("requestid", "")
        if request == requests.DESCRIBE:
            return requests.describe()
        if line := places.foreign_line(self._options, self._file_name, text):
            given = {**self._options, "cmdline": line, "source": options_of.foreign(line)}
            return await self._owner.foreign(self._build, given["source"], given, self._inputs)
        wanted = [one for one in self._options.get("platform", "").split(",") if one] or [""]
        parsed = await self._parse(text, wanted[0])
        of = checks.checked(self._file_name, text, parsed, self._argument("BUILDKIT_DOCKERFILE_CHECK"))
        if request:
            return await self._answer(request, of)
        self._host_options()
        multiple = self._several
        outcome = Outcome()
        listed = []
        for text_of in wanted:
            options = self._convert_options(text_of)
            # What is included may be another text for each platform.
            parsed = parsed if text_of == wanted[0] or not parsed.source.included else await self._parse(text, text_of)
            target, time_ns = await self._convert(parsed, options, text)
            if not outcome.vertices:
                checks.warn(of, self._findings(of, options), self._build.report, self._definition)
            vertex = target.vertex
            # What the image config is made of once all is solved.
            self._session.options.setdefault("targets", {})[vertex] = (target, time_ns)
            key = str(platforms.usual(platforms.parse(text_of) if text_of else platforms.host())) if multiple else ""
            outcome.vertices[key] = vertex
            await self._scan(key, target)
            shown = target.state.platform
            config = {"architecture": shown.get("architecture"), "os": shown.get("os"), "config": target.state.config}
            outcome.metadata[f"{_CONFIG}/{key}" if key else _CONFIG] = json.dumps(config).encode()
            if key:
                found = platforms.parse(key)
                listed.append({"ID": key, "Platform": {k: v for k, v in found._asdict().items() if v}})
        if listed:
            outcome.metadata["refs.platforms"] = json.dumps({"Platforms": listed}).encode()
        return outcome

    async def _parse(self, text: str, platform: str) -> dockerfiles.Dockerfile:
        """Return what a Dockerfile says to those who build for a platform."""
        options = self._convert_options(platform)
        scope = Scope(options.build_args, platform_values(platform, options.target))
        self._fragments.given = self._given
        try:
            return await including.parse(text, self._file_name, scope, self._fragments.read)
        except DockerfileError as error:
            raise places.placed(error, self._file_name, text) from None

    def _host_options(self) -> None:
        """Pass on what the commands of RUN are given besides the Dockerfile."""
        self._session.options["host"] = options_of.host_options(self._options, self._session.options.get("host") or {})
        self._session.options["hostname"] = self._argument("BUILDKIT_SANDBOX_HOSTNAME") or self._options.get("hostname", "")
        self._take_caches()

    def _argument(self, name: str) -> str:
        """Return an argument that means something to the builder itself."""
        return self._options.get(f"build-arg:{name}", "")

    def _take_caches(self) -> None:
        """Let the build use the caches that the client names for the frontend."""
        for ref in filter(None, self._options.get("cache-from", "").split(",")):
            self._owner.take_cache(self._build, "registry", {"ref": ref})
        if options_of.is_true(self._argument("BUILDKIT_INLINE_CACHE")):
            self._build.inline = True
        if not self._options.get("cache-imports"):
            return
        try:
            rows = [(row["Type"], row.get("Attrs") or {}) for row in json.loads(self._options["cache-imports"])]
        except (ValueError, AttributeError, TypeError, KeyError):
            raise InvalidInputError("cache-imports is broken") from None
        for kind, attributes in rows:
            texts = {key: value for key, value in attributes.items() if isinstance(value, str)}
            self._owner.take_cache(self._build, str(kind), texts)

    async def _scan(self, key: str, target: Target) -> None:
        """Let a scanner look at what a target makes, where the client wants it."""
        wish = attestations.wishes(self._options).get(attestations.SBOM)
        if wish is None:
            return
        scanner = wish["generator"]
        try:
            image = await self._image(scanner, "")
        except BarqueError as error:
            raise BarqueError(f"sbom: the scanner {scanner} cannot be had; name another (--sbom generator=IMAGE): {error}") from None
        self._build.scans[key] = sbom.scan(image, scanner, (target.vertex, target.scanned), key)

    async def _answer(self, request: str, of: checks.Checked) -> Outcome:
        """Answer a client that asks something of the Dockerfile instead of building it."""
        if request == requests.TARGETS:
            return requests.targets(of.parsed, of.text)
        if request not in (requests.LINT, requests.OUTLINE):
            raise UnsupportedError(f"unsupported request {request}")
        options = self._convert_options(self._options.get("platform", "").partition(",")[0])
        options.all_stages = request == requests.LINT and not options.target
        failed: InvalidInputError | None = None
        try:
            await convert(of.parsed, options, Surroundings(self._context, self._image, self._named.base))
        except InvalidInputError as error:
            failed = error
        if request == requests.OUTLINE:
            if failed is not None:
                raise failed
            numbers = list(options.stages)
            scope = Scope(options.build_args, platform_values(options.platform, options.target))
            return requests.outline(of.parsed, of.text, numbers, numbers[-1], scope)
        return checks.answer(of, self._findings(of, options), failed)

    def _findings(self, of: checks.Checked, options: Options) -> list[Finding]:
        arguments = {name: value for name, value in options.build_args.items() if value is not None}
        return checks.findings(of, arguments, options.platform, options.stages, self._ignores, options.target)

    def _convert_options(self, platform: str) -> Options:
        given = self._options
        arguments = {key.removeprefix("build-arg:"): value for key, value in given.items() if key.startswith("build-arg:")}
        arguments.pop(EXPLAIN, None)
        none: frozenset[str] | None = None
        if "no-cache" in given:
            none = frozenset(one.lower() for one in given["no-cache"].split(",") if one)
        epoch = arguments.get("SOURCE_DATE_EPOCH", "")
        return Options(
            target=given.get("target", ""),
            build_args=dict(arguments),
            labels={key.removeprefix("label:"): value for key, value in given.items() if key.startswith("label:")},
            platform=platform,
            several_platforms=self._several,
            no_cache_stages=none,
            network=options_of.network_mode(given.get("force-network-mode", ""), self._build.entitlements),
            cache_namespace=self._argument("BUILDKIT_CACHE_MOUNT_NS"),
            time_ns=options_of.number("SOURCE_DATE_EPOCH", epoch) * 1_000_000_000 if epoch else None,
        )

    async def _convert(self, parsed: dockerfiles.Dockerfile, options: Options, text: str) -> tuple[Target, int | None]:
        try:
            target = await convert(parsed, options, Surroundings(self._context, self._image, self._named.base))
        except DockerfileError as error:
            raise places.placed(error, self._file_name, text) from None
        places.remember(self._session, options.places, self._file_name, text)
        for file, _ in parsed.source.included:
            places.remember(self._session, {}, file.name, file.text)
        return target, options.time_ns

    @property
    def _several(self) -> bool:
        """Whether the outcome names platforms."""
        asked = self._options.get("multi-platform") or self._argument("BUILDKIT_MULTI_PLATFORM")
        return "," in self._options.get("platform", "").strip(",") or options_of.is_true(asked)

    @property
    def _file_name(self) -> str:
        return self._options.get("filename") or "Dockerfile"

    async def source(self, name: str, platform: str) -> Result:
        """Return what a --from names that is no stage: a named context, or an image."""
        base = await self._named.context(name, platform)
        if base is None:
            image = await self._image(name, platform)
            return result_of(image)
        return await self._owner._solver.solve(base.vertex, self._session)

    async def _image(self, name: str, platform: str) -> Image:
        known = self._session.options.setdefault("images", {})
        if (key := (name, platform)) not in known:
            known[key] = asyncio.create_task(self._metadata(name, platform))
            self._session.aside.append(known[key])
        found: Image = await asyncio.shield(known[key])
        return found

    async def _metadata(self, name: str, platform: str) -> Image:
        reference = parse(name).with_default_tag()
        shown = f"{platform} internal" if self._several and platform else "internal"
        with self._build.report.work(f"[{shown}] load metadata for {reference}"):
            pull = "always" if self._options.get("image-resolve-mode") == "pull" else ""
            return await self._owner._sources.image(name, platform, pull=pull, session=self._session)

    async def _ignored_in(self, name: str, place: str) -> str | None:
        """Return the text of a named folder's .dockerignore, None without one."""
        with self._build.report.work(f"[context {name}] load .dockerignore"):
            return await self._optional_text(await self._local(place, include=[".dockerignore"]), ".dockerignore")

    async def _read(self) -> str:
        """Return the Dockerfile's text."""
        file_name = self._file_name
        elsewhere = self._options.get("context", "")
        if elsewhere and (is_git(elsewhere) or is_url(elsewhere)):
            self._given, text = await self._read_remote(elsewhere, file_name)
            return text
        if "context" in self._inputs or "dockerfile" in self._inputs:
            self._given = self._inputs.get("context") or graph.Scratch()
            return await self._text_of(self._inputs.get("dockerfile") or self._given, file_name)
        self._beside, text = await self._read_local(file_name)
        return text

    async def _context(self) -> Vertex:
        """Return the build context."""
        if self._given is None:
            excludes = self._ignores = await self._ignored(self._beside, self._file_name)
            key = self._options.get("contextkey", "context")
            attributes = [("local.sharedkeyhint", key)]
            if excludes:
                attributes.append(("local.excludepatterns", json.dumps(excludes)))
            self._given = Source(f"local://{key}", tuple(sorted(attributes)), name="[internal] load build context")
        return self._given

    async def _local(self, name: str, *, include: list[str]) -> Result:
        local = self._session.options["locals"]
        found: Result = await local(name, {"local.includepattern": json.dumps(include)})
        return found

    async def _ignored(self, beside: Result, file_name: str) -> list[str]:
        """Return the patterns of the .dockerignore that counts: the Dockerfile's own, or the context's."""
        own = await self._optional_text(beside, f"{file_name}.dockerignore")
        if own is not None:
            return read_ignore(own)
        with self._build.report.work("[internal] load .dockerignore") as step:
            key = self._options.get("contextkey", "context")
            found = await self._local(key, include=[".dockerignore"])
            step.transferred("transferring context:", self._session.options.get("transferred", {}).get(key, 0))
            text = await self._optional_text(found, ".dockerignore")
        return read_ignore(text) if text is not None else []

    async def _optional_text(self, result: Result, path: str) -> str | None:
        try:
            return await self._text_in(result, path)
        except NotFoundError:
            return None

    async def _text_of(self, vertex: Vertex, path: str) -> str:
        return await self._text_in(await self._owner._solver.solve(vertex, self._session), path)

    async def _text_in(self, result: Result, path: str) -> str:
        return await asyncio.to_thread(self._read_text, result, path)

    def _read_text(self, result: Result, path: str) -> str:
        with opened(self._owner._engine.snapshots, result) as tree:
            real = resolve(tree, path)
            node = tree.lstat(real)
            if node is None:
                raise NotFoundError(f"failed to read dockerfile: open {path}: no such file or directory")
            if node.size > _LARGEST_DOCKERFILE:
                raise InvalidInputError(f"{path} is larger than {_LARGEST_DOCKERFILE >> 20} MiB")
            return b"".join(bytes(chunk) for chunk in tree.read(real)).decode("utf-8", "replace")

    async def _read_local(self, file_name: str) -> tuple[Result, str]:
        """Return the folder that the client has the Dockerfile in, and the Dockerfile's text."""
        place = self._options.get("dockerfilekey", "dockerfile")
        with self._build.report.work(f"[internal] load build definition from {file_name}") as step:
            self._definition = step
            found = await self._local(place, include=[file_name, f"{file_name}.dockerignore", file_name.lower()])
            step.transferred("transferring dockerfile:", self._session.options.get("transferred", {}).get(place, 0))
            text = await self._text_in(found, file_name)
        return found, text

    async def _read_remote(self, url: str, file_name: str) -> tuple[Vertex, str]:
        alone: str | None = None
        if is_git(url):
            keep = (("keep_git", "true"),) if options_of.is_true(self._argument("BUILDKIT_CONTEXT_KEEP_GIT_DIR")) else ()
            context: Vertex = Source(f"git://{url}", keep, name=f"[internal] load git source {without_passwords(url)}")
        else:
            content = self._owner._engine.image_store.content
            context, alone = await remote.context_of(url, self._build, self._owner._sources, content)
        if "dockerfilekey" in self._options:
            return context, (await self._read_local(file_name))[1]
        return context, alone if alone is not None else await self._text_of(context, file_name)
