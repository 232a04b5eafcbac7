"""What the API needs of the engine: one protocol per noun, implemented in `barque.engine`.

Values are JSON-ready dicts in the shape of the newest API version that we serve; the API layer
alone shapes them for older versions. A `ref` is what the user typed: id, unique id prefix, or name.
Methods raise `barque.base.errors`; nothing here knows HTTP.
"""

import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NamedTuple, Protocol

Json = dict[str, Any]
Rows = list[Json]
Names = list[str]
Filters = dict[str, list[str]]
ReadChunk = Callable[[], Awaitable[bytes]]
"""Returns the next bytes of a request body, b"" at its end."""


class AttachOptions(NamedTuple):
    """Which streams a client wants of a container."""

    stdin: bool = False
    stdout: bool = False
    stderr: bool = False
    logs: bool = False
    stream: bool = False
    detach_keys: str = ""


class Attachment(NamedTuple):
    """A live connection to a container's or exec's streams.

    `sock` is a non-blocking stream socket owned by the receiver. Reading gives output: raw bytes
    where `tty`, else Docker's 8-byte-header frames. Writing gives input; shutdown(SHUT_WR) ends
    it. Closing it detaches. `detach_keys` are the parsed bytes that the API layer looks for in the
    input (empty: none). `prelude` yields earlier log output to be sent first.
    """

    sock: socket.socket | None
    tty: bool
    detach_keys: bytes
    prelude: AsyncIterator[bytes] | None
    on_detach: Callable[[], None] | None = None


class LogOptions(NamedTuple):
    """Which part of a log is wanted; times in nanoseconds since the epoch, tail -1 is all."""

    stdout: bool
    stderr: bool
    follow: bool = False
    since_ns: int = 0
    until_ns: int = 0
    timestamps: bool = False
    tail: int = -1
    details: bool = False


class LogStream(NamedTuple):
    """Log output: raw bytes where `tty`, else 8-byte-header frames."""

    tty: bool
    chunks: AsyncIterator[bytes]


class ArchiveStream(NamedTuple):
    """A tar of a path: its stat as Docker's X-Docker-Container-Path-Stat holds it, and the bytes."""

    stat: Json
    chunks: AsyncIterator[bytes]


class ContainersBackend(Protocol):
    """Containers and exec instances."""

    async def create(self, config: Json, name: str, platform: str) -> Json: ...
    async def list(self, *, all: bool, limit: int, size: bool, filters: Filters) -> Rows: ...
    async def inspect(self, ref: str, *, size: bool) -> Json: ...
    async def start(self, ref: str) -> None: ...
    async def stop(self, ref: str, *, signal: str, timeout_s: int | None) -> None: ...
    async def restart(self, ref: str, *, signal: str, timeout_s: int | None) -> None: ...
    async def kill(self, ref: str, *, signal: str) -> None: ...
    async def pause(self, ref: str) -> None: ...
    async def unpause(self, ref: str) -> None: ...
    async def wait(self, ref: str, condition: str) -> Awaitable[Json]:
        """Register the wait now; the awaitable returned gives {"StatusCode":…,"Error":…}."""
        ...

    async def rename(self, ref: str, name: str) -> None: ...
    async def remove(self, ref: str, *, force: bool, volumes: bool, link: bool) -> None: ...
    async def top(self, ref: str, ps_args: str) -> Json: ...
    async def logs(self, ref: str, options: LogOptions) -> LogStream: ...
    async def attach(self, ref: str, options: AttachOptions) -> Attachment: ...
    async def resize(self, ref: str, *, height: int, width: int) -> None: ...
    async def stats(self, ref: str, *, stream: bool, one_shot: bool) -> AsyncIterator[Json]: ...
    async def changes(self, ref: str) -> Rows: ...
    async def export(self, ref: str) -> AsyncIterator[bytes]: ...
    async def archive_stat(self, ref: str, path: str) -> Json: ...
    async def archive_get(self, ref: str, path: str) -> ArchiveStream: ...
    async def archive_put(
        self, ref: str, path: str, read: ReadChunk, *, no_overwrite_dir_non_dir: bool, copy_uid_gid: bool
    ) -> None: ...
    async def update(self, ref: str, changes: Json) -> Json: ...
    async def prune(self, filters: Filters) -> Json: ...
    async def commit(self, ref: str, *, repo: str, tag: str, comment: str, author: str, pause: bool,
                     changes: Names, config: Json | None) -> Json: ...  # fmt: skip
    async def exec_create(self, ref: str, config: Json) -> Json: ...
    async def exec_start(self, exec_id: str, *, detach: bool, tty: bool,
                         console_size: tuple[int, int] | None) -> Attachment | None: ...  # fmt: skip
    async def exec_resize(self, exec_id: str, *, height: int, width: int) -> None: ...
    async def exec_inspect(self, exec_id: str) -> Json: ...


class ImagesBackend(Protocol):
    """Images; progress messages are Docker's JSON messages ({"status":…}, {"stream":…}, {"errorDetail":…})."""

    async def list(self, *, all: bool, filters: Filters, shared_size: bool, digests: bool,
                   manifests: bool) -> Rows: ...  # fmt: skip
    async def inspect(self, ref: str, *, platform: str, manifests: bool) -> Json: ...
    async def history(self, ref: str, *, platform: str) -> Rows: ...
    async def tag(self, ref: str, repo: str, tag: str) -> None: ...
    async def remove(self, ref: str, *, force: bool, noprune: bool, platforms: Names) -> Rows: ...
    async def prune(self, filters: Filters) -> Json: ...
    async def load(self, read: ReadChunk, *, quiet: bool, platforms: Names) -> AsyncIterator[Json]: ...
    async def save(self, refs: Names, *, platforms: Names) -> AsyncIterator[bytes]: ...
    async def import_(self, read: ReadChunk | None, *, source: str, repo: str, tag: str, message: str,
                      changes: Names, platform: str) -> AsyncIterator[Json]: ...  # fmt: skip
    async def disk_usage(self) -> Rows: ...


class NetworksBackend(Protocol):
    """Networks."""

    async def list(self, filters: Filters) -> Rows: ...
    async def inspect(self, ref: str, *, verbose: bool, scope: str) -> Json: ...
    async def create(self, config: Json) -> Json: ...
    async def remove(self, ref: str) -> None: ...
    async def connect(self, ref: str, config: Json) -> None: ...
    async def disconnect(self, ref: str, config: Json) -> None: ...
    async def prune(self, filters: Filters) -> Json: ...


class VolumesBackend(Protocol):
    """Local volumes."""

    async def list(self, filters: Filters) -> Json: ...
    async def inspect(self, name: str) -> Json: ...
    async def create(self, config: Json) -> Json: ...
    async def remove(self, name: str, *, force: bool) -> None: ...
    async def prune(self, filters: Filters) -> Json: ...


class SystemBackend(Protocol):
    """The engine itself."""

    async def info(self) -> Json: ...
    async def version(self) -> Json: ...
    async def disk_usage(self, types: Names) -> Json: ...
    async def events(self, *, since_ns: int, until_ns: int, filters: Filters) -> AsyncIterator[Json]:
        """Yield past events from since_ns (0: none), then live ones until until_ns (0: for ever)."""
        ...


class Backend(Protocol):
    """The engine as a whole."""

    containers: ContainersBackend
    images: ImagesBackend
    networks: NetworksBackend
    volumes: VolumesBackend
    system: SystemBackend
