"""What Docker checks before a program starts: its folder, its user, its limits; and what it does not check."""

import json
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from tempfile import mkdtemp

import pytest

from raw_requests import ask
from under_test import EngineUnderTest, needs_root, served, traces, until

pytestmark = pytest.mark.system


@pytest.fixture
def name(engine: EngineUnderTest) -> Iterator[str]:
    """Give a container's name; at the end there is no such container."""
    made = f"c-{uuid.uuid4().hex[:8]}"
    yield made
    engine.docker("rm", "-f", made, check=False)


def test_a_working_folder_that_is_a_file_is_refused_and_nothing_stays(engine: EngineUnderTest) -> None:
    before = traces(engine)
    for folder, words in (("/etc/passwd", "Cannot mkdir: /etc/passwd is not a directory"),
                          ("/etc/passwd/x", "mkdir /etc/passwd/x: not a directory")):  # fmt: skip
        done = engine.docker_result("create", "-w", folder, "busybox", "true")
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.strip() == f"Error response from daemon: {words}"
        body = json.dumps({"Image": "busybox", "WorkingDir": folder}).encode()
        assert ask(engine, "POST", "/containers/create", body) == (500, {"message": words})
        until(lambda: traces(engine) == before)


def test_a_working_folder_that_the_image_has_not_is_there_before_the_start(engine: EngineUnderTest, name: str, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("in\n")
    engine.docker("create", "--name", name, "--read-only", "-w", "/new/one", "busybox", "cat", "f")
    assert engine.docker("diff", name).splitlines() == ["A /new", "A /new/one"]
    engine.docker("cp", str(tmp_path / "f"), f"{name}:/new/one/")
    assert engine.docker("start", "-a", name) == "in"


def test_a_folder_on_a_file_is_told_as_what_it_is(engine: EngineUnderTest, name: str, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x")
    for source, target in ((tmp_path, "/etc/passwd"), (tmp_path / "f", "/etc")):
        done = engine.docker_result("run", "--name", name, "-v", f"{source}:{target}", "busybox", "true")
        assert done.returncode == 125
        assert f'error mounting "{source}" to rootfs at "{target}"' in done.stderr
        assert "not a directory: Are you trying to mount a directory onto a file (or vice-versa)?" in done.stderr
        assert engine.docker("inspect", "-f", "{{.State.ExitCode}}", name) == "127"
        engine.docker("rm", name)


def test_what_follows_the_second_colon_of_a_user_means_nothing(engine: EngineUnderTest) -> None:
    assert engine.docker("run", "--rm", "-u", "root:www:more", "busybox", "id") == "uid=0(root) gid=33(www) groups=33(www)"
    done = engine.docker_result("run", "--rm", "-u", "a:b:c", "busybox", "id")
    assert done.returncode == 125 and "unable to find user a: no matching entries in passwd file" in done.stderr


def test_an_exec_wants_an_absolute_working_folder(engine: EngineUnderTest, name: str) -> None:
    engine.docker("run", "-d", "--name", name, "busybox", "sleep", "1000")
    words = "OCI runtime exec failed: exec failed: Cwd must be an absolute path"
    for flags in ([], ["-t"]):
        done = engine.docker_result("exec", *flags, "-w", "tmp", name, "pwd")
        assert (done.returncode, done.stdout.strip()) == (126, words)
    done = engine.docker_result("exec", "-d", "-w", "tmp", name, "pwd")
    assert (done.returncode, done.stderr.strip()) == (1, f"Error response from daemon: {words}")
    assert engine.docker("exec", "-w", "/tmp", name, "pwd") == "/tmp"


def test_a_filter_of_events_that_nobody_knows_lets_all_through(engine: EngineUnderTest) -> None:
    began = str(time.time())
    engine.docker("run", "--rm", "busybox", "true")
    times = ["--since", began, "--until", str(time.time()), "--format", "{{.Action}}"]
    every = engine.docker("events", *times)
    assert "destroy" in every
    assert engine.docker("events", *times, "-f", "colour=red") == every
    assert engine.docker("events", *times, "-f", "colour=red", "-f", "event=die") == "die"


class WithoutResourceRights(EngineUnderTest):
    """An engine whose daemon has no CAP_SYS_RESOURCE, whatever the tests have."""

    def arguments(self) -> list[str]:
        """Return the daemon's command line, the capability taken away."""
        return ["setpriv", "--bounding-set", "-sys_resource", "--inh-caps", "-sys_resource", *super().arguments()]


@pytest.fixture(scope="module")
def limited() -> Iterator[EngineUnderTest]:
    """Give such an engine, whose default limit is one that it cannot grant."""
    needs_root()
    flags = ["--default-ulimit", "nofile=9999999999:9999999999"]
    yield from served(WithoutResourceRights(Path(mkdtemp(prefix="bq", dir="/var/tmp")), *flags))


LOOK = ["sh", "-c", "ulimit -Hn; cat /proc/self/oom_score_adj"]


def test_limits_that_only_more_rights_could_raise_are_cut_with_a_warning(limited: EngineUnderTest) -> None:
    host = {"Ulimits": [{"Name": "nofile", "Soft": 9999999999, "Hard": 9999999999}], "OomScoreAdj": -900}
    body = {"Image": "busybox", "Cmd": LOOK, "HostConfig": host}
    status, made = ask(limited, "POST", "/containers/create", json.dumps(body).encode())
    assert status == 201, made
    assert ask(limited, "POST", f"/containers/{made['Id']}/start")[0] == 204
    assert ask(limited, "POST", f"/containers/{made['Id']}/wait")[1]["StatusCode"] == 0
    hard, score = (int(line) for line in limited.docker("logs", made["Id"]).split())
    assert 0 < hard < 9999999999 and score > -900
    told = [
        f"The ulimit nofile cannot be raised above {hard} without CAP_SYS_RESOURCE: {hard} is used instead of 9999999999.",
        f"The OOM score adjustment cannot be lowered to -900 without CAP_SYS_RESOURCE: {score} is used instead.",
    ]
    assert made["Warnings"] == told
    done = limited.docker_result("run", "--rm", "--ulimit", "nofile=9999999999:9999999999", "--oom-score-adj", "-900", "busybox", *LOOK)
    assert (done.returncode, done.stdout.split()) == (0, [str(hard), str(score)])
    assert done.stderr.splitlines() == [f"WARNING: {text}" for text in told]


def test_a_default_limit_that_cannot_be_granted_stops_no_start(limited: EngineUnderTest) -> None:
    name = f"c-{uuid.uuid4().hex[:8]}"
    done = limited.docker_result("run", "-d", "--name", name, "busybox", "sleep", "1000")
    assert done.returncode == 0, done.stderr
    hard, _ = limited.docker("exec", name, *LOOK).split()
    assert int(hard) < 9999999999
    # What the user asked for and can be had is given without a word.
    quiet = limited.docker_result("run", "--rm", "--ulimit", "nofile=1024:2048", "--oom-score-adj", "500", "busybox", *LOOK)
    assert (quiet.returncode, quiet.stdout.split(), quiet.stderr) == (0, ["2048", "500"], "")
