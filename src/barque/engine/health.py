"""Health checks: a command run in the container now and then, whose exit code says how it is."""

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any

from barque.base.errors import BarqueError
from barque.base.times import format_ns
from barque.engine import uptime
from barque.engine.container import Container

if TYPE_CHECKING:
    from barque.engine.engine import Engine

Json = dict[str, Any]
log = logging.getLogger(__name__)
_KEPT = 5
_OUTPUT = 4096
_SECOND_NS = 1_000_000_000


def check_of(container: Container) -> list[str]:
    """Return the command of the check, empty where there is none."""
    test = (container.config.get("Healthcheck") or {}).get("Test") or []
    if not test or test[0] == "NONE":
        return []
    if test[0] == "CMD":
        return list(test[1:])
    if test[0] == "CMD-SHELL":
        shell = container.config.get("Shell") or ["/bin/sh", "-c"]
        return [*shell, *test[1:2]]
    return []


def start(engine: "Engine", container: Container) -> None:
    """Begin to check a container that has just started."""
    stop(container)
    if check_of(container):
        earlier = container.health["Log"] if container.health is not None else []
        container.health = {"Status": "starting", "FailingStreak": 0, "Log": earlier}
        container.health_task = engine.spawn(_watch(engine, container))
    else:
        container.health = None


def stop(container: Container) -> None:
    """Check no more."""
    task, container.health_task = container.health_task, None
    if task is not None:
        task.cancel()
    if container.health is not None and container.health["Status"] != "unhealthy":
        container.health["Status"] = "unhealthy"


async def _watch(engine: "Engine", container: Container) -> None:
    config = container.config["Healthcheck"]
    interval = (config.get("Interval") or 30 * _SECOND_NS) / _SECOND_NS
    start_interval = (config.get("StartInterval") or 5 * _SECOND_NS) / _SECOND_NS
    grace_ns = config.get("StartPeriod") or 0
    began_ns = container.began_ns
    passed_s = (uptime.now_ns() - began_ns) / _SECOND_NS
    while container.health is not None:
        young = container.health["Status"] == "starting" and uptime.now_ns() - began_ns < grace_ns
        await asyncio.sleep(left_of(start_interval if young else interval, passed_s))
        passed_s = 0.0
        if container.status != "running":
            # A frozen container is not asked.
            continue
        check_ns, age_ns = time.time_ns(), uptime.now_ns() - began_ns
        engine.metrics.checks += 1
        code, output = await _checked(engine, container, config.get("Timeout") or 30 * _SECOND_NS)
        _note(engine, container, code, output, check_ns, age_ns)


def left_of(interval_s: float, passed_s: float) -> float:
    """Return how long it is to the end of the interval that goes on, of those since a container's beginning.

    A daemon that takes over a thousand containers must not check them all at once, then and ever after.
    """
    return interval_s - max(0.0, passed_s) % interval_s


async def _checked(engine: "Engine", container: Container, timeout_ns: int) -> tuple[int, str]:
    """Run the check; return its exit code (-1: it did not end in time, or did not begin) and its output."""
    try:
        code, output = await engine.execs.run(
            container, check_of(container), most=_OUTPUT, timeout_s=timeout_ns / _SECOND_NS
        )
    except (BarqueError, OSError) as error:
        engine.metrics.failed_checks += 1
        return -1, str(error)
    text = output[:_OUTPUT].decode(errors="replace") + ("..." if len(output) > _OUTPUT else "")
    if code is None:
        return -1, f"Health check exceeded timeout ({go_duration(timeout_ns)})" + (f": {text}" if text else "")
    return code, text


def go_duration(time_ns: int) -> str:
    """Return a duration as Go writes it: `1m30s`, `1.5s`, `250ms`."""
    units = ((_SECOND_NS, "s"), (1_000_000, "ms"), (1000, "µs"), (1, "ns"))
    unit_ns, unit = next((pair for pair in units if time_ns >= pair[0]), (1, "ns"))
    if unit != "s":
        return f"{time_ns / unit_ns:.6f}".rstrip("0").rstrip(".") + unit
    minutes, rest_ns = divmod(time_ns, 60 * _SECOND_NS)
    hours, minutes = divmod(minutes, 60)
    seconds = f"{rest_ns / _SECOND_NS:.9f}".rstrip("0").rstrip(".") + "s"
    return f"{hours}h{minutes}m{seconds}" if hours else f"{minutes}m{seconds}" if minutes else seconds


def _note(engine: "Engine", container: Container, code: int, output: str, check_ns: int, age_ns: int) -> None:
    health, config = container.health, container.config["Healthcheck"]
    if health is None:
        return
    entry = {"Start": format_ns(check_ns), "End": format_ns(time.time_ns()), "ExitCode": code, "Output": output}
    health["Log"] = [*health["Log"], entry][-_KEPT:]
    before = health["Status"]
    young = before == "starting" and age_ns < (config.get("StartPeriod") or 0)
    if code == 0:
        health["FailingStreak"] = 0
        health["Status"] = "healthy"
    elif not young:
        health["FailingStreak"] += 1
        if health["FailingStreak"] >= (config.get("Retries") or 3):
            health["Status"] = "unhealthy"
    engine.changed(container)
    if health["Status"] != before:
        engine.publish(container, f"health_status: {health['Status']}")
    if health["Status"] == "unhealthy" != before:
        action = config.get("OnFailure") or "none"
        if action != "none":
            engine.spawn(_act(engine, container, action))


async def _act(engine: "Engine", container: Container, action: str) -> None:
    """Do what the container's user wants done when it is unhealthy."""
    log.warning("container %s is unhealthy: %s", container.name, action)
    try:
        if action == "kill":
            # Its restart policy says what follows.
            await engine.keeper.signal(container.id, None, 9)
        elif action == "stop":
            await engine.lifecycle.stop(container, "", None)
        else:
            await engine.lifecycle.restart(container, "", None)
    except BarqueError as error:
        log.warning("container %s: %s failed: %s", container.name, action, error)
