"""Changing which ports of a container are published, while it runs too."""

from typing import TYPE_CHECKING, Any

from barque.base.errors import InvalidInputError, NotFoundError
from barque.engine import endpoints
from barque.engine.container import Container
from barque.network.ports import parse_requests

if TYPE_CHECKING:
    from barque.engine.engine import Engine

Json = dict[str, Any]


def change(engine: "Engine", container: Container, host: Json, changes: Json) -> None:
    """Publish and withdraw ports as PublishAdd and PublishRemove say; host is the HostConfig that is to be kept.

    Connections through ports that stay are not cut.

    Raises:
        InvalidInputError: a port that cannot be, or a container without a network of its own.
        NotFoundError: a port to withdraw is not published.
        BarqueError: a host port is taken; all is as before.
    """
    added, removed = changes.get("PublishAdd") or {}, changes.get("PublishRemove") or {}
    if not added and not removed:
        return
    if not endpoints.has_own_namespace(container) or container.network_mode == "none":
        raise InvalidInputError("conflicting options: port publishing and the network mode of this container")
    bindings = changed(host.get("PortBindings") or {}, added, removed)
    exposed = {**(container.config.get("ExposedPorts") or {}), **{port: {} for port in added}}
    requests = parse_requests(bindings, exposed, publish_all=bool(host.get("PublishAllPorts")))
    if container.is_running and container.sandbox is not None:
        container.sandbox = engine.network.republish(container.id, requests)
    host["PortBindings"] = bindings
    if exposed:
        container.row["config"] = {**container.config, "ExposedPorts": exposed}


def changed(bindings: Json, added: Json, removed: Json) -> Json:
    """Return port bindings after changes. Pure.

    A binding to withdraw says as much as it needs to: without a host port and address all of the port's go.

    Raises:
        NotFoundError: a port to withdraw is not published.
    """
    found = {port: [dict(item or {}) for item in listed or [{}]] for port, listed in bindings.items()}
    for port, patterns in removed.items():
        for pattern in patterns or [{}]:
            before = found.get(port, [])
            kept = [item for item in before if not _fits(item, pattern or {})]
            if len(kept) == len(before):
                shown = ":".join(filter(None, ((pattern or {}).get("HostIp"), (pattern or {}).get("HostPort"))))
                raise NotFoundError(f"port {shown + ':' if shown else ''}{port} is not published")
            found[port] = kept
        if not found[port]:
            del found[port]
    for port, listed in added.items():
        for item in listed or [{}]:
            made = {"HostIp": (item or {}).get("HostIp") or "", "HostPort": (item or {}).get("HostPort") or ""}
            if made not in found.setdefault(port, []) or not made["HostPort"]:
                found[port].append(made)
    return found


def _fits(item: Json, pattern: Json) -> bool:
    return all(not pattern.get(key) or (item.get(key) or "") == pattern[key] for key in ("HostIp", "HostPort"))
