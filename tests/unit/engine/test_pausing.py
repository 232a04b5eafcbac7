import asyncio
import errno
from types import SimpleNamespace

import pytest

from barque.base.errors import ConflictError
from barque.engine import pausing
from barque.runtime.cgroups.v1 import CgroupError


def frozen_with(monkeypatch, number):
    """Pause a running container whose control group refuses with an errno."""

    def refuse():
        raise CgroupError(number, "cannot set freezer.state to FROZEN")

    monkeypatch.setattr(pausing, "open_manager", lambda path: SimpleNamespace(freeze=refuse, thaw=refuse))
    container = SimpleNamespace(id="c" * 64, status="running", is_running=True, lock=asyncio.Lock())
    return pausing.pause(SimpleNamespace(cgroup_path=lambda c: "/c"), container)


@pytest.mark.parametrize("number", [errno.ENOENT, errno.ENODEV])
async def test_a_container_that_ends_while_it_is_paused_does_not_run(monkeypatch, number):
    with pytest.raises(ConflictError, match="is not running"):
        await frozen_with(monkeypatch, number)


async def test_a_refusal_of_the_kernels_is_told(monkeypatch):
    with pytest.raises(CgroupError):
        await frozen_with(monkeypatch, errno.EBUSY)
