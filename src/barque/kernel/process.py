"""Processes: raw clone3, pidfds, prctl, execve with a prepared block, close_range.

Only a single-threaded process may use `clone3`: the child continues in the Python interpreter
with a copy of everything, and must end in `exec_prepared` or `os._exit`.
"""

import ctypes
import errno
import os
import signal
import sys
from typing import NamedTuple

from barque.base.errors import KernelError
from barque.kernel import libc

CLONE_NEWTIME = 0x80
CLONE_PIDFD = 0x1000
CLONE_PARENT = 0x8000
CLONE_NEWNS = 0x20000
CLONE_NEWCGROUP = 0x2000000
CLONE_NEWUTS = 0x4000000
CLONE_NEWIPC = 0x8000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
CLONE_CLEAR_SIGHAND = 0x100000000
CLONE_INTO_CGROUP = 0x200000000

PR_GET_DUMPABLE = 3
PR_SET_DUMPABLE = 4
PR_SET_KEEPCAPS = 8
PR_CAPBSET_READ = 23
PR_CAPBSET_DROP = 24
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2
PR_CAP_AMBIENT_CLEAR_ALL = 4

CLOSE_RANGE_CLOEXEC = 4
MAX_FD = 0xFFFFFFFF

KEYCTL_JOIN_SESSION_KEYRING = 1
KEYCTL_SETPERM = 5
KEYCTL_DESCRIBE = 6
# All for who possesses it; view, read, search and link for its user.
_KEYRING_RIGHTS = 0x3F1B0000


class _clone_args(ctypes.Structure):  # noqa: N801 - the kernel's spelling
    _fields_ = [
        ("flags", ctypes.c_uint64),
        ("pidfd", ctypes.c_uint64),
        ("child_tid", ctypes.c_uint64),
        ("parent_tid", ctypes.c_uint64),
        ("exit_signal", ctypes.c_uint64),
        ("stack", ctypes.c_uint64),
        ("stack_size", ctypes.c_uint64),
        ("tls", ctypes.c_uint64),
        ("set_tid", ctypes.c_uint64),
        ("set_tid_size", ctypes.c_uint64),
        ("cgroup", ctypes.c_uint64),
    ]


class Cloned(NamedTuple):
    """Result of `clone3`: pid 0 in the child, else the child's pid and pidfd."""

    pid: int
    pidfd: int


def clone3(flags: int, cgroup_fd: int = -1) -> Cloned:
    """Fork with namespace `flags`; the parent gets a pidfd (close-on-exec).

    Args:
        flags: CLONE_NEW*, CLONE_PARENT, CLONE_CLEAR_SIGHAND; CLONE_PIDFD is added.
        cgroup_fd: directory of a v2 cgroup to be born in, -1 for the caller's own.

    Raises:
        KernelError: with the kernel's errno.
    """
    pidfd = ctypes.c_int(-1)
    block = _clone_args(flags=flags | CLONE_PIDFD, pidfd=ctypes.addressof(pidfd))
    if not flags & CLONE_PARENT:
        block.exit_signal = signal.SIGCHLD
    if cgroup_fd >= 0:
        block.flags |= CLONE_INTO_CGROUP
        block.cgroup = cgroup_fd
    pid = libc.invoke("clone3", ctypes.addressof(block), ctypes.sizeof(block))
    return Cloned(pid, pidfd.value)


def pidfd_send_signal(pidfd: int, signo: int) -> None:
    """Send `signo` to the process behind `pidfd`.

    Raises:
        KernelError: ESRCH when it has been reaped.
    """
    libc.invoke("pidfd_send_signal", pidfd, signo)


def pidfd_getfd(pidfd: int, fd: int) -> int:
    """Return a copy (close-on-exec) of descriptor `fd` of another process.

    Raises:
        KernelError: EBADF, ESRCH, or EPERM without ptrace rights.
    """
    return libc.invoke("pidfd_getfd", pidfd, fd)


def prctl(option: int, a: int = 0, b: int = 0, c: int = 0, d: int = 0) -> int:
    """Set or read a property of this process.

    Raises:
        KernelError: with the kernel's errno.
    """
    result: int = libc.prctl(option, a, b, c, d)
    if result < 0:
        raise libc.fail("prctl", str(option))
    return result


def set_dumpable(dumpable: bool) -> None:
    """Say whether others may look into this process through /proc and ptrace."""
    prctl(PR_SET_DUMPABLE, int(dumpable))


def set_child_subreaper() -> None:
    """Become the parent of orphaned descendants."""
    prctl(PR_SET_CHILD_SUBREAPER, 1)


def close_range(first: int, last: int = MAX_FD, flags: int = 0) -> None:
    """Close (or mark close-on-exec) every descriptor from `first` to `last`.

    Raises:
        KernelError: with the kernel's errno.
    """
    libc.invoke("close_range", first, last, flags)


def close_all_but(keep: set[int]) -> None:
    """Close every descriptor from 3 up that is not in `keep`."""
    start = 3
    for fd in sorted(keep):
        if fd > start:
            close_range(start, fd - 1)
        start = max(start, fd + 1)
    close_range(start)


