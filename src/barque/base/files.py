"""Files that are either whole or absent, and files that others may exchange at any moment."""

import os
import stat


def write_all(fd: int, data: bytes | bytearray | memoryview) -> None:
    """Write all of data, which a single write(2) may not.

    Raises:
        OSError: the disk is full, or the reader has gone.
    """
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def write_atomic(path: str, data: bytes, *, mode: int = 0o644, durable: bool = True) -> None:
    """Write data to path so that a reader, or a crash, sees all of it or the old content.

    Args:
        path: the file; its folder must exist.
        data: the new content.
        mode: permission bits of the new file, not masked by umask.
        durable: fsync file and folder; leave out on tmpfs.

    Raises:
        OSError: the folder is missing or read-only, or the disk is full; path is unchanged.
    """
    folder = os.path.dirname(path) or "."
    temporary = f"{folder}/.{os.path.basename(path)}.{os.getpid()}.{os.urandom(4).hex()}"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        try:
            os.fchmod(fd, mode)
            write_all(fd, data)
            if durable:
                os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    if durable:
        fsync_folder(folder)


def write_in_place(path: str, data: bytes, *, mode: int = 0o644) -> None:
    """Write data into the file itself, which is made where it is missing: others may have it mounted or open.

    Raises:
        OSError: the folder is missing or read-only, or the disk is full.
    """
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    try:
        write_all(fd, data)
        os.fchmod(fd, mode)
    finally:
        os.close(fd)


def set_mode(name: str | bytes, mode: int, *, dir_fd: int) -> None:
    """Change the mode of a file in a folder; a link that somebody puts in its place is not followed, as chmod(2) would.

    Raises:
        OSError: it is gone, or a link.
    """
    fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd)
    try:
        os.chmod(f"/proc/self/fd/{fd}", mode)
    finally:
        os.close(fd)


def open_regular(name: str | bytes, *, dir_fd: int) -> int:
    """Return a descriptor to read a regular file in a folder, -1 where it is anything else.

    Nothing else is opened whatever somebody puts there meanwhile: a container's device would be the machine's.

    Raises:
        OSError: as open(2).
    """
    found = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd)
    try:
        if not stat.S_ISREG(os.fstat(found).st_mode):
            return -1
        return os.open(f"/proc/self/fd/{found}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(found)


def fsync_folder(path: str) -> None:
    """Make renames and unlinks in the folder durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
