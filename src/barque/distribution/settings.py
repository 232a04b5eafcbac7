"""What the daemon's options say about registries."""

import ipaddress
import socket
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from barque.base.errors import InvalidInputError
from barque.storage import bounds

HUB = "docker.io"
HUB_REGISTRY = "registry-1.docker.io"

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_LOOPBACK: tuple[Network, ...] = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))


@dataclass(slots=True)
class Settings:
    """Options of transfers; times in seconds.

    Attributes:
        mirrors: base URLs by the registry's domain, first tried first.
        insecure: hosts (perhaps with a port) and networks that need no trusted certificate.
        certificates: folders like /etc/docker/certs.d.
        http_proxy: URL of the proxy of plain HTTP.
        https_proxy: URL of the proxy of HTTPS.
        no_proxy: comma-separated hosts, domains and networks that are asked directly.
        downloads: layers that one pull downloads side by side.
        uploads: layers that one push uploads side by side.
        attempts: how often a layer is tried before its pull fails.
        retry_delay_s: wait before the second try; doubles with each.
        connect_timeout_s: for a connection.
        stall_timeout_s: for a connection on which nothing comes.
        plain_ratio_max: how many times its size a big layer may expand to.
        plain_free_min: bytes that must stay free on the disk while a layer expands.
    """

    mirrors: dict[str, list[str]] = field(default_factory=dict)
    insecure: list[str] = field(default_factory=list)
    certificates: list[str] = field(default_factory=list)
    http_proxy: str = ""
    https_proxy: str = ""
    no_proxy: str = ""
    downloads: int = 3
    uploads: int = 5
    attempts: int = 5
    retry_delay_s: float = 1.0
    connect_timeout_s: float = 30.0
    stall_timeout_s: float = 60.0
    plain_ratio_max: int = bounds.RATIO_MAX
    plain_free_min: int = bounds.FREE_MIN


def mirrors_of(options: list[str]) -> dict[str, list[str]]:
    """Return mirrors by domain from `[REGISTRY=]URL` options; without a registry they are Docker Hub's.

    Raises:
        InvalidInputError: no HTTP URL, or one with a query, a fragment or a user.
    """
    found: dict[str, list[str]] = {}
    for option in options:
        domain, equals, url = option.partition("=")
        if not equals or "/" in domain:
            domain, url = HUB, option
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise InvalidInputError(
                f"invalid mirror: no scheme specified for \"{url}\": must use either 'https://' or 'http://'"
            )
        if parts.query or parts.fragment:
            raise InvalidInputError(f'invalid mirror: query or fragment at end of the URI "{url}"')
        if parts.username is not None:
            raise InvalidInputError("invalid mirror: username/password not allowed in URI")
        found.setdefault(domain, []).append(url.rstrip("/"))
    return found


def is_insecure(settings: Settings, host: str) -> bool:
    """Tell whether a registry needs no trusted certificate: loopback, or named or in a network of the options.

    Args:
        settings: the options.
        host: host name or address, perhaps with a port.
    """
    name = hostname(host)
    networks = list(_LOOPBACK)
    for entry in settings.insecure:
        entry = entry.removeprefix("https://").removeprefix("http://").rstrip("/")
        if entry in (host, name):
            return True
        try:
            networks.append(ipaddress.ip_network(entry, strict=False))
        except ValueError:
            continue
    return any(address in network for address in _addresses(name) for network in networks)


def hostname(host: str) -> str:
    """Return the name or address in `host[:port]`, without an IPv6 address's brackets."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def _addresses(name: str) -> list[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    try:
        return [ipaddress.ip_address(name)]
    except ValueError:
        pass
    if name == "localhost":
        return [ipaddress.ip_address("127.0.0.1")]
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    return [ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found]


def bypasses_proxy(settings: Settings, host: str) -> bool:
    """Tell whether a host is asked directly although a proxy is set: loopback, and what no_proxy names."""
    name = hostname(host)
    addresses = []
    try:
        addresses = [ipaddress.ip_address(name)]
    except ValueError:
        pass
    if name == "localhost" or any(a.is_loopback for a in addresses):
        return True
    for entry in (e.strip().lower() for e in settings.no_proxy.split(",")):
        if entry and _matches(entry, name.lower(), host.lower(), addresses):
            return True
    return False


def _matches(entry: str, name: str, host: str, addresses: list[ipaddress.IPv4Address | ipaddress.IPv6Address]) -> bool:
    if entry == "*" or entry in (name, host):
        return True
    try:
        network = ipaddress.ip_network(entry, strict=False)
    except ValueError:
        return name.endswith(entry if entry.startswith(".") else "." + entry)
    return any(address in network for address in addresses)
