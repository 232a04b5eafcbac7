"""Hooks on events, set in daemon.json: commands and posts, their filters and bounds."""

import base64
import json
import os
import signal
import subprocess
import sys

import pytest

from system.log_servers import Http
from under_test import EngineUnderTest, running_engine, until

pytestmark = pytest.mark.system


@pytest.fixture
def web():
    server = Http()
    yield server
    server.close()


def program(path, text):
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def configured(tmp_path, hooks):
    path = tmp_path / "hooks.json"
    path.write_text(json.dumps({"event-hooks": hooks}))
    return path


def set_up(engine: EngineUnderTest, hooks):
    """Have a running daemon take hooks over."""
    (engine.root / "daemon.json").write_text(json.dumps({"event-hooks": hooks}))
    before = engine.log.read_text().count("configuration read again")
    os.kill(engine.pid, signal.SIGHUP)
    until(lambda: engine.log.read_text().count("configuration read again") > before, "the daemon read its configuration")


def test_a_command_and_a_post_get_the_events_that_pass_their_filters(own_engine, web, tmp_path):
    engine = own_engine
    told = tmp_path / "told"
    command = program(tmp_path / "hook", f'cat >> {told}; echo " $BARQUE_EVENT_ACTION $BARQUE_EVENT_NAME $1" >> {told}')
    set_up(engine, [
        {"filters": {"type": ["container"], "event": ["die"], "label": ["watched"]}, "command": [command, "word"]},
        {"filters": {"event": ["die"]}, "url": f"http://who:p%40ss@127.0.0.1:{web.port}/in?a=b", "headers": {"X-Key": "k"}},
    ])  # fmt: skip
    engine.docker("run", "--rm", "--name", "quiet", "busybox", "true")
    engine.docker("run", "--rm", "--name", "loud", "-l", "watched", "busybox", "sh", "-c", "exit 3", check=False)
    line = until(lambda: told.exists() and told.read_text().endswith("\n") and told.read_text(), "the command was run")
    event, _, rest = line.rpartition("} ")
    assert rest == "die loud word\n"
    assert json.loads(event + "}")["Actor"]["Attributes"]["exitCode"] == "3"
    posts = until(lambda: len(web.got) >= 2 and list(web.got), "both ends were posted")
    assert {json.loads(body)["Actor"]["Attributes"]["name"] for _, _, _, body in posts} == {"quiet", "loud"}
    assert posts[0][:2] == ("POST", "/in?a=b")
    assert posts[0][2]["X-Key"] == "k" and posts[0][2]["Content-Type"] == "application/json"
    assert posts[0][2]["Authorization"] == "Basic " + base64.b64encode(b"who:p@ss").decode()
    set_up(engine, [])
    engine.docker("run", "--rm", "-l", "watched", "busybox", "true")
    assert len(web.got) == 2 and told.read_text() == line


def test_hooks_that_fail_or_hang_are_ended_and_told_and_few_run_at_once(own_engine, web, tmp_path):
    engine = own_engine
    begun = tmp_path / "begun"
    hangs = program(tmp_path / "hangs", f"echo x >> {begun}; sleep 1000 & wait")
    fails = program(tmp_path / "fails", "exit 7")
    only = {"type": ["volume"], "event": ["create"]}
    set_up(engine, [{"filters": only, "command": [hangs], "timeout": "2s"}, {"filters": only, "command": [fails]},
                    {"filters": only, "command": ["/no/such/hook"]}, {"filters": only, "url": "http://who:secret1@127.0.0.1:1/secret2?token=secret3"}])  # fmt: skip
    names = [f"hooked{n}" for n in range(10)]
    for name in names:
        engine.docker("volume", "create", name)
    until(begun.exists, "hooks have begun")
    assert begun.read_text().count("x") <= 4
    until(lambda: begun.read_text().count("x") == 10, "all had their turn", 40)
    until(lambda: engine.log.read_text().count(f"hook {hangs} on volume create: took longer than 2 s") == 10, "all are told")
    log = engine.log.read_text()
    assert log.count(f"hook {fails} on volume create: exit status 7") == 10
    assert log.count("hook /no/such/hook on volume create: ") == 10
    assert log.count("hook http://127.0.0.1:1 on volume create: ") == 10
    # What a URL has besides its server may be a credential.
    assert "secret" not in log
    # What the hook had started is ended with it.
    assert not subprocess.run(["pgrep", "-f", hangs], capture_output=True, text=True).stdout
    engine.docker("volume", "rm", *names)


@pytest.mark.parametrize(
    ("hooks", "words"),
    [
        ([{"command": ["/x"], "url": "http://h"}], "wants a command or a url"),
        ([{}], "wants a command or a url"),
        ([{"command": ["relative"]}], "an absolute path first"),
        ([{"command": "/x"}], "must be a list of strings"),
        ([{"url": "ftp://h"}], "url must be http"),
        ([{"url": "http://h/a b"}], "url must be http"),
        ([{"url": "http://h", "filters": {"colour": ["red"]}}], "invalid filter 'colour'"),
        ([{"url": "http://h", "filters": {"event": "die"}}], "lists of strings"),
        ([{"url": "http://h", "timeout": "1 day"}], "timeout"),
        ([{"url": "http://h", "headers": {"A": "b\nc: d"}}], "single lines"),
        ([{"url": "http://h", "nonsense": 1}], "unknown key nonsense"),
        (["die"], "entry 0 is no object"),
        ({"url": "x"}, "of type []"),
    ],
)
def test_hooks_of_another_form_keep_the_daemon_from_starting(tmp_path, hooks, words):
    path = configured(tmp_path, hooks)
    result = subprocess.run([sys.executable, "-m", "barque", "daemon", "--config-file", str(path), "--validate"],
                            capture_output=True, text=True, timeout=30)  # fmt: skip
    assert result.returncode == 1 and words in result.stderr


def test_hooks_are_there_from_the_start(web, tmp_path):
    path = configured(tmp_path, [{"filters": {"type": ["network"]}, "url": f"http://127.0.0.1:{web.port}/"}])
    for engine in running_engine("--config-file", str(path)):
        engine.docker("network", "create", "seen")
        until(lambda: web.got, "the event was posted")
        engine.docker("network", "rm", "seen")
