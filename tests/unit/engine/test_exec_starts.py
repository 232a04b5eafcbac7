"""Starts of exec instances that are cut short: what never began is not said to run."""

import asyncio
import socket
from types import SimpleNamespace

import pytest

from barque.engine import exec_process
from barque.engine.execs import Execs
from barque.keeper.client import KeeperError

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

    async def forget(self, *names):
        self.calls.append("forget")


def execs_over(keeper):
    engine = SimpleNamespace(
        keeper=keeper, publish=lambda *a, **more: None, seccomp_program=lambda *a, **more: None,
        spawn=asyncio.ensure_future,
    )  # fmt: skip
    return Execs(engine)


@pytest.fixture(autouse=True)
def _no_container(monkeypatch):
    monkeypatch.setattr(exec_process, "describe", lambda *a, **more: {})


@pytest.mark.parametrize("began", [False, True])
async def test_a_client_that_goes_before_there_is_a_process_leaves_nothing_running(began):
    keeper = FakeKeeper()
    execs = execs_over(keeper)
    identity = (await execs.create(CONTAINER, {"Cmd": ["x"], "AttachStdout": True, "Tty": True}, "it"))["Id"]
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
    await asyncio.sleep(0)
    # Else it keeps the streams for as long as the container is there.
    assert ("forget" in keeper.calls) == (not began)


class RefusingKeeper(FakeKeeper):
    """Refuses a start once it is allowed to answer."""

    def __init__(self):
        super().__init__()
        self.allowed.set()
        self.answers = asyncio.Event()

    async def exec(self, *names, **options):
        await self.answers.wait()
        raise KeeperError("exec", 2, "exec: no such file or directory")


async def test_streams_are_given_while_the_process_starts_and_say_why_it_did_not():
    keeper = RefusingKeeper()
    execs = execs_over(keeper)
    identity = (await execs.create(CONTAINER, {"Cmd": ["x"], "AttachStdout": True}, "it"))["Id"]
    streams = await execs.start(identity, detach=False, console_size=None)
    assert execs.is_running(identity)
    keeper.answers.set()
    said = b"".join([chunk async for chunk in streams.prelude])
    streams.sock.close()
    assert said[8:].endswith(b"exec: no such file or directory\r\n")
    assert not execs.is_running(identity)
    assert (await execs.inspect(identity))["ExitCode"] == 127
    assert keeper.calls == ["attach", "forget"]


async def test_a_start_that_fails_is_noted_though_nobody_listens():
    keeper = RefusingKeeper()
    execs = execs_over(keeper)
    identity = (await execs.create(CONTAINER, {"Cmd": ["x"], "AttachStdout": True}, "it"))["Id"]
    streams = await execs.start(identity, detach=False, console_size=None)
    streams.sock.close()
    keeper.answers.set()
    await execs.find(identity).done.wait()
    assert not execs.is_running(identity)
