"""Which containers wait for which when an engine brings them back: what Compose wrote on their labels."""

import asyncio
from collections.abc import Iterable

from barque.engine.container import Container

_PREFIX = "com.docker.compose."
_STARTED_S, _HEALTHY_S, _POLL_S = 30.0, 120.0, 0.1


def dependencies(container: Container, everyone: Iterable[Container]) -> list[tuple[Container, str]]:
    """Return (container, condition) of the services that one depends on, within its project.

    The label has the form `db:service_healthy:true,cache:service_started`.
    """
    labels = container.labels
    wanted: dict[str, str] = {}
    for entry in (labels.get(_PREFIX + "depends_on") or "").split(","):
        service, _, rest = entry.strip().partition(":")
        if service:
            wanted[service] = rest.partition(":")[0] or "service_started"
    found = []
    for other in everyone:
        service = other.labels.get(_PREFIX + "service", "")
        if other is not container and service in wanted \
                and other.labels.get(_PREFIX + "project") == labels.get(_PREFIX + "project"):  # fmt: skip
            found.append((other, wanted[service]))
    return found


async def wait_for(waits: list[tuple[Container, str]]) -> None:
    """Wait until containers are as the conditions say; those that take too long are waited for no more."""
    for other, condition in waits:
        try:
            await asyncio.wait_for(other.started.wait(), _STARTED_S)
            if condition == "service_healthy" and other.health is not None:
                await asyncio.wait_for(_healthy(other), _HEALTHY_S)
            elif condition == "service_completed_successfully":
                await asyncio.wait_for(other.exited.wait(), _HEALTHY_S)
        except TimeoutError:
            continue


async def _healthy(container: Container) -> None:
    while container.health is not None and container.health["Status"] == "starting":  # noqa: ASYNC110 - rare
        await asyncio.sleep(_POLL_S)
