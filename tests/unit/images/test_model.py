"""What is an image config, and what only looks like one."""

import json

import pytest

from barque.base.errors import InvalidInputError
from barque.images.model import check_config

ROOT = {"rootfs": {"type": "layers", "diff_ids": ["sha256:" + "0" * 64]}}


def checked(**more):
    return check_config(json.dumps({**ROOT, **more}).encode())


@pytest.mark.parametrize(
    ("more", "named"),
    [
        ({"created": 5}, "created"),
        ({"architecture": ["amd64"]}, "architecture"),
        ({"os": {}, "author": 1}, "author"),
        ({"config": []}, None),
        ({"config": [1]}, "config"),
        ({"config": {"Env": "A=1"}}, "Env"),
        ({"config": {"Env": [1]}}, "Env"),
        ({"config": {"Cmd": {"a": 1}}}, "Cmd"),
        ({"config": {"Labels": ["a"]}}, "Labels"),
        ({"config": {"Labels": {"a": 1}}}, "Labels"),
        ({"config": {"Volumes": ["/a"]}}, "Volumes"),
        ({"config": {"User": 5}}, "User"),
        ({"history": [5]}, "history"),
        ({"history": [{"created_by": 5}]}, "created_by"),
        ({"history": {"a": 1}}, "history"),
        ({"rootfs": 5}, "RootFS"),
        ({"rootfs": {"diff_ids": [5]}}, "digest"),
    ],
)
def test_what_has_another_type_than_it_is_read_as_is_refused_by_name(more, named):
    if named is None:
        assert checked(**more)
        return
    with pytest.raises(InvalidInputError, match=named):
        checked(**more)


def test_a_config_of_the_least_and_one_with_nothing_set_are_taken():
    assert checked()["rootfs"] == ROOT["rootfs"]
    empty = dict.fromkeys(("created", "author", "history", "config"))
    assert checked(**empty, os="linux")["os"] == "linux"
    assert checked(config=dict.fromkeys(("Env", "Cmd", "Labels", "Volumes", "User")))


def test_a_command_that_is_one_text_is_a_list_of_it():
    assert checked(config={"Cmd": "sh", "Entrypoint": "/init"})["config"] == {"Cmd": ["sh"], "Entrypoint": ["/init"]}


@pytest.mark.parametrize("raw", [b"", b"[", b"5", b"null", b"[" * 100_000, b'{"a":' * 100_000, b"\xff", b"1" * 5000])
def test_what_is_no_json_object_is_refused(raw):
    with pytest.raises(InvalidInputError):
        check_config(raw)
