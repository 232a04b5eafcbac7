"""Binds, mounts and volumes of requests."""

import pytest

from barque.base.errors import InvalidInputError
from barque.engine import id_maps, volume_options
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
        ({"Type": "volume", "Target": "/t", "BindOptions": {"Propagation": "x"}}, "field BindOptions must not be specified"),
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


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("/a:ro", "invalid volume specification: '/a:ro'"),
        ("/a:/b:ro,rw", "invalid mode: ro,rw"),
        ("/a:/b:z,Z", "invalid mode: z,Z"),
        ("data:/b:rslave", "field BindOptions must not be specified"),
        ("/a:/b:nocopy", "field VolumeOptions must not be specified"),
    ],
)
def test_words_of_a_bind_are_checked_as_docker_does(spec, words):
    with pytest.raises(InvalidInputError, match=words):
        parse_bind(spec)


@pytest.mark.parametrize(
    ("mount", "words"),
    [
        ({"Type": "volume", "VolumeOptions": {"Subpath": "a"}}, "must not set Subpath when using anonymous volumes"),
        ({"Type": "volume", "Source": "vv", "VolumeOptions": {"Subpath": "../a"}}, "subpath must be a relative path"),
        ({"Type": "volume", "ReadOnly": True}, "must not set ReadOnly mode when using anonymous volumes"),
        ({"Type": "tmpfs", "TmpfsOptions": {"Options": [["suid"]]}}, "invalid option: suid"),
        ({"Type": "image"}, "field Source must not be empty"),
        ({"Type": "bind", "Source": "/tmp", "BindOptions": {"ReadOnlyNonRecursive": True}}, "mount options conflict"),
    ],
)
def test_options_of_a_mount_are_checked_as_docker_does(mount, words):
    with pytest.raises(InvalidInputError, match=words):
        parse_mount({"Target": "/t", **mount})


def test_swapped_ids_leave_every_other_id_as_it_is():
    for one, other in ((0, 1000), (1000, 0), (5, 6), (7, 7)):
        lines = id_maps.swapped(one, other)

        def seen(number, lines=lines):
            (line,) = [m for m in lines if m["containerID"] <= number < m["containerID"] + m["size"]]
            return line["hostID"] + number - line["containerID"]

        assert (seen(one), seen(other)) == (other, one)
        assert [seen(n) for n in (1, 3, 2000, (1 << 32) - 2)] == [1, 3, 2000, (1 << 32) - 2]


def test_explicit_id_mappings_name_the_container_first():
    uids, gids = id_maps.maps_of("uids=0-1000-5#5-1-1;gids=0-2000-5", (0, 0), (0, 0))
    assert uids == [{"containerID": 1000, "hostID": 0, "size": 5}, {"containerID": 1, "hostID": 5, "size": 1}]
    assert gids[0]["containerID"] == 2000
    for bad in ("", "uids=", "uids=1-2", "uids=1-2-0", "x=1-2-3", "uids=1-4294967295-9"):
        with pytest.raises(InvalidInputError):
            id_maps.maps_of(bad, (0, 0), (1, 1))


@pytest.mark.parametrize(
    ("options", "device", "words"),
    [
        ({"type": "nfs", "device": ":/srv", "o": "addr=files,rw"}, ":/srv", ["addr=10.0.0.1", "rw"]),
        ({"type": "cifs", "device": "//files/share", "o": "user=a"}, "//10.0.0.1/share", ["user=a"]),
        ({"type": "tmpfs", "device": "tmpfs"}, "tmpfs", []),
    ],
)
def test_a_network_volumes_host_is_resolved_before_the_kernel_sees_it(options, device, words):
    found = volume_options.local_mount(options, lambda host: "10.0.0.1")
    assert (found.device, found.words) == (device, words)
