"""Updates of containers: what may change, and that two at once both count."""

import asyncio
from types import SimpleNamespace

import pytest

from barque.base.errors import InvalidInputError
from barque.engine import updating

KNOWN = {"Memory": 0, "CpuShares": 0, "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0}}


class FakeGroup:
    """Takes limits as slowly as the kernel may."""

    def __init__(self):
        self.seen = []

    def update(self, limits):
        self.seen.append(limits)
        return []


class FakeContainer:
    id, status, is_running = "c" * 64, "running", True

    def __init__(self):
        self.lock = asyncio.Lock()
        self.row = {"host": KNOWN, "config": {}}

    @property
    def host(self):
        return self.row["host"]

    @property
    def config(self):
        return self.row["config"]


@pytest.fixture
def scene(monkeypatch):
    async def flush():
        await asyncio.sleep(0)

    container = FakeContainer()
    group = FakeGroup()
    monkeypatch.setattr(updating, "open_manager", lambda path: group)
    monkeypatch.setattr(updating.port_changes, "change", lambda *a: None)
    engine = SimpleNamespace(
        cgroup_path=lambda c: "/c", changed=lambda c: None, save=lambda c: None, publish=lambda *a: None,
        database=SimpleNamespace(flush=flush),
    )  # fmt: skip
    return SimpleNamespace(engine=engine, container=container, group=group)


async def test_of_two_updates_at_once_both_count(scene):
    await asyncio.gather(
        updating.update(scene.engine, scene.container, {"CpuShares": 512}),
        updating.update(scene.engine, scene.container, {"Memory": 64 << 20}),
    )
    assert (scene.container.host["CpuShares"], scene.container.host["Memory"]) == (512, 64 << 20)


@pytest.mark.parametrize("field", ["Devices", "Ulimits", "CgroupParent", "BlkioDeviceReadBps", "OomKillDisable", "CpuCount"])
async def test_what_cannot_change_is_refused_by_name(scene, field):
    with pytest.raises(InvalidInputError, match=f"{field} cannot be changed"):
        await updating.update(scene.engine, scene.container, {field: [{"Name": "x"}]})
    assert scene.group.seen == []


@pytest.mark.parametrize("field", ["Devices", "Ulimits", "CgroupParent", "CpuCount"])
async def test_fields_that_clients_send_without_a_value_are_let_be(scene, field):
    await updating.update(scene.engine, scene.container, {field: None, "CpuShares": 2})
    assert scene.container.host["CpuShares"] == 2


async def test_a_limit_of_swap_alone_is_refused(scene):
    with pytest.raises(InvalidInputError, match="You should always set the Memory limit when using Memoryswap limit"):
        await updating.update(scene.engine, scene.container, {"MemorySwap": 64 << 20})
    assert scene.group.seen == []


async def test_no_limit_of_processes_can_be_asked_for(scene):
    await updating.update(scene.engine, scene.container, {"PidsLimit": 7})
    assert scene.group.seen[-1]["pids"] == {"limit": 7}
    await updating.update(scene.engine, scene.container, {"PidsLimit": 0})
    assert scene.group.seen[-1]["pids"] == {"limit": -1}
    assert scene.container.host["PidsLimit"] == 0


async def test_a_limit_of_kernel_memory_is_said_to_be_ignored(scene):
    answer = await updating.update(scene.engine, scene.container, {"KernelMemory": 1 << 20})
    assert "kernel memory limit" in answer["Warnings"][0]


def test_variables_and_labels_are_replaced_added_and_taken_away():
    config = {"Env": ["A=1", "B=2"], "Labels": {"x": "1", "y": "2"}}
    assert updating.described(config, {"CpuShares": 1}) == {}
    assert updating.described(config, {"Env": ["A=new", "C="], "EnvRemove": ["B"]}) == {"Env": ["A=new", "C="]}
    assert updating.described(config, {"Labels": {"z": ""}, "LabelsRemove": ["x"]}) == {"Labels": {"y": "2", "z": ""}}
    for wrong in ("", "A", "=1", "A=\0"):
        with pytest.raises(InvalidInputError):
            updating.described(config, {"Env": [wrong]})
