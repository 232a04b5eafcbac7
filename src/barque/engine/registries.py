"""The API's registries over the distribution room: each transfer in a thread, its messages as they come."""

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable
from dataclasses import replace
from typing import Any, TypeVar

from barque.base.errors import BarqueError, ForbiddenError, InvalidInputError, NotFoundError
from barque.distribution import credentials as credentials_of, fetch, queries
from barque.distribution.credentials import Credentials
from barque.distribution.errors import RegistryError, TransportError
from barque.distribution.progress import Progress
from barque.distribution.pull import Puller, Turns
from barque.distribution.push import Pusher, upload_layers
from barque.distribution.registry import Repository, connect
from barque.distribution.settings import Settings
from barque.distribution.transport import Calls
from barque.engine.images import import_name, parsed_platform
from barque.images.store import ImageStore
from barque.oci.manifest import Descriptor
from barque.oci.reference import Reference, parse
from barque.storage.compression import Form

Json = dict[str, Any]
T = TypeVar("T")
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

    def pull(self, image: str, tag: str, *, platform: str, auth: str) -> AsyncGenerator[Json, None]:
        """Pull an image; without a tag or a digest all tags of the repository."""
        reference = parse(image.removesuffix(":"))
        if tag:
            joint = "@" if ":" in tag else ":"
            reference = parse(f"{reference.name}{joint}{tag}")
        _check_name(reference)
        credentials = _lenient(auth)
        wanted = parsed_platform(platform) if platform else None

        def work(emit: Emit, calls: Calls) -> None:
            all_tags = not (reference.tag or reference.digest)
            puller = Puller(self._store, self._settings(), self._turns, emit, calls)
            puller.pull(reference, credentials, wanted=wanted, all_tags=all_tags)

        return messages_of(work)

    def push(self, image: str, tag: str, *, platform: str, auth: str) -> AsyncGenerator[Json, None]:
        """Push an image; without a tag all tags of the repository."""
        reference = parse(image)
        if tag:
            if reference.digest:
                raise InvalidInputError("cannot push a digest reference")
            reference = parse(f"{reference.name}:{tag}")
        credentials = _lenient(auth)
        wanted = parsed_platform(platform) if platform else None

        def work(emit: Emit, calls: Calls) -> None:
            Pusher(self._store, self._settings(), emit, calls).push(reference, credentials, wanted=wanted)

        return messages_of(work)

    def import_url(
        self, source: str, *, repo: str, tag: str, message: str, changes: list[str], platform: str
    ) -> AsyncGenerator[Json, None]:
        """Make an image from the tar of a root file system that a web server has."""
        url, reference = fetch.whole_url(source), import_name(repo, tag)

        def work(emit: Emit, calls: Calls) -> None:
            progress = Progress(emit)
            chunks = fetch.chunks(self._settings(), url, calls, progress)
            image = self._store.import_tar(
                chunks, reference=reference, message=message, changes=changes, wanted=platform
            )
            progress.message(image.id)

        return messages_of(work)

    async def reach(
        self, reference: Reference, auth: str, work: Callable[[Repository], T], *, push: bool, insecure: bool = False
    ) -> T:
        """Return what blocking work on a reference's repository returns, in a thread; it is called off when we are.

        Args:
            reference: names the repository.
            auth: the header with the credentials.
            work: is given the repository at the first endpoint that answers, and that knows what it asks for.
            push: it writes.
            insecure: the registry needs no trusted certificate, nor TLS at all.

        Raises:
            BarqueError: no endpoint answers, or it refuses.
        """
        credentials, settings = _lenient(auth), self._settings()
        if insecure:
            settings = replace(settings, insecure=[*settings.insecure, reference.domain])

        def run(calls: Calls) -> T:
            last: BarqueError | None = None
            for registry in connect(settings, reference.domain, credentials, calls, push=push):
                try:
                    return work(registry.repository(reference.path, domain=reference.domain, push=push))
                except (RegistryError, TransportError) as error:
                    if not registry.endpoint.mirror:
                        raise
                    last = error
            raise last or NotFoundError(f"no endpoints for {reference.familiar}")

        return await _called(run)

    def upload_layers(self, repository: Repository, diff_ids: list[str], form: Form) -> list[Descriptor]:
        """Bring layers into a repository (see push.upload_layers); blocking, for `reach`."""
        settings = repository.registry.transport.settings
        progress = Progress(lambda message: None)
        return upload_layers(self._store, repository, diff_ids, settings=settings, progress=progress, form=form)

    def download_layer(self, repository: Repository, layer: Descriptor, diff_id: str) -> None:
        """Bring a layer's tar into the content store, unless it is there; blocking, for `reach`."""
        transport = repository.registry.transport
        puller = Puller(self._store, transport.settings, self._turns, lambda message: None, transport.calls)
        puller.download(repository, layer, diff_id)

    async def login(self, config: Json) -> Json:
        """Prove credentials."""
        credentials = credentials_of.from_json(config)
        token = await _called(lambda calls: queries.login(self._settings(), credentials, calls))
        return {"Status": "Login Succeeded", "IdentityToken": token}

    async def inspect(self, ref: str, *, auth: str) -> Json:
        """Return what a name means in its registry."""
        reference = parse(ref).with_default_tag()
        credentials = _lenient(auth)
        return await _called(lambda calls: queries.inspect(self._settings(), reference, credentials, calls))

    async def search(self, term: str, *, limit: int, filters: dict[str, list[str]], auth: str) -> list[Json]:
        """Return repositories that have the term."""
        credentials = _lenient(auth)
        return await _called(
            lambda calls: queries.search(self._settings(), term, limit, filters, credentials, calls)
        )


def _check_name(reference: Reference) -> None:
    if (reference.domain, reference.path) == ("docker.io", "library/scratch"):
        raise ForbiddenError("'scratch' is a reserved name")
    if reference.digest and not reference.digest.startswith("sha256:"):
        raise InvalidInputError(f"unsupported digest algorithm of {reference.familiar}: images are kept by sha256")


def _lenient(auth: str) -> Credentials:
    """Return the credentials in a header; old clients send what is none, and mean nobody."""
    try:
        return credentials_of.from_header(auth)
    except InvalidInputError:
        return credentials_of.NOBODY


async def _called(work: Callable[[Calls], T]) -> T:
    """Run blocking work in a thread; it is called off when we are."""
    calls = Calls()
    try:
        return await asyncio.to_thread(work, calls)
    except asyncio.CancelledError:
        calls.cancel()
        raise


async def messages_of(work: Callable[[Emit, Calls], None]) -> AsyncGenerator[Json, None]:
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
