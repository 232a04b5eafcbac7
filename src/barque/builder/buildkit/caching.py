"""`--cache-from` and `--cache-to`: which cache is meant, and who reads and writes it."""

import base64
import hashlib
import json
from typing import TYPE_CHECKING

from barque.base.errors import BarqueError, InvalidInputError, NotFoundError, UnsupportedError
from barque.builder.buildkit import places
from barque.builder.buildkit.actions_cache import ActionsCache
from barque.builder.buildkit.bucket_cache import BucketCache
from barque.builder.buildkit.builds import Build, Outcome
from barque.builder.buildkit.content_store import ClientCache, ClientStore
from barque.builder.buildkit.providers import registry_header
from barque.builder.caches import exports
from barque.builder.caches.exports import Target, Wish, true_of
from barque.builder.caches.format import INLINE_KEY, inline
from barque.builder.caches.imports import Imports, Reader
from barque.builder.caches.registries import ImageCache, RegistryCache, has_inline
from barque.builder.explaining import Explainer
from barque.builder.graph import Vertex

if TYPE_CHECKING:
    from barque.builder.cache import BuildCache
    from barque.builder.service import Builder
    from barque.engine.engine import Engine

_IMPORTED = {
    "registry": ("ref", "registry.insecure"), "local": ("src", "digest", "tag"),
    "gha": ("url", "url_v2", "token", "scope", "version"), "s3": exports.BUCKET_OPTIONS,
}  # fmt: skip

EXPLAIN = "BARQUE_EXPLAIN"
"""The build argument that asks for it."""


class Caches:
    """The caches elsewhere that builds read and write."""

    def __init__(self, engine: "Engine", builder: "Builder") -> None:
        self._engine = engine
        self._builder = builder

    @property
    def cache(self) -> "BuildCache":
        """Return the engine's own cache."""
        return self._builder.cache

    def take(self, build: Build, kind: str, attributes: dict[str, str]) -> None:
        """Let a build use a cache.

        Raises:
            UnsupportedError: such a cache, or an option, is not supported.
            InvalidInputError: an option is missing or wrong.
        """
        if kind not in _IMPORTED:
            raise UnsupportedError(f"importing the cache (type={kind}) is not supported; use registry, local, gha or s3")
        for key in attributes:
            if key not in _IMPORTED[kind]:
                raise UnsupportedError(f"importing the cache (type={kind}): option {key} is not supported; leave it out")
        identity = json.dumps([kind, attributes], sort_keys=True)
        imports: Imports | None = build.session.options.get("imports")
        if imports is None:
            imports = Imports(self._engine, self._builder.cache, build.session)
            build.session.options |= {"imports": imports, "operations": self._builder.operations}
        reader: Reader
        if kind == "registry":
            name = attributes.get("ref", "")
            reader = self._in_registry(build, name, insecure=true_of(attributes, "registry.insecure"))
        else:
            number = int(hashlib.sha256(identity.encode("utf-8", "surrogateescape")).hexdigest()[:16], 16)
            name = f"{kind}:{number}"
            reader = self._served(kind, attributes) or self._at_client(build, attributes.get("src", ""), attributes.get("digest", ""))
        imports.add(identity, name, reader, build.report.work)

    def explain(self, build: Build, options: dict[str, str]) -> None:
        """Let a build's steps say why they were or were not in the cache, where its options ask for it."""
        if true_of(options, f"build-arg:{EXPLAIN}") and build.report.explainer is None:
            build.report.explainer = Explainer(self._builder.cache, build.session, places.included_at)

    def _served(self, kind: str, attributes: dict[str, str]) -> ActionsCache | BucketCache | None:
        """Return a cache that a service keeps, None of another kind."""
        content = self._engine.image_store.content
        if kind == "gha":
            return ActionsCache(attributes, content)
        return BucketCache(attributes, content) if kind == "s3" else None

    def _in_registry(self, build: Build, ref: str, *, insecure: bool) -> Reader:
        if not ref:
            raise InvalidInputError("registry cache importer requires ref")
        try:
            image = self._engine.image_store.resolve(ref)
            if has_inline(image):
                return ImageCache(image)
        except NotFoundError:
            pass
        return self._registry(build, ref, insecure=insecure)

    def _registry(self, build: Build, ref: str, *, insecure: bool) -> RegistryCache:
        async def authorize(domain: str) -> str:
            return await registry_header(build.client, domain)

        return RegistryCache(self._engine, ref, authorize, insecure=insecure)

    def _at_client(self, build: Build, folder: str, digest: str = "") -> ClientCache:
        if not folder:
            raise InvalidInputError("a local cache needs the name of a folder: src to import, dest to export")
        store = ClientStore(build.need_client(), f"local:{folder}")
        return ClientCache(store, self._engine.image_store.content, digest)

    async def embed(self, build: Build, vertex: Vertex, config: dict[str, object]) -> None:
        """Put the records of a build into an image's config, where its client asked for it."""
        if not build.inline:
            return
        items = await exports.items_of(self._engine, self._builder.cache, build.session, [vertex], whole=False)
        rootfs = config.get("rootfs")
        layers = rootfs.get("diff_ids", []) if isinstance(rootfs, dict) else []
        config[INLINE_KEY] = base64.b64encode(inline(items, layers)).decode()

    async def export(self, build: Build, outcome: Outcome, wishes: list[Wish]) -> dict[str, str]:
        """Write the caches that a client asks for; return what it is told of them.

        Raises:
            BarqueError: one could not be written, and its failure was not to be passed over.
        """
        response: dict[str, str] = {}
        for wish in wishes:
            if wish.kind == "inline":
                continue
            try:
                with build.report.work(exports.TITLES[wish.kind]) as step, self._engine.image_store.lease() as lease:
                    target = self._target(build, wish)
                    items = await exports.items_of(
                        self._engine, self._builder.cache, build.session, list(outcome.vertices.values()), whole=wish.whole
                    )
                    for diff_id in {diff for item in items for diff in item.layers or ()}:
                        lease.hold_blob(diff_id)
                    response |= await exports.send(items, target, wish, step)
            except BarqueError:
                if not wish.lenient:
                    raise
        return response

    def _target(self, build: Build, wish: Wish) -> Target:
        served = self._served(wish.kind, wish.attributes)
        if served is not None:
            return served
        if wish.kind == "local":
            return self._at_client(build, wish.attributes.get("dest", ""))
        ref = wish.attributes.get("ref", "")
        if not ref:
            raise InvalidInputError("registry cache exporter requires ref")
        return self._registry(build, ref, insecure=true_of(wish.attributes, "registry.insecure"))
