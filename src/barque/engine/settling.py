"""Waiting for work in threads, which no cancelling ends."""

import asyncio
from typing import TypeVar

T = TypeVar("T")


async def settled(work: asyncio.Future[T]) -> T:
    """Return what work in a thread gives once it is done, even if this task is cancelled meanwhile; that comes afterwards.

    Raises:
        CancelledError: this task was cancelled; how the work ended, `work` tells.
    """
    cancelled = False
    while not work.done():
        try:
            await asyncio.wait([work])
        except asyncio.CancelledError:
            cancelled = True
    if cancelled:
        if not work.cancelled():
            # Taken note of: nobody else asks for it.
            work.exception()
        raise asyncio.CancelledError
    return work.result()
