"""`manifest create`, `annotate`, `inspect`, `push` and `rm`: they speak to registries themselves."""

from __future__ import annotations

import base64
import json
import os
import sys

from barque.base.errors import BarqueError, InvalidInputError, NotFoundError
from barque.cli.connection import config_folder
from barque.cli.credentials import CredentialStore, server_of
from barque.cli.manifest_store import ManifestStore
from barque.distribution.credentials import from_json
from barque.distribution.errors import RegistryError, TransportError
from barque.distribution.registry import Fetched, Repository, connect
from barque.distribution.settings import Settings
from barque.distribution.transport import Calls
from barque.oci import digest as digests, manifest as manifests, media
from barque.oci.reference import Reference, parse

TYPE_CHECKING = False  # the module typing costs every start of the command milliseconds
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from barque.cli.flags import Options

_ARCHITECTURES = {
    "darwin": "386 amd64 arm arm64",
    "dragonfly": "amd64",
    "freebsd": "386 amd64 arm",
    "linux": "386 amd64 arm arm64 ppc64le mips64 mips64le riscv64 s390x",
    "netbsd": "386 amd64 arm",
    "openbsd": "386 amd64 arm",
    "plan9": "386 amd64",
    "solaris": "amd64",
    "windows": "386 amd64",
}
_PLATFORM_KEYS = ("architecture", "os", "os.version", "os.features", "variant")


class _Client:
    """Registries with the user's credentials."""

    def __init__(self, global_options: Options, *, insecure: bool) -> None:
        self._credentials = CredentialStore(config_folder(global_options))
        self._insecure = insecure

    def repository(self, reference: Reference, *, push: bool = False) -> Iterator[Repository]:
        """Yield the repository of a reference at each endpoint that answers."""
        settings = Settings(
            insecure=[reference.domain] if self._insecure else [],
            certificates=["/etc/barque/certs.d", "/etc/docker/certs.d"],
            http_proxy=os.environ.get("HTTP_PROXY") or os.environ.get("http_proxy") or "",
            https_proxy=os.environ.get("HTTPS_PROXY") or os.environ.get("https_proxy") or "",
            no_proxy=os.environ.get("NO_PROXY") or os.environ.get("no_proxy") or "",
        )
        auth = from_json(self._credentials.get(server_of(reference.domain)))
        for registry in connect(settings, reference.domain, auth, Calls(), push=push):
            yield registry.repository(reference.path, domain=reference.domain, push=push)

    def on(self, reference: Reference, act: Callable[[Repository], Any], *, push: bool = False) -> Any:
        """Return what act gives at the first endpoint where it succeeds."""
        last: BarqueError = NotFoundError(f"no such manifest: {reference.familiar}")
        for repository in self.repository(reference, push=push):
            try:
                return act(repository)
            except (RegistryError, TransportError) as error:
                last = error
        if isinstance(last, RegistryError) and last.code in ("MANIFEST_UNKNOWN", "NAME_UNKNOWN"):
            raise NotFoundError(f"no such manifest: {reference.familiar}")
        raise last

    def fetch(self, reference: Reference) -> list[dict[str, Any]] | dict[str, Any]:
        """Return the entry of a manifest, or the entries of an index."""

        def act(repository: Repository) -> list[dict[str, Any]] | dict[str, Any]:
            fetched = repository.manifest(reference.digest or reference.tag)
            parsed = manifests.parse(fetched.raw, fetched.media_type)
            if isinstance(parsed, manifests.Manifest):
                return _entry(repository, reference.familiar, fetched, parsed)
            entries = []
            for listed in json.loads(fetched.raw)["manifests"]:
                inner = repository.manifest(listed["digest"])
                found = manifests.parse(inner.raw, inner.media_type)
                if isinstance(found, manifests.Manifest):
                    made = _entry(repository, f"{reference.familiar}@{inner.digest}", inner, found)
                    made["Descriptor"]["platform"] = listed.get("platform") or made["Descriptor"].get("platform")
                    entries.append(made)
            return entries

        return self.on(reference, act)  # type: ignore[no-any-return]


def _entry(repository: Repository, shown: str, fetched: Fetched, parsed: manifests.Manifest) -> dict[str, Any]:
    descriptor: dict[str, Any] = {
        "mediaType": parsed.media_type,
        "digest": fetched.digest,
        "size": len(fetched.raw),
    }
    try:
        config = json.loads(repository.small_blob(parsed.config))
        descriptor["platform"] = {key: config[key] for key in _PLATFORM_KEYS if config.get(key)}
    except (BarqueError, ValueError, AttributeError):
        # It may be no image; then it runs nowhere.
        pass
    kind = "SchemaV2Manifest" if parsed.media_type == media.DOCKER_MANIFEST else "OCIManifest"
    raw = base64.b64encode(fetched.raw).decode()
    return {"Ref": shown, "Descriptor": descriptor, "Raw": raw, kind: json.loads(fetched.raw)}


def create(words: list[str], options: Options, global_options: Options) -> int:
    """Begin a manifest list, or add to it."""
    store, client = ManifestStore(config_folder(global_options)), _Client(global_options, insecure=options["insecure"])
    try:
        target = parse(words[0]).with_default_tag()
    except InvalidInputError as error:
        raise InvalidInputError(f"error parsing name for manifest list {words[0]}: {error}") from None
    try:
        store.entries(target)
        known = True
    except NotFoundError:
        known = False
    if known and not options["amend"]:
        raise InvalidInputError("refusing to amend an existing manifest list with no --amend flag")
    for word in words[1:]:
        member = parse(word).with_default_tag()
        try:
            entry = store.entry(target, member)
        except NotFoundError:
            found = client.fetch(member)
            if isinstance(found, list):
                raise InvalidInputError(f"{member.familiar} is a manifest list") from None
            entry = found
        store.save(target, member, entry)
    print(f"Created manifest list {target}")
    return 0


