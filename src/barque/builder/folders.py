"""Folders of the cache beside its layers: kept between builds, counted, removed when nobody uses them."""

import os
import shutil
from collections import Counter

from barque.builder.cache import BuildCache
from barque.builder.file_digests import FileDigests
from barque.builder.pruning import Folder


class KeptFolders:
    """Folders below `root`, by name; a name that begins with `tmp` is not kept and not listed."""

    def __init__(self, root: str, cache: BuildCache, kind: str) -> None:
        self.root = root
        self._cache = cache
        self._kind = kind
        self._users: Counter[str] = Counter()
        self._remembered: dict[str, object] = {}
        os.makedirs(root, mode=0o700, exist_ok=True)

    def path(self, name: str) -> str:
        """Return a folder's path."""
        return f"{self.root}/{name}"

    def in_use(self, name: str) -> bool:
        """Tell whether a build uses a folder."""
        return self._users[name] > 0

    def take(self, name: str, description: str) -> None:
        """Let a build use a folder, which need not be there yet, until it is released."""
        self._users[name] += 1
        self._cache.note_folder(name, description)

    def release(self, name: str) -> None:
        """Let a build use a folder no longer."""
        self._users[name] -= 1

    def file_digests(self, name: str) -> FileDigests:
        """Return what is known of a folder's files; it is kept as long as the folder."""
        return FileDigests(bytes) if name.startswith("tmp") else self._cache.file_digests(name)

    def remember(self, name: str, value: object) -> None:
        """Remember something of a folder that holds while it is there and this process lasts."""
        self._remembered[name] = value

    def forget(self, name: str) -> object:
        """Return what was remembered of a folder, and remember it no longer."""
        return self._remembered.pop(name, None)

    def listed(self) -> list[Folder]:
        """Return all folders that are kept."""
        found = []
        for name in sorted(os.listdir(self.root)):
            if name.startswith("tmp"):
                continue
            try:
                stat = os.stat(self.path(name))
            except FileNotFoundError:
                continue
            description, uses, created_ns = self._cache.folder(name)
            found.append(Folder(
                name, self.path(name), self._kind, description or f"{self._kind} {name[:12]}", self.in_use(name), uses,
                created_ns or stat.st_mtime_ns, stat.st_mtime_ns,
            ))  # fmt: skip
        return found

    def remove(self, name: str) -> None:
        """Remove a folder unless a build uses it."""
        if not self.in_use(name):
            self.forget(name)
            shutil.rmtree(self.path(name), ignore_errors=True)
            self._cache.forget_folder(name)
