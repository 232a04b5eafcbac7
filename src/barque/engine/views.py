"""How the API shows containers: inspect, the list, and the list's filters."""

import hashlib
import re
import time
from typing import TYPE_CHECKING, Any

from barque.base.durations import human_duration
from barque.base.errors import BarqueError, InvalidInputError, NotFoundError
from barque.base.times import format_ns, until_ns
from barque.engine import apparmor, links, mount_points
from barque.engine.container import Container
from barque.engine.filters import check_known, finder, label_matches, truth
from barque.network import describe

if TYPE_CHECKING:
    from barque.engine.engine import Engine

Json = dict[str, Any]
Filters = dict[str, list[str]]
_PORTS = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?(?:/(\w+))?")
_FILTERS = {"ancestor", "before", "expose", "exited", "health", "id", "is-task", "isolation", "label", "name",
            "network", "publish", "since", "status", "volume"}  # fmt: skip
_STATUSES = {"created", "running", "paused", "restarting", "removing", "exited", "dead"}


def inspect(engine: "Engine", container: Container) -> Json:
    """Return everything about a container."""
    row, folder = container.row, engine.folder(container.id)
    sandbox = hashlib.sha256(container.id.encode()).hexdigest() if container.is_running else ""
    return {
        "Id": container.id,
        "Created": format_ns(row["created_ns"]),
        "Path": row["path"],
        "Args": row["args"],
        "State": container.show_state(),
        "Image": row["image"],
        "ResolvConfPath": f"{folder}/resolv.conf" if container.state["started_before"] else "",
        "HostnamePath": f"{folder}/hostname" if container.state["started_before"] else "",
        "HostsPath": f"{folder}/hosts" if container.state["started_before"] else "",
        "LogPath": row["log_path"] if row["host"]["LogConfig"]["Type"] == "json-file" else "",
        "Name": f"/{container.name}",
        "RestartCount": row["restart_count"],
        "Driver": engine.snapshots.driver,
        "Platform": "linux",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "unconfined" if container.host.get("Privileged") else apparmor.profile_of(container.host),
        "ExecIDs": engine.execs_running(container) or None,
        "HostConfig": {**container.host, "Links": links.shown(engine, container)},
        "GraphDriver": {"Name": engine.snapshots.driver, "Data": _driver_data(engine, container)},
        "Mounts": mount_points.shown(row["mounts"]),
        "Config": {**container.config},
        "NetworkSettings": describe.network_settings(
            container.sandbox, row["networking"], _network_ids(engine, container), sandbox_id=sandbox,
            sandbox_key=f"/proc/{container.pid}/ns/net" if container.is_running else "",
            exposed=container.config.get("ExposedPorts") or (), running=container.is_running,
        ),
    }  # fmt: skip


def _driver_data(engine: "Engine", container: Container) -> Json:
    try:
        layer, *lowers = engine.snapshots.places(container.id)
    except BarqueError:
        return {}
    return {"ID": container.id, "UpperDir": layer, "WorkDir": layer.rpartition("/")[0] + "/work",
            "LowerDir": ":".join(lowers), "MergedDir": ""}  # fmt: skip


def _network_ids(engine: "Engine", container: Container) -> dict[str, str]:
    """Return the ids of a container's networks by name; empty before its first start."""
    if not container.state["started_before"]:
        return {}
    found = {}
    for name, settings in container.row["networking"].items():
        try:
            found[name] = settings.get("NetworkID") or engine.network.catalog.by_name(name).id
        except NotFoundError:
            continue
    return found


def summary(engine: "Engine", container: Container) -> Json:
    """Return a container's row of the list; `Status` tells the time and is made anew each time."""
    row = container.summary
    if row is None:
        row = container.summary = _summary(engine, container)
    return {**row, "Status": status_text(container)}


def _summary(engine: "Engine", container: Container) -> Json:
    row = container.row
    mode = container.network_mode
    live = {item.network: item for item in container.sandbox.endpoints} if container.sandbox else {}
    ids = _network_ids(engine, container)
    networks = {
        name: describe.endpoint_settings(live.get(name), ids.get(name, ""), settings)
        for name, settings in row["networking"].items()
    }
    config = container.config
    command = " ".join([row["path"], *(_quoted(arg) for arg in row["args"])])
    return {
        "Id": container.id,
        "Names": [*(f"/{parent.name}/{alias}" for parent, alias in links.parents(engine, container)),
                  f"/{container.name}"],
        "Image": engine.shown_image(container),
        "ImageID": row["image"],
        "Command": command,
        "Created": row["created_ns"] // 1_000_000_000,
        "Ports": describe.port_list(container.sandbox, config.get("ExposedPorts") or ())
        if container.is_running else [],
        "Labels": container.labels,
        "State": container.status,
        "Status": "",
        "HostConfig": {"NetworkMode": mode},
        "NetworkSettings": {"Networks": networks},
        "Mounts": mount_points.shown(row["mounts"]),
    }  # fmt: skip


def _quoted(text: str) -> str:
    return f"'{text}'" if " " in text else text


def status_text(container: Container) -> str:
    """Return `Up 5 minutes (healthy)`, `Exited (0) 2 hours ago`."""
    state, status = container.state, container.status
    if status in ("running", "paused"):
        text = f"Up {human_duration((time.time_ns() - state['started_ns']) / 1e9)}"
        if status == "paused":
            return f"{text} (Paused)"
        if container.health is not None:
            word = container.health["Status"]
            return f"{text} ({'health: starting' if word == 'starting' else word})"
        return text
    if status == "restarting":
        return f"Restarting ({state['exit_code']}) {_ago(state['finished_ns'])}"
    if status == "removing":
        return "Removal In Progress"
    if status == "dead":
        return "Dead"
    if status == "created":
        return "Created"
    return f"Exited ({state['exit_code']}) {_ago(state['finished_ns'])}"


