"""Who owns the pipes of a process in a container whose users are mapped."""

from barque.keeper.stdio import host_uid, uid_maps

MAPS = [{"containerID": 0, "hostID": 100_000, "size": 10}, {"containerID": 50, "hostID": 7, "size": 1}]


def test_a_user_is_who_the_maps_say():
    maps = uid_maps({"linux": {"uidMappings": MAPS}})
    assert [host_uid(maps, {"user": {"uid": uid}}) for uid in (0, 9, 50)] == [100_000, 100_009, 7]
    assert host_uid(maps, {}) == 100_000


def test_without_maps_a_user_is_the_same_on_the_host():
    assert uid_maps({}) == uid_maps({"linux": {"uidMappings": None}}) == []
    assert host_uid([], {"user": {"uid": 12}}) == 12
