"""Named contexts (`--build-context`): images, layouts of images, folders, repositories, archives, other targets."""

import base64
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

from barque.base.errors import InvalidInputError, NotFoundError, UnsupportedError
from barque.builder import graph
from barque.builder.buildkit import remote
from barque.builder.buildkit.builds import Build
from barque.builder.buildkit.content_store import ClientCache, ClientStore
from barque.builder.caches import format as forms
from barque.builder.caches.imports import Found, Imports
from barque.builder.dockerfile import Base
from barque.builder.graph import Source, Vertex, layered
from barque.builder.shown import without_passwords
from barque.builder.sources import Sources, is_git, is_url
from barque.dockerfile.patterns import read_ignore
from barque.images.model import Image, check_config
from barque.oci import digest as digests, manifest as manifests, platform as platforms
from barque.oci.reference import parse

if TYPE_CHECKING:
    from barque.builder.cache import BuildCache
    from barque.engine.engine import Engine

Json = dict[str, Any]
_CONFIG = "containerimage.config"
_NESTED_MAX = 3


class NamedContexts:
    """What the client of one request named.

    Args:
        tools: the engine, its cache, its sources.
        build: whose request it is.
        options: the frontend's.
        inputs: results of other targets.
        image: brings an image.
        ignored: returns the text of a local folder's .dockerignore, None without one.
    """

    def __init__(
        self, tools: "tuple[Engine, BuildCache, Sources]", build: Build, options: Mapping[str, str],
        inputs: Mapping[str, Vertex], image: Callable[[str, str], Awaitable[Image]],
        ignored: Callable[[str, str], Awaitable[str | None]],
    ) -> None:  # fmt: skip
        self._engine, self._cache, self._sources = tools
        self._build = build
        self._options = options
        self._inputs = inputs
        self._image = image
        self._ignored = ignored
        self._known: dict[str, Base] = {}

    async def base(self, name: str, platform: str) -> Base | None:
        """Return what the client named, as a stage starts from it; None where it named nothing."""
        found = await self.context(name, platform)
        return found._replace(vertex=layered(found.vertex)) if found is not None else None

    async def context(self, name: str, platform: str) -> Base | None:
        """Return what the client named instead of an image, None where it named nothing."""
        for key in _keys(name, platform):
            text = self._options.get(f"context:{key}")
            if text:
                known = f"{key} {platform}"
                if known not in self._known:
                    self._known[known] = await self._of(name, text, platform)
                return self._known[known]
        return None

    def folder(self, name: str) -> str | None:
        """Return how the client calls the folder of its that a name means, None where the name means none."""
        kind, _, rest = self._options.get(f"context:{name}", "").partition(":")
        return rest if kind == "local" else None

    async def _of(self, name: str, text: str, platform: str) -> Base:
        kind, colon, rest = text.partition(":")
        if kind == "docker-image" and rest.startswith("//"):
            image = await self._image(rest[2:], platform)
            return Base(graph.Layers(tuple(zip(image.chain, image.diff_ids, strict=True)), image.created_ns), image, rest[2:])
        if kind == "oci-layout" and rest.startswith("//"):
            return await self._layout(name, rest[2:], platform)
        if kind == "local":
            return await self._folder(name, rest)
        if kind == "input":
            vertex = self._inputs.get(rest)
            if vertex is None:
                raise InvalidInputError(f"invalid input {rest} for {name}")
            return Base(vertex, self._input_image(rest), name)
        if is_git(text):
            return Base(Source(f"git://{text}", name=f"[context {name}] load git source {without_passwords(text)}"))
        if is_url(text):
            return await self._web(name, text)
        raise UnsupportedError(f"unsupported context source {kind if colon else text} for {name}")

    async def _folder(self, name: str, place: str) -> Base:
        attributes = [("local.sharedkeyhint", f"context:{name}")]
        text = await self._ignored(name, place)
        excludes = read_ignore(text) if text is not None else []
        if excludes:
            attributes.append(("local.excludepatterns", json.dumps(excludes)))
        return Base(Source(f"local://{place}", tuple(sorted(attributes)), name=f"[context {name}] load from client"))

    async def _web(self, name: str, url: str) -> Base:
        """Return an archive's files, or the one file that the URL gives."""
        context, text = await remote.context_of(url, self._build, self._sources, self._engine.image_store.content)
        return Base(context if text is None else Source(url, name=f"[context {name}] {without_passwords(url)}"))

    async def _layout(self, name: str, text: str, platform: str) -> Base:
        """Return an image out of an OCI layout of the client's: of a folder that it gives a name to, by its digest."""
        place, at, digest = text.rpartition("@")
        if not at:
            raise InvalidInputError(f"oci-layout reference {text!r} must have digest")
        digests.check(digest)
        # The name of the folder may bear a tag, which clients have looked up already.
        head, slash, last = place.rpartition("/")
        store = ClientStore(self._build.need_client(), f"oci:{head}{slash}{last.partition(':')[0]}")
        with self._build.report.work(f"[context {name}] load metadata for {digest}"):
            raw = await self._manifest(store, digest, platform)
            manifest = manifests.parse(raw)
            assert isinstance(manifest, manifests.Manifest)
            config = await store.read(manifest.config.digest)
        parsed = check_config(config)
        diff_ids = parsed["rootfs"]["diff_ids"]
        if len(diff_ids) != len(manifest.layers):
            raise InvalidInputError("layers from manifest don't match image configuration")
        layers = tuple(
            layer._replace(annotations={forms.DIFF_ID: diff})
            for layer, diff in zip(manifest.layers, diff_ids, strict=True)
        )
        imports = Imports(self._engine, self._cache, self._build.session)
        reader = ClientCache(store, self._engine.image_store.content)
        with self._build.report.work(f"[context {name}] OCI load from client"):
            brought = await imports.bring(Found(forms.Stored(layers), reader, f"oci-layout://{name}"))
        if brought is None:
            raise InvalidInputError(f"the layers of the context {name} cannot be had from the client")
        chain = tuple(one for one, _ in brought)
        image = Image(digests.of(config), parsed, config, chain, "", 0, 0)
        return Base(graph.Layers(brought, image.created_ns), image, name)

    async def _manifest(self, store: ClientStore, digest: str, platform: str) -> bytes:
        wanted = platforms.parse(platform) if platform else platforms.host()
        for _ in range(_NESTED_MAX):
            raw = await store.read(digest)
            parsed = manifests.parse(raw)
            if isinstance(parsed, manifests.Manifest):
                return raw
            entry = manifests.choose(parsed, wanted)
            if entry is None:
                raise NotFoundError(f"no match for platform {wanted} in the layout")
            digest = entry.digest
        raise InvalidInputError("invalid manifest: indexes are nested too deep")

    def _input_image(self, name: str) -> Image | None:
        """Return a picture of an image for another target's result, so that its config is taken over."""
        raw = self._options.get(f"input-metadata:{name}")
        if not raw:
            return None
        try:
            metadata = json.loads(raw)
            encoded = metadata.get(_CONFIG)
            config = json.loads(base64.b64decode(encoded)) if encoded else None
        except (ValueError, AttributeError, TypeError):
            raise InvalidInputError(f"input-metadata of {name} is broken") from None
        if not isinstance(config, dict):
            return None
        return Image("", config, b"", (), "", 0, 0)


def _keys(name: str, platform: str) -> list[str]:
    keys = [name, f"{name}::{platform}"] if platform else [name]
    try:
        reference = parse(name).with_default_tag()
        keys += [reference.familiar, str(reference), reference.familiar_name]
    except InvalidInputError:
        pass
    return keys
