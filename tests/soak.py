"""Containers that start, stop, fail, log, are checked and pruned at random, while daemon and keeper are killed.

Run by itself (`make soak`) it takes an hour: `python tests/soak.py [--seconds N] [--seed S]`. It prints its seed, with
which it makes the same choices again, and ends with what was left over: nothing.
"""

import argparse
import json
import os
import random
import signal
import sqlite3
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import control_groups
from barque.base.errors import BarqueError
from barque.client.api import Api
from barque.client.endpoint import parse_host
from under_test import EngineUnderTest, isolate_network, running_engine

LINES = 200
PARENT = f"/barque-soak-{os.getpid()}"
"""The parent of the engine's control groups: others on this machine have their own."""
_SPEAK = f"i=0; while [ $i -lt {LINES} ]; do i=$((i+1)); echo $i; done"
_KINDS: dict[str, dict[str, Any]] = {
    "ends": {"Cmd": ["true"]},
    "fails": {"Cmd": ["sh", "-c", "exit 7"]},
    "is not there": {"Cmd": ["/no/such"]},
    "speaks": {"Cmd": ["sh", "-c", _SPEAK]},
    "speaks and stays": {"Cmd": ["sh", "-c", f"{_SPEAK}; sleep 1000"]},
    "stays": {"Cmd": ["sleep", "1000"]},
    "comes back": {"Cmd": ["sh", "-c", "sleep 0.1; exit 1"], "HostConfig": {"RestartPolicy": {"Name": "always"}}},
    "goes by itself": {"Cmd": ["true"], "HostConfig": {"AutoRemove": True}},
    "has volumes": {"Cmd": ["sh", "-c", "echo x >/a/f; sleep 1000"], "Volumes": {"/a": {}},
                    "HostConfig": {"Binds": ["soakvol:/v"], "Tmpfs": {"/t": "size=1m"}}},
    "has a tmpfs volume": {"Cmd": ["sleep", "1000"], "HostConfig": {"Mounts": [
        {"Type": "volume", "Source": "soaktmp", "Target": "/m", "VolumeOptions": {"NoCopy": True, "DriverConfig": {
            "Name": "local", "Options": {"type": "tmpfs", "device": "tmpfs"}}}}]}},
    "is checked": {"Cmd": ["sleep", "1000"], "Healthcheck": {
        "Test": ["CMD-SHELL", "test $(($(date +%s) % 3)) != 0"], "Interval": 200_000_000, "Retries": 1}},
    "eats": {"Cmd": ["sh", "-c", "x=$(yes | head -c 60000000)"], "HostConfig": {"Memory": 8 << 20}},
    "forks": {"Cmd": ["sh", "-c", "while :; do sleep 100 & done"], "HostConfig": {"PidsLimit": 20}},
    "has a terminal": {"Cmd": ["sh", "-c", "echo hi; sleep 1000"], "Tty": True, "OpenStdin": True},
    "rotates": {"Cmd": ["sh", "-c", "seq 1 3000"], "HostConfig": {"LogConfig": {
        "Type": "json-file", "Config": {"max-size": "20k", "max-file": "3", "compress": "true"}}}},
    "has a size": {"Cmd": ["sh", "-c", "dd if=/dev/zero of=/much bs=64k; sleep 1000"], "HostConfig": {
        "StorageOpt": {"size": "2m"}}},
    "has no network": {"Cmd": ["sleep", "1000"], "HostConfig": {"NetworkMode": "none"}},
}  # fmt: skip


def _log_fault(data: bytes, ended: bool) -> str:
    """Return what is wrong with the frames that runs of `_SPEAK` made, of which the last one `ended` by itself."""
    last = 0
    while data:
        size = int.from_bytes(data[4:8], "big")
        text, data = data[8 : 8 + size], data[8 + size :]
        if not text.endswith(b"\n") or not text[:-1].isdigit():
            return f"has {text!r} after {last}"
        number = int(text)
        if number not in (1, last + 1):
            return f"has {number} after {last}"
        last = number
    return f"ends at {last} of {LINES}" if ended and last != LINES else ""


