"""Bringing a build's outcome out: into the image store and registries, archives, folders of the client."""

import asyncio
import base64
import json
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from barque.base.errors import BarqueError, InvalidInputError, UnsupportedError
from barque.base.times import format_ns
from barque.builder.buildkit import attestations, file_exports, image_forms, provenance, sbom
from barque.builder.buildkit.builds import Build, Outcome
from barque.builder.buildkit.caching import Caches
from barque.builder.buildkit.content_store import ClientStore
from barque.builder.buildkit.image_options import ImageOptions, image_options
from barque.builder.buildkit.progress import Step
from barque.builder.buildkit.providers import registry_header
from barque.builder.buildkit.sending import send_stream
from barque.builder.cache import BuildCache
from barque.builder.caches.exports import true_of
from barque.builder.graph import Vertex
from barque.builder.results import Result
from barque.builder.rewriting import rewritten
from barque.builder.solver import Session, Solver
from barque.builder.stages import config_bytes
from barque.engine.pumps import stream_of
from barque.images import save as saving
from barque.images.model import Image
from barque.images.summaries import manifest_of
from barque.oci import media, platform as platforms
from barque.oci.reference import Reference, parse

if TYPE_CHECKING:
    from barque.engine.engine import Engine

Json = dict[str, Any]
_CONFIG = "containerimage.config"


