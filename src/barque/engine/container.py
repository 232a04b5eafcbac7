"""A container as the engine knows it: the row that is kept, and what lives only while the daemon does."""

import asyncio
from typing import Any, NamedTuple

from barque.base.times import ZERO, format_ns
from barque.network.model import Sandbox

Json = dict[str, Any]


class CpuReading(NamedTuple):
    """What processors had done for a container: seconds of the monotonic clock, the time in words, the counters."""

    at_s: float
    read: str
    stats: Json


class Container:
    """One container; only the event loop touches it.

    `row` is JSON and is kept on disk: id, name, created_ns, image (id), image_ref, path, args, config,
    host, networking, mounts, restart_count, state. `row["state"]` has: status (created, running, paused,
    restarting, removing, exited, dead), pid, exit_code, error, started_ns, finished_ns, oom_killed,
    stopped_by_user, started_before.
    """

    __slots__ = ("__weakref__", "auto_removing", "back_off", "began_ns", "cpu_reading", "exec_ids", "exited", "health",
                 "health_task", "lock", "own_addresses", "removed", "resolv_conf", "restart_task", "row", "sandbox",
                 "started", "summary", "waiters")  # fmt: skip

    def __init__(self, row: Json) -> None:
        self.row = row
        self.lock = asyncio.Lock()
        self.sandbox: Sandbox | None = None
        self.own_addresses: frozenset[str] = frozenset()
        self.resolv_conf = ""
        self.waiters: list[tuple[str, asyncio.Future[Json]]] = []
        self.exited = asyncio.Event()
        self.removed = asyncio.Event()
        self.started = asyncio.Event()
        self.exec_ids: list[str] = []
        self.health: Json | None = None
        self.health_task: asyncio.Task[None] | None = None
        self.restart_task: asyncio.Task[None] | None = None
        self.back_off = 0.1
        self.began_ns = 0
        """When its process began, on the clock of `uptime`."""
        self.auto_removing = False
        self.cpu_reading: CpuReading | None = None
        self.summary: Json | None = None

    @property
    def id(self) -> str:
        """Return the 64 digits."""
        return str(self.row["id"])

    @property
    def name(self) -> str:
        """Return the name without a slash."""
        return str(self.row["name"])

    @property
    def config(self) -> Json:
        """Return Config."""
        return self.row["config"]  # type: ignore[no-any-return]

    @property
    def host(self) -> Json:
        """Return HostConfig."""
        return self.row["host"]  # type: ignore[no-any-return]

    @property
    def state(self) -> Json:
        """Return the kept state."""
        return self.row["state"]  # type: ignore[no-any-return]

    @property
    def status(self) -> str:
        """Return the state's name."""
        return str(self.row["state"]["status"])

    @property
    def is_running(self) -> bool:
        """Tell whether its process lives, paused or not."""
        return self.status in ("running", "paused")

    @property
    def pid(self) -> int:
        """Return the first process's pid on the host, 0 while there is none."""
        return int(self.row["state"]["pid"])

    @property
    def labels(self) -> dict[str, str]:
        """Return the labels."""
        return self.config.get("Labels") or {}

    @property
    def tty(self) -> bool:
        """Tell whether it has a terminal."""
        return bool(self.config.get("Tty"))

    @property
    def network_mode(self) -> str:
        """Return the network mode, "default" resolved."""
        mode = self.host.get("NetworkMode") or "default"
        return "bridge" if mode == "default" else str(mode)

    def attributes(self, **more: str) -> dict[str, str]:
        """Return an event's attributes."""
        return {**self.labels, "image": self.row["image_ref"], "name": self.name, **more}

    def show_state(self) -> Json:
        """Return State as inspect shows it."""
        state = self.state
        status = self.status
        shown: Json = {
            "Status": status,
            "Running": self.is_running or (status == "restarting"),
            "Paused": status == "paused",
            "Restarting": status == "restarting",
            "OOMKilled": state["oom_killed"],
            "Dead": status == "dead",
            "Pid": state["pid"],
            "ExitCode": state["exit_code"],
            "Error": state["error"],
            "StartedAt": format_ns(state["started_ns"]) if state["started_ns"] else ZERO,
            "FinishedAt": format_ns(state["finished_ns"]) if state["finished_ns"] else ZERO,
        }
        if self.health is not None:
            shown["Health"] = self.health
        return shown


def new_state() -> Json:
    """Return the state of a container that was just created."""
    return {
        "status": "created", "pid": 0, "exit_code": 0, "error": "", "started_ns": 0, "finished_ns": 0,
        "oom_killed": False, "stopped_by_user": False, "started_before": False,
    }  # fmt: skip
