"""Hooks on events: a command that is run, or a URL that is posted to, when an event passes a filter.

Bounds: so many of one hook at a time, each for at most its timeout; events that find 10,000 waiting are dropped. A hook
that fails is told in the daemon's log and not tried again. The event's JSON is the command's input and the post's body.
"""

import asyncio
import base64
import http.client
import json
import logging
import os
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import SplitResult, unquote, urlsplit

from barque.base.durations import parse_duration
from barque.base.errors import InvalidInputError
from barque.engine import commands
from barque.engine.events import EVENT_FILTERS

if TYPE_CHECKING:
    from barque.engine.engine import Engine

Json = dict[str, Any]
log = logging.getLogger(__name__)
_KEYS = {"filters", "command", "url", "headers", "timeout"}
_AT_ONCE = 4
_LONGEST_S = 600.0


class Hook(NamedTuple):
    """One hook: either a command or a URL."""

    filters: Mapping[str, list[str]]
    command: tuple[str, ...]
    url: str
    headers: Mapping[str, str]
    timeout_s: float

    @property
    def shown(self) -> str:
        """Return what names it in messages: of a URL only the server, since path, query and user may be secrets."""
        if self.command:
            return self.command[0]
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def hooks_of(entries: Sequence[Any]) -> list[Hook]:
    """Return the hooks of the daemon's option `event-hooks`.

    Raises:
        InvalidInputError: names the fault of the first that cannot be.
    """
    return [_hook(entry, number) for number, entry in enumerate(entries)]


def _hook(entry: Any, number: int) -> Hook:
    where = f"event-hooks: entry {number}"
    if not isinstance(entry, dict):
        raise InvalidInputError(f"{where} is no object")
    unknown = sorted(set(entry) - _KEYS)
    if unknown:
        raise InvalidInputError(f"{where}: unknown key {unknown[0]}: use {', '.join(sorted(_KEYS))}")
    filters, headers = entry.get("filters") or {}, entry.get("headers") or {}
    if not isinstance(filters, dict) or not all(_strings(value) for value in filters.values()):
        raise InvalidInputError(f"{where}: filters must be lists of strings")
    for key in filters:
        if key not in EVENT_FILTERS:
            raise InvalidInputError(f"{where}: invalid filter '{key}'")
    if not isinstance(headers, dict) or not _strings(list(headers.values())):
        raise InvalidInputError(f"{where}: headers must be strings")
    if any("\n" in text or "\r" in text for pair in headers.items() for text in pair):
        raise InvalidInputError(f"{where}: headers must be single lines")
    command, url = entry.get("command") or [], entry.get("url") or ""
    if bool(command) == bool(url):
        raise InvalidInputError(f"{where}: wants a command or a url")
    if not _strings(command) or (command and not command[0].startswith("/")):
        raise InvalidInputError(f"{where}: command must be a list of strings, an absolute path first")
    if url and (not isinstance(url, str) or not _is_url(url)):
        raise InvalidInputError(f"{where}: url must be http://HOST... or https://HOST...")
    try:
        timeout_s = parse_duration(entry.get("timeout") or "10s") / 1e9
    except (ValueError, AttributeError) as error:
        raise InvalidInputError(f"{where}: timeout: {error}") from None
    if not 0 < timeout_s <= _LONGEST_S:
        raise InvalidInputError(f"{where}: timeout must be above 0 and at most {_LONGEST_S:.0f}s")
    return Hook(filters, tuple(command), url, headers, timeout_s)


def _strings(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _is_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        sendable = url.isascii() and url.isprintable() and " " not in url
        return sendable and parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


class EventHooks:
    """The hooks of an engine."""

    def __init__(self, engine: "Engine") -> None:
        self._engine = engine
        self._entries: Sequence[Any] = ()
        self._tasks: list[asyncio.Task[None]] = []

    def apply(self, entries: Sequence[Any]) -> None:
        """Have these hooks from now on; what runs already runs on."""
        if list(entries) == list(self._entries):
            return
        hooks = hooks_of(entries)
        self._entries = entries
        for task in self._tasks:
            task.cancel()
        self._tasks = [self._engine.spawn(self._serve(hook)) for hook in hooks]

    async def _serve(self, hook: Hook) -> None:
        room = asyncio.Semaphore(_AT_ONCE)
        async with aclosing(self._engine.events.subscribe(0, 0, hook.filters)) as events:
            async for event in events:
                await room.acquire()
                self._engine.spawn(_call(hook, event)).add_done_callback(lambda _: room.release())


async def _call(hook: Hook, event: Json) -> None:
    body = json.dumps(event).encode()
    try:
        if hook.command:
            await _run(hook, event, body)
        else:
            await asyncio.to_thread(_post, hook, body)
    except (OSError, TimeoutError, ValueError, http.client.HTTPException) as error:
        reason = f"took longer than {hook.timeout_s:g} s" if isinstance(error, TimeoutError) else error
        log.warning("hook %s on %s %s: %s", hook.shown, event["Type"], event["Action"], reason)


async def _run(hook: Hook, event: Json, body: bytes) -> None:
    actor = event["Actor"]
    variables = {
        "BARQUE_EVENT_TYPE": event["Type"], "BARQUE_EVENT_ACTION": event["Action"], "BARQUE_EVENT_ID": actor["ID"],
        "BARQUE_EVENT_NAME": actor["Attributes"].get("name", ""),
    }  # fmt: skip
    await commands.run(
        hook.command, {**os.environ, **variables}, body, program=hook.command[0], longest_s=hook.timeout_s
    )


def _credentials(parts: SplitResult) -> dict[str, str]:
    """Return the header for the user and password that a URL has."""
    if parts.username is None:
        return {}
    words = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return {"Authorization": "Basic " + base64.b64encode(words.encode()).decode()}


def _post(hook: Hook, body: bytes) -> None:
    parts = urlsplit(hook.url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=hook.timeout_s)
    try:
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        headers = {"Content-Type": "application/json", **_credentials(parts), **hook.headers}
        connection.request("POST", path, body, headers)
        status = connection.getresponse().status
    finally:
        connection.close()
    if not 200 <= status < 300:
        raise OSError(f"the server answered {status}")
