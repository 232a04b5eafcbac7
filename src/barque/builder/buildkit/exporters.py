"""Bringing a build's outcome out: into the image store and registries, archives, folders of the client."""

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from barque.base.errors import BarqueError, InvalidInputError, UnsupportedError
from barque.base.times import format_ns
from barque.builder.buildkit.builds import Build, Outcome
from barque.builder.buildkit.caching import Caches
from barque.builder.buildkit.providers import registry_header
from barque.builder.buildkit.sending import send_stream, send_tree
from barque.builder.cache import BuildCache
from barque.builder.folder_tree import FolderTree
from barque.builder.graph import Vertex
from barque.builder.results import Result, opened
from barque.builder.solver import Session, Solver
from barque.builder.stages import config_bytes
from barque.builder.trees import Tree
from barque.engine.pumps import stream_of
from barque.images import save as saving
from barque.images.model import Image
from barque.images.summaries import manifest_of
from barque.oci import media, platform as platforms
from barque.oci.reference import Reference, parse
from barque.storage.archive.tar import FOLDER
from barque.storage.archive.write import END, header, tree as members

if TYPE_CHECKING:
    from barque.engine.engine import Engine

Json = dict[str, Any]
_Choices = dict[str, tuple[str, ...] | None]
_CONFIG = "containerimage.config"
# What may be asked of an exporter: values that hold anyway; None takes any.
_ANY = None
_IMAGE_OPTIONS: _Choices = {
    "name": _ANY, "push": _ANY, "unpack": _ANY, "store": ("true",), "load": ("true",), "push-by-digest": ("false",),
    "registry.insecure": ("false",), "name-canonical": ("false",), "oci-mediatypes": ("false",),
    "compression": ("gzip",), "force-compression": ("false",),
}  # fmt: skip
_ARCHIVE_OPTIONS: _Choices = {
    "name": _ANY, "dest": _ANY, "tar": ("true",), "compression": ("uncompressed",), "force-compression": ("false",),
    "oci-mediatypes": ("true",),
}  # fmt: skip
_FILES_OPTIONS: _Choices = {"dest": _ANY, "platform-split": _ANY}


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
        for number, (kind, attributes) in enumerate(exporters):
            if not results and kind:
                continue
            if kind in ("image", "moby"):
                response |= await self._image(build, outcome, results, attributes)
            elif kind in ("docker", "oci"):
                response |= await self._archive(build, outcome, results, attributes, number, kind)
            elif kind == "local":
                await self._local(build, results, attributes, number)
            elif kind == "tar":
                await self._tar(build, results, attributes, number)
            elif kind:
                raise UnsupportedError(f'exporter "{kind}" could not be found')
        await asyncio.to_thread(self._cache.flush)
        return response

    async def _image(
        self, build: Build, outcome: Outcome, results: dict[str, Result], attributes: dict[str, str]
    ) -> dict[str, str]:
        _check(attributes, _IMAGE_OPTIONS, "image")
        names = _names(attributes.get("name", ""))
        with build.report.work("exporting to image") as step:
            with step.part("exporting layers"):
                images = await self._registered(build, outcome, results)
            for image in images:
                with step.part(f"writing image {image.id}"):
                    pass
            image = _foremost(images)
            target = await asyncio.to_thread(self._index, images) if len(images) > 1 else ""
            for name in names:
                with step.part(f"naming to {name}"):
                    await asyncio.to_thread(self._name, name, image, target)
            response = {"containerimage.digest": target or image.id, "containerimage.config.digest": image.id}
            if names:
                response["image.name"] = ",".join(str(name) for name in names)
            if _true(attributes.get("push", "")):
                if not names:
                    raise InvalidInputError("tag is needed when pushing to registry")
                for name in names:
                    with step.part(f"pushing {name}"):
                        digest, size = await self._push(build, name)
                    response["containerimage.digest"] = digest
                    response["containerimage.descriptor"] = _descriptor(digest, size)
        return response

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

    async def _registered(self, build: Build, outcome: Outcome, results: dict[str, Result]) -> list[Image]:
        made = []
        for name, result in results.items():
            config = self._config_of(outcome.vertices[name], build.session) or _config_of(outcome, name, result)
            await self._caches.embed(build, outcome.vertices[name], config)
            made.append((config_bytes(config), ""))
        ids = await asyncio.to_thread(self._cache.flush, made)
        return [self._engine.image_store.resolve(one) for one in ids]

    async def _archive(
        self, build: Build, outcome: Outcome, results: dict[str, Result], attributes: dict[str, str], number: int, kind: str
    ) -> dict[str, str]:
        _check(attributes, _ARCHIVE_OPTIONS, kind)
        names = _names(attributes.get("name", ""))
        store = self._engine.image_store
        title = "exporting to docker image format" if kind == "docker" else "exporting to oci image format"
        with build.report.work(title) as step:
            with step.part("exporting layers"):
                known = {image.id for image in store.images()}
                images = await self._registered(build, outcome, results)
            image = _foremost(images)
            response = {"containerimage.digest": image.id, "containerimage.config.digest": image.id}
            if names:
                response["image.name"] = ",".join(str(name) for name in names)
            chosen = saving.Selected()
            for one in images:
                chosen.add(one, names)
            try:
                with step.part("sending tarball"):
                    await send_stream(build.need_client(), stream_of(lambda: saving.save(store, chosen)), number, response)
            finally:
                # The archive is the client's; the store keeps what it had, and the cache its layers.
                for one in images:
                    if one.id not in known and not store.resolve(one.id).names:
                        await asyncio.to_thread(store.delete, one.id)
        return response

    async def _local(self, build: Build, results: dict[str, Result], attributes: dict[str, str], number: int) -> None:
        _check(attributes, _FILES_OPTIONS, "local")
        with build.report.work("exporting to client directory") as step, step.part("copying files"), ExitStack() as stack:
            trees = {name: stack.enter_context(opened(self._engine.snapshots, one)) for name, one in results.items()}
            client = build.need_client()
            if set(trees) == {""} and not _true(attributes.get("platform-split", "")):
                await send_tree(client, trees[""], number)
            else:
                split = {_folder(name): tree for name, tree in trees.items()}
                await send_tree(client, next(iter(trees.values())), number, split)

    async def _tar(self, build: Build, results: dict[str, Result], attributes: dict[str, str], number: int) -> None:
        _check(attributes, _FILES_OPTIONS, "tar")
        with build.report.work("exporting to client tarball") as step, step.part("sending tarball"), ExitStack() as stack:
            trees = {name: stack.enter_context(opened(self._engine.snapshots, one)) for name, one in results.items()}
            single = set(trees) == {""}
            chunks = _tar_of({"" if single else _folder(name): tree for name, tree in trees.items()})
            await send_stream(build.need_client(), chunks, number, {})


