"""Local sources: folders of the client, brought over once and kept, so that only changes come the next time."""

import asyncio
import hashlib
import json
import os
import shutil
import time

from barque.base.errors import InvalidInputError
from barque.builder.buildkit.receiving import receive
from barque.builder.buildkit.sessions import ClientSession
from barque.builder.folder_tree import FolderTree
from barque.builder.results import Result
from barque.builder.solver import Session

_KEPT = 16
_LISTS = {
    "local.includepattern": "include-patterns", "local.excludepatterns": "exclude-patterns",
    "local.followpaths": "followpaths",
}  # fmt: skip


class ContextFolders:
    """Folders below `root`: one for each client, name and choice of files; the longest unused are removed."""

    def __init__(self, root: str) -> None:
        self._root = root
        os.makedirs(root, mode=0o700, exist_ok=True)
        self._used: set[str] = set()

    async def bring(self, client: ClientSession, name: str, options: dict[str, list[str]], session: Session) -> Result:
        """Return a folder of the client as it is now; it stays as it is until the session ends.

        Args:
            client: whose folder.
            name: the name that the client gave it.
            options: `include-patterns`, `exclude-patterns`, `followpaths`.
            session: the build that uses it.

        Raises:
            BarqueError: the client has no such folder, or went away.
        """
        shared = json.dumps([client.shared_key, name, options], sort_keys=True)
        key = hashlib.sha256(shared.encode("utf-8", "surrogateescape")).hexdigest()
        # A folder that another build reads now must not change under it.
        if not client.shared_key or key in self._used:
            key = f"tmp-{os.urandom(8).hex()}"
        self._used.add(key)
        session.options.setdefault("ends", []).append(lambda: self._release(key))
        path = f"{self._root}/{key}"
        os.makedirs(path, mode=0o700, exist_ok=True)
        transferred = await receive(client, path, {"dir-name": [name], **options})
        os.utime(path)
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        session.descriptors.append(fd)
        session.options.setdefault("transferred", {})[name] = transferred
        return Result(tree=FolderTree(fd, path), identity=f"local:{os.urandom(8).hex()}", created_ns=time.time_ns())

    def _release(self, key: str) -> None:
        self._used.discard(key)
        if key.startswith("tmp-"):
            shutil.rmtree(f"{self._root}/{key}", ignore_errors=True)
        free = sorted(
            (entry.stat().st_mtime, entry.path) for entry in os.scandir(self._root) if entry.name not in self._used
        )
        for _, path in free[: max(0, len(free) - _KEPT)]:
            shutil.rmtree(path, ignore_errors=True)


def local_options(attributes: dict[str, str]) -> dict[str, list[str]]:
    """Return a local source's attributes as the client takes them.

    Raises:
        InvalidInputError: one is not a JSON list of texts.
    """
    found: dict[str, list[str]] = {}
    for key, ours in _LISTS.items():
        text = attributes.get(key)
        if not text:
            continue
        try:
            value = json.loads(text)
        except ValueError:
            value = None
        if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
            raise InvalidInputError(f"{key} is not a list of texts")
        found[ours] = value
    return found


class LocalSources:
    """The local sources of one build, each brought once for one choice of files."""

    def __init__(self, folders: ContextFolders, client: ClientSession | None, session: Session) -> None:
        self._folders = folders
        self._client = client
        self._session = session
        self._brought: dict[str, asyncio.Task[Result]] = {}

    async def get(self, name: str, options: dict[str, list[str]]) -> Result:
        """Return a folder of the client.

        Raises:
            InvalidInputError: the build has no client session.
            BarqueError: the client has no such folder.
        """
        if self._client is None:
            raise InvalidInputError(f"local source {name} needs a client session")
        key = json.dumps([name, options], sort_keys=True)
        if key not in self._brought:
            self._brought[key] = asyncio.create_task(self._folders.bring(self._client, name, options, self._session))
        return await asyncio.shield(self._brought[key])
