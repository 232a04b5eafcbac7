"""Work in threads that ends when it is called off."""

import asyncio
import threading

import pytest

from barque.base import calling_off
from barque.base.errors import BarqueError


async def test_only_the_work_that_is_called_off_ends() -> None:
    first, second = threading.Event(), threading.Event()
    go = threading.Event()

    def work() -> str:
        calling_off.check()
        assert go.wait(20)
        calling_off.check()
        return "done"

    tasks = [asyncio.create_task(asyncio.to_thread(calling_off.until(event, work))) for event in (first, second)]
    first.set()
    go.set()
    with pytest.raises(BarqueError, match="called off"):
        await tasks[0]
    assert await tasks[1] == "done"
    calling_off.check()
