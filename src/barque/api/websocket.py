"""Attach over a websocket: binary messages carry what the hijacked connection would carry."""

from __future__ import annotations

import asyncio
import socket

from aiohttp import web

from barque.api.detach import Detector
from barque.engine import types

_CHUNK_BYTES = 1 << 16


async def carry_websocket(request: web.BaseRequest, attachment: types.Attachment) -> web.StreamResponse:
    """Carry an attachment's streams until either side ends."""
    websocket = web.WebSocketResponse(max_msg_size=1 << 20)
    try:
        await websocket.prepare(request)
        if attachment.prelude is not None:
            async for chunk in attachment.prelude:
                await websocket.send_bytes(chunk)
        if attachment.sock is not None:
            await _carry(websocket, attachment.sock, attachment)
        await websocket.close()
    finally:
        if attachment.sock is not None:
            attachment.sock.close()
    return websocket


async def _carry(websocket: web.WebSocketResponse, sock: socket.socket, attachment: types.Attachment) -> None:
    sock.setblocking(False)
    tasks = [
        asyncio.ensure_future(_send_output(websocket, sock, tty=attachment.tty)),
        asyncio.ensure_future(_take_input(websocket, sock, attachment)),
    ]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _send_output(websocket: web.WebSocketResponse, sock: socket.socket, *, tty: bool) -> None:
    loop = asyncio.get_running_loop()
    pending = b""
    while data := await loop.sock_recv(sock, _CHUNK_BYTES):
        if tty:
            await websocket.send_bytes(data)
            continue
        pending += data
        while len(pending) >= 8:
            end = 8 + int.from_bytes(pending[4:8], "big")
            if len(pending) < end:
                break
            await websocket.send_bytes(pending[8:end])
            pending = pending[end:]


async def _take_input(websocket: web.WebSocketResponse, sock: socket.socket, attachment: types.Attachment) -> None:
    loop = asyncio.get_running_loop()
    detector = Detector(attachment.detach_keys if attachment.tty else b"")
    async for message in websocket:
        if message.type not in (web.WSMsgType.BINARY, web.WSMsgType.TEXT):
            return
        data = message.data.encode() if isinstance(message.data, str) else message.data
        data, detached = detector.feed(data)
        if data:
            await loop.sock_sendall(sock, data)
        if detached:
            if attachment.on_detach is not None:
                attachment.on_detach()
            return
