"""Steps that several builds share, and what the build that began one keeps for it."""

import asyncio
import os

from barque.builder.graph import Source
from barque.builder.results import Result
from barque.builder.solver import Session, Solver


class Operations:
    """Carries out every step by waiting until it may go on."""

    def __init__(self):
        self.began, self.may_go_on = asyncio.Event(), asyncio.Event()
        self.runs = 0

    async def key(self, vertex, inputs, session):
        return vertex.identifier

    def recall(self, vertex, key, inputs):
        return None

    async def borrowed(self, vertex, key, inputs, session):
        return None

    def settled(self, vertex, inputs, result, session):
        return result

    async def run(self, vertex, key, inputs, session, emit):
        self.runs += 1
        self.began.set()
        await self.may_go_on.wait()
        # What the build that began brought along is still there.
        os.fstat(session.descriptors[0])
        assert os.path.isdir(session.folders[0])
        return Result(identity="made")


def is_open(fd):
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


async def test_a_shared_step_keeps_what_the_build_that_began_it_brought_along(tmp_path):
    operations = Operations()
    solver = Solver(operations, parallel=1)
    first, second = Session(), Session()
    os.mkdir(tmp_path / "first")
    first.folders.append(str(tmp_path / "first"))
    first.descriptors.append(fd := os.open(tmp_path, os.O_RDONLY))
    ends = first.options["ends"] = []
    ended = asyncio.Event()
    ends.append(ended.set)
    solving = [asyncio.ensure_future(solver.solve(Source("local://same"), one)) for one in (first, second)]
    await operations.began.wait()
    while len(solver._jobs["local://same"].listeners) < 2:
        await asyncio.sleep(0)
    solving[0].cancel()
    await first.close()
    assert is_open(fd)
    assert not ended.is_set()
    operations.may_go_on.set()
    assert (await solving[1]).identity == "made"
    assert (operations.runs, is_open(fd), ended.is_set()) == (1, False, True)
    assert not (tmp_path / "first").exists()
    await second.close()


async def test_what_a_build_brought_along_goes_with_a_step_that_nobody_else_wants(tmp_path):
    operations = Operations()
    session = Session()
    session.descriptors.append(fd := os.open(tmp_path, os.O_RDONLY))
    solving = asyncio.ensure_future(Solver(operations, parallel=1).solve(Source("local://own"), session))
    await operations.began.wait()
    await session.close()
    await asyncio.wait([solving])
    assert not is_open(fd)


async def test_what_cannot_be_ended_well_keeps_nothing_else_open(tmp_path):
    session, ended = Session(), asyncio.Event()
    (tmp_path / "brought").mkdir()
    session.folders.append(str(tmp_path / "brought"))
    session.descriptors.append(fd := os.open(tmp_path, os.O_RDONLY))

    def fail():
        raise OSError("no")

    session.options["ends"] = [fail, ended.set]
    await session.close()
    assert (ended.is_set(), is_open(fd), (tmp_path / "brought").exists()) == (True, False, False)
