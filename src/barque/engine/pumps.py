"""Between coroutines and blocking streams: at most a few chunks are on the way."""

import asyncio
import queue
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")
_AHEAD = 4


async def chunks_of(read: Callable[[], Awaitable[bytes]], work: Callable[[Iterable[bytes]], T]) -> T:
    """Run blocking work in a thread on the chunks that read() gives, and return its result.

    Args:
        read: next bytes, b"" at the end.
        work: consumes the chunks; it may stop early.

    Raises:
        Whatever work or read raises.
    """
    passing: queue.Queue[bytes | None] = queue.Queue(_AHEAD)
    broken: list[BaseException] = []

    def chunks() -> Iterator[bytes]:
        while (chunk := passing.get()) is not None:
            yield chunk
        if broken:
            raise ConnectionError("the request's body broke off")

    task = asyncio.create_task(asyncio.to_thread(work, chunks()))
    try:
        while not task.done():
            data = await read()
            if not data:
                break
            await _put(passing, data, task)
    except BaseException as error:
        broken.append(error)
        await _put(passing, None, task)
        await asyncio.wait([task])
        # Its failure follows from ours.
        task.exception()
        raise
    await _put(passing, None, task)
    return await task


async def _put(passing: "queue.Queue[bytes | None]", item: bytes | None, task: asyncio.Task[T]) -> None:
    while not task.done():
        try:
            passing.put_nowait(item)
            return
        except queue.Full:
            # A timed wait in a thread: the consumer may end without taking the item.
            await asyncio.to_thread(_wait_room, passing)


def _wait_room(passing: "queue.Queue[bytes | None]") -> None:
    with passing.not_full:
        if passing._qsize() >= _AHEAD:
            passing.not_full.wait(0.5)


async def stream_of(make: Callable[[], Iterator[bytes]]) -> AsyncGenerator[bytes, None]:
    """Yield what a blocking iterator gives, made and drained in a thread of its own.

    The thread ends when the iterator does or when the consumer is closed.
    """
    loop = asyncio.get_running_loop()
    ready: asyncio.Queue[bytes | BaseException | None] = asyncio.Queue()
    room = threading.Semaphore(_AHEAD)
    closed = threading.Event()

    def give(item: bytes | BaseException | None) -> None:
        if closed.is_set():
            return
        try:
            loop.call_soon_threadsafe(ready.put_nowait, item)
        except RuntimeError:
            # The loop ended, and with it whoever read.
            closed.set()

    def run() -> None:
        iterator: Iterator[bytes] = iter(())
        try:
            iterator = make()
            for chunk in iterator:
                room.acquire()
                if closed.is_set():
                    break
                give(chunk)
            give(None)
        except BaseException as error:
            give(error)
        finally:
            getattr(iterator, "close", lambda: None)()

    threading.Thread(target=run, name="stream", daemon=True).start()
    try:
        while (item := await ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            room.release()
            yield item
    finally:
        closed.set()
        room.release()
