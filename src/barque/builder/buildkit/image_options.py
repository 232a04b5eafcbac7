"""The options of the exporters that make images: image, docker and oci."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from barque.base.errors import InvalidInputError, UnsupportedError
from barque.builder.caches.exports import form_of, true_of
from barque.oci import platform as platforms
from barque.oci.reference import Reference, parse
from barque.storage.compression import GZIP, UNCOMPRESSED, ZSTD, Form

if TYPE_CHECKING:
    from barque.builder.buildkit.attestations import Predicate

_ANNOTATION = re.compile(r"annotation(?:-([a-z-]+))?(?:\[([A-Za-z0-9_/-]+)\])?\.(\S+)")
MANIFEST, MANIFEST_DESCRIPTOR = "manifest", "manifest-descriptor"
INDEX, INDEX_DESCRIPTOR = "index", "index-descriptor"
_FORM = ("oci-mediatypes", "compression", "compression-level", "force-compression", "rewrite-timestamp",
         "source-date-epoch", "name-canonical", "dangling-name-prefix")  # fmt: skip
_KNOWN = {
    "image": ("name", "push", "unpack", "store", "load", "push-by-digest", "registry.insecure", *_FORM),
    "oci": ("name", "dest", "tar", *_FORM),
    "docker": ("name", "dest", "tar", *_FORM),
}


@dataclass(frozen=True, slots=True)
class ImageOptions:
    """What an image exporter is asked to do; `epoch_ns`: files of the new layers are no younger than this.

    `chosen`: something of the image's form is, so the engine's usual one is not taken.
    """

    names: tuple[Reference, ...] = ()
    push: bool = False
    by_digest: bool = False
    insecure: bool = False
    store: bool = True
    canonical: bool = False
    dangling: str = ""
    tar: bool = True
    oci: bool = False
    form: Form = field(default_factory=Form)
    annotations: tuple[tuple[str, platforms.Platform | None, str, str], ...] = ()
    rewrite: bool = False
    epoch_ns: int | None = None
    chosen: bool = False
    predicates: "Mapping[str, Sequence[Predicate]]" = field(default_factory=dict)
    """What is said of images beside them, by the images' ids."""

    def annotated(self, kind: str, platform: platforms.Platform | None = None) -> dict[str, str]:
        """Return the annotations of one kind, for a platform's image."""
        return {
            key: value for what, of, key, value in self.annotations
            if what == kind and (of is None or platform is None or platforms.fits(platform, of))
        }  # fmt: skip


def image_options(attributes: Mapping[str, str], kind: str) -> ImageOptions:
    """Return an exporter's options.

    Raises:
        UnsupportedError: one is not known.
        InvalidInputError: one's value is wrong, or goes not together with another.
    """
    given = dict(attributes)
    annotations = tuple(_annotation(key, given.pop(key)) for key in list(given) if key.startswith("annotation"))
    for key, value in given.items():
        if key not in _KNOWN[kind]:
            raise UnsupportedError(f"exporter {kind}: option {key}={value} is not supported; leave it out")
    form = form_of(given, GZIP if kind == "image" else UNCOMPRESSED)
    oci = true_of(given, "oci-mediatypes", default=kind != "image" or bool(annotations))
    epoch = given.get("source-date-epoch", "")
    if epoch and not (epoch.isascii() and epoch.isdigit()):
        raise InvalidInputError(f"invalid source-date-epoch: {epoch}")
    found = ImageOptions(
        push=true_of(given, "push"), by_digest=true_of(given, "push-by-digest"),
        insecure=true_of(given, "registry.insecure"), store=true_of(given, "store", default=True),
        canonical=true_of(given, "name-canonical"), dangling=given.get("dangling-name-prefix", ""),
        tar=true_of(given, "tar", default=True),
        # Docker's manifests have neither annotations nor layers of zstd.
        oci=oci or bool(annotations) or form.kind == ZSTD,
        form=form, annotations=annotations, rewrite=true_of(given, "rewrite-timestamp"),
        epoch_ns=int(epoch) * 1_000_000_000 if epoch else None,
        names=_names(given.get("name", ""), bare=true_of(given, "push-by-digest")),
        chosen=bool(annotations) or any(key in given for key in (
            "compression", "compression-level", "force-compression", "oci-mediatypes", "push-by-digest",
            "registry.insecure", "name-canonical", "dangling-name-prefix")) or not true_of(given, "tar", default=True)
        or not true_of(given, "store", default=True),
    )  # fmt: skip
    _check(found, kind)
    return found


def _check(options: ImageOptions, kind: str) -> None:
    if kind != "image":
        return
    if options.push and not options.names:
        raise InvalidInputError("tag is needed when pushing to registry")
    if options.push:
        return
    if options.form != Form():
        raise UnsupportedError("exporter image: the engine keeps layers as they are, uncompressed; compression= needs push=true")
    for name, given in (("push-by-digest", options.by_digest), ("registry.insecure", options.insecure), ("store=false", not options.store)):
        if given:
            raise InvalidInputError(f"exporter image: {name} means something only with push=true")


def _names(text: str, *, bare: bool) -> tuple[Reference, ...]:
    found = tuple(parse(one.strip()) for one in text.split(",") if one.strip())
    if not bare:
        return tuple(one.with_default_tag() for one in found)
    for one in found:
        if one.tag:
            raise InvalidInputError(f"can't push tagged ref {one} by digest")
    return found


def _annotation(key: str, value: str) -> tuple[str, platforms.Platform | None, str, str]:
    match = _ANNOTATION.fullmatch(key)
    if match is None:
        raise InvalidInputError(f"could not fully parse annotation {key}")
    kind, platform, name = match[1] or MANIFEST, match[2], match[3]
    if kind not in (MANIFEST, MANIFEST_DESCRIPTOR, INDEX, INDEX_DESCRIPTOR):
        raise InvalidInputError(f"unrecognized annotation type {kind}")
    return kind, platforms.parse(platform) if platform else None, name, value
