"""Reading a request for a network: what it means, and what is refused. Pure."""

import ipaddress
from collections.abc import Mapping
from typing import Any

from barque.base.errors import ForbiddenError, InvalidInputError, NotFoundError
from barque.network.bridge_options import parse_bool
from barque.network.model import Json, Network, Subnet

PREDEFINED = ("bridge", "host", "none", "default")
DRIVERS = ("bridge", "host", "ipvlan", "macvlan", "null", "overlay")
_ENABLE4, _ENABLE6 = "com.docker.network.enable_ipv4", "com.docker.network.enable_ipv6"


def parse(config: Json, network_id: str, now_ns: int, defaults: Mapping[str, Mapping[str, str]] | None = None) -> Network:
    """Return the network that a create request describes, its subnets as asked for.

    Options that it does not name are its driver's of the `defaults`, unless one network gives settings to the other.

    Raises:
        InvalidInputError: a field's value cannot be.
        ForbiddenError: a combination that no network may have.
        NotFoundError: the driver is not known.
    """
    name = check_name(config.get("Name"))
    driver, config_from = config.get("Driver") or "bridge", (config.get("ConfigFrom") or {}).get("Network") or ""
    options = dict(config.get("Options") or {})
    if defaults and not config_from and not config.get("ConfigOnly"):
        options = {**defaults.get(driver, {}), **options}
    ipam = config.get("IPAM") or {}
    ipv4, ipv6 = _families(config, options)
    network = Network(
        id=network_id,
        name=name,
        driver=driver,
        created_ns=now_ns,
        ipv4=ipv4,
        ipv6=ipv6,
        internal=bool(config.get("Internal")),
        attachable=bool(config.get("Attachable")),
        config_only=bool(config.get("ConfigOnly")),
        config_from=config_from,
        options=options,
        labels=dict(config.get("Labels") or {}),
        ipam_driver=ipam.get("Driver") or "default",
        ipam_options=ipam.get("Options"),
        subnets=_subnets(ipam.get("Config") or [], ipv6=ipv6),
    )
    _check_scope(config, network)
    return network


def check_name(name: object) -> str:
    """Return a name that a network may be given.

    Raises:
        InvalidInputError: it is empty, too long, or none.
        ForbiddenError: it is that of a predefined network.
    """
    if not isinstance(name, str) or not name.strip():
        raise InvalidInputError("invalid name: name is empty")
    if len(name) > 255 or any(ord(char) < 32 or ord(char) == 127 for char in name):
        raise InvalidInputError("invalid name: too long, or it holds control characters")
    if name in PREDEFINED:
        raise ForbiddenError(f"operation is not permitted on predefined {name} network")
    return name


def _families(config: Json, options: dict[str, str]) -> tuple[bool, bool]:
    found = []
    for field, key, default in (("EnableIPv4", _ENABLE4, True), ("EnableIPv6", _ENABLE6, False)):
        given = config.get(field)
        if given is not None:
            options.pop(key, None)
            found.append(bool(given))
        elif key in options:
            value = parse_bool(options[key])
            if value is None:
                raise InvalidInputError(f'driver-opt "{key}" is not a valid bool')
            found.append(value)
        else:
            found.append(default)
    return found[0], found[1]


def _check_scope(config: Json, network: Network) -> None:
    scope = config.get("Scope") or ""
    if network.config_only:
        if config.get("Ingress") or network.internal or network.attachable or scope:
            raise ForbiddenError("configuration network can only contain network specific fields. Network operator "
                                 "fields like [ ingress | internal | attachable | scope ] are not supported.")  # fmt: skip
        if network.config_from:
            raise ForbiddenError("a configuration network cannot depend on another configuration network")
        return
    if network.config_from:
        if not network.ipv4 or network.ipv6 or network.labels or network.ipam_options or network.subnets \
                or network.ipam_driver != "default":  # fmt: skip
            raise ForbiddenError("user-specified configurations are not supported if the network depends on a "
                                 "configuration network")  # fmt: skip
        if network.options:
            raise ForbiddenError("network driver options are not supported if the network depends on a "
                                 "configuration network")  # fmt: skip
    if network.driver not in DRIVERS:
        raise NotFoundError(f'plugin "{network.driver}" not found')
    if network.driver in ("host", "null"):
        raise ForbiddenError(f'only one instance of "{network.driver}" network is allowed')
    if network.ipam_driver not in ("default", "null"):
        raise NotFoundError(f'plugin "{network.ipam_driver}" not found')
    if scope not in ("", "local"):
        raise ForbiddenError("cannot create a swarm scoped network when swarm is not active"
                             if scope == "swarm" else f"invalid scope: {scope}")  # fmt: skip
    if config.get("Ingress"):
        raise ForbiddenError("Ingress network can only be global scope network")


