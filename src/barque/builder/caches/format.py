"""BuildKit's form of a cache that lies elsewhere: layers, and records that say which step made which.

A cache is a manifest of layers with a config of the type CONFIG_TYPE; its layers are a forest (`parent`),
its records refer to them and to the records of their inputs by number. In an image the records alone
lie in the config, base64 of JSON, and the image's own layers are meant.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from barque.base.errors import InvalidInputError
from barque.base.times import format_ns, parse_ns
from barque.oci import digest as digests, media
from barque.oci.manifest import LAYERS_MAX, Descriptor

Json = dict[str, Any]
CONFIG_TYPE = "application/vnd.buildkit.cacheconfig.v0"
INLINE_KEY = "moby.buildkit.cache.v0"
DIFF_ID = "containerd.io/uncompressed"
CONFIG_BYTES_MAX = 64 << 20
_ROWS_MAX = 20_000


class Item(NamedTuple):
    """One record: its digest, the diffIDs of its result (None without one), the digests of its inputs' records."""

    digest: str
    layers: tuple[str, ...] | None
    created_ns: int
    inputs: tuple[str, ...] = ()


class Stored(NamedTuple):
    """A result: its layers, lowest first, each with its diffID as an annotation; when it was made, 0: not told."""

    layers: tuple[Descriptor, ...]
    created_ns: int = 0

    @property
    def diff_ids(self) -> tuple[str, ...]:
        """Return the layers' diffIDs, lowest first."""
        return tuple(layer.annotations[DIFF_ID] for layer in self.layers)


Known = dict[str, Stored]
"""Results by their records' digests."""


def config(items: Sequence[Item], blobs: Mapping[str, Descriptor], *, annotated: bool = False) -> Json:
    """Return a cache's config.

    Args:
        items: the records.
        blobs: what each layer is as a blob, by its diffID.
        annotated: write what the blobs are beside them, for stores that keep no manifest.
    """
    numbers: dict[tuple[str, ...], int] = {}
    layers: list[Json] = []
    for item in items:
        for count in range(1, len(item.layers or ()) + 1):
            chain = (item.layers or ())[:count]
            if chain in numbers:
                continue
            numbers[chain] = len(layers)
            blob = blobs[chain[-1]]
            layer: Json = {"blob": blob.digest, "parent": numbers.get(chain[:-1], -1)}
            if annotated:
                layer["annotations"] = {"mediaType": blob.media_type, "diffID": chain[-1], "size": blob.size,
                                        "createdAt": format_ns(item.created_ns)}  # fmt: skip
            layers.append(layer)
    return {"layers": layers, "records": _records(items, numbers)}


def inline(items: Sequence[Item], layers: Sequence[str]) -> bytes:
    """Return the records that an image's config holds.

    Args:
        items: records; of those whose result is not among the image's layers the result is left out.
        layers: the image's diffIDs.
    """
    whole = tuple(layers)
    numbers = {whole[:count]: count - 1 for count in range(1, len(whole) + 1)}
    kept = [item if item.layers is None or item.layers in numbers or item.layers == () else item._replace(layers=None)
            for item in items]  # fmt: skip
    return _bytes(_records(kept, numbers))


def _records(items: Sequence[Item], numbers: Mapping[tuple[str, ...], int]) -> list[Json]:
    index = {item.digest: number for number, item in enumerate(items)}
    records = []
    for item in items:
        record: Json = {}
        created = format_ns(item.created_ns) if item.created_ns else ""
        if item.layers:
            record["layers"] = [{"layer": numbers[item.layers], **({"createdAt": created} if created else {})}]
        elif item.layers is not None:
            record["chains"] = [{"layers": [], **({"createdAt": created} if created else {})}]
        record["digest"] = item.digest
        if item.inputs:
            record["inputs"] = [[{"link": index[one]}] for one in item.inputs]
        records.append(record)
    return records


def manifest(config_blob: Descriptor, layers: Iterable[tuple[str, Descriptor]], *, image: bool, oci: bool) -> tuple[bytes, str]:
    """Return a cache's manifest and its media type.

    Args:
        config_blob: the config.
        layers: diffIDs and blobs.
        image: an image's manifest, else an index that lists blobs.
        oci: with OCI's media types, else Docker's.
    """
    entries = [
        {**blob._replace(media_type=media.layer_as(blob.media_type, oci=oci)).as_json(), "annotations": {DIFF_ID: diff_id}}
        for diff_id, blob in layers
    ]
    kind = (media.OCI_MANIFEST if image else media.OCI_INDEX) if oci else media.DOCKER_LIST
    value: Json = {"schemaVersion": 2, "mediaType": kind}
    if image:
        value |= {"config": config_blob.as_json(), "layers": entries}
    else:
        value["manifests"] = [*entries, config_blob.as_json()]
    return _bytes(value), kind


def split(value: Json) -> tuple[Descriptor | None, list[Descriptor]]:
    """Return the config and the layers of a cache's manifest; no config where it is none of a cache.

    Raises:
        InvalidInputError: it is broken.
    """
    listed = value.get("manifests") if "manifests" in value else value.get("layers")
    found = [_blob(one) for one in _list(listed)]
    if "manifests" not in value:
        found.append(_blob(value.get("config")))
    chosen = [one for one in found if one.media_type == CONFIG_TYPE]
    return (chosen[0] if chosen else None), [one for one in found if one.media_type != CONFIG_TYPE]


