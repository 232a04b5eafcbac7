"""`system check`: it finds every damage, repairs what can be repaired, and finds none after kill -9 at any moment."""

import io
import json
import os
import random
import signal
import subprocess
import tarfile
import time
from pathlib import Path

import pytest

from registry_process import registry
from under_test import EngineUnderTest, until

pytestmark = pytest.mark.system
MOMENTS = int(os.environ.get("BARQUE_KILL_MOMENTS", "7"))


def check(engine: EngineUnderTest, *flags: str) -> dict:
    return json.loads(engine.barque("system", "check", "--format", "json", *flags, check=False))


def problems(found: dict) -> list[tuple[str, bool]]:
    return [(p["Kind"], p["Repaired"]) for p in found["Problems"]]


def small_tar(*names: str, size: int = 2000) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = size
            tar.addfile(info, io.BytesIO(random.randbytes(size)))
    return out.getvalue()


def bring_in(engine: EngineUnderTest, name: str, *files: str) -> str:
    result = engine.run(["docker", "import", "-", name], input=small_tar(*files), text=False)
    assert result.returncode == 0, result.stderr
    return result.stdout.decode().strip()


def layers_of(engine: EngineUnderTest, name: str) -> list[str]:
    return json.loads(engine.docker("inspect", "-f", "{{json .RootFS.Layers}}", name))


def test_a_store_in_order_is_said_to_be(own_engine: EngineUnderTest) -> None:
    own_engine.docker("run", "--name", "kept", "busybox", "touch", "/x")
    own_engine.docker("commit", "kept", "made")
    own_engine.docker("volume", "create", "data")
    text = own_engine.barque("system", "check")
    assert text.endswith("The store is consistent.")
    found = check(own_engine)
    assert found["Problems"] == []
    counts = found["Checked"]
    assert (counts["Images"], counts["Containers"], counts["Volumes"]) == (2, 1, 1)
    assert counts["BytesRead"] > 1_900_000
    assert check(own_engine, "--quick")["Checked"]["BytesRead"] == 0
    own_engine.docker("rm", "kept")


def test_damage_is_found_and_repaired(own_engine: EngineUnderTest) -> None:
    content = own_engine.root / "data/content/blobs/sha256"
    image = bring_in(own_engine, "one", "a", "b")
    (layer,) = layers_of(own_engine, "one")
    erofs = own_engine.docker("info", "-f", "{{.Driver}}") == "erofs"

    # A name of the tar is lost: the layer has another one.
    if erofs:
        os.unlink(content / layer[7:])
        found = check(own_engine)
        assert problems(found) == [("image", False)]
        assert not found["Consistent"]
        assert problems(check(own_engine, "--repair")) == [("image", True)]
        assert check(own_engine)["Problems"] == []

        # The index is damaged: it is made anew from the tar.
        place = own_engine.docker("inspect", "-f", "{{.GraphDriver.Data.UpperDir}}", "one")
        with open(place, "r+b") as file:
            file.seek(1600)
            file.write(b"garbage")
        assert problems(check(own_engine)) == [("layer", False)]
        assert problems(check(own_engine, "--repair")) == [("layer", True)]
        assert check(own_engine)["Problems"] == []

    # Bytes that changed are not served as what they were: the image has to be pulled anew.
    path = content / layer[7:]
    os.chmod(path, 0o600)
    with open(path, "r+b") as file:
        file.seek(600)
        file.write(b"flip")
    assert ("blob", False) in problems(check(own_engine))
    repaired = check(own_engine, "--repair")
    assert ("blob", True) in problems(repaired)
    assert check(own_engine)["Consistent"]
    assert own_engine.docker_result("inspect", image).returncode == 1 or layers_of(own_engine, image)