class Program(NamedTuple):
    """argv and envp as the kernel takes them, made before a clone."""

    argv: "ctypes.Array[ctypes.c_char_p]"
    envp: "ctypes.Array[ctypes.c_char_p]"


def prepare_program(args: list[str], env: list[str]) -> Program:
    """Turn arguments and NAME=value strings into blocks for `exec_prepared`."""
    return Program(_block(args), _block(env))


def _block(words: list[str]) -> "ctypes.Array[ctypes.c_char_p]":
    raw = [os.fsencode(word) for word in words]
    return (ctypes.c_char_p * (len(raw) + 1))(*raw, None)


def unique_env(env: list[str]) -> list[str]:
    """Return NAME=value strings with one per name, the last, in the order of first mention."""
    return list({entry.partition("=")[0]: entry for entry in env}.values())


def exec_prepared(path: bytes, program: Program) -> KernelError:
    """Replace this process; returns only to say why that failed."""
    libc.execve(path, program.argv, program.envp)
    return libc.fail("exec", path)


def ignored_signals() -> list[int]:
    """Return the signals this process ignores, which exec would hand on."""
    with open("/proc/self/status", "rb") as status:
        for line in status:
            if line.startswith(b"SigIgn:"):
                mask = int(line[7:], 16)
                return [n + 1 for n in range(64) if mask >> n & 1]
    return []


def default_signal(number: int) -> None:
    """Give a signal its default meaning, those included that the C library keeps for itself (32 and 33).

    Raises:
        KernelError: EINVAL, no such signal.
    """
    # struct kernel_sigaction: a handler of 0 is SIG_DFL; no flags, an empty mask.
    action = ctypes.create_string_buffer(32)
    libc.invoke("rt_sigaction", number, ctypes.addressof(action), 0, 8)


def join_session_keyring(name: str) -> int:
    """Enter the session keyring of that name, which is made where it is missing; return its number, 0 where unavailable.

    Processes of its user may search it, without which nobody could enter it by its name (keyctl_join_session_keyring(3)).

    Raises:
        KernelError: other than "no such facility" and "quota exceeded".
    """
    label = ctypes.create_string_buffer(os.fsencode(name))
    try:
        serial = libc.invoke("keyctl", KEYCTL_JOIN_SESSION_KEYRING, ctypes.addressof(label))
        libc.invoke("keyctl", KEYCTL_SETPERM, serial, _KEYRING_RIGHTS)
        return serial
    except KernelError as error:
        if error.errno in (errno.ENOSYS, errno.EDQUOT, errno.EPERM, errno.EACCES, errno.EOPNOTSUPP):
            return 0
        raise


def set_ids(uid: int, gid: int, groups: list[int] | None) -> None:
    """Set groups (None: leave them), then all gids, then all uids.

    Raises:
        OSError: EINVAL for an id that the user namespace does not map.
    """
    if groups is not None:
        os.setgroups(groups)
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)


def start_time(pid: int) -> int:
    """Return when `pid` started, in clock ticks since boot; with the pid it names a process.

    Raises:
        ProcessLookupError: when there is no such process.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            fields = stat.read().rpartition(b")")[2].split()
    except FileNotFoundError:
        raise ProcessLookupError(errno.ESRCH, "no such process", str(pid)) from None
    return int(fields[19])


def interpreter_is_protected() -> bool:
    """Say whether the running interpreter lies on a mount that refuses writing."""
    flags = os.statvfs("/proc/self/exe").f_flag
    return bool(flags & os.ST_RDONLY)


def protected_interpreter() -> int:
    """Return a descriptor by which to exec the interpreter so that nobody can open it for writing.

    It lies on a detached read-only copy of its mount: /proc/<pid>/exe of a process started
    through /proc/self/fd/<it> answers EROFS to every attempt to write, whatever the mount it
    was copied from allows.

    Raises:
        KernelError: when the kernel has no mount_setattr(2), or without CAP_SYS_ADMIN.
    """
    from barque.kernel import mount

    tree = mount.open_tree(mount.AT_FDCWD, os.path.realpath(sys.executable))
    mount.mount_setattr(tree, mount.MountAttr(set=mount.MOUNT_ATTR_RDONLY))
    return tree


def protect_interpreter() -> None:
    """Start this very program anew from a read-only interpreter, unless it already runs so.

    Raises:
        KernelError: when that is impossible; the caller decides whether to go on.
    """
    if interpreter_is_protected():
        return
    tree = protected_interpreter()
    os.execve(f"/proc/self/fd/{tree}", [sys.executable, *sys.orig_argv[1:]], os.environ)


def restart_protected(module: str, arguments: list[str]) -> None:
    """Start `module`.main(arguments) anew from a read-only interpreter, without the site module.

    Raises:
        OSError: when that is impossible; the caller decides whether to go on.
    """
    top = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    code = f"import sys; sys.path.insert(0, {top!r}); from {module} import main; sys.exit(main(sys.argv[1:]))"
    tree = protected_interpreter()
    command = [sys.executable, "-I", "-S", "-c", code, *arguments]
    os.execve(f"/proc/self/fd/{tree}", command, os.environ)
