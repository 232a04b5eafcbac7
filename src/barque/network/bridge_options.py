"""The options of the driver bridge, spelled as Docker spells them. Pure."""

import ipaddress
from collections.abc import Mapping
from typing import NamedTuple

from barque.base.errors import InvalidInputError
from barque.network.model import Network

_BRIDGE = "com.docker.network.bridge."
NAME, MASQUERADE, ICC = f"{_BRIDGE}name", f"{_BRIDGE}enable_ip_masquerade", f"{_BRIDGE}enable_icc"
HOST_BINDING, DEFAULT = f"{_BRIDGE}host_binding_ipv4", f"{_BRIDGE}default_bridge"
MODE4, MODE6 = f"{_BRIDGE}gateway_mode_ipv4", f"{_BRIDGE}gateway_mode_ipv6"
INHIBIT, TRUSTED = f"{_BRIDGE}inhibit_ipv4", f"{_BRIDGE}trusted_host_interfaces"
MTU, PREFIX = "com.docker.network.driver.mtu", "com.docker.network.container_iface_prefix"
HOST4, HOST6 = "com.docker.network.host_ipv4", "com.docker.network.host_ipv6"
ANTI_SPOOF = "barque.network.anti_spoof"

_MODES = ("nat", "nat-unprotected", "routed", "isolated")
_TRUE = frozenset({"1", "t", "T", "TRUE", "true", "True"})
_FALSE = frozenset({"0", "f", "F", "FALSE", "false", "False"})
_LARGEST_NAME = 15


class BridgeOptions(NamedTuple):
    """What the options of a network say; an MTU of 0 means the usual 1500 bytes.

    `mode4` and `mode6` say how other machines reach containers: nat (published ports of this machine),
    routed (published ports at the containers' own addresses), nat-unprotected (all ports), isolated
    (an internal network whose bridge has no address). `host4` and `host6` are the source addresses of
    what containers send out. With `anti_spoof` a container can send from its own addresses alone.
    """

    name: str = ""
    masquerade: bool = True
    icc: bool = True
    host_binding: str = ""
    mtu: int = 0
    mode4: str = "nat"
    mode6: str = "nat"
    inhibit_ipv4: bool = False
    trusted: tuple[str, ...] = ()
    prefix: str = "eth"
    host4: str = ""
    host6: str = ""
    anti_spoof: bool = False


def parse_bool(text: str) -> bool | None:
    """Return the truth value that Go's ParseBool reads, None where it reads none."""
    return True if text in _TRUE else False if text in _FALSE else None


def parse(network: Network) -> BridgeOptions:
    """Return a network's options.

    Raises:
        InvalidInputError: a value that cannot be; the text names it.
    """
    options = network.options
    found = BridgeOptions(
        name=options.get(NAME, ""),
        masquerade=_bool(options, MASQUERADE, True),
        icc=_bool(options, ICC, True),
        host_binding=_address(options, HOST_BINDING, 0),
        mtu=mtu_of(options),
        mode4=_mode(options, MODE4),
        mode6=_mode(options, MODE6),
        inhibit_ipv4=_bool(options, INHIBIT, False),
        trusted=tuple(item for item in options.get(TRUSTED, "").split(":") if item),
        prefix=options.get(PREFIX) or "eth",
        host4=_address(options, HOST4, 4),
        host6=_address(options, HOST6, 6),
        anti_spoof=_bool(options, ANTI_SPOOF, False),
    )
    for name in (found.name, *found.trusted, f"{found.prefix}0"):
        if name and not is_interface_name(name):
            raise InvalidInputError(f"invalid interface name: {name!r}")
    for mode in (found.mode4, found.mode6):
        if mode == "isolated" and not network.internal:
            raise InvalidInputError("gateway mode 'isolated' can only be used for an internal network")
    return found


def is_interface_name(name: str) -> bool:
    """Tell whether the kernel takes the name for an interface."""
    return 0 < len(name.encode()) <= _LARGEST_NAME and name not in (".", "..") \
        and not any(char in "/:%" or char.isspace() or ord(char) < 33 for char in name)  # fmt: skip


def _refuse(key: str, value: str, why: str) -> InvalidInputError:
    return InvalidInputError(f"failed to parse {key} value: {value} ({why})")


def _bool(options: Mapping[str, str], key: str, default: bool) -> bool:
    if key not in options:
        return default
    value = parse_bool(options[key])
    if value is None:
        raise _refuse(key, options[key], f'strconv.ParseBool: parsing "{options[key]}": invalid syntax')
    return value


def mtu_of(options: Mapping[str, str]) -> int:
    """Return the wanted size of packets, 0 where none is named.

    Raises:
        InvalidInputError: it is no number, or none that an interface may have.
    """
    text = options.get(MTU, "0")
    try:
        if not text.isascii():
            raise ValueError
        value = int(text)
    except ValueError:
        raise _refuse(MTU, text, f'strconv.Atoi: parsing "{text}": invalid syntax') from None
    if value and not 68 <= value <= 65535:
        raise InvalidInputError(f"invalid MTU number: {value}")
    return value


def _mode(options: Mapping[str, str], key: str) -> str:
    mode = options.get(key, "nat")
    if mode not in _MODES:
        raise _refuse(key, mode, f"unknown gateway mode {mode}")
    return mode


def _address(options: Mapping[str, str], key: str, version: int) -> str:
    text = options.get(key, "")
    if not text:
        return ""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise _refuse(key, text, "nil ip") from None
    if version and address.version != version:
        raise _refuse(key, text, f"not an IPv{version} address")
    return str(address)
