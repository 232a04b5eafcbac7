"""A container's places in networks: what was asked for, checked and kept, and what its start asks of the network room."""

import errno
import ipaddress
from typing import TYPE_CHECKING, Any

from barque.base.errors import BarqueError, ForbiddenError, InvalidInputError, NotFoundError
from barque.base.ids import SHORT_LENGTH
from barque.engine.container import Container
from barque.kernel import namespaces
from barque.kernel.process import CLONE_NEWNET
from barque.network import endpoints as plumbing, files
from barque.network.model import EndpointRequest, Network
from barque.network.resolving import Upstream

if TYPE_CHECKING:
    from barque.engine.engine import Engine

Json = dict[str, Any]
_KEPT = ("IPAMConfig", "Links", "Aliases", "MacAddress", "DriverOpts", "GwPriority")
_NOT_USER_DEFINED = ("bridge", "host", "none", "default")
_SHARED = ("container sharing network namespace with another container or host cannot be connected to any "
           "other network")  # fmt: skip
_PRIVATE = "container cannot be connected to multiple networks with one of the networks in private (none) mode"


def is_user_defined(name: str) -> bool:
    """Tell whether a network mode or name is one of a network that users make."""
    return name not in _NOT_USER_DEFINED and not name.startswith(("container:", "ns:"))


def has_own_namespace(container: Container) -> bool:
    """Tell whether its network namespace is made by the network room."""
    return container.network_mode != "host" and not container.network_mode.startswith(("container:", "ns:"))


def namespace_path(mode: str) -> str:
    """Return the path of a network mode ns:<path>.

    Raises:
        InvalidInputError: it is no network namespace.
    """
    path = mode.partition(":")[2]
    try:
        if path.startswith("/") and namespaces.kind_of(path) == CLONE_NEWNET:
            return path
        words = "not a network namespace"
    except OSError as error:
        # Not in the system's words, which clients take for a missing program's.
        known = {errno.ENOTTY: "not a network namespace", errno.ENOENT: "nothing is there"}
        words = known.get(error.errno or 0, str(error.strerror).lower())
    raise InvalidInputError(f"invalid network mode {mode}: {words}")


def initial(engine: "Engine", config: Json, host: Json, asked: Json) -> Json:
    """Return what a new container's row keeps of its networks: settings by name.

    Raises:
        InvalidInputError: a setting that cannot be.
    """
    mode = host["NetworkMode"]
    if mode.startswith(("container:", "ns:")):
        return {}
    wanted: Json = {}
    for ref, settings in asked.items():
        name = "bridge" if ref == "default" else ref
        if is_user_defined(name):
            name = _name_of(engine, (settings or {}).get("NetworkID") or name) or name
        try:
            check(_found(engine, name), name, settings or {})
        except InvalidInputError as error:
            raise InvalidInputError(f"invalid config for network {name}: {error}") from None
        wanted[name] = kept(settings or {})
    first = _name_of(engine, mode) or mode if is_user_defined(mode) else mode
    if not wanted:
        wanted[first] = {}
    mac = config.get("MacAddress")
    if mac and first in wanted and not wanted[first].get("MacAddress"):
        wanted[first]["MacAddress"] = mac
    _check_together(list(wanted), host=mode == "host")
    return wanted


def _check_together(names: list[str], *, host: bool) -> None:
    if host != ("host" in names):
        raise InvalidInputError("cannot connect container to host network - container must be created in host "
                                "network mode" if not host else _SHARED)  # fmt: skip
    if len(names) > 1 and host:
        raise InvalidInputError(_SHARED)
    if len(names) > 1 and "none" in names:
        raise InvalidInputError(_PRIVATE)


def _name_of(engine: "Engine", ref: str) -> str:
    network = _found(engine, ref)
    return network.name if network is not None else ""


def _found(engine: "Engine", ref: str) -> Network | None:
    try:
        return engine.network.catalog.find(ref)
    except (NotFoundError, InvalidInputError):
        return None


