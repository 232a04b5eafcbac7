"""What a build knows, as the records of a cache that lies elsewhere."""

import asyncio
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from barque.base.errors import InvalidInputError, UnsupportedError
from barque.builder import keys
from barque.builder.caches import format as forms
from barque.builder.caches.definitions import definitions
from barque.builder.caches.format import Item
from barque.builder.caches.imports import Imports
from barque.builder.graph import Layers, Scratch, Source, Vertex
from barque.builder.results import Result
from barque.builder.solver import Session, order
from barque.oci import digest as digests
from barque.oci.manifest import Descriptor
from barque.storage.compression import Form

if TYPE_CHECKING:
    from barque.builder.cache import BuildCache
    from barque.engine.engine import Engine

Json = dict[str, Any]
_COMMON = ("mode", "ignore-error", "compression", "compression-level", "force-compression")
BUCKET_OPTIONS = (
    "bucket", "region", "prefix", "blobs_prefix", "manifests_prefix", "name", "endpoint_url", "use_path_style",
    "access_key_id", "secret_access_key", "session_token", "touch_refresh", "upload_parallelism",
)  # fmt: skip
"""What is said of a cache in a bucket, as BuildKit names it."""
_KNOWN = {
    "inline": ("mode", "ignore-error"),
    "registry": (*_COMMON, "ref", "image-manifest", "oci-mediatypes", "registry.insecure"),
    "gha": (*_COMMON, "url", "url_v2", "token", "scope", "version"),
    "local": (*_COMMON, "dest", "tag", "image-manifest", "oci-mediatypes"),
    "s3": (*_COMMON, *BUCKET_OPTIONS),
}
TITLES = {
    "inline": "exporting cache inline", "registry": "exporting cache to registry",
    "local": "exporting cache to client directory", "gha": "exporting cache to GitHub Actions Cache",
    "s3": "exporting cache to Amazon S3",
}  # fmt: skip


class Wish(NamedTuple):
    """An export of the cache that a client asks for, checked."""

    kind: str
    attributes: dict[str, str]
    whole: bool
    lenient: bool
    form: Form
    image: bool
    oci: bool


class Target(Protocol):
    """Takes one cache."""

    async def layers(self, diff_ids: list[str], form: Form) -> dict[str, Descriptor]:
        """Take layers, compressed as the form says; return what each is as a blob."""
        ...

    async def finish(self, config: tuple[bytes, Descriptor], manifest: tuple[bytes, str]) -> None:
        """Take the config and the manifest, with its media type."""
        ...


def wish_of(kind: str, attributes: dict[str, str]) -> Wish:
    """Return what a client's `--cache-to` means.

    Raises:
        UnsupportedError: such a cache, or an option, is not supported.
        InvalidInputError: an option's value is wrong.
    """
    if kind not in _KNOWN:
        raise UnsupportedError(f"exporting the cache (type={kind}) is not supported; use inline, registry, local, gha or s3")
    for key in attributes:
        if key not in _KNOWN[kind]:
            raise UnsupportedError(f"exporting the cache (type={kind}): option {key} is not supported; leave it out")
    mode = attributes.get("mode") or "min"
    if mode not in ("min", "max"):
        raise InvalidInputError(f"unsupported cache export mode {mode!r}: use min or max")
    oci = true_of(attributes, "oci-mediatypes", default=True)
    image = true_of(attributes, "image-manifest", default=oci)
    if image and not oci:
        raise InvalidInputError("image-manifest=true needs oci-mediatypes=true")
    form = form_of(attributes)
    if form.kind == "zstd":
        # There is no other media type that registries and BuildKit agree on.
        oci = True
    return Wish(kind, attributes, mode == "max", true_of(attributes, "ignore-error"), form, image, oci)


def form_of(attributes: dict[str, str], default: str = "gzip") -> Form:
    """Return how layers are to be compressed, by an exporter's options.

    Raises:
        InvalidInputError: an option's value is wrong.
    """
    level = attributes.get("compression-level", "")
    if level and not (level.isascii() and level.isdigit()):
        raise InvalidInputError(f"non-integer value {level} specified for compression-level")
    forced = true_of(attributes, "force-compression")
    return Form(attributes.get("compression") or default, int(level) if level else None, forced).check()


