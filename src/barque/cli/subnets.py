"""The address flags of `network create`, matched to their subnets."""

import ipaddress
from typing import Any

from barque.base.errors import InvalidInputError

_Row = dict[str, Any]


def ipam_rows(subnets: list[str], ranges: list[str], gateways: list[str], auxiliary: dict[str, str]) -> list[_Row]:
    """Return IPAM.Config.

    Raises:
        InvalidInputError: subnets overlap, or something fits none of them.
    """
    if len(subnets) < len(ranges) or len(subnets) < len(gateways):
        raise InvalidInputError("every ip-range or gateway must have a corresponding subnet")
    rows: dict[str, _Row] = {}
    for subnet in subnets:
        if any(_holds(subnet, other) or _holds(other, subnet) for other in rows):
            raise InvalidInputError("multiple overlapping subnet configuration is not supported")
        rows[subnet] = {"Subnet": subnet}
    for value in ranges:
        _cidr(value)
        _put(rows, value, "IPRange", "range", "cannot configure multiple ranges ({}, {}) on the same subnet ({})")
    for value in gateways:
        words = "cannot configure multiple gateways ({}, {}) for the same subnet ({})"
        _put(rows, value, "Gateway", "gateway", words)
    for name, address in auxiliary.items():
        owner = _owner(rows, address, "aux-address")
        rows[owner].setdefault("AuxiliaryAddresses", {})[name] = address
    return list(rows.values())


def _put(rows: dict[str, _Row], value: str, key: str, noun: str, words: str) -> None:
    owner = _owner(rows, value, noun)
    if key in rows[owner]:
        raise InvalidInputError(words.format(value, rows[owner][key], owner))
    rows[owner][key] = value


def _owner(rows: dict[str, _Row], value: str, noun: str) -> str:
    for subnet in rows:
        if _holds(subnet, value):
            return subnet
    raise InvalidInputError(f"no matching subnet for {noun} {value}")


def _holds(subnet: str, value: str) -> bool:
    space = _cidr(subnet, "invalid subnet: ")
    try:
        address = _cidr(value).ip if "/" in value else ipaddress.ip_address(value)
    except ValueError:
        return False
    return address in space.network


def _cidr(text: str, before: str = "") -> ipaddress.IPv4Interface | ipaddress.IPv6Interface:
    try:
        if "/" not in text:
            raise ValueError
        return ipaddress.ip_interface(text)
    except ValueError:
        raise InvalidInputError(f"{before}invalid CIDR address: {text}") from None
