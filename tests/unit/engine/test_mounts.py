"""Binds, mounts and volumes of requests."""

import pytest

from barque.base.errors import InvalidInputError
from barque.engine.mount_points import collect, parse_bind, parse_mount


def test_a_bind_names_source_target_and_mode():
    point = parse_bind("/a:/b:ro,rslave")
    assert (point["Type"], point["Source"], point["Destination"]) == ("bind", "/a", "/b")
    assert not point["RW"] and point["Propagation"] == "rslave"


def test_a_source_without_a_slash_is_a_volume_that_is_filled_from_the_image():
    point = parse_bind("data:/b")
    assert (point["Type"], point["Name"], point["copy"], point["anonymous"]) == ("volume", "data", True, False)
    assert not parse_bind("data:/b:nocopy")["copy"]


@pytest.mark.parametrize("spec", ["/a:b", "a:/b:zz", "/a:/b:ro:x", ":/b", "/a:/", "b@d:/x"])
def test_a_malformed_bind_is_refused(spec):
    with pytest.raises(InvalidInputError):
        parse_bind(spec)


@pytest.mark.parametrize(
    ("mount", "match"),
    [
        ({"Type": "bind", "Source": "/no/such/source", "Target": "/t"}, "bind source path does not exist"),
        ({"Type": "tmpfs", "Source": "x", "Target": "/t"}, "field Source must not be specified"),
        ({"Type": "volume", "Target": ""}, "field Target must not be empty"),
        ({"Type": "nosuch", "Target": "/t"}, "mount type unknown"),
        ({"Type": "volume", "Target": "/t", "BindOptions": {"Propagation": "x"}}, "exactly one of"),
    ],
)
def test_a_malformed_mount_is_refused(mount, match):
    with pytest.raises(InvalidInputError, match=match):
        parse_mount(mount)


def test_two_mounts_at_one_place_are_refused():
    with pytest.raises(InvalidInputError, match="Duplicate mount point: /x"):
        collect({}, {"Binds": ["a1:/x", "b1:/x"]}, lambda ref: [])


def test_volumes_of_the_image_give_way_to_binds():
    points = collect({"Volumes": {"/x": {}, "/y": {}}}, {"Binds": ["/tmp:/x"]}, lambda ref: [])
    assert [(p["Destination"], p["Type"]) for p in points] == [("/x", "bind"), ("/y", "volume")]


def test_volumes_from_another_container_are_not_filled_again():
    theirs = [{**parse_bind("data:/d"), "Source": "/s"}]
    (point,) = collect({}, {"VolumesFrom": ["other:ro"]}, lambda ref: theirs)
    assert not point["RW"] and not point["copy"] and point["Name"] == "data"
