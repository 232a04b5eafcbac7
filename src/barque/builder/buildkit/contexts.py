"""Local sources: folders of the client, brought over once and kept, so that only changes come the next time."""

import asyncio
import hashlib
import json
import os
import shutil
import time
from typing import NamedTuple

from barque.base.errors import InvalidInputError
from barque.builder.buildkit.bringing import Listing, receive
from barque.builder.buildkit.sessions import ClientSession
from barque.builder.folder_tree import FolderTree
from barque.builder.folders import KeptFolders
from barque.builder.results import Result
from barque.builder.solver import Session

_KEPT = 16
_LISTS = {
    "local.includepattern": "include-patterns", "local.excludepatterns": "exclude-patterns",
    "local.followpaths": "followpaths",
}  # fmt: skip


class _Brought(NamedTuple):
    """What a kept folder was when a client's files had come: its state's name, its marks on the disk, what was listed."""

    state: str
    marks: tuple[int, int]
    listing: Listing | None


class ContextFolders:
    """Kept folders: one for each client, name and choice of files; the longest unused are removed."""

    def __init__(self, kept: KeptFolders) -> None:
        self._kept = kept

    async def bring(
        self, client: ClientSession, name: str, options: dict[str, list[str]], session: Session, *, kept: bool = True
    ) -> Result:  # fmt: skip
        """Return a folder of the client as it is now; it stays as it is until the session ends.

        Args:
            client: whose folder.
            name: the name that the client gave it.
            options: `include-patterns`, `exclude-patterns`, `followpaths`.
            session: the build that uses it.
            kept: keep it for later builds.

        Raises:
            BarqueError: the client has no such folder, or went away.
        """
        shared = json.dumps([client.shared_key, name, options], sort_keys=True)
        key = hashlib.sha256(shared.encode("utf-8", "surrogateescape")).hexdigest()
        # A folder that another build reads now must not change under it.
        if not kept or not client.shared_key or self._kept.in_use(key):
            key = f"tmp-{os.urandom(8).hex()}"
        self._kept.take(key, f"local source for {name}")
        session.options.setdefault("ends", []).append(lambda: self._release(key))
        path = self._kept.path(key)
        os.makedirs(path, mode=0o700, exist_ok=True)
        # Whatever happens on the way, the folder may be another one then.
        before = self._kept.forget(key)
        known = before if isinstance(before, _Brought) and before.marks == _marks(path) else None
        digests = self._kept.file_digests(key)
        received = await receive(client, path, {"dir-name": [name], **options}, digests, known.listing if known else None)
        state = os.urandom(8).hex() if received.changed or known is None else known.state
        os.utime(path)
        if not key.startswith("tmp-"):
            self._kept.remember(key, _Brought(state, _marks(path), received.listing))
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        session.descriptors.append(fd)
        session.options.setdefault("transferred", {})[name] = received.transferred
        return Result(tree=FolderTree(fd, path, digests), identity=f"local:{state}", created_ns=time.time_ns(), state=state)

    def _release(self, key: str) -> None:
        self._kept.release(key)
        if key.startswith("tmp-"):
            shutil.rmtree(self._kept.path(key), ignore_errors=True)
        free = sorted((one for one in self._kept.listed() if not one.in_use), key=lambda one: one.used_ns)
        for one in free[: max(0, len(free) - _KEPT)]:
            self._kept.remove(one.name)


def _marks(path: str) -> tuple[int, int]:
    """Return what another folder at the path would not have."""
    found = os.stat(path)
    return found.st_ino, found.st_ctime_ns


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

    async def get(self, name: str, options: dict[str, list[str]], *, kept: bool = True) -> Result:
        """Return a folder of the client; what is not `kept` comes whole again in the next build.

        Raises:
            InvalidInputError: the build has no client session.
            BarqueError: the client has no such folder.
        """
        if self._client is None:
            raise InvalidInputError(f"local source {name} needs a client session")
        key = json.dumps([name, options], sort_keys=True)
        if key not in self._brought:
            self._brought[key] = asyncio.create_task(
                self._folders.bring(self._client, name, options, self._session, kept=kept)
            )
            self._session.aside.append(self._brought[key])
        return await asyncio.shield(self._brought[key])
