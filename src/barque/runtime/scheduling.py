"""Limits, scheduler, I/O priority, CPUs and memory nodes of a process, as steps."""

import errno
from typing import Any

from barque.kernel import limits
from barque.runtime.channel import StepError
from barque.runtime.identity import Limits, Scheduling
from barque.runtime.init import Step


def process_steps(process: dict[str, Any]) -> list[Step]:
    """Return the steps for limits and scheduling of an OCI process."""
    steps: list[Step] = []
    scheduling = _scheduling(process)
    if scheduling:
        steps.append(scheduling)
    values = process.get("rlimits")
    if values:
        steps.append(Limits(tuple((v["type"], v["soft"], v["hard"]) for v in values)))
    return steps


def _scheduling(process: dict[str, Any]) -> Scheduling | None:
    scheduler = process.get("scheduler")
    io_priority = process.get("ioPriority")
    cpus = (process.get("execCPUAffinity") or {}).get("final")
    if not scheduler and not io_priority and not cpus:
        return None
    wanted = None
    if scheduler:
        flags = 0
        for word in scheduler.get("flags") or []:
            flags |= limits.SCHEDULER_FLAGS[word]
        times = tuple(scheduler.get(key) or 0 for key in ("runtime", "deadline", "period"))
        if scheduler["policy"] == "SCHED_DEADLINE":
            _check_deadline(scheduler)
        wanted = (
            limits.POLICIES[scheduler["policy"]],
            flags,
            scheduler.get("nice") or 0,
            scheduler.get("priority") or 0,
            (times[0], times[1], times[2]),
        )
    priority = None
    if io_priority:
        priority = (limits.IO_CLASSES[io_priority["class"]], io_priority.get("priority") or 0)
    return Scheduling(wanted, priority, None, _cpu_list(cpus) if cpus else None)


def _check_deadline(scheduler: dict[str, Any]) -> None:
    """Say which of the three times is wrong, where the kernel only says EINVAL."""
    start = "sched_setattr: `SCHED_DEADLINE`"
    for key in ("runtime", "deadline"):
        if scheduler.get(key) is None:
            raise StepError(f"{start} requires `{key}`", errno.EINVAL)
    runtime, deadline = scheduler["runtime"], scheduler["deadline"]
    period = scheduler.get("period") or deadline
    if runtime == 0:
        raise StepError(f"{start} runtime must be greater than 0", errno.EINVAL)
    if not 1024 <= runtime < 1 << 63:
        raise StepError(f"{start} runtime {runtime} must be between 1024 and {(1 << 63) - 1}", errno.EINVAL)
    if runtime > deadline:
        raise StepError(f"{start} runtime {runtime} must be <= deadline {deadline}", errno.EINVAL)
    if deadline > period:
        raise StepError(f"{start} deadline {deadline} must be <= period {period}", errno.EINVAL)


def memory_policy(policy: dict[str, Any]) -> tuple[int, int]:
    """Return (mode with flags, mask of nodes) of linux.memoryPolicy.

    Raises:
        StepError: a mode, flag or list of nodes that does not exist.
    """
    mode = limits.MEMORY_POLICIES.get(policy.get("mode") or "")
    if mode is None:
        raise StepError(f"linux.memoryPolicy: unknown mode {policy.get('mode')!r}")
    for flag in policy.get("flags") or []:
        if flag not in limits.MEMORY_POLICY_FLAGS:
            raise StepError(f"linux.memoryPolicy: unknown flag {flag!r}")
        mode |= limits.MEMORY_POLICY_FLAGS[flag]
    nodes = 0
    try:
        for node in _cpu_list(policy["nodes"]) if policy.get("nodes") else ():
            nodes |= 1 << node
    except ValueError:
        raise StepError(f"linux.memoryPolicy: invalid nodes {policy['nodes']!r}") from None
    return mode, nodes


def _cpu_list(text: str) -> frozenset[int]:
    cpus: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        cpus |= set(range(int(first), int(last if dash else first) + 1))
    return frozenset(cpus)
