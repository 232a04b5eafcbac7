"""Loading archives: Docker's (manifest.json) and OCI layouts (index.json), in one pass.

An archive says only at its end what is in it. Layers are stored under the digest of their plain bytes as
they come, small files are kept in memory, and once all is read the images are put together.
"""

import hashlib
import json
import posixpath
from collections.abc import Callable, Iterable, Iterator, Sequence

from barque.base.errors import BarqueError, InvalidInputError
from barque.base.ids import short
from barque.images.leases import Lease
from barque.images.model import Image, Json, check_config
from barque.images.store import ImageStore
from barque.oci import digest as digests, media, platform
from barque.oci.manifest import LAYERS_MAX
from barque.oci.reference import Reference, parse
from barque.storage.archive import tar
from barque.storage.archive.stream import Member, TarStream
from barque.storage.bounds import bounded, inflated
from barque.storage.compression import is_compressed, plain

Told = Callable[[str, str, int, int], None]
"""Told (layer's short id, step, bytes done, bytes in all)."""

_JSON_MAX = 16 << 20
_SMALL_MAX = 64 << 20
_FILES_MAX = 100_000
_NESTING_MAX = 8
_BLOBS = "blobs/sha256/"


def load(
    store: ImageStore,
    chunks: Iterable[bytes | memoryview],
    platforms: Sequence[str] = (),
    told: Told = lambda *step: None,
) -> list[tuple[Image, list[str]]]:
    """Load all images of an archive; return each with the familiar names it got.

    Args:
        store: takes the images.
        chunks: the archive, perhaps compressed.
        platforms: load images for these alone.
        told: is told how far layers are.

    Raises:
        InvalidInputError: the archive is broken, or has no image of the wanted platforms.
        OSError: the disk is full or read-only; images that were whole before that stay.
    """
    wanted = [platform.parse(p) for p in platforms]
    with store.lease() as lease:
        files = _Files(store, lease, told)
        files.read(TarStream(inflated(chunks, store.content.folder)))
        return _Loader(store, lease, files, wanted, told).run()


class _Files:
    """An archive's files by cleaned name; links inside the archive are followed."""

    def __init__(self, store: ImageStore, lease: Lease, told: Told) -> None:
        self._content = store.content
        self._lease = lease
        self._told = told
        self._small: dict[str, bytes] = {}
        self._layers: dict[str, str] = {}
        self._links: dict[str, str] = {}
        self._bytes = 0

    def read(self, stream: TarStream) -> None:
        """Take everything in."""
        for count, member in enumerate(stream.members(), 1):
            if count > _FILES_MAX:
                raise InvalidInputError(f"invalid archive: more than {_FILES_MAX} files")
            name = posixpath.normpath("/" + member.name.decode("utf-8", "surrogateescape"))[1:]
            if member.kind == tar.REGULAR:
                self._file(name, member, stream.data())
            elif member.kind in (tar.SYMLINK, tar.HARDLINK):
                link = member.link.decode("utf-8", "surrogateescape")
                if member.kind == tar.SYMLINK:
                    link = posixpath.join(posixpath.dirname(name), link)
                self._links[name] = posixpath.normpath(link)

    def _file(self, name: str, member: Member, data: Iterator[bytes | memoryview]) -> None:
        # A file in the place of a link is the file.
        self._links.pop(name, None)
        first = next(data, b"")
        head = bytes(first[:16]).lstrip()
        if member.size <= _JSON_MAX and (head[:1] in (b"{", b"[", b"") or member.size < tar.BLOCK):
            self._bytes += member.size
            if self._bytes > _SMALL_MAX:
                raise InvalidInputError("invalid archive: its small files are too big")
            self._small[name] = b"".join((bytes(first), *map(bytes, data)))
            return
        self._layers[name] = self._layer(name, member, first, data)

    def _layer(self, name: str, member: Member, first: bytes | memoryview, data: Iterator[bytes | memoryview]) -> str:
        named = "sha256:" + name.removeprefix(_BLOBS) if name.startswith(_BLOBS) else ""
        if named and not is_compressed(first):
            self._lease.hold_blob(digests.check(named))
            if self._content.has(named):
                return named
        shown = short(named or name.partition("/")[0])
        counted = self._counted(shown, member.size, first, data)
        if named and is_compressed(first):
            counted = _verified(counted, named)
            named = ""
        tar = plain(counted)
        if is_compressed(first):
            tar = bounded(tar, member.size, self._content.folder)
        blob = self._content.ingest(tar, named, durable=False)
        self._lease.hold_blob(blob.digest)
        return blob.digest

    def _counted(
        self, shown: str, total: int, first: bytes | memoryview, data: Iterator[bytes | memoryview]
    ) -> Iterator[bytes | memoryview]:
        done = len(first)
        yield first
        for chunk in data:
            done += len(chunk)
            self._told(shown, "Loading layer", done, total)
            yield chunk

    def has(self, name: str) -> bool:
        path = posixpath.normpath(name)
        return path in self._small or path in self._layers or path in self._links

    def _resolved(self, name: str) -> str:
        path = posixpath.normpath(name)
        for _ in range(8):
            if path not in self._links:
                return path
            path = self._links[path]
        raise InvalidInputError(f"invalid archive: open {name}: too many levels of symbolic links")

    def small(self, name: str) -> bytes:
        """Return a small file's bytes.

        Raises:
            InvalidInputError: it is not in the archive, or is none.
        """
        path = self._resolved(name)
        if path not in self._small:
            raise InvalidInputError(f"invalid archive: open {name}: no such file or directory")
        return self._small[path]

    def layer(self, name: str) -> str:
        """Return the diffID of a layer's file.

        Raises:
            InvalidInputError: it is not in the archive.
        """
        path = self._resolved(name)
        if path in self._layers:
            return self._layers[path]
        # A layer may be so small, or look so much like something else, that it was kept in memory.
        return self._content.ingest(plain([self.small(name)])).digest

    def json(self, name: str) -> object:
        try:
            return json.loads(self.small(name))
        except (ValueError, RecursionError) as error:
            raise InvalidInputError(f"invalid archive: {name}: {error}") from None

    def blob(self, digest: object) -> bytes:
        """Return a small blob of the layout, verified."""
        text = digests.check(digest)
        data = self.small(f"{_BLOBS}{text[7:]}")
        if digests.of(data) != text:
            raise InvalidInputError(f"invalid archive: blob {text} has another digest")
        return data

    def blob_layer(self, digest: object) -> str:
        """Return the diffID of a layer of the layout."""
        text = digests.check(digest)
        path = f"{_BLOBS}{text[7:]}"
        if self._resolved(path) in self._small:
            self.blob(digest)
        return self.layer(path)