class EngineExporters:
    """Exports into one engine and to its clients."""

    def __init__(
        self, engine: "Engine", solver: Solver, cache: BuildCache, config_of: "Callable[[Vertex, Session], Json | None]",
        caches: Caches,
    ) -> None:  # fmt: skip
        self._engine = engine
        self._solver = solver
        self._cache = cache
        self._config_of = config_of
        self._caches = caches

    async def export(self, build: Build, outcome: Outcome, exporters: list[tuple[str, dict[str, str]]]) -> dict[str, str]:
        """Solve what is not solved yet, export it, and return what the client is told of it.

        Raises:
            BarqueError: a step failed, or an export.
        """
        results = {
            name: await self._solver.solve(vertex, build.session) for name, vertex in sorted(outcome.vertices.items())
        }
        response: dict[str, str] = {
            key: value.decode("utf-8", "replace") for key, value in outcome.metadata.items() if key.startswith("result.")
        }
        await self._attest(build, outcome, exporters)
        for number, (kind, attributes) in enumerate(exporters):
            if not results and kind:
                continue
            if kind in ("image", "moby"):
                response |= await self._image(build, outcome, results, attributes)
            elif kind in ("docker", "oci"):
                response |= await self._archive(build, outcome, results, attributes, number, kind)
            elif kind == "local":
                await file_exports.to_folder(self._engine.snapshots, build, results, attributes, number)
            elif kind == "tar":
                await file_exports.to_tar(self._engine.snapshots, build, results, attributes, number)
            elif kind:
                raise UnsupportedError(f'exporter "{kind}" could not be found')
        await asyncio.to_thread(self._cache.flush)
        return response

    async def _attest(self, build: Build, outcome: Outcome, exporters: list[tuple[str, dict[str, str]]]) -> None:
        """Make what the client wants to be said of the build's outcome.

        Raises:
            UnsupportedError: it is to go where nothing can lie beside an image.
        """
        wished = attestations.wishes(build.options)
        if not wished:
            return
        _refuse_attestations(wished, exporters)
        build.predicates = await sbom.predicates(build, self._solver, self._engine.snapshots)
        if (wish := wished.get(attestations.PROVENANCE)) is not None:
            store, now = self._engine.image_store, time.time_ns()
            for name, vertex in outcome.vertices.items():
                made = provenance.predicate(build, vertex, store, wish, now)
                build.predicates.setdefault(name, []).append(made)

    async def _image(
        self, build: Build, outcome: Outcome, results: dict[str, Result], attributes: dict[str, str]
    ) -> dict[str, str]:
        options = image_options(attributes, "image")
        store = self._engine.image_store
        with build.report.work("exporting to image") as step:
            known = {image.id for image in store.images()}
            with step.part("exporting layers"):
                images = await self._registered(build, outcome, results, options)
            for image in images:
                with step.part(f"writing image {image.id}"):
                    pass
            options = _with_predicates(options, build, images) if options.push else options
            if not options.chosen and not options.predicates:
                return await self._usual(build, images, options, step)
            try:
                return await self._formed(build, images, options, step)
            finally:
                if not options.store:
                    await asyncio.to_thread(self._drop, images, known)

    async def _usual(self, build: Build, images: list[Image], options: ImageOptions, step: Step) -> dict[str, str]:
        """Name images as the engine keeps them, and push them as `docker push` does."""
        image = _foremost(images)
        target = await asyncio.to_thread(self._index, images) if len(images) > 1 else ""
        for name in options.names:
            with step.part(f"naming to {name}"):
                await asyncio.to_thread(self._name, name, image, target)
        response = {"containerimage.digest": target or image.id, "containerimage.config.digest": image.id}
        if options.names:
            response["image.name"] = ",".join(str(name) for name in options.names)
        for name in options.names if options.push else ():
            with step.part(f"pushing {name}"):
                digest, size = await self._push(build, name)
            response["containerimage.digest"] = digest
            response["containerimage.descriptor"] = _descriptor(digest, size)
        return response

    async def _formed(self, build: Build, images: list[Image], options: ImageOptions, step: Step) -> dict[str, str]:
        """Name and push images in the form that the client wants."""
        image = _foremost(images)
        found = image_forms.Formed(b"", "", {})
        if options.store:
            found = await asyncio.to_thread(image_forms.kept, self._engine, images, options)
        for name in options.names if options.push else ():
            auth = await registry_header(build.client, name.domain)
            with step.part(f"pushing {name}"):
                found = await image_forms.pushed(self._engine, images, name, options, auth)
        names = list(options.names)
        if not names and options.dangling:
            names = [parse(f"{options.dangling}@{found.digest}")]
        if options.canonical or options.by_digest:
            pinned = [one._replace(tag="", digest=found.digest) for one in options.names]
            names = pinned if options.by_digest else [*names, *pinned]
        for one in names if options.store else ():
            with step.part(f"naming to {one}"):
                await asyncio.to_thread(self._name, one, image, found.digest)
        return found.response(image, options.names or names)

    def _drop(self, images: list[Image], known: set[str]) -> None:
        """Remove images that nobody keeps: the store has what it had, and the cache its layers."""
        store = self._engine.image_store
        for image in images:
            if image.id not in known and not (found := store.resolve(image.id)).names and not found.digests:
                store.delete(image.id)

    async def _push(self, build: Build, name: Reference) -> tuple[str, int]:
        auth = await registry_header(build.client, name.domain)
        digest, size = "", 0
        async for message in self._engine.registries.push(name.name, name.tag, platform="", auth=auth):
            if message.get("error"):
                raise BarqueError(f"failed to push {name}: {message['error']}")
            found = message.get("aux") or {}
            digest, size = found.get("Digest", digest), found.get("Size", size)
        return digest, size

    def _name(self, name: Reference, image: Image, target: str) -> None:
        store = self._engine.image_store
        if target:
            store.set_name(name, image.id, target)
            if name.digest:
                return
            store.publish("tag", image.id, name.familiar)
        else:
            store.tag(image.id, name.name, name.tag)

    def _index(self, images: list[Image]) -> str:
        """Keep an index of the images of several platforms; return its digest."""
        store = self._engine.image_store
        entries = []
        for image in images:
            raw = manifest_of(store, image)
            found = platforms.of_config(image.config)
            entries.append({
                "mediaType": media.OCI_MANIFEST, "digest": store.keep_manifest(raw, image.id), "size": len(raw),
                "platform": {key: value for key, value in zip(("os", "architecture", "variant"), found, strict=False) if value},
            })  # fmt: skip
        index = {"schemaVersion": 2, "mediaType": media.OCI_INDEX, "manifests": entries}
        return store.keep_manifest(json.dumps(index, separators=(",", ":")).encode(), "")

    async def _registered(
        self, build: Build, outcome: Outcome, results: dict[str, Result], options: ImageOptions
    ) -> list[Image]:
        made = []
        for name, result in results.items():
            vertex = outcome.vertices[name]
            config = self._config_of(vertex, build.session) or _config_of(outcome, name, result)
            target, time_ns = build.session.options.get("targets", {}).get(vertex) or (None, None)
            epoch_ns = time_ns if options.epoch_ns is None else options.epoch_ns
            if options.rewrite and epoch_ns is not None:
                base = build.session.tasks.get(target.chain()[0].base_root) if target is not None else None
                count = len(base.result().layers) if base is not None else 0
                config = await asyncio.to_thread(
                    rewritten, self._engine.image_store, self._cache, config, count, epoch_ns
                )
            await self._caches.embed(build, vertex, config)
            made.append((config_bytes(config), ""))
        ids = await asyncio.to_thread(self._cache.flush, made)
        return [self._engine.image_store.resolve(one) for one in ids]

    async def _archive(
        self, build: Build, outcome: Outcome, results: dict[str, Result], attributes: dict[str, str], number: int, kind: str
    ) -> dict[str, str]:
        options = image_options(attributes, kind)
        store = self._engine.image_store
        title = "exporting to docker image format" if kind == "docker" else "exporting to oci image format"
        with build.report.work(title) as step:
            known = {image.id for image in store.images()}
            with step.part("exporting layers"):
                images = await self._registered(build, outcome, results, options)
            options = _with_predicates(options, build, images) if kind == "oci" else options
            try:
                if options.chosen or options.predicates:
                    found = await self._written(build, images, options, step, (number, kind))
                else:
                    found = await self._saved(build, images, options, step, number)
            finally:
                await asyncio.to_thread(self._drop, images, known)
        return found.response(_foremost(images), options.names)

    async def _saved(
        self, build: Build, images: list[Image], options: ImageOptions, step: Step, number: int
    ) -> image_forms.Formed:
        """Send images as `docker save` does."""
        store = self._engine.image_store
        raw = manifest_of(store, _foremost(images))
        found = image_forms.Formed(raw, media.OCI_MANIFEST, {})
        chosen = saving.Selected()
        for one in images:
            chosen.add(one, options.names)
        with step.part("sending tarball"):
            await send_stream(build.need_client(), stream_of(lambda: saving.save(store, chosen)), number, {})
        return found

    async def _written(
        self, build: Build, images: list[Image], options: ImageOptions, step: Step, what: tuple[int, str]
    ) -> image_forms.Formed:
        """Send images in the form that the client wants."""
        content, client = self._engine.image_store.content, build.need_client()
        if not options.tar:
            with step.part("copying to client directory"):
                return await image_forms.into_folder(ClientStore(client, "export"), content, images, options)
        number, kind = what
        made: list[image_forms.Formed] = []
        with step.part("sending tarball"):
            chunks = image_forms.archive(content, images, options, docker=kind == "docker", told=made.append)
            await send_stream(client, chunks, number, {})
        return made[0]


