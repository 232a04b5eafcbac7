"""Containers: attach, logs, stats, wait."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from barque.api import times, websocket
from barque.api.call import Call, encode, nothing
from barque.api.hijack import MULTIPLEXED, RAW, UPGRADE_HEADER, Session, head
from barque.api.router import Table
from barque.api.streams import follow_chunks, send_messages, send_ready
from barque.base.errors import BarqueError, InvalidInputError
from barque.engine import detach, types

_CONDITIONS = ("not-running", "next-exit", "removed")


def add(table: Table) -> None:
    """Add these routes."""
    table.add("POST", "/containers/{ref}/attach", attach, follows=True)
    table.add("GET", "/containers/{ref}/attach/ws", attach_websocket, follows=True)
    table.add("GET", "/containers/{ref}/logs", logs, follows=True)
    table.add("POST", "/containers/{ref}/logs/clear", clear_logs)
    table.add("GET", "/containers/{ref}/stats", stats, follows=True)
    table.add("POST", "/containers/{ref}/wait", wait, follows=True)


def _attach_options(call: Call) -> types.AttachOptions:
    keys = call.text("detachKeys")
    detach.parse_keys(keys)
    return types.AttachOptions(
        stdin=call.flag("stdin"),
        stdout=call.flag("stdout"),
        stderr=call.flag("stderr"),
        logs=call.flag("logs"),
        stream=call.flag("stream"),
        detach_keys=keys,
    )


async def attach(call: Call) -> web.StreamResponse:
    """Give a container's streams to the client."""
    options = _attach_options(call)
    attachment = await call.backend.containers.attach(call.params["ref"], options)
    return await hijack(call, attachment)


async def hijack(call: Call, attachment: types.Attachment, *, framed: bool = False) -> web.StreamResponse:
    """End HTTP on the connection and carry the attachment's streams over it.

    Args:
        call: the request.
        attachment: the streams.
        framed: a terminal's raw output goes out in frames, as to a client that did not ask for a terminal.
    """
    multiplexed = (framed or not attachment.tty) and call.version >= (1, 42)
    answer_head = head(
        upgrade=UPGRADE_HEADER in call.request.headers,
        content_type=MULTIPLEXED if multiplexed else RAW,
        headers=dict(getattr(call.request, "common", {})),
    )
    return await Session(call.request, attachment, framed=framed and attachment.tty).run(answer_head)


async def attach_websocket(call: Call) -> web.StreamResponse:
    """Give a container's streams to a browser."""
    options = _attach_options(call)
    if call.version < (1, 42) or not (options.stdin or options.stdout or options.stderr):
        options = options._replace(stdin=True, stdout=True, stderr=True)
    attachment = await call.backend.containers.attach(call.params["ref"], options._replace(stream=True))
    return await websocket.carry_websocket(call.request, attachment)


async def logs(call: Call) -> web.StreamResponse:
    """Send what a container has said, and with `follow` what it goes on to say."""
    stdout, stderr = call.flag("stdout"), call.flag("stderr")
    if not (stdout or stderr):
        raise InvalidInputError("Bad parameters: you must choose at least one stream")
    tail = call.text("tail", "all")
    options = types.LogOptions(
        stdout=stdout,
        stderr=stderr,
        follow=call.flag("follow"),
        since_ns=times.parse_ns(call.text("since"), "since"),
        until_ns=times.parse_ns(call.text("until"), "until"),
        timestamps=call.flag("timestamps"),
        tail=int(tail) if tail.isascii() and tail.isdigit() and len(tail) < 19 else -1,
        details=call.flag("details"),
    )
    stream = await call.backend.containers.logs(call.params["ref"], options)
    multiplexed = not stream.tty and call.version >= (1, 42)
    send = follow_chunks if options.follow else send_ready
    return await send(call, stream.chunks, MULTIPLEXED if multiplexed else RAW)


async def clear_logs(call: Call) -> web.StreamResponse:
    """Forget what a container has said; Docker has no such path."""
    await call.backend.containers.clear_logs(call.params["ref"])
    return nothing()


async def stats(call: Call) -> web.StreamResponse:
    """Send what a container uses, once or every second."""
    stream = call.flag("stream", default=True)
    one_shot = call.flag("one-shot") and call.version >= (1, 41)
    if stream and one_shot:
        raise InvalidInputError("cannot have stream=true and one-shot=true")
    values = await call.backend.containers.stats(call.params["ref"], stream=stream, one_shot=one_shot)
    return await send_messages(call, values, early=stream)


async def wait(call: Call) -> web.StreamResponse:
    """Answer when a container reaches a state; the head goes out as soon as the wait is registered."""
    condition = call.text("condition") if call.version >= (1, 30) else ""
    if condition and condition not in _CONDITIONS:
        raise InvalidInputError(f'invalid condition: "{condition}"')
    waiting = await call.backend.containers.wait(call.params["ref"], condition or "not-running")
    response = web.StreamResponse()
    response.content_type = "application/json"
    if call.version >= (1, 30):
        await response.prepare(call.request)
    try:
        value: Any = await waiting
    except BarqueError as error:
        if not response.prepared:
            raise
        value = {"StatusCode": -1, "Error": {"Message": str(error)}}
    if not response.prepared:
        await response.prepare(call.request)
    await response.write(encode(value))
    await response.write_eof()
    return response
