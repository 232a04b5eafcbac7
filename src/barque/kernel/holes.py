"""Holes in files: room given back while what lies behind keeps its place."""

from barque.kernel import libc

_FALLOC_FL_KEEP_SIZE = 0x01
_FALLOC_FL_PUNCH_HOLE = 0x02


def punch(fd: int, offset: int, length: int) -> None:
    """Give back what a part of a file takes; it reads as zeros from then on (fallocate(2)).

    Raises:
        KernelError: EOPNOTSUPP where the file system knows no holes.
    """
    libc.invoke("fallocate", fd, _FALLOC_FL_KEEP_SIZE | _FALLOC_FL_PUNCH_HOLE, offset, length)