def kept(settings: Json) -> Json:
    """Return the part of EndpointSettings that is asked for, not reported."""
    return {key: settings[key] for key in _KEPT if settings.get(key)}


def check(network: Network | None, name: str, settings: Json) -> None:
    """Refuse endpoint settings that cannot be.

    Raises:
        InvalidInputError: in Docker's words.
    """
    ipam = settings.get("IPAMConfig") or {}
    errors = []
    if not is_user_defined(name):
        if ipam.get("IPv4Address") or ipam.get("IPv6Address"):
            errors.append("user-specified IP address is supported on user-defined networks only")
        if settings.get("Aliases"):
            errors.append("network-scoped aliases are only supported for user-defined networks")
    errors += _address_errors(ipam)
    if network is not None and not errors:
        for key in ("IPv4Address", "IPv6Address"):
            if ipam.get(key):
                errors += _subnet_errors(network, ipam[key])
    try:
        plumbing.check(EndpointRequest(options=settings.get("DriverOpts") or {}, mac=settings.get("MacAddress") or ""))
    except InvalidInputError as error:
        errors.append(str(error))
    if errors:
        listed = errors[0] if len(errors) == 1 else "* " + "\n* ".join(errors)
        raise InvalidInputError(f"invalid endpoint settings:\n{listed}")


def _address_errors(ipam: Json) -> list[str]:
    errors = []
    for key, version in (("IPv4Address", 4), ("IPv6Address", 6)):
        if ipam.get(key):
            address = _parsed(ipam[key])
            if address is None or address.version != version or address.is_unspecified:
                errors.append(f"invalid IPv{version} address: {ipam[key]}")
    for text in ipam.get("LinkLocalIPs") or ():
        address = _parsed(text)
        if address is None or address.is_unspecified:
            errors.append(f"invalid link-local IP address: {text}")
    return errors


