"""Removals that do not come about leave the container as it was."""

import asyncio
from types import SimpleNamespace

import pytest

from barque.base.errors import BarqueError
from barque.engine import removal


@pytest.mark.parametrize("automatic", [False, True])
async def test_a_container_that_does_not_end_still_goes_by_itself_when_it_does(automatic):
    async def refuse(*arguments):
        raise BarqueError("did not receive an exit event")

    container = SimpleNamespace(
        id="c" * 64, name="c", status="running", is_running=True, auto_removing=automatic, state={},
        removed=asyncio.Event(), lock=asyncio.Lock(),
    )  # fmt: skip
    with pytest.raises(BarqueError, match="exit event"):
        await removal.remove(SimpleNamespace(lifecycle=SimpleNamespace(end=refuse)), container, force=True, volumes=False)
    assert container.auto_removing == automatic
