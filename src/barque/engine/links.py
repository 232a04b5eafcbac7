"""Legacy links between containers of the default bridge: names in /etc/hosts, values in the environment."""

from typing import TYPE_CHECKING, Any

from barque.base.errors import BarqueError, ConflictError, InvalidInputError, NotFoundError
from barque.engine.container import Container
from barque.network.linking import LinkTarget

if TYPE_CHECKING:
    from barque.engine.engine import Engine

Json = dict[str, Any]


def parse(text: str) -> tuple[str, str]:
    """Return (container, alias) of `name:alias` or `name`.

    Raises:
        InvalidInputError: it is empty or has more parts.
    """
    parts = text.split(":")
    if not text or len(parts) > 2 or not all(parts):
        raise InvalidInputError(f"bad format for links: {text}")
    # What inspect shows is accepted too: /db:/web/alias.
    return parts[0].removeprefix("/"), parts[-1].rpartition("/")[2]


def resolve(engine: "Engine", texts: list[str]) -> list[list[str]]:
    """Return [[container id, alias], …] of HostConfig.Links.

    Raises:
        InvalidInputError: a container that is not there, has its own network, or a malformed text.
    """
    found = []
    for text in texts:
        name, alias = parse(text)
        try:
            other = engine.find(name)
        except NotFoundError:
            raise InvalidInputError(f"could not get container for {name}: No such container: {name}") from None
        if other.network_mode == "host":
            raise InvalidInputError("conflicting options: host type networking can't be used with links. "
                                    "This would result in undefined behavior")  # fmt: skip
        found.append([other.id, alias])
    return found


def shown(engine: "Engine", container: Container) -> list[str] | None:
    """Return HostConfig.Links as inspect shows them."""
    listed = [
        f"/{engine.containers_by_id[child].name}:/{container.name}/{alias}"
        for child, alias in container.row.get("links") or () if child in engine.containers_by_id
    ]  # fmt: skip
    return listed or None


def remove(engine: "Engine", ref: str) -> None:
    """Remove the link that a name `parent/alias` means.

    Raises:
        NotFoundError: it means none.
        ConflictError: it is a container's own name.
    """
    parent_name, slash, alias = ref.removeprefix("/").partition("/")
    parent_id = engine.by_name.get(parent_name) if slash else None
    parent = engine.containers_by_id.get(parent_id or "")
    kept = [item for item in (parent.row.get("links") or ()) if item[1] != alias] if parent is not None else []
    if parent is None or len(kept) == len(parent.row.get("links") or ()):
        if not slash and engine.find(ref):
            raise ConflictError("Conflict, cannot remove the default link name of the container")
        raise NotFoundError(f"No such container: {ref}")
    parent.row["links"] = kept
    engine.changed(parent)
    engine.save(parent)
    open_ways(engine, parent)


def children(engine: "Engine", container: Container) -> list[tuple[Container, str]]:
    """Return the containers that one is linked to, with the names it uses.

    Raises:
        BarqueError: one of them does not run, or is not in the default bridge.
    """
    found = []
    for child_id, alias in container.row.get("links") or ():
        child = engine.containers_by_id.get(child_id)
        if child is None:
            continue
        if not child.is_running:
            raise BarqueError(f"Cannot link to a non running container: /{child.name} AS /{container.name}/{alias}")
        if "bridge" not in child.row["networking"]:
            raise BarqueError(f"Cannot link to /{child.name}, as it does not belong to the default network")
        found.append((child, alias))
    return found


def parents(engine: "Engine", container: Container) -> list[tuple[Container, str]]:
    """Return the containers that are linked to one, with the names they use."""
    return [
        (other, alias)
        for other in engine.containers_by_id.values() if (links := other.row.get("links"))
        for child_id, alias in links if child_id == container.id
    ]  # fmt: skip


