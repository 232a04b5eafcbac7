"""Making anew what somebody deletes of our bridges and firewall rules."""

import asyncio
import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from barque.engine.engine import Engine

log = logging.getLogger(__name__)
_MEND_AFTER_S = 0.05
"""Whoever deletes one thing deletes others at once; they are mended together."""


def watch(engine: "Engine") -> None:
    """Mend what is deleted of the network, for as long as the engine is open."""
    loop = asyncio.get_running_loop()
    waiting: list[asyncio.Task[None]] = []

    async def mend() -> None:
        await asyncio.sleep(_MEND_AFTER_S)
        waiting.clear()
        if engine.closing:
            return
        try:
            for what in engine.network.mend():
                log.warning("%s was deleted by somebody and is made anew", what)
        except OSError as error:
            log.error("cannot make anew what was deleted of the network: %s", error)

    def news() -> None:
        if engine.network.notice() and not waiting:
            waiting.append(engine.spawn(mend()))

    for fd in engine.network.watch():
        loop.add_reader(fd, news)


def end(engine: "Engine") -> None:
    """Watch no more."""
    for fd in engine.network.watched:
        asyncio.get_running_loop().remove_reader(fd)
