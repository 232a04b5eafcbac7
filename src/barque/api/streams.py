"""Answers that go on: bytes or JSON lines as they come, ended when the client goes."""

from collections.abc import AsyncIterator
from typing import Any

from aiohttp import web

from barque.api.call import Call, encode
from barque.base.errors import BarqueError


async def send_chunks(
    call: Call, chunks: AsyncIterator[bytes], content_type: str, headers: dict[str, str] | None = None
) -> web.StreamResponse:
    """Send chunks as they come; an error before the first one is a proper answer."""
    try:
        first = await anext(chunks, b"")
        response = _response(content_type, headers)
        await response.prepare(call.request)
        if first:
            await response.write(first)
        async for chunk in chunks:
            if chunk:
                await response.write(chunk)
        await response.write_eof()
        return response
    finally:
        await _close(chunks)


async def send_ready(call: Call, chunks: AsyncIterator[bytes], content_type: str) -> web.StreamResponse:
    """Send chunks of which none is waited for; a single one is an answer of known length, sent at once with its head."""
    try:
        first, second = await anext(chunks, b""), await anext(chunks, b"")
        if not second:
            return web.Response(body=first, content_type=content_type)
        response = _response(content_type, None)
        await response.prepare(call.request)
        await response.write(first)
        await response.write(second)
        async for chunk in chunks:
            await response.write(chunk)
        await response.write_eof()
        return response
    finally:
        await _close(chunks)


async def follow_chunks(call: Call, chunks: AsyncIterator[bytes], content_type: str) -> web.StreamResponse:
    """Send the head at once, then chunks as they come."""
    try:
        response = _response(content_type, None)
        await response.prepare(call.request)
        async for chunk in chunks:
            await response.write(chunk)
        await response.write_eof()
        return response
    finally:
        await _close(chunks)


async def send_messages(call: Call, messages: AsyncIterator[Any], *, early: bool = False) -> web.StreamResponse:
    """Send JSON values, one a line.

    An error before the first is a proper answer, one after it is a line with `errorDetail`.

    Args:
        call: the request.
        messages: the values.
        early: send the head before the first value is there.
    """
    response = _response("application/json", None)
    try:
        if early:
            await response.prepare(call.request)
        try:
            async for message in messages:
                if not response.prepared:
                    await response.prepare(call.request)
                await response.write(encode(message))
        except BarqueError as error:
            if not response.prepared or early:
                raise
            code = getattr(error, "code", None)
            detail = {"code": code, "message": str(error)} if isinstance(code, int) else {"message": str(error)}
            await response.write(encode({"errorDetail": detail, "error": str(error)}))
        if not response.prepared:
            await response.prepare(call.request)
        await response.write_eof()
        return response
    finally:
        await _close(messages)


def _response(content_type: str, headers: dict[str, str] | None) -> web.StreamResponse:
    response = web.StreamResponse(headers=headers)
    response.content_type = content_type
    return response


async def _close(source: AsyncIterator[Any]) -> None:
    close = getattr(source, "aclose", None)
    if close is not None:
        await close()