def true_of(attributes: dict[str, str], key: str, *, default: bool = False) -> bool:
    """Return the value of an option that is true or false; without a value it is true.

    Raises:
        InvalidInputError: it is neither.
    """
    if key not in attributes:
        return default
    text = attributes[key].lower()
    if text in ("", "1", "t", "true"):
        return True
    if text in ("0", "f", "false"):
        return False
    raise InvalidInputError(f"non-bool value {attributes[key]} specified for {key}")


async def items_of(
    engine: "Engine", cache: "BuildCache", session: Session, targets: Sequence[Vertex], *, whole: bool
) -> list[Item]:
    """Return the records of a build.

    Args:
        engine: has the layers.
        cache: keeps digests.
        session: the build, all of which is solved.
        targets: what it came to.
        whole: with the results of all steps, else only with those that lie in the outcome.
    """
    steps = list(dict.fromkeys(step for target in targets for step in order(target)))
    results = {
        step: task.result() for step, task in session.tasks.items()
        if task.done() and not task.cancelled() and task.exception() is None
    }  # fmt: skip
    imports: Imports | None = session.options.get("imports")
    made = dict(imports.definitions) if imports is not None else {}
    missing = [step for step in steps if step not in made]
    if missing:
        made = await asyncio.to_thread(
            definitions, steps, results, session.facts, engine.snapshots, keys.Digests(cache)
        )
    outcome = {prefix for target in targets for prefix in _prefixes(results.get(target))}
    found: dict[str, Item] = {}
    for step in steps:
        layers, created_ns = await _layers_of(step, made.get(step), results, imports, whole=whole)
        if layers is not None and not whole and layers not in outcome:
            layers = None
        inputs = tuple(dict.fromkeys(f"sha256:{made[one]}" for one in step.inputs if made.get(one)))
        if isinstance(step, Source | Layers | Scratch):
            layers = None
        for key in _keys(step, made.get(step), session, content=layers is not None):
            found[key] = Item(key, layers, created_ns, tuple(one for one in inputs if one in found and one != key))
    return list(found.values())


def _keys(step: Vertex, definition: str | None, session: Session, *, content: bool) -> list[str]:
    listed = [f"sha256:{definition}"] if definition else []
    facts = session.facts.get(step)
    if facts is not None and content:
        listed.append(f"sha256:{keys.key_of(facts)}")
    return listed


async def _layers_of(
    step: Vertex, definition: str | None, results: dict[Vertex, Result], imports: Imports | None, *, whole: bool
) -> tuple[tuple[str, ...] | None, int]:
    result = results.get(step)
    if result is not None:
        return (None, 0) if result.tree is not None else (tuple(diff for _, diff in result.layers), result.created_ns)
    found = imports.find(definition) if imports is not None else None
    # What a cache knew and this build did not need goes on to the next cache.
    if found is not None and imports is not None and whole and await imports.fetch(found):
        return found.stored.diff_ids, found.stored.created_ns
    return None, 0


def _prefixes(result: Result | None) -> Iterable[tuple[str, ...]]:
    layers = tuple(diff for _, diff in result.layers) if result is not None and result.tree is None else ()
    return [layers[:count] for count in range(len(layers) + 1)]


async def send(items: Sequence[Item], target: Target, wish: Wish, step: Any) -> dict[str, str]:
    """Bring a cache to where it is wanted; return what the client is told of it.

    Args:
        items: its records.
        target: takes it.
        wish: in which form.
        step: shows how far it is.

    Raises:
        BarqueError: the target refuses.
    """
    with step.part("preparing build cache for export"):
        diff_ids = list(dict.fromkeys(diff for item in items for diff in item.layers or ()))
    with step.part(f"writing {len(diff_ids)} layers"):
        blobs = await target.layers(diff_ids, wish.form)
    raw, blob = forms.encoded(forms.config(items, blobs, annotated=wish.kind in ("gha", "s3")))
    manifest, kind = forms.manifest(blob, [(one, blobs[one]) for one in diff_ids], image=wish.image, oci=wish.oci)
    digest = digests.of(manifest)
    with step.part(f"writing config {blob.digest}"), step.part(f"writing cache manifest {digest}"):
        await target.finish((raw, blob), (manifest, kind))
    described = {"mediaType": kind, "digest": digest, "size": len(manifest)}
    return {"cache.manifest": forms.text(described)}
