"""Specs of the Container Device Interface: what is taken, what is refused, what they change."""

import json

import pytest

from barque.engine.cdi import CdiDevices, CdiError, apply, checked

GOOD = {
    "cdiVersion": "0.6.0", "kind": "vendor.com/device",
    "devices": [{"name": "d", "containerEdits": {"env": ["A=b"]}}],
}  # fmt: skip


def changed(**more):
    return {**GOOD, **more}


def device(**edits):
    return changed(devices=[{"name": "d", "containerEdits": edits}])


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ([], "no object"),
        (changed(cdiVersion="9"), "unknown cdiVersion"),
        (changed(kind="vendor"), "wants vendor/class"),
        (changed(kind="ven dor/x"), "wants vendor/class"),
        (changed(devices=[]), "it has no devices"),
        (changed(devices=GOOD["devices"] * 2), "is there twice"),
        (changed(devices=[{"name": "a b", "containerEdits": {"env": ["A=b"]}}]), "invalid device name"),
        (changed(devices=[{"name": "d"}]), "changes nothing"),
        (device(env=["novalue"]), "wants NAME=VALUE"),
        (device(env="A=b"), "env is not a list"),
        (device(nonsense=[1]), "unknown edits: nonsense"),
        (device(deviceNodes=[{}]), "wants a path"),
        (device(deviceNodes=[{"path": "/dev/x", "type": "z"}]), "invalid device type"),
        (device(deviceNodes=[{"path": "/dev/x", "permissions": "rx"}]), "invalid permissions"),
        (device(mounts=[{"hostPath": "/x"}]), "wants hostPath and containerPath"),
        (device(hooks=[{"hookName": "never", "path": "/x"}]), "invalid hookName"),
        (device(hooks=[{"hookName": "poststop", "path": "/x", "args": [1]}]), "no strings"),
        (device(additionalGids=[-1]), "invalid group"),
    ],
)
def test_a_spec_of_another_form_is_refused_by_its_fault(spec, words):
    with pytest.raises(CdiError, match=words):
        checked(spec, "/etc/cdi/x.json")


def config():
    return {"process": {"env": ["PATH=/bin", "A=old"], "user": {"uid": 7, "gid": 8, "additionalGids": []}},
            "mounts": [{"destination": "/proc"}, {"destination": "/a/b"}], "linux": {}}  # fmt: skip


def test_edits_replace_variables_add_nodes_with_their_rules_and_put_mounts_before_those_inside():
    spec, rules = config(), []
    node = {"path": "/dev/x", "type": "c", "major": 1, "minor": 2, "permissions": "r"}
    apply(spec, rules, [checked(device(
        env=["A=new"], deviceNodes=[node], mounts=[{"hostPath": "/h", "containerPath": "/a"}],
        netDevices=[{"hostInterfaceName": "eth9", "name": "net0"}], intelRdt={"closID": "c"}, additionalGids=[5, 0],
    ), "x")["devices"][0]["containerEdits"]])  # fmt: skip
    assert spec["process"]["env"] == ["PATH=/bin", "A=new"]
    assert spec["linux"]["devices"] == [{"path": "/dev/x", "type": "c", "major": 1, "minor": 2, "uid": 7, "gid": 8}]
    assert rules == [{"allow": True, "type": "c", "major": 1, "minor": 2, "access": "r"}]
    assert [m["destination"] for m in spec["mounts"]] == ["/proc", "/a", "/a/b"]
    assert spec["mounts"][1]["options"] == ["rbind"] and spec["mounts"][1]["type"] == "bind"
    assert spec["linux"]["netDevices"] == {"eth9": {"name": "net0"}} and spec["linux"]["intelRdt"] == {"closID": "c"}
    assert spec["process"]["user"]["additionalGids"] == [5]


def test_a_node_that_is_not_there_is_told():
    with pytest.raises(CdiError, match="failed to stat CDI host device '/dev/no-such'"):
        apply(config(), [], [{"deviceNodes": [{"path": "/dev/no-such"}]}])


def test_specs_are_read_again_when_they_change(tmp_path):
    devices = CdiDevices(lambda: [str(tmp_path)])
    assert devices.names() == []
    (tmp_path / "a.json").write_text(json.dumps(GOOD))
    assert devices.names() == ["vendor.com/device=d"]
    assert devices.edits(["vendor.com/device=d"] * 2) == [{}, {"env": ["A=b"]}]
    with pytest.raises(CdiError, match="unresolvable CDI devices a/b=c, x"):
        devices.edits(["a/b=c", "vendor.com/device=d", "x"])
    (tmp_path / "a.json").unlink()
    assert devices.names() == []