def _verified(chunks: Iterator[bytes | memoryview], digest: str) -> Iterator[bytes | memoryview]:
    hasher = hashlib.sha256()
    for chunk in chunks:
        hasher.update(chunk)
        yield chunk
    if "sha256:" + hasher.hexdigest() != digest:
        raise InvalidInputError(f"invalid archive: blob {digest} has another digest")


class _Loader:
    def __init__(
        self, store: ImageStore, lease: Lease, files: _Files, wanted: Sequence[platform.Platform], told: Told
    ) -> None:
        self._store = store
        self._lease = lease
        self._files = files
        self._wanted = wanted
        self._told = told
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
            raw = self._files.small(item["Config"])
            if self._fits(check_config(raw)):
                _check_count(layers)
                self._add(raw, [self._files.layer(name) for name in layers], references)

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
        raw = self._files.blob(config.get("digest"))
        if not self._fits(check_config(raw)):
            return
        layers = [_object(layer, "manifest") for layer in manifest.get("layers") or []]
        _check_count(layers)
        found = [self._files.blob_layer(layer.get("digest")) for layer in layers]
        self._add(raw, found, [_named(name)] if name else [])

    def _fits(self, config: Json) -> bool:
        found = platform.of_config(config)
        return not self._wanted or any(platform.fits(found, w) for w in self._wanted)

    def _add(self, raw: bytes, layers: Sequence[str], references: Sequence[Reference]) -> None:
        diff_ids: list[str] = check_config(raw)["rootfs"]["diff_ids"]
        if len(diff_ids) != len(layers):
            raise InvalidInputError(
                f"invalid manifest, layers length mismatch: expected {len(layers)}, got {len(diff_ids)}"
            )
        store, parent = self._store, ""
        for diff_id, layer in zip(diff_ids, layers, strict=True):
            if diff_id != layer:
                raise InvalidInputError(f"unexpected digest: got {layer}, wanted {diff_id}")
            size = store.content.size(diff_id)
            chain = digests.of(f"{parent} {diff_id}".encode()) if parent else diff_id
            if not store.layers.has(chain):
                self._told(short(diff_id), "Extracting layer", 0, size)
            parent = store.layers.unpack(self._lease, parent, diff_id)
            self._told(short(diff_id), "Layer loaded", size, size)
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


def _check_count(layers: Sequence[object]) -> None:
    if len(layers) > LAYERS_MAX:
        raise InvalidInputError(f"max depth exceeded: the image has {len(layers)} layers, at most {LAYERS_MAX} fit")


def _parsed(data: bytes) -> object:
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"invalid archive: {error}") from None


def _object(value: object, where: str) -> Json:
    if not isinstance(value, dict):
        raise InvalidInputError(f"invalid archive: {where}: not an object")
    return value


def _strings(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)
