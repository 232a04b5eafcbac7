"""A connection inside a call: sessions of clients that have no connection of their own for them."""

import asyncio
from typing import Any

from barque.builder.buildkit.pb import control_pb2

_CHUNK = 32 << 10
_HIGH_WATER = 1 << 20


class Tunnel(asyncio.Transport):
    """A transport whose bytes are the messages of a gRPC stream."""

    def __init__(self, stream: Any, protocol: Any) -> None:
        super().__init__()
        self._stream = stream
        self._protocol = protocol
        self._waiting: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._size = 0
        self._paused = False
        self._reading = asyncio.Event()
        self._reading.set()
        self._closing = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return nothing: there is no socket of its own."""
        return default

    def is_closing(self) -> bool:
        """Whether it is closed or being closed."""
        return self._closing

    def write(self, data: Any) -> None:
        """Send bytes, when there is room."""
        if self._closing or not data:
            return
        self._size += len(data)
        self._waiting.put_nowait(bytes(data))
        if self._size > _HIGH_WATER and not self._paused:
            self._paused = True
            self._protocol.pause_writing()

    def can_write_eof(self) -> bool:
        """Whether one direction can end alone: no."""
        return False

    def pause_reading(self) -> None:
        """Give the protocol no more for now."""
        self._reading.clear()

    def resume_reading(self) -> None:
        """Go on giving."""
        self._reading.set()

    def close(self) -> None:
        """Close after what is written has gone."""
        if not self._closing:
            self._closing = True
            self._waiting.put_nowait(None)

    def abort(self) -> None:
        """Close."""
        self.close()

    async def run(self) -> None:
        """Carry bytes both ways until either end is gone."""
        self._protocol.connection_made(self)
        sending = asyncio.create_task(self._send())
        receiving = asyncio.create_task(self._receive())
        try:
            await asyncio.wait([sending, receiving], return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._closing = True
            for task in (sending, receiving):
                task.cancel()
            await asyncio.gather(sending, receiving, return_exceptions=True)
            self._protocol.connection_lost(None)

    async def _send(self) -> None:
        while (data := await self._waiting.get()) is not None:
            for start in range(0, len(data), _CHUNK):
                await self._stream.send_message(control_pb2.BytesMessage(data=data[start : start + _CHUNK]))
            self._size -= len(data)
            if self._paused and self._size <= _HIGH_WATER // 2:
                self._paused = False
                self._protocol.resume_writing()

    async def _receive(self) -> None:
        while (message := await self._stream.recv_message()) is not None:
            await self._reading.wait()
            self._protocol.data_received(message.data)