def results(value: Json, blobs: Iterable[Descriptor]) -> Known:
    """Return the results of a cache's records.

    Args:
        value: the cache's config.
        blobs: the layers that its manifest lists, or none where the config says itself what they are.

    Raises:
        InvalidInputError: it is broken.
    """
    known = {blob.digest: blob for blob in blobs}
    rows = _list(value.get("layers"))
    chains: list[tuple[Descriptor, ...] | None] = [None] * len(rows)
    parents = [_index(row.get("parent", 0), len(rows), lowest=-1) for row in map(_object, rows)]

    def chain(number: int) -> tuple[Descriptor, ...]:
        path: list[int] = []
        at = number
        while at >= 0 and chains[at] is None:
            path.append(at)
            if len(path) > LAYERS_MAX:
                raise InvalidInputError("the cache's layers lie too deep, or in a circle")
            at = parents[at]
        found = chains[at] if at >= 0 else ()
        for step in reversed(path):
            found = (*(found or ()), _layer(rows[step], known))
            chains[step] = found
        return found or ()

    return {
        digest: Stored(chain(number) if number >= 0 else (), made) for digest, number, made in _results(value, len(rows))
    }


def inline_results(raw: bytes, layers: Sequence[Descriptor]) -> Known:
    """Return the results of the records that an image's config holds.

    Args:
        raw: the records.
        layers: the image's layers, each with its diffID.

    Raises:
        InvalidInputError: they are broken.
    """
    value = {"records": _parsed(raw)}
    return {
        digest: Stored(tuple(layers[: number + 1]), made) for digest, number, made in _results(value, len(layers))
    }


def parsed(raw: bytes) -> Json:
    """Return a JSON object.

    Raises:
        InvalidInputError: it is none.
    """
    return _object(_parsed(raw))


def text(value: Json) -> str:
    """Return an object as JSON without spaces."""
    return _bytes(value).decode()


def encoded(value: Json) -> tuple[bytes, Descriptor]:
    """Return a config's bytes and what they are as a blob."""
    raw = _bytes(value)
    return raw, Descriptor(CONFIG_TYPE, digests.of(raw), len(raw))


def _results(value: Json, count: int) -> Iterator[tuple[str, int, int]]:
    """Yield a record's digest, the number of its top layer (-1: a result without layers), when it was made."""
    for record in map(_object, _list(value.get("records"))):
        digest = record.get("digest")
        for result in map(_object, _list(record.get("layers"))[:1]):
            yield digests.check(digest), _index(result.get("layer"), count, lowest=0), _time(result)
        for chain in map(_object, _list(record.get("chains"))[:1]):
            if not _list(chain.get("layers")):
                yield digests.check(digest), -1, _time(chain)


def _time(value: Json) -> int:
    try:
        return parse_ns(value.get("createdAt") or "")
    except (ValueError, TypeError):
        return 0


def _layer(row: Json, known: Mapping[str, Descriptor]) -> Descriptor:
    digest = digests.check(row.get("blob"))
    found = known.get(digest)
    said = row.get("annotations")
    if found is None and isinstance(said, dict):
        found = _blob({"mediaType": said.get("mediaType", ""), "digest": digest, "size": said.get("size")})
        found = found._replace(annotations={DIFF_ID: digests.check(said.get("diffID"))})
    if found is None:
        raise InvalidInputError(f"the cache names the layer {digest}, which its manifest does not list")
    digests.check(found.annotations.get(DIFF_ID))
    return found


def _blob(value: object) -> Descriptor:
    found = _object(value)
    kind, size, annotations = found.get("mediaType", ""), found.get("size"), found.get("annotations") or {}
    if not isinstance(kind, str) or not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise InvalidInputError("the cache's manifest is broken: mediaType or size")
    if not isinstance(annotations, dict):
        raise InvalidInputError("the cache's manifest is broken: annotations")
    texts = {key: text for key, text in annotations.items() if isinstance(text, str)}
    return Descriptor(kind, digests.check(found.get("digest")), size, annotations=texts)


def _index(value: object, count: int, *, lowest: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not lowest <= value < count:
        raise InvalidInputError(f"the cache's config is broken: there is no layer {value}")
    return value


def _object(value: object) -> Json:
    if not isinstance(value, dict):
        raise InvalidInputError("the cache is broken: an object is missing")
    return value


def _list(value: object) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise InvalidInputError("the cache is broken: a list is missing")
    if len(value) > _ROWS_MAX:
        raise InvalidInputError(f"the cache is too large: a list has {len(value)} entries, at most {_ROWS_MAX} are read")
    return value


def _parsed(raw: bytes) -> Any:
    if len(raw) > CONFIG_BYTES_MAX:
        raise InvalidInputError(f"the cache's config is larger than {CONFIG_BYTES_MAX >> 20} MiB")
    try:
        return json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"the cache is no JSON: {error}") from None


def _bytes(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
