"""The text of a container's /etc/hosts, /etc/hostname and /etc/resolv.conf. Pure."""

import ipaddress
from collections.abc import Iterable
from typing import NamedTuple

from barque.base.errors import InvalidInputError
from barque.network.resolving import ADDRESS, Upstream

DEFAULT_SERVERS = ("8.8.8.8", "8.8.4.4")
DEFAULT_SERVERS6 = ("2001:4860:4860::8888", "2001:4860:4860::8844")
HOST_GATEWAY = "host-gateway"

_LOCAL4 = ("127.0.0.1\tlocalhost",)
_LOCAL6 = (
    "::1\tlocalhost ip6-localhost ip6-loopback",
    "fe00::0\tip6-localnet",
    "ff00::0\tip6-mcastprefix",
    "ff02::1\tip6-allnodes",
    "ff02::2\tip6-allrouters",
)


class Resolver(NamedTuple):
    """What a resolv.conf says."""

    servers: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


def hostname(name: str) -> str:
    """Return the content of /etc/hostname."""
    return f"{name}\n"


def hosts(
    addresses: Iterable[str], names: Iterable[str], extra: Iterable[tuple[str, str]] = (),
    *, ipv6: bool = True,
) -> str:  # fmt: skip
    """Return the content of /etc/hosts.

    Args:
        addresses: the container's own, each with all names.
        names: host name with domain first, then the host name, then aliases.
        extra: (name, address) of `--add-host` and links.
        ipv6: whether the container has ::1.
    """
    lines = [*_LOCAL4, *(_LOCAL6 if ipv6 else ())]
    lines += [f"{address}\t{name}" for name, address in extra]
    own = " ".join(names)
    lines += [f"{address}\t{own}" for address in addresses if address]
    return "\n".join(lines) + "\n"


def own_names(host: str, domain: str = "", aliases: Iterable[str] = ()) -> list[str]:
    """Return the names of a container's own line: "web.example.org web" for a host with a domain."""
    if domain:
        found = [f"{host}.{domain}", host]
    elif "." in host:
        found = [host, host.partition(".")[0]]
    else:
        found = [host]
    return found + [item for item in aliases if item not in found]


def extra_hosts(entries: Iterable[str], gateways: Iterable[str] = ()) -> list[tuple[str, str]]:
    """Return (name, address) of "name:address" texts; "host-gateway" stands for the gateways.

    Raises:
        InvalidInputError: an entry has no name or a wrong address, or no gateway is known.
    """
    found = []
    known = [item for item in gateways if item]
    for entry in entries:
        name, colon, address = entry.partition(":")
        if not colon or not name or any(c.isspace() for c in name):
            raise InvalidInputError(f'bad format for add-host: "{entry}"')
        if address == HOST_GATEWAY:
            if not known:
                raise InvalidInputError("unable to derive the IP value for host-gateway")
            found += [(name, item) for item in known]
            continue
        plain = address.strip("[]")
        try:
            ipaddress.ip_address(plain)
        except ValueError:
            raise InvalidInputError(f'invalid IP address in add-host: "{address}"') from None
        found.append((name, plain))
    return found


def parse_resolver(text: str) -> Resolver:
    """Return what a resolv.conf says; the last `search` or `domain` line counts."""
    servers: list[str] = []
    search: tuple[str, ...] = ()
    options: list[str] = []
    for line in text.splitlines():
        words = line.split("#", 1)[0].split(";", 1)[0].split()
        if len(words) < 2:
            continue
        if words[0] == "nameserver":
            servers.append(words[1])
        elif words[0] in ("search", "domain"):
            search = tuple(words[1:])
        elif words[0] == "options":
            options += words[1:]
    return Resolver(tuple(servers), search, tuple(options))


def container_resolver(host: Resolver, wish: Resolver, *, own_namespace: bool, ipv6: bool) -> Resolver:
    """Return the resolver of a container: its wishes first, then the host's.

    The host's servers on loopback addresses cannot be reached from another network namespace and
    are left out, IPv6 ones too where the container has no IPv6; where none is left the well-known
    public ones stand in. A search list of "." means none.
    """
    servers = wish.servers or tuple(item for item in host.servers if not own_namespace or _reachable(item, ipv6=ipv6))
    if not servers and own_namespace:
        servers = DEFAULT_SERVERS + (DEFAULT_SERVERS6 if ipv6 else ())
    search = wish.search or host.search
    if search == (".",):
        search = ()
    return Resolver(servers, search, wish.options or host.options)


def served_resolver(host: Resolver, wish: Resolver, *, inside: bool = False) -> tuple[Resolver, tuple[Upstream, ...]]:
    """Return the resolver of a container in a user-defined network, and whom its name server asks.

    A wished-for server on a loopback address is one in the container itself; one that the host uses is
    the host's. With `inside` all others are asked out of the container's network namespace too.
    """
    if wish.servers:
        upstreams = [Upstream(item, not inside and not _is_loopback(item)) for item in wish.servers]
    else:
        upstreams = [Upstream(item, not inside or _is_loopback(item)) for item in host.servers]
    upstreams = [item for item in upstreams if item != Upstream(ADDRESS, from_host=False)]
    options = wish.options or host.options
    if not any(item.startswith("ndots:") for item in options):
        options = (*options, "ndots:0")
    search = wish.search or host.search
    return Resolver((ADDRESS,), () if search == (".",) else search, options), tuple(upstreams)


def served_resolv_conf(resolver: Resolver, upstreams: Iterable[Upstream]) -> str:
    """Return the content of /etc/resolv.conf where the name server answers, with a note of whom it asks."""
    shown = " ".join(f"host({item.address})" if item.from_host else item.address for item in upstreams)
    return (
        "# Made by Barque, which leaves this file alone once it was edited.\n\n"
        f"{resolv_conf(resolver)}\n# ExtServers: [{shown}]\n"
    )


def _is_loopback(server: str) -> bool:
    try:
        return ipaddress.ip_address(server.partition("%")[0]).is_loopback
    except ValueError:
        return False


def _reachable(server: str, *, ipv6: bool) -> bool:
    try:
        address = ipaddress.ip_address(server.partition("%")[0])
    except ValueError:
        return False
    if address.is_loopback:
        return False
    # A zone names an interface of the host.
    return address.version == 4 or (ipv6 and "%" not in server)


def resolv_conf(resolver: Resolver) -> str:
    """Return the content of /etc/resolv.conf."""
    lines = [f"nameserver {item}" for item in resolver.servers]
    if resolver.search:
        lines.append("search " + " ".join(resolver.search))
    if resolver.options:
        lines.append("options " + " ".join(resolver.options))
    return "\n".join(lines) + "\n" if lines else ""
