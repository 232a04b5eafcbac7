"""A volume's files as a tar, and back. Blocking; called in threads."""

import os
from collections.abc import Iterable, Iterator

from barque.base.errors import BarqueError, InvalidInputError
from barque.base.files import write_all
from barque.storage import archive
from barque.storage.compression import plain
from barque.storage.content import ContentStore
from barque.storage.mapping import mapped
from barque.storage.trees import remove_tree


def export(path: str) -> Iterator[bytes]:
    """Yield the tar of all files of the volume at path, owners, modes, times and attributes included."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield from archive.export(fd)
    finally:
        os.close(fd)


def restore(path: str, chunks: Iterable[bytes], content: ContentStore, *, clear: bool) -> None:
    """Unpack a tar into the volume at path.

    Args:
        path: the volume's folder.
        chunks: the archive, kept in a nameless file meanwhile and read through before anything is changed.
        content: gives that file.
        clear: remove first what the volume holds.

    Raises:
        InvalidInputError: the archive is bad.
        BarqueError: it does not fit.
    """
    with content.temporary() as file:
        try:
            for chunk in plain(chunks):
                write_all(file.fileno(), chunk)
        except (ValueError, EOFError) as error:
            raise InvalidInputError(f"the archive cannot be read: {error}") from None
        if not os.fstat(file.fileno()).st_size:
            raise InvalidInputError("the archive is empty")
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with mapped(file) as buffer:
                if clear:
                    _clear(path)
                archive.put(fd, "/", buffer)
        except OSError as error:
            raise BarqueError(f"the archive cannot be unpacked: {error.strerror or error}") from None
        finally:
            os.close(fd)


def _clear(path: str) -> None:
    for entry in os.scandir(path):
        if entry.is_dir(follow_symlinks=False):
            remove_tree(entry.path)
        else:
            os.unlink(entry.path)
