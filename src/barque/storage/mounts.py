"""Reaching a snapshot's files without a mount on the host."""

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from barque.kernel.private_mounts import Bind, private_root
from barque.storage.snapshots import Mount


@contextmanager
def mounted(mounts: Sequence[Mount], binds: Sequence[Bind] = ()) -> Iterator[int]:
    """Yield a descriptor of the root folder that the mounts make.

    Args:
        mounts: as a Snapshotter gives them.
        binds: what is mounted inside, in this order.

    Raises:
        KernelError: the kernel refused a mount.
    """
    with private_root(mounts, binds) as root:
        yield root


@contextmanager
def root_of_process(pid: int) -> Iterator[int]:
    """Yield a descriptor of a running container's root, its mounts included.

    Raises:
        OSError: the process is gone.
    """
    fd = os.open(f"/proc/{pid}/root", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if os.path.samestat(os.fstat(fd), os.stat("/")):
            # No container has the machine's root: the process has ended, and its number is another one's.
            raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))
        yield fd
    finally:
        os.close(fd)
