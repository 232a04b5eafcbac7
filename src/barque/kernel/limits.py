"""Resource limits, scheduling, personality: per-process settings beyond the os module."""

import ctypes
import errno
import os
import resource
import struct

from barque.base.errors import KernelError
from barque.kernel import libc

RLIMITS: dict[str, int] = {
    "RLIMIT_CPU": 0, "RLIMIT_FSIZE": 1, "RLIMIT_DATA": 2, "RLIMIT_STACK": 3, "RLIMIT_CORE": 4,
    "RLIMIT_RSS": 5, "RLIMIT_NPROC": 6, "RLIMIT_NOFILE": 7, "RLIMIT_MEMLOCK": 8, "RLIMIT_AS": 9,
    "RLIMIT_LOCKS": 10, "RLIMIT_SIGPENDING": 11, "RLIMIT_MSGQUEUE": 12, "RLIMIT_NICE": 13,
    "RLIMIT_RTPRIO": 14, "RLIMIT_RTTIME": 15,
}  # fmt: skip
POLICIES: dict[str, int] = {
    "SCHED_OTHER": 0, "SCHED_FIFO": 1, "SCHED_RR": 2, "SCHED_BATCH": 3, "SCHED_ISO": 4,
    "SCHED_IDLE": 5, "SCHED_DEADLINE": 6,
}  # fmt: skip
SCHEDULER_FLAGS: dict[str, int] = {
    "SCHED_FLAG_RESET_ON_FORK": 1, "SCHED_FLAG_RECLAIM": 2, "SCHED_FLAG_DL_OVERRUN": 4,
    "SCHED_FLAG_KEEP_POLICY": 8, "SCHED_FLAG_KEEP_PARAMS": 16, "SCHED_FLAG_UTIL_CLAMP_MIN": 32,
    "SCHED_FLAG_UTIL_CLAMP_MAX": 64,
}  # fmt: skip
IO_CLASSES: dict[str, int] = {"IOPRIO_CLASS_RT": 1, "IOPRIO_CLASS_BE": 2, "IOPRIO_CLASS_IDLE": 3}
PERSONALITIES: dict[str, int] = {"LINUX": 0, "LINUX32": 8}
MEMORY_POLICIES: dict[str, int] = {
    "MPOL_DEFAULT": 0, "MPOL_PREFERRED": 1, "MPOL_BIND": 2, "MPOL_INTERLEAVE": 3, "MPOL_LOCAL": 4,
    "MPOL_PREFERRED_MANY": 5, "MPOL_WEIGHTED_INTERLEAVE": 6,
}  # fmt: skip
MEMORY_POLICY_FLAGS: dict[str, int] = {
    "MPOL_F_NUMA_BALANCING": 1 << 13, "MPOL_F_RELATIVE_NODES": 1 << 14,
    "MPOL_F_STATIC_NODES": 1 << 15,
}  # fmt: skip

_UNLIMITED = 0xFFFFFFFFFFFFFFFF
_OPEN_FILES = "BARQUE_OPEN_FILES"


def rlimit(pid: int, resource: int, new: tuple[int, int] | None = None) -> tuple[int, int]:
    """Return (soft, hard) as they were, and set `new`; pid 0 is the caller.

    Raises:
        KernelError: EPERM when raising the hard limit without CAP_SYS_RESOURCE.
    """
    old = ctypes.create_string_buffer(16)
    value = ctypes.create_string_buffer(struct.pack("=QQ", *new)) if new else None
    libc.invoke("prlimit64", pid, resource, ctypes.addressof(value) if value else 0, ctypes.addressof(old))
    soft, hard = struct.unpack("=QQ", old.raw[:16])
    return soft, hard


def set_rlimit_clamped(pid: int, name: str, soft: int, hard: int) -> str | None:
    """Set a limit, or as much of it as is allowed; return a warning when it was cut.

    Raises:
        KernelError: EINVAL when soft exceeds hard, EPERM when even the cut one is refused.
    """
    number = RLIMITS[name]
    wanted = (soft & _UNLIMITED, hard & _UNLIMITED)
    try:
        rlimit(pid, number, wanted)
    except KernelError as error:
        if error.errno != errno.EPERM:
            raise
    else:
        return None
    top = rlimit(pid, number)[1]
    cut = (min(wanted[0], top), min(wanted[1], top))
    rlimit(pid, number, cut)
    return f"{name} cut from {soft}:{hard} to {cut[0]}:{cut[1]}: no permission to raise it"


def set_scheduler(policy: int, flags: int, nice: int, priority: int, times: tuple[int, int, int]) -> None:
    """Call sched_setattr(2) for this process; `times` is (runtime, deadline, period) in ns.

    Raises:
        KernelError: EPERM, EINVAL.
    """
    attr = struct.pack("=IIQiIQQQII", 56, policy, flags, nice, priority, *times, 0, 0)
    block = ctypes.create_string_buffer(attr)
    libc.invoke("sched_setattr", 0, ctypes.addressof(block), 0)


def set_io_priority(io_class: int, priority: int) -> None:
    """Call ioprio_set(2) for this process.

    Raises:
        KernelError: EPERM, EINVAL.
    """
    libc.invoke("ioprio_set", 1, 0, io_class << 13 | priority)


def set_personality(value: int) -> None:
    """Call personality(2).

    Raises:
        KernelError: EINVAL.
    """
    libc.invoke("personality", value)


def set_affinity(cpus: set[int]) -> None:
    """Pin this process to `cpus`.

    Raises:
        OSError: EINVAL when none of them is usable.
    """
    os.sched_setaffinity(0, cpus)


def set_memory_policy(mode: int, nodes: int) -> None:
    """Call set_mempolicy(2) with a mask of nodes.

    Raises:
        KernelError: EINVAL for nodes that do not exist or a mode that takes none.
    """
    words = max(1, (nodes.bit_length() + 63) // 64)
    block = ctypes.create_string_buffer(nodes.to_bytes(words * 8, "little"))
    libc.invoke(
        "set_mempolicy",
        mode,
        ctypes.addressof(block) if nodes else 0,
        words * 64 + 1 if nodes else 0,
    )


def raise_open_files() -> tuple[int, int]:
    """Let this process have as many files open as it may; return the limits (soft, hard) it was started with.

    The soft one is kept in the environment for the processes of ours that this one starts: what they start in turn
    shall get the limit that the user gave.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    kept = os.environ.get(_OPEN_FILES, "")
    if kept.isdecimal():
        soft = min(int(kept), hard) if hard != resource.RLIM_INFINITY else int(kept)
    os.environ[_OPEN_FILES] = str(soft)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return soft, hard
