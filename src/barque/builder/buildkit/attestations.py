"""Attestations: what a client asks for, and the statements and manifests that carry them beside an image.

They are stored as BuildKit stores them: an index names the image's manifest, and one more manifest of an unknown
platform whose layers are in-toto statements and whose annotations say which manifest they speak of. The engine's
image store keeps none, as Docker's own keeps none; they go to registries, OCI archives, folders and tars.
"""

import hashlib
import json
import posixpath
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import quote

from barque.base.errors import InvalidInputError, UnsupportedError
from barque.builder.buildkit.sending import walked
from barque.builder.trees import FILE, Tree
from barque.oci import digest as digests, media, platform as platforms
from barque.oci.reference import Reference, parse

Json = dict[str, Any]
STATEMENT_TYPE = "application/vnd.in-toto+json"
_UNKNOWN = {"architecture": "unknown", "os": "unknown"}
_DEFAULT = "mode=min,inline-only=true"
_ARGUMENT = "build-arg:BUILDKIT_ATTEST_"
_SCANNER = "docker/buildkit-syft-scanner:stable-1"
SBOM, PROVENANCE = "sbom", "provenance"
_PROVENANCE_FIELDS = ("mode", "inline-only", "version", "builder-id", "filename", "reproducible", "disabled")


class Predicate(NamedTuple):
    """What is said of an image: the kind of statement, its content, the file that it is written to elsewhere."""

    kind: str
    content: Any
    file: str
    inline_only: bool = False
    statement: str = "https://in-toto.io/Statement/v0.1"


class Attested(NamedTuple):
    """A manifest of statements: its bytes, what its descriptor says, and the blobs that it needs."""

    raw: bytes
    said: Json
    blobs: tuple[bytes, ...]


def wishes(options: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Return the attestations that a client asks for, with their parameters.

    The request that clients make of their own accord counts as none: it wants provenance only where it lies beside
    an image anyway, and the engine's images have nothing beside them unless somebody asks for it.

    Raises:
        InvalidInputError: a kind is unknown, or a value is wrong.
        UnsupportedError: a parameter is not known.
    """
    texts = {key.removeprefix("attest:").lower(): value for key, value in options.items() if key.startswith("attest:")}
    for key, value in options.items():
        if key.startswith(_ARGUMENT):
            texts[key.removeprefix(_ARGUMENT).lower()] = value
    found: dict[str, dict[str, str]] = {}
    for kind, text in texts.items():
        if kind not in (SBOM, PROVENANCE):
            raise InvalidInputError(f'unknown attestation type "{kind}"')
        fields = {"generator": _SCANNER} if kind == SBOM else {"version": "v0.2", "mode": "max"}
        for part in filter(None, text.split(",")):
            name, _, value = part.partition("=")
            if name != "type":
                fields[name] = value
        if text == _DEFAULT or fields.get("disabled", "").lower() in ("1", "t", "true") or text == "false":
            continue
        if kind == PROVENANCE:
            _check_provenance(fields)
        for name in fields if kind == SBOM else ():
            if name not in ("generator", "disabled"):
                raise UnsupportedError(f"sbom: the parameter {name} is not supported; leave it out")
        found[kind] = fields
    return found


def _check_provenance(fields: Mapping[str, str]) -> None:
    for name in fields:
        if name not in _PROVENANCE_FIELDS:
            raise UnsupportedError(f"provenance: the parameter {name} is not supported; leave it out")
    if fields["mode"] not in ("min", "max"):
        raise InvalidInputError(f'invalid provenance mode "{fields["mode"]}": use min or max')
    if fields["version"] not in ("v0.2", "v1"):
        raise InvalidInputError(f"invalid provenance SLSA version: {fields['version']}")


def subjects(names: Sequence[Reference], platform: platforms.Platform, digest: str) -> list[Json]:
    """Return what statements about an image are about: its names as package URLs, with its digest."""
    return [{"name": package_url(str(name), platform), "digest": _digest_set(digest)} for name in names]


def package_url(name: str, platform: platforms.Platform) -> str:
    """Return an image's package URL."""
    found = parse(name).with_default_tag()
    path = "/".join(quote(part, safe="") for part in found.familiar_name.split("/"))
    version = f"@{quote(found.tag, safe='')}" if found.tag else ""
    about = [("digest", found.digest)] if found.digest else []
    about.append(("platform", str(platforms.usual(platform))))
    return f"pkg:docker/{path}{version}?" + "&".join(f"{key}={quote(value, safe=':')}" for key, value in about)


def statement(predicate: Predicate, about: list[Json]) -> Json:
    """Return a statement that says something about its subjects."""
    return {
        "_type": predicate.statement, "predicateType": predicate.kind, "subject": about, "predicate": predicate.content,
    }  # fmt: skip


def manifest(predicates: Sequence[Predicate], about: list[Json], target: str) -> Attested:
    """Return the manifest of statements about an image.

    Args:
        predicates: what is said.
        about: the subjects.
        target: the digest of the image's manifest.
    """
    layers, blobs = [], []
    for predicate in predicates:
        raw = _bytes(statement(predicate, about))
        blobs.append(raw)
        layers.append({
            "mediaType": STATEMENT_TYPE, "digest": digests.of(raw), "size": len(raw),
            "annotations": {"in-toto.io/predicate-type": predicate.kind},
        })  # fmt: skip
    config = _bytes({
        **_UNKNOWN, "config": {}, "rootfs": {"type": "layers", "diff_ids": [layer["digest"] for layer in layers]},
    })  # fmt: skip
    value = {
        "schemaVersion": 2, "mediaType": media.OCI_MANIFEST,
        "config": {"mediaType": media.OCI_CONFIG, "digest": digests.of(config), "size": len(config)}, "layers": layers,
    }  # fmt: skip
    said = {
        "annotations": {"vnd.docker.reference.digest": target, "vnd.docker.reference.type": "attestation-manifest"},
        "platform": dict(_UNKNOWN),
    }  # fmt: skip
    return Attested(_bytes(value), said, (config, *blobs))


def written(predicates: Sequence[Predicate], tree: Tree, suffix: str = "") -> dict[str, bytes]:
    """Return files with statements about all files of a tree; blocking.

    Args:
        predicates: what is said; what may lie only beside an image is left out.
        tree: the files.
        suffix: the platform, where files of several lie in one folder.

    Raises:
        InvalidInputError: two statements would be one file.
    """
    wanted = [one for one in predicates if not one.inline_only]
    if not wanted:
        return {}
    about = []
    for path, node in walked(tree):
        if node.kind != FILE:
            continue
        hashed = hashlib.sha256()
        for chunk in tree.read(path):
            hashed.update(chunk)
        about.append({"name": path, "digest": {"sha256": hashed.hexdigest()}})
    made: dict[str, bytes] = {}
    for one in wanted:
        name, dot, kind = posixpath.basename(one.file).rpartition(".")
        shown = f"{name}.{suffix}{dot}{kind}" if suffix else posixpath.basename(one.file)
        if shown in made:
            raise InvalidInputError(f"duplicate attestation path name {shown}")
        made[shown] = json.dumps(statement(one, about), indent=2).encode()
    return made


def _digest_set(digest: str) -> dict[str, str]:
    algorithm, _, value = digest.partition(":")
    return {algorithm: value}


def _bytes(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
