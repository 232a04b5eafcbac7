"""Starts of exec instances that are cut short: what never began is not said to run."""

import asyncio
import socket
from types import SimpleNamespace

import pytest

from barque.engine.execs import Execs

CONTAINER = SimpleNamespace(
    id="c" * 64, name="c", status="running", is_running=True, exec_ids=[], pid=1, config={}, host={},
)  # fmt: skip


class FakeKeeper:
    """Lets each call wait until it is allowed."""

    def __init__(self):
        self.allowed = asyncio.Event()
        self.calls = []

    async def attach(self, *names, **options):
        self.calls.append("attach")
        await self.allowed.wait()
        return socket.socketpair()[0]

    async def exec(self, *names, **options):
        self.calls.append("exec")
        await asyncio.Event().wait()


def execs_over(keeper):
    engine = SimpleNamespace(
        keeper=keeper, publish=lambda *a, **more: None, seccomp_program=lambda *a, **more: None
    )
    found = Execs(engine)
    found._process = lambda made, tty: {}
    return found


@pytest.mark.parametrize("began", [False, True])
async def test_a_client_that_goes_before_there_is_a_process_leaves_nothing_running(began):
    keeper = FakeKeeper()
    execs = execs_over(keeper)
    identity = (await execs.create(CONTAINER, {"Cmd": ["x"], "AttachStdout": True}))["Id"]
    start = asyncio.ensure_future(execs.start(identity, detach=False, console_size=None))
    if began:
        keeper.allowed.set()
    while ("exec" if began else "attach") not in keeper.calls:
        await asyncio.sleep(0)
    start.cancel()
    with pytest.raises(asyncio.CancelledError):
        await start
    # The keeper, once asked, goes on, and tells of the end of what it started.
    assert execs.is_running(identity) == began
    assert execs.any_to_come() == began
