"""`stats`: what containers use, once or as a live screen."""

import select
import sys
import time
from typing import Any

from barque.base.errors import BarqueError
from barque.cli.tables import show
from barque.cli.units import binary_size, human_size
from barque.cli.verb import Invocation
from barque.client.api import quote
from barque.client.http import Response

HEADERS = {
    "ID": "CONTAINER ID",
    "CPUPerc": "CPU %",
    "MemUsage": "MEM USAGE / LIMIT",
    "MemPerc": "MEM %",
    "NetIO": "NET I/O",
    "BlockIO": "BLOCK I/O",
}
DEFAULT = "ID Name CPUPerc MemUsage MemPerc NetIO BlockIO PIDs"
REDRAW_SECONDS = 0.5


class Meter:
    """One container's stream of measurements and the newest of them."""

    def __init__(self, name: str, response: Response) -> None:
        self.name = name
        self.response = response
        self.pending = b""
        self.values: dict[str, Any] | None = None
        self.ended = False
        self._chunks = response.chunks()

    def read(self) -> None:
        """Take what has arrived; the last whole measurement counts."""
        import json

        try:
            piece = next(self._chunks, None)
        except BarqueError:
            piece = None
        if piece is None:
            self.ended = True
            return
        *complete, self.pending = (self.pending + piece).split(b"\n")
        if complete and complete[-1].strip():
            self.values = json.loads(complete[-1])
        elif self.pending.endswith(b"}"):
            try:
                self.values = json.loads(self.pending)
                self.pending = b""
            except ValueError:
                return


def stats(call: Invocation) -> int:
    """Show what containers use."""
    options = call.options
    meters = _open(call, stream=not options["no-stream"])
    if options["no-stream"]:
        for meter in meters:
            while not meter.ended:
                meter.read()
        _print(call, meters)
        return 0
    return _live(call, meters)


def _open(call: Invocation, *, stream: bool) -> list[Meter]:
    names = call.words or [c["Id"] for c in call.api.get("/containers/json", all=call.options["all"] or None)]
    parameters = {"stream": "1" if stream else "0"}
    begun = []
    # All are asked before the first is waited for: each takes its time.
    for name in names:
        api = call.api.beside()
        request = api.request("GET", f"/containers/{quote(name)}/stats", parameters=parameters)
        begun.append((name, api, request, api.begin(request)))
    return [Meter(name, api.complete(response, request)) for name, api, request, response in begun]


def _live(call: Invocation, meters: list[Meter]) -> int:
    poller = select.poll()
    by_descriptor = {meter.response.sock.fileno(): meter for meter in meters}
    for descriptor in by_descriptor:
        poller.register(descriptor, select.POLLIN)
    known = {meter.name for meter in meters}
    watch_new = not call.words
    due = time.monotonic() + REDRAW_SECONDS
    while True:
        for descriptor, _ in poller.poll(max(0, int((due - time.monotonic()) * 1000))):
            meter = by_descriptor[descriptor]
            meter.read()
            if meter.ended:
                poller.unregister(descriptor)
                meters.remove(meter)
                known.discard(meter.name)
        if time.monotonic() < due:
            continue
        due = time.monotonic() + REDRAW_SECONDS
        if watch_new:
            for meter in _open_new(call, known):
                meters.append(meter)
                by_descriptor[meter.response.sock.fileno()] = meter
                poller.register(meter.response.sock.fileno(), select.POLLIN)
        elif not meters:
            return 0
        _redraw(call, meters)


def _open_new(call: Invocation, known: set[str]) -> list[Meter]:
    fresh = []
    for container in call.api.get("/containers/json", all=call.options["all"] or None):
        if container["Id"] in known:
            continue
        known.add(container["Id"])
        api = call.api.beside()
        try:
            response = api.send("GET", f"/containers/{container['Id']}/stats", parameters={"stream": "1"})
        except BarqueError:
            continue
        fresh.append(Meter(container["Id"], response))
    return fresh


def _redraw(call: Invocation, meters: list[Meter]) -> None:
    if sys.stdout.isatty():
        sys.stdout.write("\033[H\033[J")
    _print(call, meters)
    sys.stdout.flush()


def _print(call: Invocation, meters: list[Meter]) -> None:
    options = call.options
    truncated = not options["no-trunc"]
    form = options["format"]
    if not form:
        from barque.cli.configuration import configured

        form = str(configured(call.global_options, "statsFormat", ""))
    show(meters, columns(truncated), HEADERS, form, DEFAULT)


def columns(truncated: bool) -> dict[str, Any]:
    """Return how each column reads one meter."""
    return {
        "Container": lambda m: m.name,
        "ID": lambda m: _value(m, lambda v: v["id"][:12] if truncated else v["id"]),
        "Name": lambda m: _value(m, lambda v: v["name"].removeprefix("/")),
        "CPUPerc": lambda m: _value(m, lambda v: f"{cpu_percent(v):.2f}%"),
        "MemUsage": lambda m: _value(m, _memory_text, "-- / --"),
        "MemPerc": lambda m: _value(m, _memory_percent),
        "NetIO": lambda m: _value(m, _network_text),
        "BlockIO": lambda m: _value(m, _block_text),
        "PIDs": lambda m: _value(m, lambda v: str((v.get("pids_stats") or {}).get("current", 0))),
    }


def _value(meter: Meter, read: Any, absent: str = "--") -> str:
    return str(read(meter.values)) if meter.values and meter.values.get("id") else absent


def cpu_percent(values: dict[str, Any]) -> float:
    """Return how much of one processor was used between the two measurements, in percent."""
    now, before = values.get("cpu_stats") or {}, values.get("precpu_stats") or {}
    used = now.get("cpu_usage", {}).get("total_usage", 0) - before.get("cpu_usage", {}).get("total_usage", 0)
    whole = now.get("system_cpu_usage", 0) - before.get("system_cpu_usage", 0)
    processors = now.get("online_cpus") or len(now.get("cpu_usage", {}).get("percpu_usage") or [])
    return used / whole * processors * 100.0 if used > 0 and whole > 0 else 0.0


def memory_used(memory: dict[str, Any]) -> float:
    """Return bytes in use without what the page cache could give back at once."""
    usage = float(memory.get("usage", 0))
    details = memory.get("stats") or {}
    for key in ("total_inactive_file", "inactive_file"):
        value = details.get(key)
        if value is not None and value < usage:
            return usage - float(value)
    return usage


def _memory_text(values: dict[str, Any]) -> str:
    memory = values.get("memory_stats") or {}
    return f"{binary_size(memory_used(memory))} / {binary_size(memory.get('limit', 0))}"


def _memory_percent(values: dict[str, Any]) -> str:
    memory = values.get("memory_stats") or {}
    limit = memory.get("limit", 0)
    return f"{memory_used(memory) / limit * 100.0 if limit else 0.0:.2f}%"


def _network_text(values: dict[str, Any]) -> str:
    networks = (values.get("networks") or {}).values()
    received = sum(network.get("rx_bytes", 0) for network in networks)
    sent = sum(network.get("tx_bytes", 0) for network in networks)
    return f"{human_size(received, 3)} / {human_size(sent, 3)}"


def _block_text(values: dict[str, Any]) -> str:
    read = written = 0
    for entry in (values.get("blkio_stats") or {}).get("io_service_bytes_recursive") or []:
        operation = entry.get("op", "")[:1].lower()
        if operation == "r":
            read += entry.get("value", 0)
        elif operation == "w":
            written += entry.get("value", 0)
    return f"{human_size(read, 3)} / {human_size(written, 3)}"
