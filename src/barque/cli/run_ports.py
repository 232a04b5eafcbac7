"""Published and exposed ports: `-p` and `--expose` in all their forms."""

from __future__ import annotations

from barque.base.errors import InvalidInputError
from barque.base.record import Record
from barque.cli.addresses import is_ip

TYPE_CHECKING = False  # the module typing costs every start of the command milliseconds
if TYPE_CHECKING:
    from typing import Any

PROTOCOLS = ("tcp", "udp", "sctp")


class Publication(Record):
    """One container port and where it is published; `host_port` "" is any free one."""

    port: str
    host_ip: str
    host_port: str


def parse_publish(text: str) -> list[Publication]:
    """Parse one `-p` value; a range gives one publication a port.

    Raises:
        InvalidInputError: the text is no port mapping.
    """
    if "=" in text:
        return [_long_form(text)]
    body, slash, protocol = text.partition("/")
    protocol = protocol.lower() if slash else "tcp"
    host_ip, host, container = _split(body)
    if not container:
        raise InvalidInputError(f"no port specified: {text}<empty>")
    if host_ip and not is_ip(host_ip):
        raise InvalidInputError(f"invalid IP address: {host_ip}")
    start, end = _range(container, "containerPort")
    host_start, host_end = _range(host, "hostPort") if host else (0, 0)
    if protocol not in PROTOCOLS:
        raise InvalidInputError(f"invalid proto: {protocol}")
    if host and end - start != host_end - host_start and end != start:
        raise InvalidInputError(f"invalid ranges specified for container and host Ports: {container} and {host}")
    return [
        Publication(f"{port}/{protocol}", host_ip, _host_port(host, host_start, host_end, start, end, port))
        for port in range(start, end + 1)
    ]


def _host_port(host: str, host_start: int, host_end: int, start: int, end: int, port: int) -> str:
    if not host:
        return ""
    if start == end and host_start != host_end:
        return f"{host_start}-{host_end}"
    return str(host_start + port - start)


def _split(text: str) -> tuple[str, str, str]:
    parts = text.split(":")
    container = parts[-1]
    if len(parts) == 1:
        return "", "", container
    if len(parts) == 2:
        return "", parts[0], container
    host_ip = ":".join(parts[:-2])
    if host_ip.startswith("[") and host_ip.endswith("]"):
        host_ip = host_ip[1:-1]
    return host_ip, parts[-2], container


def _range(text: str, what: str) -> tuple[int, int]:
    first, dash, last = text.partition("-")
    numbers = [first, last] if dash else [first, first]
    if not all(n.isascii() and n.isdigit() and int(n) < 65536 for n in numbers):
        raise InvalidInputError(f"invalid {what}: {text}")
    start, end = int(numbers[0]), int(numbers[1])
    if end < start:
        raise InvalidInputError(f"invalid {what}: {text}")
    return start, end


def _long_form(text: str) -> Publication:
    values = {"protocol": "tcp", "target": "", "published": ""}
    for field in text.split(","):
        key, equals, value = field.partition("=")
        key = key.strip().lower()
        if not equals or not value:
            raise InvalidInputError(f"invalid field: {field}" if not equals else f"invalid field {field}")
        if key == "mode":
            if value not in ("ingress", "host"):
                raise InvalidInputError(f"invalid publish mode value ({value}): must be either 'ingress' or 'host'")
        elif key not in values:
            raise InvalidInputError(f"invalid field key {key}")
        else:
            values[key] = value
    if not values["target"]:
        raise InvalidInputError(f"missing mandatory field '{'target'}'")
    if values["protocol"] not in PROTOCOLS:
        raise InvalidInputError(f"invalid protocol value: {values['protocol']}")
    _range(values["target"], "containerPort")
    if values["published"]:
        _range(values["published"], "hostPort")
    return Publication(f"{values['target']}/{values['protocol']}", "", values["published"])


def parse_expose(text: str) -> list[str]:
    """Return the ports of one `--expose` value, such as ["80/tcp"].

    Raises:
        InvalidInputError: the text is no port or range of ports.
    """
    if ":" in text:
        raise InvalidInputError(f"invalid port format for --expose: {text}")
    ports, _, protocol = text.partition("/")
    first, _, last = ports.partition("-")
    for number in (first, last or first):
        if not (number.isascii() and number.isdigit()):
            raise InvalidInputError(
                f"invalid range format for --expose: {ports}, error: "
                f'strconv.ParseUint: parsing "{number}": invalid syntax'
            )
    start, end = int(first), int(last or first)
    if end < start or end > 65535:
        raise InvalidInputError(f"invalid range format for --expose: {ports}, error: invalid range specified for port")
    return [f"{port}/{protocol or 'tcp'}" for port in range(start, end + 1)]


def port_maps(publish: list[str], expose: list[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return ExposedPorts and PortBindings of all `-p` and `--expose` values."""
    exposed: dict[str, Any] = {}
    bindings: dict[str, Any] = {}
    for text in publish:
        for one in parse_publish(text):
            exposed[one.port] = {}
            binding = {"HostIp": one.host_ip, "HostPort": one.host_port}
            bindings.setdefault(one.port, []).append(binding)
    for text in expose:
        for port in parse_expose(text):
            exposed.setdefault(port, {})
    return exposed, bindings
