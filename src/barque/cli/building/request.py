"""One build as it is asked of the engine: made of flags here, and of a bake file's targets elsewhere."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from barque.base.errors import InvalidInputError, NotFoundError, UnsupportedError
from barque.cli.building.outputs import Output, read_fields, read_list
from barque.cli.building.stores import LATEST, Store
from barque.oci import platform as platforms
from barque.oci.reference import parse

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from barque.cli.building.contexts import Inputs

_CALLS = {"check": "lint", "lint": "lint", "outline": "outline", "targets": "targets"}
_NETWORKS = ("", "default", "host", "none")
_PROXIES = {"httpProxy": "HTTP_PROXY", "httpsProxy": "HTTPS_PROXY", "ftpProxy": "FTP_PROXY", "noProxy": "NO_PROXY",
            "allProxy": "ALL_PROXY"}  # fmt: skip


@dataclass(slots=True)
class BuildRequest:
    """What one build is asked to do.

    `options` are the frontend's, `linked` are targets of the same bake by the name of the context they stand for.
    """

    name: str
    inputs: Inputs
    options: dict[str, str] = field(default_factory=dict)
    outputs: list[Output] = field(default_factory=list)
    entitlements: list[str] = field(default_factory=list)
    cache_exports: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    call: str = ""
    linked: dict[str, BuildRequest] = field(default_factory=dict)

    def frontend_options(self) -> dict[str, str]:
        """Return all options of the frontend."""
        return {**self.options, **self.inputs.options}

    def all(self) -> Iterator[BuildRequest]:
        """Yield it and all that it is linked to."""
        yield self
        for one in self.linked.values():
            yield from one.all()


class Wishes:
    """Gathers a build's options; each method takes values in the form of its flag.

    Args:
        environment: where values are that a flag names without giving them.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self.options: dict[str, str] = {}
        self.entitlements: list[str] = []
        self.cache_exports: list[tuple[str, dict[str, str]]] = []
        self.stores: dict[str, Store] = {}

    def arguments(self, pairs: list[str]) -> None:
        """Take `--build-arg NAME[=value]`; a name alone takes the environment's value."""
        for pair in pairs:
            name, equals, value = pair.partition("=")
            if equals:
                self.options[f"build-arg:{name}"] = value
            elif name in self._environment:
                self.options[f"build-arg:{name}"] = self._environment[name]

    def proxies(self, config: dict[str, Any], host: str) -> None:
        """Take the proxies of the client's configuration that no argument names."""
        known = config.get("proxies") if isinstance(config.get("proxies"), dict) else {}
        found = (known or {}).get(host) or (known or {}).get("default") or {}
        for key, name in _PROXIES.items():
            value = found.get(key)
            for spelled in (name, name.lower()):
                if value:
                    self.options.setdefault(f"build-arg:{spelled}", str(value))

    def labels(self, pairs: list[str]) -> None:
        """Take `--label name=value`."""
        for pair in pairs:
            name, _, value = pair.partition("=")
            self.options[f"label:{name}"] = value

    def hosts(self, pairs: list[str]) -> None:
        """Take `--add-host name:address`."""
        made = []
        for pair in pairs:
            for sign in "=:":
                name, found, address = pair.partition(sign)
                if found:
                    break
            address = address.removeprefix("[").removesuffix("]")
            if not name or not address:
                raise InvalidInputError(f"invalid host {pair}")
            made.append(f"{name}={address}")
        if made:
            self.options["add-hosts"] = ",".join(made)

    def network(self, mode: str) -> None:
        """Take `--network`."""
        if mode not in _NETWORKS:
            raise UnsupportedError(f"network mode {mode!r} not supported by buildkit: use default, host or none")
        if mode in ("host", "none"):
            self.options["force-network-mode"] = mode
        if mode == "host":
            self.allow(["network.host"])

    def allow(self, names: list[str]) -> None:
        """Take `--allow`."""
        for name in names:
            if name not in ("network.host", "security.insecure") and not name.startswith("device"):
                raise InvalidInputError(f"invalid entitlement: {name}")
            if name not in self.entitlements:
                self.entitlements.append(name)

    def platforms(self, texts: list[str]) -> None:
        """Take `--platform`."""
        found = [str(platforms.parse(one)) for text in texts for one in text.split(",") if one]
        if found:
            self.options["platform"] = ",".join(dict.fromkeys(found))

    def attestations(self, texts: list[str], *, provenance: str = "", sbom: str = "", defaults: bool = True) -> None:
        """Take `--attest`, `--provenance` and `--sbom`."""
        wanted = list(texts)
        for kind, value in (("provenance", provenance), ("sbom", sbom)):
            if value:
                truth = _truth(value)
                wanted.append(f"type={kind}" if truth else f"type={kind},disabled=true" if truth is False
                              else f"type={kind},{value}")  # fmt: skip
        seen = set()
        for text in wanted:
            fields = read_fields(text)
            kind = fields.pop("type", "")
            if kind not in ("provenance", "sbom"):
                raise InvalidInputError(f"unsupported attestation {text!r}: type must be provenance or sbom")
            seen.add(kind)
            disabled = _truth(fields.pop("disabled", "false"))
            self.options.pop(f"attest:{kind}", None)
            if not disabled:
                self.options[f"attest:{kind}"] = ",".join(f"{key}={value}" for key, value in fields.items())
        if defaults and "provenance" not in seen and not _truth(self._environment.get("BUILDX_NO_DEFAULT_ATTESTATIONS", "")):
            self.options["attest:provenance"] = "mode=min,inline-only=true"

    def caches(self, sources: list[str], exports: list[str]) -> None:
        """Take `--cache-from` and `--cache-to`."""
        rows = [{"Type": kind, "Attrs": fields} for kind, fields in map(_cache, sources) if kind != "local" or self._reads(fields)]
        if rows:
            self.options["cache-imports"] = json.dumps(rows)
        for kind, fields in map(_cache, exports):
            if kind == "local":
                self._writes(fields)
            self.cache_exports.append((kind, fields))

    def _reads(self, fields: dict[str, str]) -> bool:
        """Offer the folder of a cache; tell whether there is one to be read."""
        if not fields.get("src"):
            raise InvalidInputError("local cache importer requires src, the name of a folder")
        store = Store(os.path.abspath(fields["src"]))
        fields["src"] = store.folder
        tag = fields.pop("tag", "")
        try:
            fields["digest"] = fields.get("digest") or store.find(tag)
        except NotFoundError as error:
            # The first build of all finds no cache yet.
            print(f"WARNING: the local cache is passed over: {error}", file=sys.stderr)
            return False
        self.stores.setdefault(f"local:{store.folder}", store)
        return True

    def _writes(self, fields: dict[str, str]) -> None:
        if not fields.get("dest"):
            raise InvalidInputError("local cache exporter requires dest, the name of a folder")
        store = Store(os.path.abspath(fields["dest"]), tag=fields.get("tag") or LATEST, writable=True)
        fields["dest"] = store.folder
        os.makedirs(store.folder, exist_ok=True)
        self.stores[f"local:{store.folder}"] = store

    def plain(self, **values: str) -> None:
        """Take options as the frontend names them, with `_` for `-`, where they are not empty."""
        for name, value in values.items():
            if value:
                self.options[name.replace("_", "-")] = value


