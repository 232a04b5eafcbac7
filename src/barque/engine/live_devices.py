"""Devices added to and taken from containers that exist, running or not."""

import asyncio
import os
from typing import TYPE_CHECKING, Any

from barque.base.errors import BarqueError, ConflictError, InvalidInputError, NotFoundError
from barque.engine import resources
from barque.engine.container import Container
from barque.runtime import live_devices
from barque.runtime.cgroups import open_manager
from barque.runtime.devices import parse_device

if TYPE_CHECKING:
    from barque.engine.engine import Engine

Json = dict[str, Any]


async def add(engine: "Engine", container: Container, wish: Json) -> None:
    """Give a container a device now, and whenever it starts again.

    Args:
        engine: the engine.
        container: who gets it.
        wish: an entry of HostConfig.Devices; a folder gives all devices in it.

    Raises:
        InvalidInputError: the device is not there, or malformed.
        ConflictError: the container has something at that place, or all devices.
        BarqueError: the kernel refuses it.
    """
    source = str(wish.get("PathOnHost") or "")
    entry = {"PathOnHost": source, "PathInContainer": str(wish.get("PathInContainer") or source),
             "CgroupPermissions": str(wish.get("CgroupPermissions") or "rwm")}  # fmt: skip
    for key in ("PathOnHost", "PathInContainer"):
        if not entry[key].startswith("/"):
            raise InvalidInputError(f"{entry[key] or key}: a device wants an absolute path")
    nodes, rules = resources.devices_of({"Devices": [entry]})
    async with container.lock:
        if container.status in ("removing", "dead"):
            raise ConflictError(f"container {container.id} is being removed")
        if container.host.get("Privileged"):
            raise ConflictError(f"container {container.id} is privileged: it may use all devices already")
        if any(other.get("PathInContainer") == entry["PathInContainer"] for other in container.host.get("Devices") or []):
            raise ConflictError(f"container {container.id} has a device at {entry['PathInContainer']} already")
        devices = [*(container.host.get("Devices") or []), entry]
        if container.is_running:
            changed = rules[-len(nodes) :]
            await _change(engine, container, devices, changed)
            try:
                await asyncio.to_thread(live_devices.make, container.pid, [parse_device(node) for node in nodes])
            except OSError as error:
                await _change(engine, container, container.host.get("Devices") or [], _denied(changed))
                reason = os.strerror(error.errno).lower() if error.errno else str(error)
                raise BarqueError(f"cannot make {entry['PathInContainer']} in container {container.id}: {reason}") from error
        await _written(engine, container, devices)
    engine.publish(container, "device_add", path=entry["PathInContainer"])


async def remove(engine: "Engine", container: Container, path: str) -> None:
    """Take a device from a container, now and for its next start; what has it open keeps it.

    Raises:
        NotFoundError: it was given none at that place.
        BarqueError: the kernel refuses it.
    """
    async with container.lock:
        listed = container.host.get("Devices") or []
        found = [entry for entry in listed if (entry.get("PathInContainer") or entry.get("PathOnHost")) == path]
        if not found:
            raise NotFoundError(f"container {container.id} was given no device at {path}")
        left = [entry for entry in listed if entry not in found]
        if container.is_running:
            nodes, rules = _known(found)
            always = [rule for rule in _always(container) if rule["allow"]]
            gone = [rule for rule in rules if not any(_covers(other, rule) for other in always)]
            still = [other for other in _known(left)[1] if any(_covers(other, rule) for rule in gone)]
            await _change(engine, container, left, _denied(gone) + still)
            try:
                await asyncio.to_thread(live_devices.remove, container.pid, [parse_device(node) for node in nodes])
            except OSError as error:
                raise BarqueError(f"cannot remove {path} in container {container.id}: {error}") from error
        await _written(engine, container, left)
    engine.publish(container, "device_remove", path=path)


def _known(entries: list[Json]) -> tuple[list[Json], list[Json]]:
    """Return the nodes and rules of devices; those that the host has lost by now have none."""
    nodes: list[Json] = []
    rules: list[Json] = []
    for entry in entries:
        try:
            made, all_rules = resources.devices_of({"Devices": [entry]})
        except InvalidInputError:
            continue
        nodes += made
        rules += all_rules[-len(made) :]
    return nodes, rules


def _always(container: Container) -> list[Json]:
    """Return the rules that a container has without any device of its own."""
    return resources.devices_of({**container.host, "Devices": []})[1]


def _covers(rule: Json, other: Json) -> bool:
    """Tell whether a rule means the device of another one, at all that is more than making its node."""
    numbers = all(rule.get(key) in (None, other[key]) for key in ("major", "minor"))
    return numbers and rule.get("type", "a") in ("a", other["type"]) and rule["access"] != "m"


def _denied(rules: list[Json]) -> list[Json]:
    """Return rules that take back what others allow; making nodes stays allowed, as it is by default."""
    return [{**rule, "allow": False} for rule in rules]


async def _change(engine: "Engine", container: Container, devices: list[Json], changed: list[Json]) -> None:
    """Let the control group allow what the devices need: version 2 takes all rules anew, version 1 what changes."""
    group = open_manager(engine.cgroup_path(container))
    rules = changed
    if engine.cgroups_v2:
        _, allowed = _known(devices)
        rules = [*_always(container), *allowed]
    try:
        await asyncio.to_thread(group.update, {"devices": rules})
    except OSError as error:
        raise BarqueError(f"cannot change the devices of container {container.id}: {error}") from error


async def _written(engine: "Engine", container: Container, devices: list[Json]) -> None:
    container.host["Devices"] = devices
    engine.changed(container)
    engine.save(container)
    await engine.database.flush()