def apply_config(network: Network, source: Network) -> Network:
    """Return a network with what its configuration network says."""
    return network._replace(
        ipv4=source.ipv4, ipv6=source.ipv6, options=source.options, labels=source.labels,
        ipam_driver=source.ipam_driver, ipam_options=source.ipam_options, subnets=source.subnets,
    )  # fmt: skip


def _subnets(configs: list[Any], *, ipv6: bool) -> tuple[Subnet, ...]:
    errors: list[str] = []
    found = []
    for config in configs:
        item = Subnet(
            config.get("Subnet") or "", config.get("IPRange") or "", config.get("Gateway") or "",
            dict(config.get("AuxiliaryAddresses") or {}),
        )  # fmt: skip
        wrong = _subnet_errors(item, ipv6=ipv6)
        # Without IPv6 what is said of it is passed over.
        if not wrong and (ipv6 or ":" not in item.subnet):
            found.append(_canonical(item))
        errors += wrong
    if errors:
        listed = errors[0] if len(errors) == 1 else "* " + "\n* ".join(errors)
        raise InvalidInputError(f"invalid network config:\n{listed}")
    return tuple(found)


def _subnet_errors(item: Subnet, *, ipv6: bool) -> list[str]:
    if not item.subnet:
        if item.ip_range or item.gateway or item.auxiliary:
            return ["invalid subnet : invalid CIDR block notation"]
        return []
    try:
        subnet = ipaddress.ip_network(item.subnet, strict=False)
        if "/" not in item.subnet:
            raise ValueError
    except ValueError:
        return [f"invalid subnet {item.subnet}: invalid CIDR block notation"]
    if subnet.version == 6 and not ipv6:
        return []
    errors = []
    if ipaddress.ip_interface(item.subnet).ip != subnet.network_address:
        errors.append(f"invalid subnet {item.subnet}: it should be {subnet}")
    errors += _range_errors(item.ip_range, subnet)
    problem = _address_error(item.gateway, subnet)
    if problem:
        errors.append(f"invalid gateway {item.gateway}: {problem}")
    for name, address in item.auxiliary.items():
        problem = _address_error(address, subnet)
        if problem:
            errors.append(f"invalid auxiliary address {name}: {problem}")
    return errors


def _range_errors(text: str, subnet: ipaddress.IPv4Network | ipaddress.IPv6Network) -> list[str]:
    if not text:
        return []
    try:
        span = ipaddress.ip_network(text, strict=False)
        if "/" not in text:
            raise ValueError
    except ValueError:
        return [f"invalid ip-range {text}: invalid CIDR block notation"]
    if span.version != subnet.version:
        return [f"invalid ip-range {text}: parent subnet is an IPv{subnet.version} block"]
    errors = []
    if span.prefixlen < subnet.prefixlen:
        errors.append(f"invalid ip-range {text}: CIDR block is bigger than its parent subnet {subnet}")
    if ipaddress.ip_interface(text).ip != span.network_address:
        errors.append(f"invalid ip-range {text}: it should be {span}")
    if not subnet.overlaps(span):
        errors.append(f"invalid ip-range {text}: parent subnet {subnet} doesn't contain ip-range")
    return errors


def _address_error(text: str, subnet: ipaddress.IPv4Network | ipaddress.IPv6Network) -> str:
    if not text:
        return ""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return "invalid address"
    if address.version != subnet.version:
        return f"parent subnet is an IPv{subnet.version} block"
    return "" if address in subnet else f"parent subnet {subnet} doesn't contain this address"


def _canonical(item: Subnet) -> Subnet:
    def plain(text: str) -> str:
        return str(ipaddress.ip_address(text)) if text else ""

    return Subnet(
        str(ipaddress.ip_network(item.subnet, strict=False)) if item.subnet else "",
        str(ipaddress.ip_network(item.ip_range, strict=False)) if item.ip_range else "",
        plain(item.gateway),
        {name: plain(address) for name, address in item.auxiliary.items()},
    )


def to_row(network: Network) -> Json:
    """Return a network as JSON for the disk."""
    row: Json = network._asdict()
    row["subnets"] = [item._asdict() for item in network.subnets]
    row["options"], row["labels"] = dict(network.options), dict(network.labels)
    return row


def from_row(row: Mapping[str, Any]) -> Network:
    """Return the network that to_row() wrote.

    Raises:
        TypeError: the row is of another kind.
    """
    return Network(**{**row, "subnets": tuple(Subnet(**item) for item in row["subnets"])})
