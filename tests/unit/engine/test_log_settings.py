"""How the keeper is told to keep a log."""

from types import SimpleNamespace

import pytest

from barque.engine.log_shipping import keeper_settings


def settings(driver, **wanted):
    row = {"log_path": "/log", "path": "sh", "args": [], "image": "sha256:1", "image_ref": "busybox", "created_ns": 0}
    host = {"LogConfig": {"Type": driver, "Config": {key.replace("_", "-"): value for key, value in wanted.items()}}}
    container = SimpleNamespace(host=host, row=row, config={}, labels={}, id="c" * 64, name="web")
    return keeper_settings(container)


@pytest.mark.parametrize(
    ("wanted", "size", "count"),
    [
        ({}, 100 << 20, 5), ({"max_file": "3"}, 100 << 20, 3), ({"max_size": "1m"}, 1 << 20, 1),
        ({"max_size": "1m", "max_file": "3"}, 1 << 20, 3), ({"max_size": "-1"}, -1, 1),
    ],
)  # fmt: skip
def test_json_files_are_rotated_unless_that_is_switched_off(wanted, size, count):
    found = settings("json-file", **wanted)
    assert (found["max_size"], found["max_file"], found["compress"]) == (size, count, False)


def test_local_files_are_rotated_and_compressed():
    found = settings("local")
    assert (found["max_size"], found["max_file"], found["compress"]) == (20 << 20, 5, True)


@pytest.mark.parametrize(
    ("wanted", "guarded", "holds"),
    [
        ({}, True, 0), ({"mode": "non-blocking", "max_buffer_size": "300m"}, False, 600 << 20),
        ({"fluentd_async": "true", "fluentd_buffer_limit": "4m"}, False, 800 << 20),
    ],
)  # fmt: skip
def test_files_that_are_read_behind_are_guarded_or_hold_the_buffer(wanted, guarded, holds):
    found = settings("fluentd", **wanted)
    assert ("guard" in found) == guarded
    assert found["max_file"] >= 2 and found["max_size"] * (found["max_file"] - 1) >= holds
