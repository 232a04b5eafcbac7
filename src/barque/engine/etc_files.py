"""A container's /etc/hosts, /etc/hostname and /etc/resolv.conf, written at start and kept true while it runs."""

import os
from typing import TYPE_CHECKING, Any

from barque.base.files import write_in_place
from barque.engine import endpoints, links
from barque.engine.container import Container
from barque.network import files

if TYPE_CHECKING:
    from barque.engine.engine import Engine

Json = dict[str, Any]


def prepare(engine: "Engine", container: Container) -> tuple[tuple[str, str], ...]:
    """Write the files; return where each goes."""
    if not container.network_mode.startswith("container:"):
        for name, text in _texts(engine, container).items():
            _write(f"{engine.folder(container.id)}/{name}", text)
    return places(engine, container)


def places(engine: "Engine", container: Container) -> tuple[tuple[str, str], ...]:
    """Return the files that were written, and where each goes; those of another container where it shares its network.

    Raises:
        NotFoundError: that container is gone.
    """
    mode, _, ref = container.network_mode.partition(":")
    folder = engine.folder(engine.find(ref).id if mode == "container" else container.id)
    found = [(f"{folder}/{name}", f"/etc/{name}") for name in ("resolv.conf", "hostname", "hosts")]
    return tuple((source, target) for source, target in found if os.path.exists(source))


def refresh(engine: "Engine", container: Container) -> None:
    """Bring the files of a running container up to date after its networks changed.

    Lines of hosts that are not ours stay; resolv.conf is written anew only where it is as we wrote it.
    """
    folder = engine.folder(container.id)
    before = container.own_addresses
    own = _own(container)
    addresses = _addresses(container)
    text = _read(f"{folder}/hosts")
    if text:
        lines = [line for line in text.splitlines() if (line.split() or [""])[0] not in before]
        lines += [f"{address}\t{' '.join(own)}" for address in addresses]
        _write(f"{folder}/hosts", "\n".join(lines) + "\n")
    container.own_addresses = frozenset(addresses)
    if container.resolv_conf and _read(f"{folder}/resolv.conf") == container.resolv_conf:
        container.resolv_conf = _resolv_conf(engine, container)
        _write(f"{folder}/resolv.conf", container.resolv_conf)


def adopt(engine: "Engine", container: Container) -> None:
    """Take note of what the files of a container that runs on must say."""
    container.own_addresses = frozenset(_addresses(container))
    container.resolv_conf = _resolv_conf(engine, container)


def tell_parents(engine: "Engine", container: Container) -> None:
    """Let containers that are linked to one find it at its new address."""
    endpoint = container.sandbox.named("bridge") if container.sandbox is not None else None
    if endpoint is None:
        return
    for parent, alias in links.parents(engine, container):
        if not parent.is_running:
            continue
        path = f"{engine.folder(parent.id)}/hosts"
        changed = []
        for line in _read(path).splitlines():
            words = line.split()
            if alias in words[1:]:
                address = endpoint.ip6 if ":" in words[0] else endpoint.ip
                line = f"{address or words[0]}\t{' '.join(words[1:])}"
            changed.append(line)
        _write(path, "\n".join(changed) + "\n")


def _write(path: str, text: str) -> None:
    # In place: what is mounted into the container is this very file.
    write_in_place(path, text.encode())


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def _own(container: Container) -> list[str]:
    return files.own_names(str(container.config.get("Hostname") or ""), str(container.config.get("Domainname") or ""))


def _addresses(container: Container) -> list[str]:
    if container.sandbox is None:
        return []
    return [address for item in container.sandbox.endpoints for address in (item.ip, item.ip6) if address]


def host_gateway(engine: "Engine") -> str:
    """Return the address that `host-gateway` stands for, empty where there is none."""
    return engine.config.host_gateway_ip or (engine.network.bridge.address if engine.network.bridge else "")


def _texts(engine: "Engine", container: Container) -> dict[str, str]:
    host = container.host
    extra = files.extra_hosts(host.get("ExtraHosts") or [], [host_gateway(engine)])
    extra += links.hosts_entries(engine, container)
    if container.network_mode == "host":
        hosts = _read("/etc/hosts") + "".join(f"{address}\t{name}\n" for name, address in extra)
    else:
        hosts = files.hosts(_addresses(container), _own(container), extra)
    container.own_addresses = frozenset(_addresses(container))
    container.resolv_conf = _resolv_conf(engine, container)
    own = str(container.config.get("Hostname") or "")
    return {"hosts": hosts, "hostname": files.hostname(own), "resolv.conf": container.resolv_conf}


def _resolv_conf(engine: "Engine", container: Container) -> str:
    wish = endpoints.wished_resolver(engine, container)
    listed = container.sandbox.endpoints if container.sandbox is not None else ()
    if any(item.names for item in listed):
        return files.served_resolv_conf(*files.served_resolver(engine.host_resolver(), wish))
    resolver = files.container_resolver(
        engine.host_resolver(), wish, own_namespace=endpoints.has_own_namespace(container) and bool(listed),
        ipv6=any(item.ip6 for item in listed),
    )  # fmt: skip
    return files.resolv_conf(resolver)
