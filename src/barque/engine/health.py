"""Health checks: a command run in the container now and then, whose exit code says how it is."""

import asyncio
import time
from typing import TYPE_CHECKING, Any

from barque.base.errors import BarqueError
from barque.base.times import format_ns
from barque.engine.container import Container

if TYPE_CHECKING:
    from barque.engine.engine import Engine

Json = dict[str, Any]
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
        container.health = {"Status": "starting", "FailingStreak": 0, "Log": []}
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
    timeout = (config.get("Timeout") or 30 * _SECOND_NS) / _SECOND_NS
    grace_ns = config.get("StartPeriod") or 0
    retries = config.get("Retries") or 3
    began = time.time_ns()
    while True:
        health = container.health
        if health is None:
            return
        young = grace_ns and time.time_ns() - began < grace_ns and health["Status"] == "starting"
        await asyncio.sleep(min(start_interval, interval) if young else interval)
        if container.status != "running":
            continue
        began_check = time.time_ns()
        code, output = await _probe(engine, container, timeout)
        _note(engine, container, code, output, began_check,
              counts=not (time.time_ns() - began < grace_ns and health["Status"] == "starting"), retries=retries)  # fmt: skip


async def _probe(engine: "Engine", container: Container, timeout_s: float) -> tuple[int, str]:
    try:
        return await asyncio.wait_for(engine.execs.run(container, check_of(container), _OUTPUT), timeout_s)
    except TimeoutError:
        return -1, f"Health check exceeded timeout ({timeout_s:g}s)"
    except (BarqueError, OSError) as error:
        return -1, str(error)


def _note(
    engine: "Engine", container: Container, code: int, output: str, began_ns: int, *, counts: bool, retries: int
) -> None:
    health = container.health
    if health is None:
        return
    entry = {"Start": format_ns(began_ns), "End": format_ns(time.time_ns()), "ExitCode": code, "Output": output}
    health["Log"] = [*health["Log"], entry][-_KEPT:]
    before = health["Status"]
    if code == 0:
        health["FailingStreak"] = 0
        health["Status"] = "healthy"
    elif counts:
        health["FailingStreak"] += 1
        if health["FailingStreak"] >= retries:
            health["Status"] = "unhealthy"
    if health["Status"] != before:
        engine.changed(container)
        engine.publish(container, f"health_status: {health['Status']}")