def open_ways(engine: "Engine", container: Container) -> None:
    """Let a running container reach the exposed ports of those it is linked to."""
    targets = []
    for child_id, _ in container.row.get("links") or ():
        child = engine.containers_by_id.get(child_id)
        if child is not None:
            specs = {*(child.config.get("ExposedPorts") or ()), *(child.host.get("PortBindings") or ())}
            ports = sorted({(protocol, port) for spec in specs for protocol, port in _numbers(spec)})
            targets.append(LinkTarget(child.id, tuple(ports)))
    engine.network.link(container.id, tuple(targets))


def _numbers(spec: str) -> list[tuple[str, int]]:
    span, _, protocol = spec.partition("/")
    first, _, last = span.partition("-")
    return [((protocol or "tcp").lower(), port) for port in range(int(first), int(last or first) + 1)]


def hosts_entries(engine: "Engine", container: Container) -> list[tuple[str, str]]:
    """Return (names, address) of the lines of /etc/hosts that links bring."""
    found = []
    for child, alias in children(engine, container):
        names = f"{alias} {child.config.get('Hostname') or ''}".rstrip()
        if alias != child.name:
            names += f" {child.name}"
        endpoint = child.sandbox.named("bridge") if child.sandbox else None
        found += [(names, address) for address in (endpoint.ip, endpoint.ip6) if address] if endpoint else []
    return found


def environment(engine: "Engine", container: Container) -> list[str]:
    """Return the variables that links to running containers bring."""
    found: list[str] = []
    for child_id, alias in container.row.get("links") or ():
        child = engine.containers_by_id.get(child_id)
        endpoint = child.sandbox.named("bridge") if child is not None and child.sandbox else None
        if child is not None and endpoint is not None:
            exposed = list(child.config.get("ExposedPorts") or ())
            found += variables(f"/{container.name}/{alias}", endpoint.ip, exposed, child.config.get("Env") or [])
    return found


def with_variables(engine: "Engine", container: Container) -> list[str]:
    """Return a container's environment, with what its links bring in front."""
    own = container.config.get("Env") or []
    return [*environment(engine, container), *own] if container.row.get("links") else own


def variables(name: str, address: str, exposed: list[str], env: list[str]) -> list[str]:
    """Return the variables of one link, named `/parent/alias`. Pure."""
    alias = name.rpartition("/")[2].upper().replace("-", "_")
    ports = sorted(map(_port, exposed), key=lambda item: (item[1] != "tcp", item[1], item[0]))
    found = []
    if ports:
        found.append(f"{alias}_PORT={ports[0][1]}://{address}:{ports[0][0]}")
    for number, protocol in ports:
        prefix = f"{alias}_PORT_{number}_{protocol.upper()}"
        found += [f"{prefix}={protocol}://{address}:{number}", f"{prefix}_ADDR={address}",
                  f"{prefix}_PORT={number}", f"{prefix}_PROTO={protocol}"]  # fmt: skip
    for first, last in _runs(ports):
        prefix = f"{alias}_PORT_{first[0]}_{first[1].upper()}"
        found += [f"{prefix}_START={first[1]}://{address}:{first[0]}", f"{prefix}_PORT_START={first[0]}",
                  f"{prefix}_END={last[1]}://{address}:{last[0]}", f"{prefix}_PORT_END={last[0]}"]  # fmt: skip
    found.append(f"{alias}_NAME={name}")
    for entry in env:
        key, equals, value = entry.partition("=")
        if equals and key not in ("HOME", "PATH"):
            found.append(f"{alias}_ENV_{key}={value}")
    return found


def _port(spec: str) -> tuple[int, str]:
    number, _, protocol = spec.partition("/")
    return int(number.partition("-")[0]), protocol or "tcp"


def _runs(ports: list[tuple[int, str]]) -> list[tuple[tuple[int, str], tuple[int, str]]]:
    """Return (first, last) of ports that follow each other."""
    runs: list[list[tuple[int, str]]] = []
    for item in ports:
        if runs and item[1] == runs[-1][-1][1] and item[0] == runs[-1][-1][0] + 1:
            runs[-1].append(item)
        else:
            runs.append([item])
    return [(run[0], run[-1]) for run in runs if len(run) > 1]
