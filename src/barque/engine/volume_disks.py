"""Volumes of a limited size where there are no project quotas: an ext4 of that size in a file. All here blocks.

<folder>/disk     the file, of which only what is written takes room
<folder>/_data    where it is mounted while a container uses the volume
"""

import os
import shutil
import subprocess

from barque.base.errors import BarqueError, InvalidInputError
from barque.kernel import loop, mount as km

LEAST = 1 << 20
_MAKE_S = 120
_PLACES = "/usr/sbin:/sbin:/usr/bin:/bin"


def check(size: int) -> None:
    """Refuse a volume that cannot be made.

    Raises:
        InvalidInputError: says what is missing.
    """
    if not _maker() or not os.path.exists("/dev/loop-control"):
        raise InvalidInputError(
            "quota size requested but no quota support: mount the data root with project quotas, or install e2fsprogs "
            "and load the kernel's module loop, for volumes in files of their own"
        )
    if size < LEAST:
        raise InvalidInputError(f"a volume in a file of its own takes at least 1m: {size} bytes are asked for")


def _maker() -> str | None:
    return shutil.which("mkfs.ext4", path=_PLACES)


def path_of(folder: str) -> str:
    """Return the file of a volume's folder."""
    return f"{folder}/disk"


def make(folder: str, size: int, place: str) -> None:
    """Make the file with an empty file system, and mount it once: what cannot be mounted is told now.

    Raises:
        BarqueError: mkfs.ext4 or the kernel says why not.
    """
    path, unfinished = path_of(folder), f"{path_of(folder)}.new"
    if os.path.exists(path):
        return
    with open(unfinished, "wb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        file.truncate(size)
    try:
        _format(unfinished)
        _mount(unfinished, place)
        try:
            # e2fsck makes it itself where it needs it; a volume is empty at first.
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
        raise BarqueError(f"cannot make a file system for the volume: {error}") from error
    if made.returncode:
        raise BarqueError(f"cannot make a file system for the volume: {made.stderr.strip()}")


def mount(folder: str, place: str) -> None:
    """Mount the file's file system.

    Raises:
        BarqueError: the kernel refuses.
    """
    _mount(path_of(folder), place)


def _mount(path: str, place: str) -> None:
    try:
        device, name = loop.attach(path)
        try:
            km.mount(name, place, "ext4", 0, None)
        finally:
            os.close(device)
    except OSError as error:
        raise BarqueError(f"cannot mount the volume's file {path}: {(error.strerror or str(error)).lower()}") from error
