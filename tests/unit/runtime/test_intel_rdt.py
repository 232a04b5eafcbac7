"""Classes of service, on folders that stand for the kernel's resctrl."""

import os

import pytest

from barque.runtime import intel_rdt
from barque.runtime.channel import StepError


def test_the_class_is_named_by_the_configuration_or_the_container(tmp_path):
    assert intel_rdt.folder_of({"closID": "gold"}, "c1", "/r") == "/r/gold"
    assert intel_rdt.folder_of({}, "c1", "/r") == "/r/c1"


@pytest.mark.parametrize("name", ["../x", "..", "info", "a/b"])
def test_names_that_are_no_class_are_refused(name):
    with pytest.raises(StepError, match="cannot name a class"):
        intel_rdt.folder_of({"closID": name}, "c1", "/r")


def test_without_resctrl_the_reason_is_told():
    with pytest.raises(StepError, match="resctrl is not mounted"):
        intel_rdt.folder_of({}, "c1", None)


def test_a_class_that_exists_is_joined_and_its_shares_are_set(tmp_path):
    folder = tmp_path / "gold"
    folder.mkdir()
    for name in ("schemata", "tasks"):
        (folder / name).touch()
    config = {"schemata": ["L3:0=f"], "memBwSchema": "MB:0=50"}
    assert intel_rdt.apply(config, str(folder), 77) is False
    assert (folder / "tasks").read_text() == "77"
    # The kernel takes a line a write; here the second one lies over the first.
    assert (folder / "schemata").read_text() == "MB:0=50\n"


def test_a_refused_share_leaves_no_class_behind(tmp_path):
    # A new folder has no files here, as a new class has none that takes this share.
    with pytest.raises(StepError, match="cannot write 'L3:0=f'"):
        intel_rdt.apply({"l3CacheSchema": "L3:0=f"}, str(tmp_path / "new"), 77)
    assert os.listdir(tmp_path) == []
