"""Folders of a limited size where there are no project quotas: an ext4 of that size in a file. All here blocks.

Of the file only what is written takes room. It is mounted while its folder is in use.
"""

import os
import shutil
import subprocess

from barque.base.errors import BarqueError, InvalidInputError
from barque.kernel import loop, mount as km

LEAST = 1 << 20
_MAKE_S = 120
_PLACES = "/usr/sbin:/sbin:/usr/bin:/bin"


def check(size: int, what: str) -> None:
    """Refuse a size that cannot be given.

    Args:
        size: bytes.
        what: has the size, as a user calls it.

    Raises:
        InvalidInputError: says what is missing.
    """
    if not _maker() or not os.path.exists("/dev/loop-control"):
        raise InvalidInputError(
            "quota size requested but no quota support: mount the data root with project quotas, or install e2fsprogs "
            "and load the kernel's module loop, for file systems in files of their own"
        )
    if size < LEAST:
        raise InvalidInputError(f"{what} in a file of its own takes at least 1m: {size} bytes are asked for")


def _maker() -> str | None:
    return shutil.which("mkfs.ext4", path=_PLACES)


def make(path: str, size: int, place: str) -> None:
    """Make the file with an empty file system, and mount it once: what cannot be mounted is told now.

    Raises:
        BarqueError: mkfs.ext4 or the kernel says why not.
    """
    unfinished = f"{path}.new"
    if os.path.exists(path):
        return
    with open(unfinished, "wb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        file.truncate(size)
    try:
        _format(unfinished)
        mount(unfinished, place)
        try:
            # e2fsck makes it itself where it needs it; all begins empty.
            os.rmdir(f"{place}/lost+found")
        finally:
            km.unmount_below(place)
        os.rename(unfinished, path)
    except BaseException:
        os.unlink(unfinished)
        raise


def _format(path: str) -> None:
    words = [_maker() or "mkfs.ext4", "-q", "-F", "-m", "0", "-E", "nodiscard,root_owner=0:0", path]
    try:
        made = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_MAKE_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BarqueError(f"cannot make a file system in {path}: {error}") from error
    if made.returncode:
        raise BarqueError(f"cannot make a file system in {path}: {made.stderr.strip()}")


def mount(path: str, place: str) -> None:
    """Mount the file's file system.

    Raises:
        BarqueError: the kernel refuses.
    """
    try:
        device, name = loop.attach(path)
        try:
            km.mount(name, place, "ext4", 0, None)
        finally:
            os.close(device)
    except OSError as error:
        raise BarqueError(f"cannot mount the file {path}: {(error.strerror or str(error)).lower()}") from error
