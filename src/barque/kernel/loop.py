"""Files that stand for disks (loop(4))."""

import errno
import fcntl
import glob
import os
import struct

from barque.base.errors import KernelError

_CONTROL = "/dev/loop-control"
_GET_FREE, _CONFIGURE, _GET_STATUS = 0x4C82, 0x4C0A, 0x4C05
_AUTOCLEAR = 4
_STATUS = struct.Struct("=5Q4I64s64s32s2Q")
"""struct loop_info64."""
_HEAD, _RESERVED = struct.Struct("=II"), bytes(64)
"""What struct loop_config has before that, the file and the block size, and behind it."""
_TRIES = 16


def attach(path: str) -> tuple[int, str]:
    """Return (descriptor, path) of the device whose data are a file's; it is free again once nothing has it open or mounted.

    A file has one device however often it is attached: two would be two file systems that do not know of each other's
    writes. The caller closes the descriptor.

    Raises:
        KernelError: there are no such devices here, or the file cannot be one.
    """
    file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        found = _present(os.fstat(file))
        return found or _new(file, path)
    finally:
        os.close(file)


def _present(status: os.stat_result) -> tuple[int, str] | None:
    for entry in glob.glob("/sys/block/loop*/loop/backing_file"):
        name = f"/dev/{entry.split('/')[3]}"
        try:
            device = os.open(name, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            # As it is open now, it is not let go.
            known = _STATUS.unpack(fcntl.ioctl(device, _GET_STATUS, bytes(_STATUS.size)))
            if known[:2] == (status.st_dev, status.st_ino):
                return device, name
        except OSError:
            pass
        os.close(device)
    return None


def _new(file: int, path: str) -> tuple[int, str]:
    shown = os.fsencode(path)[:63]
    config = _HEAD.pack(file, 0) + _STATUS.pack(*[0] * 8, _AUTOCLEAR, shown, b"", b"", 0, 0) + _RESERVED
    for _ in range(_TRIES):
        device, name = _free()
        try:
            fcntl.ioctl(device, _CONFIGURE, config)
            return device, name
        except OSError as error:
            os.close(device)
            # Somebody else was quicker.
            if error.errno != errno.EBUSY:
                raise KernelError(error.errno or 0, "loop", path) from None
    raise KernelError(errno.EBUSY, "loop", path)


def _free() -> tuple[int, str]:
    try:
        control = os.open(_CONTROL, os.O_RDWR | os.O_CLOEXEC)
        try:
            name = f"/dev/loop{fcntl.ioctl(control, _GET_FREE)}"
        finally:
            os.close(control)
        return os.open(name, os.O_RDWR | os.O_CLOEXEC), name
    except OSError as error:
        raise KernelError(error.errno or 0, "loop", _CONTROL) from None