def _parsed(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return None
    return None if isinstance(found, ipaddress.IPv6Address) and (found.scope_id or found.ipv4_mapped) else found


def _subnet_errors(network: Network, text: str) -> list[str]:
    address = ipaddress.ip_address(text)
    subnets = [ipaddress.ip_network(item.subnet) for item in network.subnets if not item.chosen]
    mine = [subnet for subnet in subnets if subnet.version == address.version]
    if not mine:
        return ["user specified IP address is supported only when connecting to networks with user configured subnets"]
    if any(address in subnet for subnet in mine):
        return []
    return [f"no configured subnet or ip-range contain the IP address {text}"]


def closed_ports(engine: "Engine", networking: Json) -> list[str]:
    """Return warnings of firewalls of this machine that keep others from ports published through these networks."""
    found = (_found(engine, settings.get("NetworkID") or name) for name, settings in networking.items())
    return engine.network.closed_by_others(filter(None, found), ports=True)


def dns_names(container: Container, settings: Json) -> tuple[str, ...]:
    """Return the names an endpoint in a user-defined network answers to; the first one answers reverse look-ups."""
    found = [container.name, *(settings.get("Aliases") or ()), container.id[:SHORT_LENGTH]]
    if container.config.get("Hostname"):
        found.append(container.config["Hostname"])
    return tuple(dict.fromkeys(found))


def is_in(container: Container, network: Network) -> bool:
    """Tell whether a container, running or not, is to be in a network."""
    networks = container.row["networking"]
    return network.name in networks or any(item.get("NetworkID") == network.id for item in networks.values())


def ordered(container: Container) -> list[str]:
    """Return the names of its networks in the order of its interfaces: that of its network mode first."""
    networks = container.row["networking"]
    mode = container.network_mode
    first = [name for name in networks if name == mode or networks[name].get("NetworkID", "?").startswith(mode)]
    return first + sorted(name for name in networks if name not in first)


def requests(engine: "Engine", container: Container) -> tuple[EndpointRequest, ...]:
    """Return what a start asks for; the ids of the networks are kept for the next start.

    Raises:
        NotFoundError: a network is gone.
    """
    found = []
    for name in ordered(container):
        if name in ("none", "host") or (name == "bridge" and engine.config.network.bridge == "none"):
            # Without a default bridge, what would be on it has lo alone.
            continue
        settings = container.row["networking"][name]
        network = engine.network.catalog.find(settings.get("NetworkID") or name)
        found.append(request(container, network, settings))
        settings["NetworkID"] = network.id
        if is_user_defined(name):
            settings["DNSNames"] = list(dns_names(container, settings))
    return tuple(found)


def request(container: Container, network: Network, settings: Json) -> EndpointRequest:
    """Return what one endpoint asks for."""
    ipam = settings.get("IPAMConfig") or {}
    named = not network.is_predefined
    return EndpointRequest(
        network="bridge" if network.is_default_bridge else network.id,
        mac=settings.get("MacAddress") or "",
        ip=ipam.get("IPv4Address") or "",
        ip6=ipam.get("IPv6Address") or "",
        link_local=tuple(ipam.get("LinkLocalIPs") or ()),
        options=settings.get("DriverOpts") or {},
        priority=settings.get("GwPriority") or 0,
        names=dns_names(container, settings) if named else (),
        links=_links(settings) if named else {},
    )


def _links(settings: Json) -> dict[str, str]:
    """Return {alias: name} of links, which need not mean anybody yet."""
    found = {}
    for text in settings.get("Links") or ():
        name, _, alias = text.partition(":")
        found[alias or name] = name
    return found


def wished_resolver(engine: "Engine", container: Container) -> files.Resolver:
    """Return what the container's, or else the daemon's, settings say of names."""
    host, config = container.host, engine.config
    return files.Resolver(
        tuple(host.get("Dns") or config.dns), tuple(host.get("DnsSearch") or config.dns_search),
        tuple(host.get("DnsOptions") or config.dns_options),
    )  # fmt: skip


def served(engine: "Engine", container: Container) -> tuple[tuple[str, ...], tuple[Upstream, ...]]:
    """Return the options of its resolver, and the servers that names which no container bears are asked of.

    Raises:
        NotFoundError: a network is gone.
    """
    catalog = engine.network.catalog
    drivers = {catalog.find(row.get("NetworkID") or name).driver
               for name, row in container.row["networking"].items() if is_user_defined(name)}  # fmt: skip
    # A machine cannot reach what shares a device with it, nor what is reached through that alone.
    inside = bool(drivers) and drivers <= {"macvlan", "ipvlan"}
    resolver, upstreams = files.served_resolver(
        engine.host_resolver(), wished_resolver(engine, container), inside=inside
    )
    return resolver.options, upstreams


# Connecting and disconnecting.


async def connect(engine: "Engine", container: Container, network: Network, asked: Json) -> None:
    """Add a network to a container, at once where it runs.

    Raises:
        InvalidInputError: settings, or a network that cannot be combined with the container's.
        ForbiddenError: it is in the network already.
        BarqueError: the kernel refused, or no address is free.
    """
    async with container.lock:
        if container.status in ("removing", "dead"):
            raise BarqueError(_marked(container))
        settings = kept(asked)
        _check_connect(container, network)
        check(network, network.name, settings)
        networks = container.row["networking"]
        if network.name in networks and not container.is_running:
            networks[network.name] = settings
            await _changed(engine, container)
            return
        if network.name in networks:
            raise ForbiddenError(f"endpoint with name {container.name} already exists in network {network.name}")
        if container.is_running:
            item = request(container, network, settings)
            container.sandbox = engine.network.connect(container.id, item)
            settings["NetworkID"] = network.id
        if not network.is_predefined:
            settings["DNSNames"] = list(dns_names(container, settings))
        networks[network.name] = settings
        await _changed(engine, container)
    if container.is_running:
        engine.events.publish("network", "connect", network.id, event(network, container))


def _check_connect(container: Container, network: Network) -> None:
    mode = container.network_mode
    if mode.startswith(("container:", "ns:")):
        raise InvalidInputError(_SHARED)
    if network.name == "host":
        raise InvalidInputError("cannot connect container to host network - container must be created in host "
                                "network mode")  # fmt: skip
    if mode == "host":
        raise InvalidInputError(_SHARED)
    networks = container.row["networking"]
    if "none" in networks or (network.name == "none" and networks):
        raise InvalidInputError(_PRIVATE)


async def disconnect(engine: "Engine", container: Container, network: Network | None, ref: str, *, force: bool) -> None:
    """Take a container off a network, at once where it runs.

    Raises:
        InvalidInputError: a container in the host's network cannot leave it.
        BarqueError: it is not in the network.
        NotFoundError: there is no such network.
    """
    async with container.lock:
        if container.status in ("removing", "dead"):
            raise BarqueError(_marked(container))
        name = network.name if network is not None else ref
        networks = container.row["networking"]
        running = container.is_running
        if network is None and running and not force:
            raise NotFoundError(f"network {ref} not found")
        if container.network_mode == "host" and name == "host" and running:
            raise InvalidInputError("cannot disconnect container from host network - container was created in host "
                                    "network mode")  # fmt: skip
        if name not in networks:
            raise BarqueError(f"container {container.id} is not connected to {'' if running else 'the '}network {name}")
        if running and network is not None and has_own_namespace(container) and name != "none":
            container.sandbox = engine.network.disconnect(container.id, network.id)
        del networks[name]
        await _changed(engine, container)
    if running and network is not None:
        engine.events.publish("network", "disconnect", network.id, event(network, container))


def _marked(container: Container) -> str:
    return (f"Container {container.id} is marked for removal and cannot be connected or disconnected to the "
            "network")  # fmt: skip


async def _changed(engine: "Engine", container: Container) -> None:
    from barque.engine import etc_files

    if container.is_running:
        etc_files.refresh(engine, container)
    engine.changed(container)
    engine.save(container)
    await engine.database.flush()


def event(network: Network, container: Container | None = None) -> dict[str, str]:
    """Return the attributes of a network's event."""
    found = {"name": network.name, "type": network.driver}
    return {"container": container.id, **found} if container is not None else found


def publish_events(engine: "Engine", container: Container, action: str) -> None:
    """Tell that a container that starts or ended was connected to, or disconnected from, its networks."""
    for name, settings in container.row["networking"].items():
        try:
            network = engine.network.catalog.find(settings.get("NetworkID") or name)
        except (NotFoundError, InvalidInputError):
            continue
        engine.events.publish("network", action, network.id, event(network, container))


def settle(engine: "Engine", container: Container) -> None:
    """Let the row of a container that runs on say which networks it is in: the daemon may have died in between."""
    if container.sandbox is None or not has_own_namespace(container):
        return
    networks = container.row["networking"]
    live = {item.network: item for item in container.sandbox.endpoints}
    gone = [name for name in networks if name not in live and name != "none" and _stands(engine, name)]
    come = live.keys() - networks.keys()
    for name in gone:
        del networks[name]
    for name in come:
        networks[name] = {"NetworkID": live[name].network_id, "DNSNames": list(live[name].names)}
    if gone or come:
        engine.changed(container)
        engine.save(container)


def _stands(engine: "Engine", name: str) -> bool:
    network = _found(engine, name)
    return network is not None and network.id not in engine.network.catalog.broken


def rename(engine: "Engine", container: Container) -> None:
    """Let a container that has a new name answer to it at once."""
    by_network: dict[str, tuple[str, ...]] = {}
    for name, settings in container.row["networking"].items():
        if is_user_defined(name) and settings.get("NetworkID"):
            by_network[settings["NetworkID"]] = dns_names(container, settings)
            settings["DNSNames"] = list(by_network[settings["NetworkID"]])
    found = engine.network.rename(container.id, container.name, by_network)
    if found is not None:
        container.sandbox = found
