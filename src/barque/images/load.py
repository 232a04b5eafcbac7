"""Loading archives: Docker's (manifest.json) and OCI layouts (index.json)."""

import json
import posixpath
from collections.abc import Iterable, Iterator, Sequence
from typing import BinaryIO

from barque.base.errors import BarqueError, InvalidInputError
from barque.images.model import Image, Json, check_config
from barque.images.store import ImageStore
from barque.oci import digest as digests, media, platform
from barque.oci.reference import Reference, parse
from barque.storage.archive import tar
from barque.storage.compression import plain
from barque.storage.mapping import mapped, pieces

_JSON_MAX = 16 << 20
_NESTING_MAX = 8


def load(
    store: ImageStore, chunks: Iterable[bytes | memoryview], platforms: Sequence[str] = ()
) -> list[tuple[Image, list[str]]]:
    """Load all images of an archive; return each with the familiar names it got.

    Raises:
        InvalidInputError: the archive is broken, or has no image of the wanted platforms.
        OSError: the disk is full or read-only; images that were whole before that stay.
    """
    with store.content.temporary() as file:
        _spool(file, plain(chunks))
        with mapped(file) as buffer:
            return _Loader(store, _Files(buffer), [platform.parse(p) for p in platforms]).run()


def _spool(file: BinaryIO, chunks: Iterable[bytes | memoryview]) -> None:
    for chunk in chunks:
        view = memoryview(chunk)
        while view:
            view = view[file.write(view) :]


class _Files:
    """An archive's files by cleaned name; links inside the archive are followed."""

    def __init__(self, buffer: memoryview) -> None:
        self._buffer = buffer
        self._entries: dict[str, tar.Entry] = {}
        for entry in tar.entries(buffer):
            name = posixpath.normpath("/" + entry.name.decode("utf-8", "surrogateescape"))
            self._entries[name[1:]] = entry

    def has(self, name: str) -> bool:
        return posixpath.normpath(name) in self._entries

    def data(self, name: str) -> memoryview:
        """Return a file's bytes.

        Raises:
            InvalidInputError: it is not in the archive or no file.
        """
        path = posixpath.normpath(name)
        for _ in range(8):
            entry = self._entries.get(path)
            if entry is None or entry.holes is not None:
                break
            link = entry.link.decode("utf-8", "surrogateescape")
            if entry.kind == tar.SYMLINK:
                path = posixpath.normpath(posixpath.join(posixpath.dirname(path), link))
            elif entry.kind == tar.HARDLINK:
                path = posixpath.normpath(link)
            elif entry.kind == tar.REGULAR:
                return self._buffer[entry.data : entry.data + entry.size]
            else:
                break
        raise InvalidInputError(f"invalid archive: open {name}: no such file or directory")

    def json(self, name: str) -> object:
        data = self.data(name)
        if len(data) > _JSON_MAX:
            raise InvalidInputError(f"invalid archive: {name} is too big")
        try:
            return json.loads(bytes(data))
        except ValueError as error:
            raise InvalidInputError(f"invalid archive: {name}: {error}") from None

    def blob(self, digest: object) -> memoryview:
        """Return a blob of the layout, verified where it is small enough to be JSON."""
        text = digests.check(digest)
        data = self.data(f"blobs/sha256/{text[7:]}")
        if len(data) <= _JSON_MAX and digests.of(bytes(data)) != text:
            raise InvalidInputError(f"invalid archive: blob {text} has another digest")
        return data


