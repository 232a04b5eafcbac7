"""Signals that are taken from a descriptor: what nobody has read yet stays pending, also over an exec."""

import ctypes
import os
import signal
import struct
from collections.abc import Iterable

from barque.kernel import libc

# struct signalfd_siginfo (signalfd(2)): 128 bytes, the number first.
_INFO_SIZE = 128
_AT_ONCE = 32
_SET_SIZE = 8


def descriptor(numbers: Iterable[int]) -> int:
    """Return a descriptor that can be read while one of these signals, which must be blocked, is pending.

    Raises:
        KernelError: EMFILE, ENFILE or ENOMEM.
    """
    wanted = ctypes.c_uint64(sum(1 << (number - 1) for number in numbers))
    return libc.invoke("signalfd4", -1, ctypes.addressof(wanted), _SET_SIZE, os.O_CLOEXEC | os.O_NONBLOCK)


def take(fd: int) -> list[int]:
    """Take the signals that are pending at a descriptor; none is no error."""
    try:
        read = os.read(fd, _INFO_SIZE * _AT_ONCE)
    except BlockingIOError:
        return []
    return [struct.unpack_from("=I", read, start)[0] for start in range(0, len(read), _INFO_SIZE)]


def hold(numbers: Iterable[int]) -> None:
    """Block signals in this thread, and in those that it starts from now on."""
    signal.pthread_sigmask(signal.SIG_BLOCK, numbers)


def let_in(numbers: Iterable[int]) -> None:
    """Block signals no longer: those that are pending come now."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)
