"""Events: the last ones are kept, and whoever listens gets the new ones."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from typing import Any

Json = dict[str, Any]
EVENT_FILTERS = {"config", "container", "daemon", "event", "image", "label", "network", "node", "plugin", "scope",
                  "secret", "service", "type", "volume"}  # fmt: skip
_KEPT = 256
_QUEUE = 10_000


class Events:
    """Past events and subscribers, used from the event loop alone."""

    def __init__(self) -> None:
        self._past: deque[Json] = deque(maxlen=_KEPT)
        self.published = 0
        self._queues: set[asyncio.Queue[Json]] = set()

    @property
    def listeners(self) -> int:
        """Return how many clients listen."""
        return len(self._queues)

    def past(self) -> list[Json]:
        """Return the events that are kept."""
        return [*self._past]

    def restore(self, events: list[Json]) -> None:
        """Take over what was kept before."""
        self._past.extend(events)

    def publish(self, kind: str, action: str, actor: str, attributes: Mapping[str, str]) -> None:
        """Tell everyone that something happened to an object."""
        now = time.time_ns()
        event: Json = {
            "Type": kind, "Action": action,
            "Actor": {"ID": actor, "Attributes": dict(attributes)},
            "scope": "local", "time": now // 1_000_000_000, "timeNano": now,
        }  # fmt: skip
        if kind in ("container", "image"):
            event["status"] = action
            event["id"] = actor
            if kind == "container" and attributes.get("image"):
                event["from"] = attributes["image"]
        self._past.append(event)
        self.published += 1
        for queue in self._queues:
            if queue.qsize() < _QUEUE:
                queue.put_nowait(event)

    def subscribe(self, since_ns: int, until_ns: int, filters: Mapping[str, list[str]]) -> "Subscription":
        """Return past events from since_ns (0: none) and live ones until until_ns (0: for ever).

        Listening begins with this call.
        """
        past = [event for event in self._past if since_ns and event["timeNano"] >= since_ns]
        queue: asyncio.Queue[Json] = asyncio.Queue()
        self._queues.add(queue)
        return Subscription(_stream(past, queue, until_ns, filters), lambda: self._queues.discard(queue))


class Subscription:
    """Events for one listener, who ends it by `aclose`.

    A generator alone would not do: closing one that never began reaches none of its code.
    """

    def __init__(self, events: AsyncGenerator[Json, None], end: Callable[[], None]) -> None:
        self._events = events
        self._end = end

    def __aiter__(self) -> AsyncIterator[Json]:
        return self

    async def __anext__(self) -> Json:
        try:
            return await anext(self._events)
        except BaseException:
            self._end()
            raise

    async def aclose(self) -> None:
        """Listen no more."""
        self._end()
        await self._events.aclose()


async def _stream(
    past: list[Json], queue: asyncio.Queue[Json], until_ns: int, filters: Mapping[str, list[str]]
) -> AsyncGenerator[Json, None]:
    for event in past:
        if until_ns and event["timeNano"] > until_ns:
            return
        if matches(event, filters):
            yield event
    while True:
        left_s = (until_ns - time.time_ns()) / 1e9 if until_ns else None
        if left_s is not None and left_s <= 0 and queue.empty():
            return
        try:
            event = await asyncio.wait_for(queue.get(), left_s)
        except TimeoutError:
            return
        if until_ns and event["timeNano"] > until_ns:
            return
        if matches(event, filters):
            yield event


def matches(event: Json, filters: Mapping[str, list[str]]) -> bool:
    """Tell whether an event passes all filters; one of an unknown name lets everything pass, as it does at Docker."""
    actor = event["Actor"]
    attributes = actor["Attributes"]
    for key, values in filters.items():
        if not values or key not in EVENT_FILTERS:
            continue
        if key == "label":
            if not all(_labelled(attributes, value) for value in values):
                return False
        elif not any(_matches_one(event, key, value) for value in values):
            return False
    return True


def _matches_one(event: Json, key: str, value: str) -> bool:
    attributes = event["Actor"]["Attributes"]
    actor = event["Actor"]["ID"]
    if key == "event":
        action = event["Action"]
        return bool(action == value or action.partition(":")[0] == value)
    if key == "type":
        return bool(event["Type"] == value)
    if key == "scope":
        return bool(event["scope"] == value)
    if key == "daemon":
        return event["Type"] == "daemon" and value in (actor, attributes.get("name"))
    if key == "image":
        names = [attributes.get("name", "")] if event["Type"] == "image" else [attributes.get("image", "")]
        names.append(actor if event["Type"] == "image" else "")
        return any(value in (name, name.rpartition(":")[0]) for name in names if name)
    if key in ("container", "network", "volume", "plugin"):
        names = [actor, attributes.get("name", "")] if event["Type"] == key else [attributes.get(key, "")]
        return any(name and (name == value or name.startswith(value)) for name in names)
    return False


def _labelled(attributes: Mapping[str, str], wanted: str) -> bool:
    key, has_value, value = wanted.partition("=")
    return key in attributes and (not has_value or attributes[key] == value)