def _foremost(images: list[Image]) -> Image:
    """Return the image of this machine's platform, else the first."""
    here = platforms.host()
    return next((one for one in images if platforms.fits(platforms.of_config(one.config), here)), images[0])


def _config_of(outcome: Outcome, name: str, result: Result) -> Json:
    """Return the image's config: the frontend's, with the layers that there are, and a history that fits them."""
    raw = outcome.metadata.get(f"{_CONFIG}/{name}") or outcome.metadata.get(_CONFIG)
    if raw:
        try:
            config = json.loads(raw)
        except ValueError:
            raise InvalidInputError("the frontend gave an image config that is no JSON") from None
        if not isinstance(config, dict):
            raise InvalidInputError("the frontend gave an image config that is no object")
    else:
        host = platforms.host()
        config = {"architecture": host.architecture, "os": host.os, "config": {}}
    config["rootfs"] = {"type": "layers", "diff_ids": [diff for _, diff in result.layers]}
    created = format_ns(result.created_ns or time.time_ns())
    config.setdefault("created", created)
    history = [entry for entry in config.get("history") or [] if isinstance(entry, dict)]
    filled = sum(1 for entry in history if not entry.get("empty_layer"))
    for _ in range(len(result.layers) - filled):
        history.append({"created": created, "created_by": "buildkit", "comment": "buildkit.exporter.image.v0"})
    excess = filled - len(result.layers)
    for entry in reversed(history):
        if excess > 0 and not entry.get("empty_layer"):
            entry["empty_layer"] = True
            excess -= 1
    config["history"] = history
    return config


def _descriptor(digest: str, size: int) -> str:
    value = {"mediaType": media.OCI_MANIFEST, "digest": digest, "size": size}
    return base64.b64encode(json.dumps(value).encode()).decode()


def _refuse_attestations(
    wished: dict[str, dict[str, str]], exporters: list[tuple[str, dict[str, str]]]
) -> None:
    inline = all(true_of(wish, "inline-only") for wish in wished.values())
    for kind, attributes in exporters:
        kept = kind in ("image", "moby") and not true_of(attributes, "push")
        if (kept or kind == "docker") and not inline:
            raise UnsupportedError(
                f"exporter {kind}: attestations are kept by registries and archives of OCI only; push the image "
                "(--push), write an archive (--output type=oci,dest=FILE), or leave --attest, --provenance, --sbom out"
            )


def _with_predicates(options: ImageOptions, build: Build, images: list[Image]) -> ImageOptions:
    """Return the options with what is said of images; what lies beside images has forms of OCI alone."""
    found = {image.id: one for image, (_, one) in zip(images, sorted(build.predicates.items()), strict=False) if one}
    return replace(options, predicates=found, oci=True) if found else options