def test_rows_without_content_are_forgotten(own_engine: EngineUnderTest) -> None:
    image = bring_in(own_engine, "lost:tag", "a")
    own_engine.docker("volume", "create", "data")
    stranger = own_engine.docker("create", "busybox", "true")
    own_engine.stop()
    os.unlink(own_engine.root / "data/content/blobs/sha256" / image[7:])
    (own_engine.root / "data/volumes/data/_data").rmdir()
    own_engine.start()
    assert own_engine.docker("run", "--rm", "busybox", "echo", "works") == "works"
    found = check(own_engine)
    assert problems(found) == [("image", False), ("volume", False)]
    assert image in found["Problems"][0]["Subject"]
    found = check(own_engine, "--repair")
    assert problems(found) == [("image", True), ("volume", False)]
    assert own_engine.docker("images", "-q", "lost") == ""
    own_engine.docker("volume", "rm", "data")
    assert check(own_engine)["Problems"] == []
    own_engine.docker("rm", stranger)


def test_nothing_is_wrong_after_a_kill_at_any_moment(own_engine: EngineUnderTest, tmp_path: Path) -> None:
    """Actions on images, each killed at random moments; each time the store is whole afterwards."""
    with registry(tmp_path / "registry") as server:
        _kill_at_any_moment(own_engine, server.address)


def start_anew(engine: EngineUnderTest) -> None:
    """End an engine and start it: its keeper waits longer and longer for a daemon that dies again and again."""
    engine.adopt()
    engine.stop()
    engine.start()


def _kill_at_any_moment(own_engine: EngineUnderTest, address: str) -> None:
    seed = random.randrange(1 << 30)
    print("seed", seed)
    chance = random.Random(seed)
    bring_in(own_engine, "base", *(f"d{n % 40}/f{n}" for n in range(1500)))
    saved = own_engine.root / "saved.tar"
    own_engine.docker("save", "-o", str(saved), "base", "busybox")
    own_engine.docker("run", "--name", "worker", "busybox", "sh", "-c", "for i in $(seq 300); do echo $i >/f$i; done")
    remote = f"{address}/team/base"
    own_engine.docker("tag", "base", f"{remote}:pulled")
    own_engine.docker("push", f"{remote}:pulled")
    longest: dict[str, float] = {}
    for number in range(MOMENTS):
        action = ("load", "commit", "rmi", "prune", "import", "pull", "push")[number % 7]
        if action in ("rmi", "prune", "push"):
            own_engine.docker("load", "-i", str(saved))
        if action == "push":
            own_engine.docker("tag", "base", f"{remote}:{number}")
        if action == "pull":
            own_engine.docker("rmi", "-f", "base", f"{remote}:pulled", check=False)
            own_engine.docker("image", "prune", "-af")
        commands = {
            "load": ["load", "-i", str(saved)],
            "commit": ["commit", "worker", f"committed:{number}"],
            "rmi": ["rmi", "-f", "base", "busybox"],
            "prune": ["image", "prune", "-af"],
            "import": ["import", str(saved), f"imported:{number}"],
            "pull": ["pull", f"{remote}:pulled"],
            "push": ["push", f"{remote}:{number}"],
        }
        limit = longest.get(action, 0.4)
        victim = own_engine.pid
        started = time.monotonic()
        client = subprocess.Popen(
            ["docker", *commands[action]], env=own_engine.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            client.wait(chance.uniform(0.02, limit))
            longest[action] = max(0.05, time.monotonic() - started)
        except subprocess.TimeoutExpired:
            pass
        os.kill(victim, signal.SIGKILL)
        client.wait()
        if own_engine.process is not None:
            own_engine.process.wait()
            own_engine.process = None
        until(
            lambda old=victim: own_engine.docker_result("version").returncode == 0 and own_engine.pid != old,
            "the daemon is back",
            120,
        )
        found = check(own_engine)
        assert found["Problems"] == [], (seed, number, action, found)
        if action in ("rmi", "prune", "load", "pull", "push"):
            if action in ("pull", "push"):
                own_engine.docker(*commands[action], check=action == "pull")
            own_engine.docker("load", "-i", str(saved))
            assert own_engine.docker("run", "--rm", "busybox", "echo", "works") == "works"
        if number % 7 == 6:
            start_anew(own_engine)
    own_engine.adopt()
    ingest = own_engine.root / "data/content/ingest"
    assert [p for p in ingest.iterdir() if not p.name.startswith("keep-")] == []
    own_engine.docker("rm", "worker")