class Soak:
    """One run against an engine under test.

    Args:
        engine: the engine, whose daemon may be killed.
        seed: of all choices.
        most: containers at once.
    """

    def __init__(self, engine: EngineUnderTest, seed: int, most: int = 40) -> None:
        self.engine = engine
        self.seed = seed
        self.most = most
        self.problems: list[str] = []
        self.counts: dict[str, int] = {}
        self._kill_lock = threading.Lock()

    def api(self) -> Api:
        """Return a connection of one's own."""
        return Api(parse_host(self.engine.host), version="1.51")

    def run(self, seconds: float, workers: int = 3, kill_every_s: float = 8.0) -> None:
        """Do things at random for so long; then wait for the engine to answer."""
        end = time.monotonic() + seconds
        threads = [threading.Thread(target=self._work, args=(random.Random(self.seed + n), end)) for n in range(workers)]
        for thread in threads:
            thread.start()
        self._kill_now_and_then(random.Random(self.seed - 1), end, kill_every_s)
        for thread in threads:
            thread.join()
        self.engine.wait_ready()

    def _kill_now_and_then(self, chance: random.Random, end: float, every_s: float) -> None:
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(left, every_s * chance.uniform(0.5, 1.5)))
            if time.monotonic() > end:
                return
            what = chance.choice(["daemon", "keeper"])
            try:
                pid = self.engine.pid if what == "daemon" else self.keeper_pid()
                os.kill(pid, signal.SIGKILL)
                self._count(f"killed the {what}")
            except (OSError, ValueError, IndexError):
                continue
            if what == "daemon" and self.engine.process is not None:
                self.engine.process.wait()
                self.engine.process = None
            self.engine.wait_ready(60)
            self.engine.adopt()

    def keeper_pid(self) -> int:
        """Return the keeper's pid."""
        return int((self.engine.root / "exec" / "keeper.pid").read_text().split()[0])

    def _count(self, what: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1

    def _work(self, chance: random.Random, end: float) -> None:
        api = self.api()
        actions = [self._make] * 6 + [self._stop, self._kill, self._remove, self._pause, self._restart, self._exec,
                                      self._check_log, self._check_log, self._prune, self._list]  # fmt: skip
        while time.monotonic() < end:
            action = chance.choice(actions)
            try:
                action(api, chance)
                self._count(action.__name__.strip("_"))
            except (BarqueError, OSError, ValueError):
                # Refused, or the daemon was killed meanwhile.
                api = self.api()
                time.sleep(0.01)

    def _rows(self, api: Api) -> list[dict[str, Any]]:
        return list(api.get("/containers/json", all=True) or [])

    def _any(self, api: Api, chance: random.Random) -> dict[str, Any]:
        rows = self._rows(api)
        if not rows:
            raise ValueError("there is none")
        return chance.choice(rows)

    def _make(self, api: Api, chance: random.Random) -> None:
        if len(self._rows(api)) >= self.most:
            self._remove(api, chance)
        kind = chance.choice(sorted(_KINDS))
        spec = {"Image": "busybox", "Labels": {"kind": kind}, **json.loads(json.dumps(_KINDS[kind]))}
        made = api.post("/containers/create", spec)["Id"]
        api.post(f"/containers/{made}/start")

    def _stop(self, api: Api, chance: random.Random) -> None:
        api.post(f"/containers/{self._any(api, chance)['Id']}/stop", t=0)

    def _restart(self, api: Api, chance: random.Random) -> None:
        api.post(f"/containers/{self._any(api, chance)['Id']}/restart", t=0)

    def _kill(self, api: Api, chance: random.Random) -> None:
        api.post(f"/containers/{self._any(api, chance)['Id']}/kill")

    def _remove(self, api: Api, chance: random.Random) -> None:
        api.delete(f"/containers/{self._any(api, chance)['Id']}", force=True, v=True)

    def _pause(self, api: Api, chance: random.Random) -> None:
        name = self._any(api, chance)["Id"]
        api.post(f"/containers/{name}/pause")
        time.sleep(chance.random() * 0.05)
        api.post(f"/containers/{name}/unpause")

    def _exec(self, api: Api, chance: random.Random) -> None:
        name = self._any(api, chance)["Id"]
        made = api.post(f"/containers/{name}/exec", {"Cmd": ["echo", "in"], "AttachStdout": True})["Id"]
        sock, _, _ = api.hijack(f"/exec/{made}/start", json_body={"Detach": False, "Tty": False})
        sock.close()

    def _prune(self, api: Api, chance: random.Random) -> None:
        api.post(f"/{chance.choice(['volumes', 'networks'])}/prune")

    def _list(self, api: Api, chance: random.Random) -> None:
        for row in self._rows(api):
            if row["State"] not in ("created", "running", "paused", "restarting", "removing", "exited", "dead"):
                self.problems.append(f"{row['Id'][:12]} is {row['State']}")

    def _check_log(self, api: Api, chance: random.Random) -> None:
        """Compare a log with what was said: every run counts from 1 without a gap, and to the end if it ended by itself."""
        rows = [r for r in self._rows(api) if r["Labels"]["kind"] == "speaks" and r["State"] == "exited"]
        if not rows:
            return
        name = chance.choice(rows)["Id"]
        before = api.get(f"/containers/{name}/json")["State"]
        response = api.send("GET", f"/containers/{name}/logs", parameters={"stdout": True})
        data = b"".join(response.chunks())
        response.close()
        if api.get(f"/containers/{name}/json")["State"] != before:
            return  # It ran again meanwhile.
        if fault := _log_fault(data, ended=before["ExitCode"] == 0):
            self.problems.append(f"the log of {name[:12]} {fault}")
        self._count("compared a log")

    def clear(self) -> None:
        """Remove all containers and volumes."""
        api = self.api()
        for row in self._rows(api):
            for _ in range(20):
                try:
                    api.delete(f"/containers/{row['Id']}", force=True, v=True)
                    break
                except BarqueError as error:
                    if getattr(error, "status", 0) == 404:
                        break
                    time.sleep(0.2)
            else:
                self.problems.append(f"container {row['Id'][:12]} ({row['Labels']}, {row['State']}) cannot be removed")
        for volume in api.get("/volumes")["Volumes"] or []:
            try:
                api.delete(f"/volumes/{volume['Name']}", force=True)
            except BarqueError as error:
                self.problems.append(str(error))

    def left(self) -> dict[str, int]:
        """Return how much there is of each thing that containers are made of."""
        root, keeper = self.engine.root, self.keeper_pid()
        database = sqlite3.connect(f"file:{root}/data/state.db?mode=ro", uri=True)
        rows = sum(database.execute(f"SELECT count(*) FROM {t}").fetchone()[0] for t in ("container", "volume"))
        database.close()
        return {
            "processes": len([pid for pid in _children(keeper) if pid != self.engine.pid]), "mounts": Path("/proc/self/mountinfo").read_text().count(str(root)),
            "control groups": sum(1 for _ in control_groups.folders(PARENT)), "rows": rows,
            "interfaces": len([n for n in os.listdir("/sys/class/net") if n.startswith(("veth", "bq"))]),
            "folders": _entries(root / "data/containers") + _entries(root / "exec/containers"),
            "layers": _entries(root / "data/snapshots"), "volumes": _entries(root / "data/volumes"),
            "unsent logs": _entries(root / "data/unsent"),
            "daemon's descriptors": _entries(Path(f"/proc/{self.engine.pid}/fd")),
            "keeper's descriptors": _entries(Path(f"/proc/{keeper}/fd")),
            "daemon's threads": _entries(Path(f"/proc/{self.engine.pid}/task")),
        }  # fmt: skip


    def memory(self) -> dict[str, int]:
        """Return the resident kilobytes of each process of the engine."""
        return {"daemon": _memory(self.engine.pid), "keeper": _memory(self.keeper_pid())}

    def grown(self, before: dict[str, int]) -> list[str]:
        """Return which process takes over a tenth, and what a few objects may take, more than before."""
        return [f"{who}: {before[who]} kB before, {kilobytes} kB now"
                for who, kilobytes in self.memory().items() if kilobytes > before[who] * 1.1 + GROWTH_KB]  # fmt: skip


def _entries(folder: Path) -> int:
    try:
        return len(os.listdir(folder))
    except FileNotFoundError:
        return 0


def _children(pid: int) -> list[int]:
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                text = Path(f"/proc/{name}/stat").read_text()
            except OSError:
                continue
            if int(text.rpartition(")")[2].split()[1]) == pid:
                found.append(int(name))
    return found


# A process's arena grows in steps of up to a megabyte.
GROWTH_KB = 2048
# Things of which a few more or fewer are no leak: pools, kept connections, threads that idle.
SLACK = {"daemon's descriptors": 30, "keeper's descriptors": 10, "daemon's threads": 30, "interfaces": 8, "layers": 2}


def settled(soak: Soak, before: dict[str, int], timeout_s: float = 30) -> list[str]:
    """Return what there is more of than before, once nothing more goes away."""
    deadline = time.monotonic() + timeout_s
    while True:
        now = soak.left()
        more = [f"{what}: {before[what]} before, {count} now"
                for what, count in now.items() if count > before[what] + SLACK.get(what, 0)]  # fmt: skip
        if not more or time.monotonic() > deadline:
            return more
        time.sleep(0.3)


def engine_to_soak() -> Iterator[EngineUnderTest]:
    """Give an engine whose control groups are its own, and gone afterwards."""
    try:
        yield from running_engine("--cgroup-parent", PARENT)
    finally:
        control_groups.remove(PARENT)


def main() -> int:
    """Soak an engine for a long time and say what came of it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    arguments = parser.parse_args()
    isolate_network()
    print(f"seed {arguments.seed}, {arguments.seconds:.0f} seconds", flush=True)
    for engine in engine_to_soak():
        soak = Soak(engine, arguments.seed, most=100)
        soak.run(5, kill_every_s=100)
        soak.clear()
        before, memory = soak.left(), soak.memory()
        soak.run(arguments.seconds, workers=4, kill_every_s=30)
        soak.clear()
        more = settled(soak, before, 120) + soak.grown(memory)
        print(json.dumps({"done": soak.counts, "left over": more, "problems": soak.problems,
                          "kilobytes": [memory, soak.memory()]}, indent=2))  # fmt: skip
        return 1 if more or soak.problems else 0
    return 1


def _memory(pid: int) -> int:
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.split("VmRSS:")[1].split()[0])


if __name__ == "__main__":
    sys.exit(main())
