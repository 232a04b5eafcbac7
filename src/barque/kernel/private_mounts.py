"""Mounts that only one thread sees, so that the host's mount table stays as it is."""

import ctypes
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from barque.base.errors import KernelError
from barque.kernel import openat2

_CLONE_NEWNS = 0x00020000
_CLONE_FS = 0x00000200
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 1, 2, 4, 8
_MS_REMOUNT, _MS_BIND, _MS_REC, _MS_SLAVE = 32, 4096, 16384, 1 << 19
_FLAGS = {
    "ro": _MS_RDONLY,
    "nosuid": _MS_NOSUID,
    "nodev": _MS_NODEV,
    "noexec": _MS_NOEXEC,
    "bind": _MS_BIND,
    "rbind": _MS_BIND | _MS_REC,
    "rw": 0,
}
_libc = ctypes.CDLL(None, use_errno=True)

Step = tuple[str, str, Sequence[str], str]
"""Type, source, options, folder that relative paths start at."""


class Bind(NamedTuple):
    """What is mounted inside a root."""

    source: str
    """On the host; one that is missing is let be."""
    target: str
    """Inside."""
    read_only: bool
    part: str = ""
    """Path within the source that alone is mounted; links do not lead out of the source. One that is missing is let be."""
    steps: Sequence[Step] = ()
    """Mounted over each other in place of a source."""


# In the private namespace nothing looks below this folder, and every host has it.
_POINT = "/sys"


@contextmanager
def private_root(steps: Sequence[Step], binds: Sequence[Bind] = ()) -> Iterator[int]:
    """Mount steps over each other and binds inside them, and yield a descriptor of the root.

    A thread of its own holds the mount namespace until the block ends. Descriptors opened below the
    root stay usable after that.

    Raises:
        KernelError: a mount was refused.
    """
    ready, done = threading.Event(), threading.Event()
    result: list[int | BaseException] = []

    def hold() -> None:
        try:
            result.append(_mount_all(steps, binds))
        except BaseException as error:
            result.append(error)
            ready.set()
            return
        ready.set()
        done.wait()

    thread = threading.Thread(target=hold, name="private-mounts", daemon=True)
    thread.start()
    ready.wait()
    outcome = result[0]
    if isinstance(outcome, BaseException):
        thread.join()
        raise outcome
    try:
        yield outcome
    finally:
        os.close(outcome)
        done.set()
        thread.join()


def mount_at(steps: Sequence[Step], target: str) -> None:
    """Mount steps over each other at target, in this mount namespace.

    A thread with a working folder of its own does it, since relative paths start at a step's folder.

    Raises:
        KernelError: a mount was refused.
    """
    failed: list[BaseException] = []

    def run() -> None:
        try:
            if _libc.unshare(ctypes.c_int(_CLONE_FS)) != 0:
                raise KernelError(ctypes.get_errno(), "unshare")
            for kind, source, options, cwd in steps:
                if cwd:
                    os.chdir(cwd)
                _mount_step(kind, source, options, target)
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run, name="mount-at", daemon=True)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]


def _mount_all(steps: Sequence[Step], binds: Sequence[Bind]) -> int:
    if _libc.unshare(ctypes.c_int(_CLONE_FS | _CLONE_NEWNS)) != 0:
        raise KernelError(ctypes.get_errno(), "unshare")
    _mount("", "/", "", _MS_SLAVE | _MS_REC, "")
    sources = [-1] * len(binds)
    try:
        # Those on the host first: they may lie where the others are mounted.
        for at in sorted(range(len(binds)), key=lambda at: bool(binds[at].steps)):
            sources[at] = _source(binds[at])
        _stack(steps)
        root = os.open(_POINT, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for fd, bind in zip(sources, binds, strict=True):
                if fd >= 0:
                    _bind(root, fd, bind)
        except BaseException:
            os.close(root)
            raise
        return root
    finally:
        for fd in sources:
            if fd >= 0:
                os.close(fd)


def _stack(steps: Sequence[Step]) -> None:
    """Mount steps over each other on the one place, which also holds what was mounted on it before."""
    for kind, source, options, cwd in steps:
        if cwd:
            os.chdir(cwd)
        _mount_step(kind, source, options, _POINT)
    os.chdir("/")


def _source(bind: Bind) -> int:
    """Open what a bind shows, -1 where it or its part is missing."""
    _stack(bind.steps)
    try:
        fd = os.open(_POINT if bind.steps else bind.source, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return -1
    if not bind.part:
        return fd
    try:
        return openat2.open_in_root(fd, bind.part, os.O_PATH, resolve=openat2.RESOLVE_BENEATH)
    except OSError:
        return -1
    finally:
        os.close(fd)


def _mount_step(kind: str, source: str, options: Sequence[str], target: str) -> None:
    flags = 0
    data = []
    for option in options:
        if option in _FLAGS:
            flags |= _FLAGS[option]
        else:
            data.append(option)
    _mount(source, target, kind, flags, ",".join(data))


def _bind(root: int, source: int, bind: Bind) -> None:
    point = _mount_point(root, bind.target, os.path.isdir(f"/proc/self/fd/{source}"))
    # What was stacked is below other mounts by now, which are not meant.
    below = 0 if bind.steps else _MS_REC
    try:
        path = f"/proc/self/fd/{point}"
        _mount(f"/proc/self/fd/{source}", path, "", _MS_BIND | below, "")
    finally:
        os.close(point)
    if bind.read_only:
        point = openat2.open_in_root(root, bind.target)
        try:
            path = f"/proc/self/fd/{point}"
            _mount("", path, "", _MS_REMOUNT | _MS_BIND | _MS_RDONLY, "")
        finally:
            os.close(point)


def _mount_point(root: int, target: str, folder: bool) -> int:
    """Open target inside root, made as an empty folder or file where it is missing."""
    try:
        return openat2.open_in_root(root, target)
    except FileNotFoundError:
        pass
    parts = [p for p in target.split("/") if p]
    for end in range(1, len(parts) + 1):
        parent = openat2.open_in_root(root, "/".join(parts[: end - 1]), os.O_RDONLY | os.O_DIRECTORY)
        try:
            if end < len(parts) or folder:
                os.mkdir(parts[end - 1], 0o755, dir_fd=parent)
            else:
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
                os.close(os.open(parts[end - 1], flags, 0o644, dir_fd=parent))
        except FileExistsError:
            pass
        finally:
            os.close(parent)
    return openat2.open_in_root(root, target)


def _mount(source: str, target: str, kind: str, flags: int, data: str) -> None:
    failed = _libc.mount(
        ctypes.c_char_p(os.fsencode(source) or None),
        ctypes.c_char_p(os.fsencode(target)),
        ctypes.c_char_p(kind.encode() or None),
        ctypes.c_ulong(flags),
        ctypes.c_char_p(os.fsencode(data) or None),
    )
    if failed:
        raise KernelError(ctypes.get_errno(), "mount", target)
