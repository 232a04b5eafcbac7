"""Capabilities of the calling process: names, the five sets, what the kernel knows."""

import ctypes
import struct

from barque.base.errors import KernelError
from barque.kernel import libc, process

NAMES: tuple[str, ...] = (
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID",
    "CAP_KILL", "CAP_SETGID", "CAP_SETUID", "CAP_SETPCAP", "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST", "CAP_NET_ADMIN", "CAP_NET_RAW",
    "CAP_IPC_LOCK", "CAP_IPC_OWNER", "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE", "CAP_SYS_PACCT", "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE", "CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE",
    "CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL", "CAP_SETFCAP", "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN", "CAP_SYSLOG", "CAP_WAKE_ALARM", "CAP_BLOCK_SUSPEND", "CAP_AUDIT_READ",
    "CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE",
)  # fmt: skip
NUMBERS: dict[str, int] = {name: number for number, name in enumerate(NAMES)}
CAP_SYS_RESOURCE = NUMBERS["CAP_SYS_RESOURCE"]

_HEADER = ctypes.create_string_buffer(struct.pack("=Ii", 0x20080522, 0))
_known: list[int] = []


def known_mask() -> int:
    """Return the capabilities this kernel has, one bit each."""
    if not _known:
        with open("/proc/sys/kernel/cap_last_cap", "rb") as last:
            _known.append((1 << (int(last.read()) + 1)) - 1)
    return _known[0]


def sets() -> tuple[int, int, int]:
    """Return (effective, permitted, inheritable) of this process."""
    data = ctypes.create_string_buffer(24)
    libc.invoke("capget", ctypes.addressof(_HEADER), ctypes.addressof(data))
    e0, p0, i0, e1, p1, i1 = struct.unpack("=6I", data.raw[:24])
    return e0 | e1 << 32, p0 | p1 << 32, i0 | i1 << 32


def set_sets(effective: int, permitted: int, inheritable: int) -> None:
    """Call capset(2) for this process.

    Raises:
        KernelError: EPERM for capabilities one does not have.
    """
    low, high = 0xFFFFFFFF, 32
    data = ctypes.create_string_buffer(
        struct.pack(
            "=6I",
            effective & low, permitted & low, inheritable & low,
            effective >> high, permitted >> high, inheritable >> high,
        )
    )  # fmt: skip
    libc.invoke("capset", ctypes.addressof(_HEADER), ctypes.addressof(data))


def drop_bounding(keep: int) -> None:
    """Drop from the bounding set what is not in `keep`; what is gone already stays gone.

    Raises:
        KernelError: EPERM without CAP_SETPCAP while something is left to drop.
    """
    prctl = libc.prctl
    for number in range(known_mask().bit_length()):
        if keep >> number & 1:
            continue
        if prctl(process.PR_CAPBSET_DROP, number, 0, 0, 0):
            error = libc.get_errno()
            if prctl(process.PR_CAPBSET_READ, number, 0, 0, 0) == 1:
                raise KernelError(error, "prctl(PR_CAPBSET_DROP)", NAMES[number])


def set_ambient(wanted: int) -> list[str]:
    """Make the ambient set `wanted`; return the names that the kernel refused."""
    process.prctl(process.PR_CAP_AMBIENT, process.PR_CAP_AMBIENT_CLEAR_ALL)
    refused = []
    for number in range(wanted.bit_length()):
        if wanted >> number & 1 and libc.prctl(process.PR_CAP_AMBIENT, process.PR_CAP_AMBIENT_RAISE, number, 0, 0):
            refused.append(NAMES[number])
    return refused


def mask(names: list[str]) -> tuple[int, list[str]]:
    """Return the bits of `names`, and the names this kernel or this table does not know."""
    bits, unknown, known = 0, [], known_mask()
    for name in names:
        number = NUMBERS.get(name.upper())
        if number is None or not known >> number & 1:
            unknown.append(name)
        else:
            bits |= 1 << number
    return bits, unknown