def _ago(time_ns: int) -> str:
    return f"{human_duration((time.time_ns() - time_ns) / 1e9)} ago"


def select(engine: "Engine", filters: Filters, *, everything: bool, limit: int) -> list[Container]:
    """Return the containers that pass, newest first.

    Raises:
        InvalidInputError: an unknown filter or value.
        NotFoundError: before or since name no container.
    """
    check_known(filters, _FILTERS)
    for value in filters.get("status", []):
        if value not in _STATUSES:
            raise InvalidInputError(f"invalid filter 'status={value}'")
    for value in filters.get("health", []):
        if value not in ("none", "starting", "healthy", "unhealthy"):
            raise InvalidInputError(f"invalid filter 'health={value}'")
    for value in filters.get("exited", []):
        if not re.fullmatch(r"-?[0-9]{1,10}", value):
            raise InvalidInputError(f"invalid filter 'exited={value}'")
    for value in filters.get("is-task", []):
        truth("is-task", value)
    for value in (*filters.get("publish", []), *filters.get("expose", [])):
        _ports_of(value)
    before = [engine.find(ref).row["created_ns"] for ref in filters.get("before", [])]
    since = [engine.find(ref).row["created_ns"] for ref in filters.get("since", [])]
    images = _ancestors(engine, filters["ancestor"]) if filters.get("ancestor") else None
    named = finder(filters["name"]) if filters.get("name") else None
    everything = everything or limit > 0 or bool(filters.get("status") or filters.get("exited"))
    found = []
    ordered = sorted(engine.containers_by_id.values(), key=lambda c: c.row["created_ns"], reverse=True)
    for container in ordered:
        if not everything and not container.is_running and container.status != "restarting":
            continue
        created = container.row["created_ns"]
        if any(created >= value for value in before) or any(created <= value for value in since):
            continue
        if images is not None and container.row["image"] not in images:
            continue
        if named is not None and not (named(container.name) or named(f"/{container.name}")):
            continue
        if filters and not _passes(engine, container, filters):
            continue
        found.append(container)
        if 0 < limit <= len(found):
            break
    return found


def _ancestors(engine: "Engine", refs: list[str]) -> set[str]:
    """Return the images, and those made from them, that the references mean."""
    found: set[str] = set()
    for ref in refs:
        try:
            queue = [engine.image_store.resolve(ref).id]
        except BarqueError:
            continue
        while queue:
            image = queue.pop()
            if image not in found:
                found.add(image)
                queue += engine.image_store.children(image)
    return found


def _passes(engine: "Engine", container: Container, filters: Filters) -> bool:
    def any_of(key: str, matches: Any) -> bool:
        return not filters.get(key) or any(matches(value) for value in filters[key])

    health = container.health["Status"] if container.health else "none"
    mounts = container.row["mounts"]
    return (
        all(label_matches(container.labels, value) for value in filters.get("label", []))
        and any_of("id", container.id.startswith)
        and any_of("status", lambda value: value == container.status)
        and any_of("health", lambda value: value == health)
        and any_of("exited", lambda value: container.status in ("exited", "dead")
                   and container.state["exit_code"] == int(value))
        and any_of("volume", lambda value: any(value in (m["Name"], m["Destination"], m["Source"]) for m in mounts))
        and any_of("network", lambda value: _in_network(engine, container, value))
        and (not ("publish" in filters or "expose" in filters) or _has_port(container, filters))
        and any_of("is-task", lambda value: not truth("is-task", value))
        and any_of("isolation", lambda value: value in ("", "default"))
    )  # fmt: skip


def _in_network(engine: "Engine", container: Container, wanted: str) -> bool:
    ids = _network_ids(engine, container)
    return wanted in container.row["networking"] or wanted == container.network_mode or any(
        bool(wanted) and network_id.startswith(wanted) for network_id in ids.values()
    )


def _has_port(container: Container, filters: Filters) -> bool:
    """Tell whether a port of the host that leads into a container, or one inside that is told of, is asked for."""
    public = {port for value in filters.get("publish", ()) for port in _ports_of(value)}
    private = {port for value in filters.get("expose", ()) for port in _ports_of(value)}
    listed = describe.port_list(container.sandbox, container.config.get("ExposedPorts") or ()) if container.is_running else ()
    return any(
        (item.get("PublicPort"), item["Type"]) in public or (item["PrivatePort"], item["Type"]) in private for item in listed
    )


def _ports_of(text: str) -> set[tuple[int, str]]:
    match = _PORTS.fullmatch(text)
    first = int(match[1]) if match else 0
    last = int(match[2] or first) if match else 0
    if match is None or not first <= last <= 65535:
        raise InvalidInputError(f"invalid filter: {text} is no port")
    return {(port, match[3] or "tcp") for port in range(first, last + 1)}


def prunable(engine: "Engine", filters: Filters) -> list[Container]:
    """Return the stopped containers that a prune's filters choose.

    Raises:
        InvalidInputError: an unknown filter or value.
    """
    check_known(filters, {"label", "label!", "until"})
    limit_ns = min((until_ns(value) for value in filters.get("until", [])), default=0)
    found = []
    for container in list(engine.containers_by_id.values()):
        if container.is_running or container.status in ("restarting", "removing"):
            continue
        if limit_ns and container.row["created_ns"] > limit_ns:
            continue
        if not all(label_matches(container.labels, value) for value in filters.get("label", [])):
            continue
        if any(label_matches(container.labels, value) for value in filters.get("label!", [])):
            continue
        found.append(container)
    return found
