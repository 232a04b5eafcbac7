"""The C library: one handle, one prototype per function, one way to fail.

Everything that needs ctypes starts here. `call` raises `KernelError`; system calls without a
wrapper in the C library go through `syscall`. The handle is a PyDLL: calls keep the interpreter
lock, which is right for calls of microseconds; what may block goes through `blocking`.
"""

import ctypes
import errno
import os
from typing import Any

from barque.base.errors import KernelError

_lib = ctypes.PyDLL(None, use_errno=True)
_blocking_lib = ctypes.CDLL(None, use_errno=True)

c_int, c_long, c_ulong = ctypes.c_int, ctypes.c_long, ctypes.c_ulong
c_uint, c_char_p, c_void_p = ctypes.c_uint, ctypes.c_char_p, ctypes.c_void_p

_MACHINE = os.uname().machine

# The numbers that differ by architecture; those above 423 are the same everywhere.
_X86_64 = {
    "personality": 135,
    "rt_sigaction": 13,
    "signalfd4": 289,
    "fallocate": 285,
    "keyctl": 250,
    "ioprio_set": 251,
    "sched_setattr": 314,
    "setns": 308,
    "capset": 126,
    "capget": 125,
    "pivot_root": 155,
    "add_key": 248,
    "set_mempolicy": 238,
    "seccomp": 317,
    "bpf": 321,
    "prlimit64": 302,
    "setresuid": 117,
    "setresgid": 119,
    "setgroups": 116,
}
_GENERIC = {
    "personality": 92,
    "rt_sigaction": 134,
    "signalfd4": 74,
    "fallocate": 47,
    "keyctl": 219,
    "ioprio_set": 30,
    "sched_setattr": 274,
    "setns": 268,
    "capset": 91,
    "capget": 90,
    "pivot_root": 41,
    "add_key": 217,
    "set_mempolicy": 237,
    "seccomp": 277,
    "bpf": 280,
    "prlimit64": 261,
    "setresuid": 147,
    "setresgid": 149,
    "setgroups": 159,
}
_COMMON = {
    "pidfd_send_signal": 424,
    "open_tree": 428,
    "move_mount": 429,
    "fsopen": 430,
    "fsconfig": 431,
    "fsmount": 432,
    "fspick": 433,
    "pidfd_open": 434,
    "clone3": 435,
    "close_range": 436,
    "openat2": 437,
    "pidfd_getfd": 438,
    "faccessat2": 439,
    "mount_setattr": 442,
    "quotactl_fd": 443,
}
SYS: dict[str, int] = (_X86_64 if _MACHINE == "x86_64" else _GENERIC) | _COMMON


def _function(lib: ctypes.PyDLL | ctypes.CDLL, name: str, result: Any, *arguments: Any) -> Any:
    function = lib[name]
    function.restype = result
    function.argtypes = arguments
    return function


mount = _function(_lib, "mount", c_int, c_char_p, c_char_p, c_char_p, c_ulong, c_char_p)
umount2 = _function(_lib, "umount2", c_int, c_char_p, c_int)
blocking_umount2 = _function(_blocking_lib, "umount2", c_int, c_char_p, c_int)
unshare = _function(_lib, "unshare", c_int, c_int)
setns = _function(_lib, "setns", c_int, c_int, c_int)
prctl = _function(_lib, "prctl", c_int, c_int, c_ulong, c_ulong, c_ulong, c_ulong)
execve = _function(_lib, "execve", c_int, c_char_p, c_void_p, c_void_p)
inotify_init1 = _function(_lib, "inotify_init1", c_int, c_int)
inotify_add_watch = _function(_lib, "inotify_add_watch", c_int, c_int, c_char_p, c_uint)
inotify_rm_watch = _function(_lib, "inotify_rm_watch", c_int, c_int, c_int)
sethostname = _function(_lib, "sethostname", c_int, c_char_p, ctypes.c_size_t)
setdomainname = _function(_lib, "setdomainname", c_int, c_char_p, ctypes.c_size_t)
# Six longs: unused arguments are ignored by the kernel, so one prototype serves every call.
syscall = _function(_lib, "syscall", c_long, c_long, c_long, c_long, c_long, c_long, c_long, c_long)

get_errno = ctypes.get_errno


def fail(call: str, target: str | bytes = "") -> KernelError:
    """Return the error of the call that just failed, from errno; the caller raises it."""
    return KernelError(ctypes.get_errno(), call, os.fsdecode(target))


def invoke(name: str, a: int = 0, b: int = 0, c: int = 0, d: int = 0, e: int = 0, f: int = 0) -> int:
    """Make the system call `name` with integer (or address) arguments and return its result.

    Raises:
        KernelError: with the call's errno.
    """
    result: int = syscall(SYS[name], a, b, c, d, e, f)
    if result < 0:
        raise KernelError(ctypes.get_errno(), name)
    return result


def encoded(path: str | bytes) -> bytes:
    """Return `path` as the bytes the kernel takes.

    Raises:
        KernelError: EINVAL when it holds a NUL byte, which would cut it short.
    """
    raw = os.fsencode(path)
    if b"\0" in raw:
        raise KernelError(errno.EINVAL, "path", repr(path))
    return raw
