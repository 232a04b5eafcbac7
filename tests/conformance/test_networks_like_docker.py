"""The same commands on networks given to Docker and to us: what they print and who reaches whom must agree.

Both engines work through their sequences beside each other from the module's start on; each test waits for its own.
"""

import concurrent.futures
import subprocess
from collections.abc import Callable, Iterator

import pytest

import network_sequences as table
from under_test import EngineUnderTest, running_engine

pytestmark = [pytest.mark.conformance, pytest.mark.timeout(300)]

_AT_ONCE = 3
_Compared = Callable[[str], tuple[list[table.Outcome], list[table.Outcome]]]


@pytest.fixture(scope="module")
def ours() -> Iterator[EngineUnderTest]:
    yield from running_engine()


def _sides(dockerd_with_networks: object, ours: EngineUnderTest) -> tuple[table.Side, table.Side]:
    oracle = dockerd_with_networks
    pid = (oracle.root / "pid").read_text().strip()

    def on_their_host(command: list[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["nsenter", "-t", pid, "-n", *command], env=oracle.environment, capture_output=True,
                              text=True, timeout=60)  # fmt: skip

    return (
        table.Side(oracle.docker_result, on_their_host),
        table.Side(ours.docker_result, ours.run),
    )


@pytest.fixture(scope="module")
def compared(request: pytest.FixtureRequest, dockerd_with_networks: object, ours: EngineUnderTest) -> Iterator[_Compared]:
    sides = _sides(dockerd_with_networks, ours)
    wanted = [item.callspec.params["name"] for item in request.session.items
              if item.fspath == request.node.fspath and hasattr(item, "callspec")]  # fmt: skip
    pools = [concurrent.futures.ThreadPoolExecutor(_AT_ONCE) for _ in sides]
    running = {
        name: [pool.submit(table.Run(name, side).run) for pool, side in zip(pools, sides, strict=True)]
        for name in dict.fromkeys(wanted)
    }
    try:
        yield lambda name: tuple(future.result(240) for future in running[name])  # type: ignore[return-value]
    finally:
        for pool in pools:
            pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize("name", table.SEQUENCES)
def test_a_sequence_of_commands_gives_the_same(compared: _Compared, name: str) -> None:
    theirs, mine = compared(name)
    problems = []
    theirs = [table.in_new_words(outcome) for outcome in theirs]
    for number, (their, my) in enumerate(zip(theirs, mine, strict=True), 1):
        known = table.DIFFERS.get((name, number))
        if known is not None:
            assert known.why
            if known.docker not in table.text_of(their) or known.ours not in table.text_of(my):
                problems.append(f"not as the table says: {their}\n{my}")
            elif table.text_of(their) == table.text_of(my):
                problems.append(f"the table tells a difference that is not there: {their}")
        elif table.text_of(their) != table.text_of(my):
            problems.append(f"{number}: {their.line}\n  docker {table.text_of(their)!r}\n  ours   {table.text_of(my)!r}")
    assert not problems, "\n" + "\n".join(problems)


def test_the_table_is_whole() -> None:
    assert len(table.SEQUENCES) >= 60
    for name, number in table.DIFFERS:
        assert 1 <= number <= len(table.lines_of(name))
