"""kill -9 of the daemon at random moments of pulls and pushes: the store is whole, and the next try works."""

import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from registries import RegistryUnderTest
from system.test_store_check import bring_in, check, start_anew
from under_test import EngineUnderTest, until

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]
MOMENTS = int(os.environ.get("BARQUE_KILL_MOMENTS", "4"))


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[RegistryUnderTest]:
    """Give a registry."""
    made = RegistryUnderTest(tmp_path / "registry")
    made.start()
    yield made
    made.stop()


def big_image(engine: EngineUnderTest, name: str) -> None:
    """Make an image of four layers that do not compress, the lowest with many files."""
    bring_in(engine, name, *(f"d{n % 40}/f{n}" for n in range(1500)))
    for number in range(3):
        container = engine.docker("create", name, "x")
        with (engine.root / "noise").open("wb") as file:
            file.write(random.randbytes(6_000_000))
        engine.docker("cp", str(engine.root / "noise"), f"{container}:/noise{number}")
        engine.docker("commit", container, name)
        engine.docker("rm", container)


def killed(engine: EngineUnderTest, words: list[str], seconds: float) -> float:
    """Kill the daemon so many seconds into a command, or at its end; return how long the command ran."""
    victim, started = engine.pid, time.monotonic()
    client = subprocess.Popen(
        ["docker", *words], env=engine.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        client.wait(seconds)
    except subprocess.TimeoutExpired:
        pass
    ran = time.monotonic() - started
    os.kill(victim, signal.SIGKILL)
    client.wait()
    if engine.process is not None:
        engine.process.wait()
        engine.process = None
    until(lambda: engine.docker_result("version").returncode == 0 and engine.pid != victim, "the daemon is back", 120)
    return ran


def test_nothing_is_wrong_after_a_kill_at_any_moment_of_a_transfer(
    own_engine: EngineUnderTest, registry: RegistryUnderTest
) -> None:
    seed = random.randrange(1 << 30)
    print("seed", seed)
    chance = random.Random(seed)
    name = f"{registry.host}/big:1"
    big_image(own_engine, name)
    own_engine.docker("push", name)
    identity = own_engine.docker("inspect", "-f", "{{.Id}}", name)
    limit = {"pull": 1.0, "push": 1.0}
    for number in range(MOMENTS):
        action = ("pull", "push")[number % 2]
        target = name
        if action == "pull":
            own_engine.docker("rmi", name)
        else:
            # A repository of its own in the same registry, which forgets nothing: other layers each time.
            target = f"{registry.host}/pushed{number}:1"
            container = own_engine.docker("create", name, "x")
            own_engine.docker("cp", str(own_engine.root / "noise"), f"{container}:/other{number}")
            own_engine.docker("commit", container, target)
            own_engine.docker("rm", container)
        ran = killed(own_engine, [action, target], chance.uniform(0.02, limit[action]))
        limit[action] = min(limit[action], max(0.1, ran * 1.2)) if ran < limit[action] else limit[action]
        assert check(own_engine)["Problems"] == [], (seed, number, action)
        own_engine.docker(action, target)
        if action == "pull":
            assert own_engine.docker("inspect", "-f", "{{.Id}}", name) == identity
        else:
            own_engine.docker("rmi", target)
            own_engine.docker("pull", target)
            own_engine.docker("rmi", target)
        if number % 6 == 5:
            start_anew(own_engine)
    own_engine.adopt()
    assert check(own_engine)["Problems"] == []
    ingest = own_engine.root / "data/content/ingest"
    assert list(ingest.iterdir()) == []
