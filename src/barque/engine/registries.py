"""The API's registries over the distribution room: each transfer in a thread, its messages as they come."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

from barque.base.errors import InvalidInputError
from barque.distribution import credentials as credentials_of
from barque.distribution.pull import Puller, Turns
from barque.distribution.push import Pusher
from barque.distribution.settings import Settings
from barque.distribution.transport import Calls
from barque.engine.images import parsed_platform
from barque.images.store import ImageStore
from barque.oci.reference import parse

Json = dict[str, Any]
Emit = Callable[[Json], None]


class Registries:
    """Implements the API's RegistriesBackend.

    Args:
        store: the images.
        settings: called for each action, as options may change while the daemon runs.
    """

    def __init__(self, store: ImageStore, settings: Callable[[], Settings]) -> None:
        self._store = store
        self._settings = settings
        self._turns = Turns()

    def pull(self, image: str, tag: str, *, platform: str, auth: str) -> AsyncIterator[Json]:
        """Pull an image; without a tag or a digest all tags of the repository."""
        joint = "@" if tag.startswith("sha256:") else ":"
        reference = parse(f"{image}{joint}{tag}" if tag else image)
        if reference.path == "scratch" or (reference.domain, reference.path) == ("docker.io", "library/scratch"):
            raise InvalidInputError("'scratch' is a reserved name")
        if reference.digest and not reference.digest.startswith("sha256:"):
            raise InvalidInputError(f"unsupported digest algorithm of {reference.familiar}: only sha256 is kept")
        credentials = credentials_of.from_header(auth)
        wanted = parsed_platform(platform) if platform else None

        def work(emit: Emit, calls: Calls) -> None:
            all_tags = not (reference.tag or reference.digest)
            puller = Puller(self._store, self._settings(), self._turns, emit, calls)
            puller.pull(reference, credentials, wanted=wanted, all_tags=all_tags)

        return messages_of(work)

    def push(self, image: str, tag: str, *, platform: str, auth: str) -> AsyncIterator[Json]:
        """Push an image; without a tag all tags of the repository."""
        reference = parse(image)
        if tag:
            if reference.digest:
                raise InvalidInputError("cannot push a digest reference")
            reference = parse(f"{reference.name}:{tag}")
        credentials = credentials_of.from_header(auth)
        wanted = parsed_platform(platform) if platform else None

        def work(emit: Emit, calls: Calls) -> None:
            Pusher(self._store, self._settings(), emit, calls).push(reference, credentials, wanted=wanted)

        return messages_of(work)


async def messages_of(work: Callable[[Emit, Calls], None]) -> AsyncIterator[Json]:
    """Yield what work emits in a thread of its own; closing the iterator calls the work off.

    Raises:
        Whatever work raises.
    """
    loop = asyncio.get_running_loop()
    ready: asyncio.Queue[Json | BaseException | None] = asyncio.Queue()
    calls = Calls()

    def give(item: Json | BaseException | None) -> None:
        loop.call_soon_threadsafe(ready.put_nowait, item)

    def run() -> None:
        try:
            work(give, calls)
            give(None)
        except BaseException as error:
            give(error)

    threading.Thread(target=run, name="transfer", daemon=True).start()
    try:
        while (item := await ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        calls.cancel()
