"""Changing what a container that is there may use, how it restarts, its ports, variables and labels."""

import asyncio
from typing import TYPE_CHECKING, Any

from barque.base.errors import BarqueError, ConflictError, InvalidInputError
from barque.engine import endpoints, port_changes, resources
from barque.engine.checks import check_policy, check_resources
from barque.engine.container import Container
from barque.runtime.cgroups import open_manager

if TYPE_CHECKING:
    from barque.engine.engine import Engine

Json = dict[str, Any]
_UPDATABLE = (
    "BlkioWeight", "CpuShares", "CpuPeriod", "CpuQuota", "CpusetCpus", "CpusetMems", "Memory", "MemorySwap",
    "MemoryReservation", "NanoCpus", "PidsLimit", "CpuRealtimePeriod", "CpuRealtimeRuntime",
)  # fmt: skip
_FIXED = (
    "BlkioWeightDevice", "BlkioDeviceReadBps", "BlkioDeviceWriteBps", "BlkioDeviceReadIOps", "BlkioDeviceWriteIOps",
    "CgroupParent", "DeviceCgroupRules", "DeviceRequests", "Devices", "KernelMemoryTCP", "OomKillDisable", "Ulimits",
    "CpuCount", "CpuPercent", "IOMaximumIOps", "IOMaximumBandwidth",
)  # fmt: skip


async def update(engine: "Engine", container: Container, changes: Json) -> Json:
    """Change limits, the restart policy, published ports, variables and labels; return {"Warnings"}.

    Labels change at once, variables (Env, EnvRemove) with the next start.

    Raises:
        InvalidInputError: a value that cannot be.
        ConflictError: it is being removed.
        BarqueError: the kernel refuses.
    """
    given = _given(changes)
    async with container.lock:
        # Read under the lock: of two updates at once the second builds on the first.
        if container.status in ("removing", "dead"):
            raise ConflictError(f"Cannot update container {container.id}: Container is marked for removal and "
                                "cannot be \"update\".")  # fmt: skip
        merged, warnings = _merged(container, given, changes)
        description = described(container.config, changes)
        if container.is_running and given:
            try:
                cgroup = open_manager(engine.cgroup_path(container))
                warnings += await asyncio.to_thread(cgroup.update, _limits(merged, given))
            except OSError as error:
                raise BarqueError(f"Cannot update container {container.id}: {error}") from error
        port_changes.change(engine, container, merged, changes)
        if changes.get("PublishAdd"):
            warnings += endpoints.closed_ports(engine, container.row["networking"])
        container.row["host"] = merged
        container.row["config"] = {**container.config, **description}
        engine.changed(container)
        engine.save(container)
        await engine.database.flush()
    engine.publish(container, "update")
    return {"Warnings": warnings or None}


def _merged(container: Container, given: Json, changes: Json) -> tuple[Json, list[str]]:
    merged = {**container.host, **given}
    if "Memory" in given and "MemorySwap" not in given and 0 < (merged.get("MemorySwap") or 0) < given["Memory"]:
        raise InvalidInputError(f"Cannot update container {container.id}: Memory limit should be smaller than "
                                "already set memoryswap limit, "
                                "update the memoryswap at the same time")  # fmt: skip
    warnings = check_resources({**merged, "KernelMemory": changes.get("KernelMemory")})
    policy = changes.get("RestartPolicy") or {}
    if not isinstance(policy, dict):
        raise InvalidInputError("invalid JSON: RestartPolicy must be an object")
    if policy.get("Name"):
        check_policy({**container.host, "RestartPolicy": policy})
        merged["RestartPolicy"] = {"Name": policy["Name"],
                                   "MaximumRetryCount": policy.get("MaximumRetryCount") or 0}  # fmt: skip
    return merged, warnings


def described(config: Json, changes: Json) -> Json:
    """Return the variables and labels of a container's config after changes, nothing where none is changed. Pure.

    Raises:
        InvalidInputError: a variable without a name or a value.
    """
    found: Json = {}
    added, gone = changes.get("Env") or [], changes.get("EnvRemove") or []
    for text in added:
        if text.find("=") < 1 or "\0" in text:
            raise InvalidInputError(f"invalid environment variable: {text!r}: NAME=value is expected")
    if added or gone:
        names = {text.partition("=")[0] for text in [*added, *gone]}
        found["Env"] = [text for text in config.get("Env") or [] if text.partition("=")[0] not in names] + added
    labels, gone = changes.get("Labels") or {}, changes.get("LabelsRemove") or []
    if labels or gone:
        found["Labels"] = {key: value for key, value in (config.get("Labels") or {}).items() if key not in gone} | labels
    return found


def _limits(merged: Json, given: Json) -> Json:
    limits = resources.limits(merged)
    if given.get("PidsLimit") == 0:
        # Named, it takes the limit away; in a new container it means none to begin with.
        limits["pids"] = {"limit": -1}
    return limits


def _given(changes: Json) -> Json:
    for key in _FIXED:
        if changes.get(key):
            raise InvalidInputError(f"{key} cannot be changed once a container exists: make a new one")
    for key in _UPDATABLE:
        wanted = str if key.startswith("Cpuset") else int
        value = changes.get(key)
        if value is not None and (not isinstance(value, wanted) or isinstance(value, bool)):
            raise InvalidInputError(f"invalid JSON: {key} has a wrong type")
    found = {key: changes[key] for key in _UPDATABLE if changes.get(key) not in (None, 0, "")}
    if changes.get("PidsLimit") == 0:
        found["PidsLimit"] = 0
    return found