def _check(attributes: dict[str, str], known: _Choices, kind: str) -> None:
    """Refuse what would otherwise be passed over.

    Raises:
        UnsupportedError: an option, or its value, is not supported.
    """
    for key, value in attributes.items():
        if key not in known:
            raise UnsupportedError(f"exporter {kind}: option {key} is not supported; leave it out")
        allowed = known[key]
        if allowed is not None and value and value.lower() not in allowed:
            raise UnsupportedError(f"exporter {kind}: {key}={value} is not supported; only {key}={allowed[0]} is")


def _true(text: str) -> bool:
    return text.lower() in ("1", "t", "true")


def _names(text: str) -> list[Reference]:
    return [parse(one.strip()).with_default_tag() for one in text.split(",") if one.strip()]


def _foremost(images: list[Image]) -> Image:
    """Return the image of this machine's platform, else the first."""
    here = platforms.host()
    return next((one for one in images if platforms.fits(platforms.of_config(one.config), here)), images[0])


def _folder(name: str) -> str:
    text = name or str(platforms.host())
    return text.replace("/", "_")


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


async def _tar_of(trees: dict[str, Tree]) -> AsyncIterator[bytes]:
    for prefix, tree in sorted(trees.items()):
        # Nothing at all has no folder on disk.
        if not isinstance(tree, FolderTree):
            continue
        if prefix:
            yield header(f"{prefix}/".encode(), kind=FOLDER, mode=0o755)
        root = tree.root
        start = f"{prefix}/".encode() if prefix else b""
        async for chunk in stream_of(lambda root=root, start=start: members(root, prefix=start)):  # type: ignore[misc]
            yield chunk
    yield END
