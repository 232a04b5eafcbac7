"""Connections that write once a turn of the event loop: grpclib writes a head, a message and an end one by one."""

import asyncio
from typing import Any

from grpclib.protocol import H2Protocol

_MOST_GATHERED = 64 << 10


class Gathering(H2Protocol):
    """One end of a connection; its writes are gathered, as each is a system call and wakes the other end."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        super().connection_made(_Gathered(transport))


class _Gathered(asyncio.Transport):
    """A transport on another one, for what grpclib does with transports."""

    def __init__(self, transport: Any) -> None:
        super().__init__()
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._pieces: list[bytes] = []
        self._size = 0

    def write(self, data: Any) -> None:
        """Write soon; at once where much has been gathered, so that the other end's slowness is felt."""
        if not self._pieces:
            self._loop.call_soon(self._flush)
        self._pieces.append(data)
        self._size += len(data)
        if self._size > _MOST_GATHERED:
            self._flush()

    def _flush(self) -> None:
        data, self._size = b"".join(self._pieces), 0
        self._pieces.clear()
        if data and not self._transport.is_closing():
            self._transport.write(data)

    def close(self) -> None:
        """Close it when all is written."""
        self._flush()
        self._transport.close()

    def abort(self) -> None:
        """Close it at once."""
        self._pieces.clear()
        self._transport.abort()

    def is_closing(self) -> bool:
        """Tell whether it is closed, or about to be."""
        return bool(self._transport.is_closing())

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Tell what the transport below tells."""
        return self._transport.get_extra_info(name, default)
