"""Waiting for a container's end or removal."""

import asyncio
from typing import Any

from barque.base.errors import InvalidInputError
from barque.engine.container import Container

Json = dict[str, Any]


def wait(container: Container, condition: str) -> "asyncio.Future[Json]":
    """Return a future of {"StatusCode"} for not-running, next-exit or removed.

    Raises:
        InvalidInputError: another condition.
    """
    condition = condition or "not-running"
    if condition not in ("not-running", "next-exit", "removed"):
        raise InvalidInputError(f'invalid condition: "{condition}"')
    future: asyncio.Future[Json] = asyncio.get_running_loop().create_future()
    idle = not container.is_running and container.status != "restarting"
    if condition == "not-running" and idle:
        future.set_result(_result(container))
    else:
        container.waiters.append((condition, future))
        # A client that goes away waits no more.
        future.add_done_callback(lambda _: _forget(container, future))
    return future


def _forget(container: Container, future: "asyncio.Future[Json]") -> None:
    container.waiters = [waiter for waiter in container.waiters if waiter[1] is not future]


def settle(container: Container, condition: str) -> None:
    """Answer those who wait for a condition; a removal answers all."""
    rest = []
    for wanted, future in container.waiters:
        if wanted == condition or condition == "removed":
            if not future.done():
                future.set_result(_result(container))
        else:
            rest.append((wanted, future))
    container.waiters = rest


def _result(container: Container) -> Json:
    return {"StatusCode": container.state["exit_code"]}
