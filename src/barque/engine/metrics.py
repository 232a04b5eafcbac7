"""What the engine counts, in the text format of Prometheus, under the names that Docker gives them."""

import os
import time
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import barque
from barque.base.errors import BarqueError
from barque.engine import stats

if TYPE_CHECKING:
    from barque.engine.engine import Engine

_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_ACTIONS = ("changes", "commit", "create", "delete", "start")
_STATES = {"running": "running", "restarting": "running", "paused": "paused"}


class Histogram:
    """How long something took, in seconds."""

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(_BUCKETS) + 1)
        self.total = 0.0

    def add(self, seconds: float) -> None:
        """Count one."""
        self.counts[bisect_left(_BUCKETS, seconds)] += 1
        self.total += seconds

    def lines(self, name: str, labels: str) -> Iterator[str]:
        """Yield the lines of the text format."""
        so_far = 0
        for limit, count in zip((*map(str, _BUCKETS), "+Inf"), self.counts, strict=True):
            so_far += count
            inside = f'{labels},le="{limit}"' if labels else f'le="{limit}"'
            yield f"{name}_bucket{{{inside}}} {so_far}"
        around = f"{{{labels}}}" if labels else ""
        yield f"{name}_sum{around} {self.total:.9g}"
        yield f"{name}_count{around} {so_far}"


class Metrics:
    """The counters of one engine, and the page that shows them."""

    def __init__(self, engine: "Engine") -> None:
        self._engine = engine
        self._started_s = time.time()
        self._actions = {action: Histogram() for action in _ACTIONS}
        self.check_starts = Histogram()
        self.checks = 0
        self.failed_checks = 0

    @contextmanager
    def timed(self, action: str) -> Iterator[None]:
        """Count an action on a container that succeeds."""
        began = time.perf_counter()
        yield
        self._actions[action].add(time.perf_counter() - began)

    def page(self) -> str:
        """Return all numbers as text."""
        return "\n".join([*self._engine_lines(), *self._action_lines(), *self._container_lines(),
                          *self._process_lines()]) + "\n"  # fmt: skip

    def _engine_lines(self) -> Iterator[str]:
        engine = self._engine
        host = os.uname()
        facts = {
            "architecture": host.machine, "commit": "", "daemon_id": engine.engine_id,
            "graphdriver": engine.snapshots.name if hasattr(engine.snapshots, "name") else "overlay2",
            "kernel": host.release, "os": "Linux", "os_type": "linux", "version": barque.__version__,
        }  # fmt: skip
        labels = ",".join(f'{key}="{quoted(str(value))}"' for key, value in facts.items())
        yield from _head("engine_daemon_engine_info", "gauge", "Facts of the engine and its machine")
        yield f"engine_daemon_engine_info{{{labels}}} 1"
        yield from _one("engine_daemon_engine_cpus_cpus", "gauge", "Processors of the machine", os.cpu_count() or 1)
        yield from _one("engine_daemon_engine_memory_bytes", "gauge", "Memory of the machine", stats.memory_total())
        yield from _one("engine_daemon_events_total", "counter", "Events told", engine.events.published)
        yield from _one("engine_daemon_events_subscribers_total", "gauge", "Listeners to events", engine.events.listeners)
        yield from _one("engine_daemon_health_checks_total", "counter", "Health checks", self.checks)
        yield from _one("engine_daemon_health_checks_failed_total", "counter", "Health checks that failed", self.failed_checks)
        yield from _head("engine_daemon_container_states_containers", "gauge", "Containers by state")
        counts = {"paused": 0, "running": 0, "stopped": 0}
        for container in engine.containers_by_id.values():
            counts[_STATES.get(container.status, "stopped")] += 1
        for state, count in counts.items():
            yield f'engine_daemon_container_states_containers{{state="{state}"}} {count}'

    def _action_lines(self) -> Iterator[str]:
        name = "engine_daemon_container_actions_seconds"
        yield from _head(name, "histogram", "Seconds that actions on containers took")
        for action, histogram in self._actions.items():
            yield from histogram.lines(name, f'action="{action}"')

    def _container_lines(self) -> Iterator[str]:
        """Yield what each running container uses, which Docker's page has not."""
        rows = {"barque_container_cpu_seconds_total": ("counter", "Processor time of a container"),
                "barque_container_memory_bytes": ("gauge", "Memory of a container"),
                "barque_container_processes": ("gauge", "Processes of a container")}  # fmt: skip
        found: dict[str, list[str]] = {name: [] for name in rows}
        for container in list(self._engine.containers_by_id.values()):
            if not container.is_running:
                continue
            try:
                reading = stats.sample(self._engine, container, None)
                values = (reading["cpu_stats"]["cpu_usage"]["total_usage"] / 1e9, reading["memory_stats"]["usage"],
                          reading["pids_stats"].get("current", 0))  # fmt: skip
            except (BarqueError, OSError, KeyError):
                continue
            labels = f'id="{container.id}",name="{quoted(container.name)}",image="{quoted(container.row["image_ref"])}"'
            for name, value in zip(rows, values, strict=True):
                found[name].append(f"{name}{{{labels}}} {value}")
        for name, (kind, text) in rows.items():
            yield from _head(name, kind, text)
            yield from found[name]

    def _process_lines(self) -> Iterator[str]:
        times = os.times()
        with open("/proc/self/statm", encoding="ascii") as file:
            virtual, resident = (int(word) * os.sysconf("SC_PAGE_SIZE") for word in file.read().split()[:2])
        yield from _one("process_cpu_seconds_total", "counter", "Processor time of the daemon", times.user + times.system)
        yield from _one("process_open_fds", "gauge", "Open descriptors of the daemon", len(os.listdir("/proc/self/fd")))
        yield from _one("process_resident_memory_bytes", "gauge", "Resident memory of the daemon", resident)
        yield from _one("process_virtual_memory_bytes", "gauge", "Virtual memory of the daemon", virtual)
        yield from _one("process_start_time_seconds", "gauge", "When the daemon was started", f"{self._started_s:.3f}")


def quoted(text: str) -> str:
    """Return a label's value as the text format has it."""
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _head(name: str, kind: str, text: str) -> Iterator[str]:
    yield f"# HELP {name} {text}"
    yield f"# TYPE {name} {kind}"


def _one(name: str, kind: str, text: str, value: float | str) -> Iterator[str]:
    yield from _head(name, kind, text)
    yield f"{name} {value}"
