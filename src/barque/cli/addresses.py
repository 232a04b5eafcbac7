"""What is an IP address or a hardware address."""

import _socket


def is_ip(text: str) -> bool:
    """Return whether the text is an IPv4 or IPv6 address (a zone is allowed behind the latter)."""
    for family, candidate in ((_socket.AF_INET, text), (_socket.AF_INET6, text.partition("%")[0])):
        try:
            _socket.inet_pton(family, candidate)
            return True
        except (OSError, ValueError):
            continue
    return False


def is_hardware_address(text: str) -> bool:
    """Return whether the text is a MAC address of 6, 8 or 20 bytes."""
    for separator, digits in ((":", 2), ("-", 2), (".", 4)):
        parts = text.split(separator)
        if len(parts) * digits in (12, 16, 40):
            return all(len(p) == digits and all(c in "0123456789abcdefABCDEF" for c in p) for p in parts)
    return False
