"""All that a registry server is told, checked."""

from typing import Any, NamedTuple
from urllib.parse import urlsplit

from barque.base.errors import InvalidInputError
from barque.engine.buckets import ObjectStore
from barque.registry.retention import Rule, parse_rule
from barque.registry.settings import Settings


class Upstream(NamedTuple):
    """The registry that this one caches."""

    url: str
    user: str = ""
    password: str = ""
    ca: str = ""
    """A file of certificates to trust, empty for the system's."""
    ttl_s: float = 0


class Collecting(NamedTuple):
    """When garbage goes."""

    interval_s: float
    """0: never by itself."""
    grace_s: float
    upload_expiry_s: float
    untagged: bool
    retained: tuple[Rule, ...] = ()
    """Which tags stay; without a rule all do."""


class Config(NamedTuple):
    """A server's whole configuration."""

    addresses: tuple[tuple[str, int], ...]
    metrics_address: tuple[str, int] | None
    root: str
    object_store: ObjectStore | None
    htpasswd: str
    realm: str
    token: tuple[str, str, str, tuple[str, ...]] | None
    """Realm, service, issuer and key files."""
    tls_cert: str
    tls_key: str
    tls_client_ca: str
    upstream: Upstream | None
    collecting: Collecting
    settings: Settings
    log_level: str


def from_values(values: dict[str, Any]) -> Config:
    """Return the configuration of parsed flags by their names.

    Raises:
        InvalidInputError: values contradict each other or are malformed.
    """
    if bool(values["tls-cert"]) != bool(values["tls-key"]):
        raise InvalidInputError("--tls-cert and --tls-key go together")
    if values["tls-client-ca"] and not values["tls-cert"]:
        raise InvalidInputError("--tls-client-ca needs --tls-cert and --tls-key")
    if values["htpasswd"] and values["token-realm"]:
        raise InvalidInputError("--htpasswd and --token-realm exclude each other")
    upstream = _upstream(values)
    if upstream is not None and values["retain"]:
        raise InvalidInputError("--retain is not for a cache: what nobody asks for goes after --proxy-ttl")
    return Config(
        addresses=tuple(_address(a) for a in values["addr"] or ["127.0.0.1:5000"]),
        metrics_address=_address(values["metrics-addr"]) if values["metrics-addr"] else None,
        root=values["root"],
        object_store=_object_store(values),
        htpasswd=values["htpasswd"],
        realm=_quotable("realm", values["realm"]),
        token=_token(values),
        tls_cert=values["tls-cert"],
        tls_key=values["tls-key"],
        tls_client_ca=values["tls-client-ca"],
        upstream=upstream,
        collecting=collecting_of(values),
        settings=_settings(values, upstream),
        log_level=values["log-level"],
    )


def collecting_of(values: dict[str, Any]) -> Collecting:
    """Return when garbage goes."""
    return Collecting(
        interval_s=values["gc-interval"] / 1e9,
        grace_s=values["gc-grace"] / 1e9,
        upload_expiry_s=values["upload-expiry"] / 1e9,
        untagged=values["gc-untagged"],
        retained=tuple(parse_rule(text) for text in values["retain"]),
    )


def _settings(values: dict[str, Any], upstream: Upstream | None) -> Settings:
    if values["page-size"] < 1 or values["max-requests"] < 1:
        raise InvalidInputError("--page-size and --max-requests must be positive")
    if values["idle-timeout"] <= 0:
        raise InvalidInputError("--idle-timeout must be positive")
    return Settings(
        read_only=values["read-only"] or upstream is not None,
        deletes=not values["no-delete"],
        sparse=values["sparse-manifests"],
        page=values["page-size"],
        idle_s=values["idle-timeout"] / 1e9,
        requests_max=values["max-requests"],
        blob_size_max=values["max-blob-size"],
        relative_urls=not values["absolute-urls"],
        # An object store takes parts of at least this size; smaller chunks are gathered.
        chunk_min=5 << 20 if values["s3-bucket"] else 0,
    )


def _object_store(values: dict[str, Any]) -> ObjectStore | None:
    others = [f"--s3-{n}" for n in ("prefix", "endpoint", "region") if values[f"s3-{n}"]]
    if not values["s3-bucket"]:
        if others:
            raise InvalidInputError(f"{others[0]} needs --s3-bucket")
        return None
    return ObjectStore(
        values["s3-bucket"],
        values["s3-prefix"].strip("/"),
        values["s3-endpoint"],
        values["s3-region"],
        values["s3-access-key"],
        values["s3-secret-key"],
    )


def _token(values: dict[str, Any]) -> tuple[str, str, str, tuple[str, ...]] | None:
    if not values["token-realm"]:
        return None
    if not values["token-service"] or not values["token-key"]:
        raise InvalidInputError("--token-realm needs --token-service and --token-key")
    realm, service = (_quotable(f"token-{n}", values[f"token-{n}"]) for n in ("realm", "service"))
    return realm, service, values["token-issuer"], tuple(values["token-key"])


def _quotable(name: str, text: str) -> str:
    if any(c in '"\\' or not c.isprintable() for c in text):
        raise InvalidInputError(f"--{name}: quotes, backslashes and control characters cannot be told to clients")
    return text


def _upstream(values: dict[str, Any]) -> Upstream | None:
    if not values["proxy"]:
        return None
    url = urlsplit(values["proxy"])
    if url.scheme not in ("http", "https") or not url.hostname or url.path.strip("/") or url.query:
        raise InvalidInputError(f"--proxy: not a registry's URL: {values['proxy']}")
    password = values["proxy-password"]
    if values["proxy-password-file"]:
        try:
            with open(values["proxy-password-file"], encoding="utf-8") as file:
                password = file.read().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidInputError(f"--proxy-password-file: {error}") from None
    host = url.netloc.rpartition("@")[2]
    return Upstream(
        f"{url.scheme}://{host}", values["proxy-user"], password, values["proxy-ca"], values["proxy-ttl"] / 1e9
    )


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535:
        raise InvalidInputError(f"not an address to listen on: {text} (host:port)")
    return host.strip("[]"), int(port)
