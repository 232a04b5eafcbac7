"""Which containers come back when the engine starts, and when their checks go on."""

import pytest

from barque.engine import health
from barque.engine.container import Container, new_state
from barque.engine.create import merge
from barque.engine.reconcile import wants_start
from barque.engine.starting import exit_code_of


def container(policy, **state):
    row = {"id": "1", "name": "n", "config": {}, "host": {"RestartPolicy": {"Name": policy}},
           "state": {**new_state(), "status": "exited", "started_before": True, **state}}  # fmt: skip
    return Container(row)


@pytest.mark.parametrize(
    ("policy", "state", "back"),
    [
        ("always", {}, True),
        ("always", {"stopped_by_user": True}, True),
        ("always", {"started_before": False}, False),
        ("unless-stopped", {}, True),
        ("unless-stopped", {"stopped_by_user": True}, False),
        ("on-failure", {"exit_code": 0}, False),
        ("on-failure", {"exit_code": 1}, True),
        ("no", {"exit_code": 1}, False),
    ],
)
async def test_the_policy_says_who_is_brought_back(policy, state, back):
    assert wants_start(container(policy, **state)) is back


def test_the_images_command_goes_with_its_entrypoint():
    image = {"Entrypoint": ["/e"], "Cmd": ["c"], "Env": ["A=1", "B=2"], "User": "www"}
    assert merge({"Image": "i"}, image)["Cmd"] == ["c"]
    assert merge({"Image": "i", "Entrypoint": ["/x"]}, image)["Cmd"] is None
    made = merge({"Image": "i", "Cmd": ["d"], "Env": ["A=3"]}, image)
    assert (made["Entrypoint"], made["Cmd"], made["Env"], made["User"]) == (["/e"], ["d"], ["A=3", "B=2"], "www")


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ('exec: "x": executable file not found in $PATH', 127),
        ('exec: "/x": no such file or directory', 127),
        ('exec: "/etc/passwd": permission denied', 126),
        ('exec: "/etc": is a directory', 126),
        ("mount refused", 128),
    ],
)
def test_a_failed_start_has_dockers_exit_code(message, code):
    assert exit_code_of(message) == code


@pytest.mark.parametrize(("passed_s", "left_s"), [(0.0, 30.0), (-1.0, 30.0), (10.0, 20.0), (29.0, 1.0), (3650.0, 10.0)])
def test_checks_go_on_in_the_rhythm_of_a_containers_beginning(passed_s: float, left_s: float) -> None:
    assert health.left_of(30.0, passed_s) == left_s
