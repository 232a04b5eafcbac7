"""update of `barque runtime`: other limits for a living container."""

import json
import sys
from typing import Any

from barque.base.errors import ConflictError, InvalidInputError
from barque.runtime import spec as configs
from barque.runtime.command.context import Options, RuntimeContext
from barque.runtime.command.options import integer
from barque.runtime.state import Container


def update(context: RuntimeContext, container_id: str, options: Options) -> int:
    """Change limits, from a file of OCI resources or from options.

    Raises:
        InvalidInputError: a value is not a number, or a limit is refused.
    """
    container = Container.load(context.root, container_id)
    group = container.cgroup()
    if group is None:
        raise ConflictError(f"container {container_id} has no cgroup")
    resources = _resources(options)
    group.update(resources)
    linux = container.config.setdefault("linux", {})
    saved = linux.setdefault("resources", {})
    for part, values in resources.items():
        if isinstance(values, dict):
            saved.setdefault(part, {}).update(values)
    container.save()
    return 0


_UPDATES = (
    ("memory", "memory", "limit"), ("memory_reservation", "memory", "reservation"),
    ("memory_swap", "memory", "swap"), ("kernel_memory", "memory", "kernel"),
    ("kernel_memory_tcp", "memory", "kernelTCP"), ("cpu_period", "cpu", "period"), ("cpu_quota", "cpu", "quota"),
    ("cpu_burst", "cpu", "burst"), ("cpu_share", "cpu", "shares"), ("cpu_rt_period", "cpu", "realtimePeriod"),
    ("cpu_rt_runtime", "cpu", "realtimeRuntime"), ("cpu_idle", "cpu", "idle"), ("pids_limit", "pids", "limit"),
    ("blkio_weight", "blockIO", "weight"),
)  # fmt: skip


def _resources(options: Options) -> dict[str, Any]:
    if options.get("resources"):
        source = options["resources"]
        try:
            if source == "-":
                text = sys.stdin.read()
            else:
                with open(source, encoding="utf-8") as file:
                    text = file.read()
            return configs.validate_resources(json.loads(text))
        except (OSError, ValueError) as error:
            raise InvalidInputError(f"cannot read resources from {source}: {error}") from error
    resources: dict[str, Any] = {}
    for name, part, key in _UPDATES:
        if options.get(name) is not None:
            resources.setdefault(part, {})[key] = integer(options, name)
    for name, key in (("cpuset_cpus", "cpus"), ("cpuset_mems", "mems")):
        if options.get(name):
            resources.setdefault("cpu", {})[key] = options[name]
    return resources