class _Loader:
    def __init__(self, store: ImageStore, files: _Files, wanted: Sequence[platform.Platform]) -> None:
        self._store = store
        self._files = files
        self._wanted = wanted
        self._done: list[tuple[Image, list[str]]] = []

    def run(self) -> list[tuple[Image, list[str]]]:
        if self._files.has("manifest.json"):
            self._docker_archive()
        elif self._files.has("index.json"):
            index = _object(self._files.json("index.json"), "index.json")
            self._index(index, "", 0)
        else:
            raise InvalidInputError("invalid archive: does not contain a manifest.json or an index.json")
        if not self._done:
            raise InvalidInputError("invalid archive: no image for the requested platform")
        return self._done

    def _docker_archive(self) -> None:
        items = self._files.json("manifest.json")
        if not isinstance(items, list):
            raise InvalidInputError("invalid archive: manifest.json: not a list")
        for item in items:
            item = _object(item, "manifest.json")
            layers, tags = item.get("Layers") or [], item.get("RepoTags") or []
            if not isinstance(item.get("Config"), str) or not _strings(layers) or not _strings(tags):
                raise InvalidInputError("invalid archive: manifest.json")
            references = [parse(tag) for tag in tags]
            raw = bytes(self._files.data(item["Config"]))
            if self._fits(check_config(raw)):
                parts = [self._files.data(name) for name in layers]
                self._add(raw, parts, references)

    def _index(self, index: Json, name: str, depth: int) -> None:
        manifests = index.get("manifests")
        if not isinstance(manifests, list) or depth > _NESTING_MAX:
            raise InvalidInputError("invalid archive: index")
        entries = [_object(m, "index") for m in manifests]
        # An index below another is one image for several platforms: one of them is taken.
        for entry in self._chosen(entries) if depth else entries:
            notes = entry.get("annotations") or {}
            named = notes.get("io.containerd.image.name") or notes.get("org.opencontainers.image.ref.name")
            inner = named if isinstance(named, str) else name
            kind = entry.get("mediaType")
            content = _object(_parsed(self._files.blob(entry.get("digest"))), "manifest")
            if kind in media.INDEXES or "manifests" in content:
                self._index(content, inner, depth + 1)
            elif kind in media.MANIFESTS or "config" in content:
                self._manifest(content, inner)
            else:
                raise InvalidInputError(f"invalid archive: media type {kind!r}")

    def _chosen(self, entries: list[Json]) -> list[Json]:
        known = [e for e in entries if isinstance(e.get("platform"), dict)]
        if not known:
            return entries
        chosen = []
        for wanted in self._wanted or [platform.host()]:
            fitting = [e for e in known if platform.fits(platform.of_config(e["platform"]), wanted)]
            chosen += fitting[:1]
        return chosen

    def _manifest(self, manifest: Json, name: str) -> None:
        config = _object(manifest.get("config"), "manifest")
        if config.get("mediaType") not in media.CONFIGS:
            # Attestations and other artefacts lie in layouts too; they are no images.
            return
        raw = bytes(self._files.blob(config.get("digest")))
        if not self._fits(check_config(raw)):
            return
        layers = [_object(layer, "manifest") for layer in manifest.get("layers") or []]
        parts = [self._files.blob(layer.get("digest")) for layer in layers]
        self._add(raw, parts, [_named(name)] if name else [])

    def _fits(self, config: Json) -> bool:
        found = platform.of_config(config)
        return not self._wanted or any(platform.fits(found, w) for w in self._wanted)

    def _add(self, raw: bytes, parts: Sequence[memoryview], references: Sequence[Reference]) -> None:
        diff_ids = check_config(raw)["rootfs"]["diff_ids"]
        if len(diff_ids) != len(parts):
            raise InvalidInputError(
                f"invalid manifest, layers length mismatch: expected {len(parts)}, got {len(diff_ids)}"
            )
        store = self._store
        with store.lease() as lease:
            parent = ""
            chain = digests.chain_ids(diff_ids)
            for diff_id, layer, part in zip(diff_ids, chain, parts, strict=True):
                lease.hold_blob(diff_id)
                lease.hold_chain(layer)
                if not (store.layers.has(layer) and store.content.has(diff_id)):
                    store.add_layer(lease, parent, pieces(part), diff_id)
                parent = layer
            image = store.register(raw)
        names = []
        for reference in references:
            names.append(store.tag(image.id, reference.name, reference.tag))
        store.publish("load", image.id, names[0] if names else image.id)
        self._done.append((store.resolve(image.id), names))


def messages(loaded: Iterable[tuple[Image, list[str]]]) -> Iterator[Json]:
    """Yield the lines that tell a user what was loaded."""
    for image, names in loaded:
        for name in names:
            yield {"stream": f"Loaded image: {name}\n"}
        if not names:
            yield {"stream": f"Loaded image ID: {image.id}\n"}


def _named(text: str) -> Reference:
    try:
        return parse(text)._replace(digest="").with_default_tag()
    except BarqueError:
        raise InvalidInputError(f"invalid archive: image name {text!r}") from None


def _parsed(data: memoryview) -> object:
    if len(data) > _JSON_MAX:
        raise InvalidInputError("invalid archive: a manifest is too big")
    try:
        return json.loads(bytes(data))
    except ValueError as error:
        raise InvalidInputError(f"invalid archive: {error}") from None


def _object(value: object, where: str) -> Json:
    if not isinstance(value, dict):
        raise InvalidInputError(f"invalid archive: {where}: not an object")
    return value


def _strings(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)