def annotate(words: list[str], options: Options, global_options: Options) -> int:
    """Say for which platform an entry of a list is."""
    store = ManifestStore(config_folder(global_options))
    target, member = (parse(word).with_default_tag() for word in words)
    try:
        entry = store.entry(target, member)
    except NotFoundError:
        raise NotFoundError(f"manifest for image {words[1]} does not exist in {words[0]}") from None
    platform = dict(entry["Descriptor"].get("platform") or {})
    for key, flag in (("os", "os"), ("architecture", "arch"), ("variant", "variant"), ("os.version", "os-version")):
        if options[flag]:
            platform[key] = options[flag]
    features = list(platform.get("os.features") or [])
    features += [feature for feature in options["os-features"] if feature not in features]
    if features:
        platform["os.features"] = features
    if platform.get("architecture") not in _ARCHITECTURES.get(str(platform.get("os")), "").split():
        raise InvalidInputError(
            f"manifest entry for image has unsupported os/arch combination: {options['os']}/{options['arch']}"
        )
    entry["Descriptor"]["platform"] = _ordered(platform)
    store.save(target, member, entry)
    return 0


def inspect(words: list[str], options: Options, global_options: Options) -> int:
    """Print a manifest or a manifest list, of the user's own lists or of a registry."""
    store = ManifestStore(config_folder(global_options))
    reference = parse(words[-1]).with_default_tag()
    if len(words) == 2:
        _print(store.entry(parse(words[0]).with_default_tag(), reference), options)
        return 0
    try:
        found: list[dict[str, Any]] | dict[str, Any] = store.entries(reference)
    except NotFoundError:
        found = _Client(global_options, insecure=options["insecure"]).fetch(reference)
    _print(found, options)
    return 0


def _print(found: list[dict[str, Any]] | dict[str, Any], options: Options) -> None:
    if options["verbose"]:
        text = json.dumps(found, indent="\t", ensure_ascii=False)
    elif isinstance(found, list):
        text = _list_of(found).decode()
    else:
        text = json.dumps(json.loads(base64.b64decode(found["Raw"])), indent="\t", ensure_ascii=False)
    print(text)


def _ordered(platform: dict[str, Any]) -> dict[str, Any]:
    return {key: platform[key] for key in _PLATFORM_KEYS if platform.get(key)}


def _list_of(entries: list[dict[str, Any]]) -> bytes:
    rows: list[dict[str, object]] = []
    kinds = set()
    for entry in entries:
        descriptor = entry["Descriptor"]
        kinds.add(descriptor["mediaType"])
        row: dict[str, object] = {key: descriptor[key] for key in ("mediaType", "size", "digest")}
        row["platform"] = _ordered(descriptor.get("platform") or {})
        rows.append(row)
    if kinds == {media.OCI_MANIFEST}:
        value = {"schemaVersion": 2, "mediaType": media.OCI_INDEX, "manifests": rows}
        return json.dumps(value, indent=3, ensure_ascii=False).encode()
    return manifests.docker_list(rows)


def push(words: list[str], options: Options, global_options: Options) -> int:
    """Send a manifest list, and entries that its repository does not have."""
    store = ManifestStore(config_folder(global_options))
    target = parse(words[0]).with_default_tag()
    entries = store.entries(target)
    for entry in entries:
        _check_member(entry, target)
    client = _Client(global_options, insecure=options["insecure"])

    def act(repository: Repository) -> str:
        for entry in entries:
            _bring(repository, entry, target)
        raw = _list_of(entries)
        kind = json.loads(raw)["mediaType"]
        return repository.put_manifest(target.tag or target.digest, raw, kind)

    print(client.on(target, act, push=True))
    if options["purge"]:
        store.remove(target)
    return 0


def _check_member(entry: dict[str, Any], target: Reference) -> None:
    platform = entry["Descriptor"].get("platform") or {}
    if not platform.get("architecture") or not platform.get("os"):
        raise InvalidInputError(f"manifest {entry['Ref']} must have an OS and Architecture to be pushed to a registry")
    domain = parse(entry["Ref"]).domain
    if domain != target.domain:
        raise InvalidInputError(
            f"cannot use source images from a different registry than the target image: {domain} != {target.domain}"
        )


def _bring(repository: Repository, entry: dict[str, Any], target: Reference) -> None:
    source = parse(entry["Ref"])
    if source.path == target.path:
        return
    raw = base64.b64decode(entry["Raw"])
    digest = entry["Descriptor"]["digest"]
    if digests.of(raw) != digest:
        raise InvalidInputError(
            f"internal digest mismatch for {entry['Ref']}: expected {digest}, got {digests.of(raw)}"
        )
    parsed = manifests.parse(raw)
    assert isinstance(parsed, manifests.Manifest)
    for blob in (parsed.config, *parsed.layers):
        upload = repository.mount(blob.digest, source.path)
        if upload is not None:
            upload.cancel()
            raise BarqueError(f"error mounting {source.path}@{blob.digest} to {target}")
    repository.put_manifest(digest, raw, parsed.media_type)
    print(f"Pushed ref {target.name}@{digest} with digest: {digest}", flush=True)


def rm(words: list[str], options: Options, global_options: Options) -> int:
    """Forget manifest lists that were put together here."""
    store = ManifestStore(config_folder(global_options))
    code = 0
    for word in words:
        try:
            target = parse(word).with_default_tag()
            store.entries(target)
            store.remove(target)
        except BarqueError as error:
            print(error, file=sys.stderr)
            code = 1
    return code
