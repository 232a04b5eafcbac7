"""Sizes of terminals as clients give them: two numbers of 16 bits."""

import json

import pytest


async def _asked(api, path, body=None):
    async with api.session.post(path, json=body) as response:
        text = await response.text()
        return response.status, json.loads(text)["message"] if text and response.status >= 400 else ""


@pytest.mark.parametrize("query", ["", "?h=1", "?w=1", "?h=&w=1", "?h=-1&w=1", "?h=1&w=70000", "?h=\u0663&w=1", "?h=1.5&w=1"])
async def test_a_resize_wants_both_sides_as_small_numbers(api, query):
    for path in ("/containers/a/resize", "/exec/a/resize"):
        status, message = await _asked(api, path + query)
        assert status == 400, query
        assert message.startswith("invalid resize ")


@pytest.mark.parametrize(
    ("size", "seen"), [([24, 80], [24, 80]), ([24], [24, 0]), ([], [0, 0]), ([24, 80, 7], [24, 80]), (None, None)]
)
async def test_a_console_size_has_two_numbers_however_many_come(api, size, seen):
    body = {"Image": "i", "HostConfig": {"ConsoleSize": size}}
    assert await _asked(api, "/containers/create", body) == (201, "")
    assert api.containers.calls[-1][1]["HostConfig"]["ConsoleSize"] == seen


async def test_a_console_size_beyond_16_bits_is_refused(api):
    for path, body in (
        ("/containers/create", {"Image": "i", "HostConfig": {"ConsoleSize": [1, 65536]}}),
        ("/containers/a/exec", {"Cmd": ["x"], "ConsoleSize": [1 << 40, 1]}),
        ("/exec/a/start", {"Detach": True, "Tty": True, "ConsoleSize": [1 << 20, 1]}),
    ):
        status, message = await _asked(api, path, body)
        assert (status, "at most 65535" in message) == (400, True), path


async def test_an_exec_starts_with_a_size_that_is_cut_short(api):
    status, _ = await _asked(api, "/exec/a/start", {"Detach": True, "Tty": True, "ConsoleSize": [24]})
    assert status == 200
    assert api.containers.calls[-1][2]["console_size"] == (24, 0)