def _truth(text: str) -> bool | None:
    if text in ("1", "t", "T", "TRUE", "true", "True"):
        return True
    return False if text in ("0", "f", "F", "FALSE", "false", "False") else None


def _cache(text: str) -> tuple[str, dict[str, str]]:
    """Return the type and attributes of a cache; a name alone is an image in a registry."""
    if "=" not in text:
        return "registry", {"ref": str(parse(text).with_default_tag())}
    fields = {}
    for one in read_list(text):
        key, equals, value = one.partition("=")
        if not equals:
            raise InvalidInputError(f"{text} invalid type")
        fields[key.strip().lower()] = value
    kind = fields.pop("type", "")
    if not kind:
        raise InvalidInputError(f"type required for cache {text!r}: for example type=registry,ref=user/app:cache")
    if kind == "gha":
        fields.setdefault("token", os.environ.get("ACTIONS_RUNTIME_TOKEN", ""))
        fields.setdefault("url_v2", os.environ.get("ACTIONS_RESULTS_URL", ""))
        fields.setdefault("url", os.environ.get("ACTIONS_CACHE_URL", ""))
        fields = {key: value for key, value in fields.items() if value}
    if kind == "s3" and not fields.keys() & {"access_key_id", "secret_access_key"}:
        named = {key: os.environ.get(f"AWS_{key.upper()}", "") for key in ("access_key_id", "secret_access_key", "session_token")}
        # The engine has its own where the client has none.
        fields |= {key: value for key, value in named.items() if value and named["access_key_id"]}
    return kind, fields


def call_of(text: str) -> str:
    """Return the frontend's name of a `--call`, empty for a build.

    Raises:
        UnsupportedError: there is none.
    """
    name = text.partition(",")[0].removeprefix("format=")
    if name in ("", "build"):
        return ""
    if name not in _CALLS:
        raise UnsupportedError(f"unsupported --call {text!r}: use build, check, outline or targets")
    return f"frontend.{_CALLS[name]}"


def tagged(outputs: list[Output], tags: list[str], annotations: list[str]) -> None:
    """Give image exports their names and annotations.

    Raises:
        InvalidInputError: a tag is no name, or an annotation is not understood.
    """
    names = []
    for text in tags:
        reference = parse(text)
        if reference.digest:
            raise InvalidInputError(f"invalid tag {text!r}: a tag cannot contain a digest")
        names.append(str(reference.with_default_tag()))
    images = [one for one in outputs if one.type in ("image", "oci", "docker")]
    for output in images:
        if names and not output.attributes.get("name"):
            output.attributes["name"] = ",".join(dict.fromkeys(names))
        for text in annotations:
            output.attributes |= _annotation(text)
    if annotations and not images:
        raise InvalidInputError("annotations need an image output")


def _annotation(text: str) -> dict[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise InvalidInputError(f"invalid annotation {text!r}, expected key=value")
    kinds, colon, name = key.partition(":")
    # A colon of the key itself comes after a dot or a slash as a rule: only known kinds count.
    first = kinds.split(",")
    known = {"manifest", "index", "manifest-descriptor", "index-descriptor"}
    if not colon or not all(one.partition("[")[0] in known for one in first):
        return {f"annotation.{key}": value}
    made = {}
    for one in first:
        kind, bracket, rest = one.partition("[")
        prefix = "annotation" if kind == "manifest" else f"annotation-{kind}"
        made[f"{prefix}{bracket}{rest}.{name}"] = value
    return made
