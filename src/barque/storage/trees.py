"""Whole trees of files that somebody hostile made: how much they take, and away with them.

Everything goes by descriptors and without recursion: a container can nest folders deeper than any path may be
long, and may still be at work in the tree.
"""

import errno
import os
from typing import NamedTuple, Protocol

_DEEPEST = 128
_QUEUED = 256
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class _RemoveCall(Protocol):
    def __call__(self, path: bytes, *, dir_fd: int) -> None: ...


class Usage(NamedTuple):
    """What a tree takes: bytes and inodes."""

    size: int
    inodes: int


def tree_usage(path: str) -> Usage:
    """Return the bytes and inodes of a folder's files; hard links count once.

    Of folders that lie deeper than 128 others, 256 at a time are looked into.

    Raises:
        OSError: the folder itself cannot be read.
    """
    return _Counter().count(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))


class _Counter:
    def __init__(self) -> None:
        self._size = self._inodes = 0
        self._seen: set[int] = set()
        self._tops: list[int] = []

    def count(self, top: int) -> Usage:
        self._tops.append(top)
        stack: list[tuple[int, list[str]]] = []
        try:
            while self._tops:
                fd = self._tops.pop()
                stack.append((fd, []))
                stack[-1] = (fd, self._folder(fd))
                while stack:
                    self._step(stack)
        finally:
            for fd in [*self._tops, *(fd for fd, _ in stack)]:
                os.close(fd)
        return Usage(self._size, self._inodes)

    def _step(self, stack: list[tuple[int, list[str]]]) -> None:
        fd, names = stack[-1]
        if not names:
            stack.pop()
            os.close(fd)
            return
        try:
            inner = os.open(names.pop(), _FOLDER, dir_fd=fd)
        except OSError:
            # Gone, or something else by now.
            return
        if len(stack) >= _DEEPEST:
            if len(self._tops) < _QUEUED:
                self._tops.append(inner)
            else:
                os.close(inner)
            return
        stack.append((inner, self._folder(inner)))

    def _folder(self, fd: int) -> list[str]:
        """Count what lies in a folder; return the names of the folders in it."""
        folders = []
        with os.scandir(fd) as entries:
            for entry in entries:
                try:
                    found = entry.stat(follow_symlinks=False)
                except OSError:
                    continue
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.name)
                elif found.st_nlink > 1:
                    if found.st_ino in self._seen:
                        continue
                    self._seen.add(found.st_ino)
                self._inodes += 1
                if not entry.is_dir(follow_symlinks=False):
                    self._size += found.st_size
        return folders


def remove_tree(path: str) -> None:
    """Remove a file or a folder with all that is in it; what is not there is removed already.

    What cannot be removed stays, and all else goes.

    Raises:
        OSError: the first refusal.
    """
    parent, _, name = path.rstrip("/").rpartition("/")
    try:
        fd = os.open(parent or "/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        remove_below(fd, os.fsencode(name))
    finally:
        os.close(fd)


def remove_below(parent: int, name: bytes) -> None:
    """Remove a file or a folder below the descriptor `parent`, never following links (see remove_tree).

    Raises:
        OSError: the first refusal.
    """
    try:
        os.unlink(name, dir_fd=parent)
        return
    except FileNotFoundError:
        return
    except (IsADirectoryError, PermissionError):
        pass
    try:
        top = os.open(name, _FOLDER, dir_fd=parent)
    except NotADirectoryError:
        # It is a file, and unlinking it was refused: this says why.
        os.unlink(name, dir_fd=parent)
        return
    try:
        remover = _Remover(top)
        remover.run()
    finally:
        os.close(top)
    if remover.refused is not None:
        raise remover.refused
    os.rmdir(name, dir_fd=parent)


class _Remover:
    """Empties a folder; what is nested too deep is first moved up to it."""

    def __init__(self, top: int) -> None:
        self._top = top
        self._moved = 0
        self.refused: OSError | None = None

    def run(self) -> None:
        while True:
            moved = self._moved
            self._empty()
            if self._moved == moved:
                return

    def _empty(self) -> None:
        stack: list[tuple[int, bytes, list[bytes]]] = [(os.dup(self._top), b"", [])]
        try:
            stack[0] = (stack[0][0], b"", self._files(stack[0][0]))
            while stack:
                fd, name, folders = stack[-1]
                if folders:
                    self._enter(stack, fd, folders.pop())
                    continue
                stack.pop()
                os.close(fd)
                if stack:
                    self._remove(os.rmdir, name, stack[-1][0])
        finally:
            for fd, _, _ in stack:
                os.close(fd)

    def _enter(self, stack: list[tuple[int, bytes, list[bytes]]], fd: int, name: bytes) -> None:
        if len(stack) >= _DEEPEST and self._move_up(fd, name):
            return
        try:
            inner = os.open(name, _FOLDER, dir_fd=fd)
        except OSError as error:
            self._note(error)
            return
        stack.append((inner, name, self._files(inner)))

    def _move_up(self, fd: int, name: bytes) -> bool:
        try:
            os.rename(name, f".deep-{self._moved}-{os.urandom(4).hex()}", src_dir_fd=fd, dst_dir_fd=self._top)
        except OSError:
            return False
        self._moved += 1
        return True

    def _files(self, fd: int) -> list[bytes]:
        """Remove the files of a folder; return the names of the folders in it."""
        folders = []
        with os.scandir(fd) as entries:
            names = [(os.fsencode(entry.name), entry.is_dir(follow_symlinks=False)) for entry in entries]
        for name, is_folder in names:
            if is_folder:
                folders.append(name)
            else:
                self._remove(os.unlink, name, fd)
        return folders

    def _remove(self, call: _RemoveCall, name: bytes, parent: int) -> None:
        try:
            call(name, dir_fd=parent)
        except OSError as error:
            self._note(error)

    def _note(self, error: OSError) -> None:
        if error.errno != errno.ENOENT and self.refused is None:
            self.refused = error
