"""The barque command on a real engine: what it prints is what the docker command prints there."""

import os
import pty
import select
import sys
import time

import pytest

from under_test import until

pytestmark = pytest.mark.system

SAME = [
    ["ps", "-a", "--no-trunc", "--format", "{{.ID}} {{.Image}} {{.Command}} {{.State}} {{.Names}} {{.Ports}}"],
    ["ps", "-aq"],
    ["ps", "--filter", "foo"],
    ["ps", "--nosuch"],
    ["ps", "a"],
    ["images"],
    ["images", "--digests"],
    ["images", "-q", "--no-trunc"],
    ["inspect", "web"],
    ["inspect", "-f", "{{.State.Status}} {{json .Config.Cmd}}", "web"],
    ["inspect", "nosuch"],
    ["container", "inspect", "nosuch"],
    ["image", "inspect", "busybox"],
    ["history", "busybox"],
    ["history", "--no-trunc", "-H=false", "busybox"],
    ["port", "web"],
    ["port", "web", "99"],
    ["top", "web", "-o", "pid,args"],
    ["diff", "web"],
    ["logs", "web"],
    ["logs", "-n", "1", "web"],
    ["exec", "web", "sh", "-c", "echo a; echo b >&2; exit 9"],
    ["exec", "nosuch", "true"],
    ["exec", "-it", "web", "tty"],
    ["run", "--rm", "busybox", "sh", "-c", "exit 7"],
    ["run", "--rm", "busybox", "nosuch"],
    ["run", "--rm", "busybox", "/etc"],
    ["run", "-it", "busybox"],
    ["run", "-m", "xx", "busybox"],
    ["run"],
    ["rm", "nosuch"],
    ["rm", "-f", "nosuch"],
    ["rm", "web"],
    ["stop", "nosuch"],
    ["start", "nosuch"],
    ["kill", "-s", "NOSUCH", "web"],
    ["wait", "nosuch"],
    ["rmi", "nosuch"],
    ["tag", "nosuch", "x"],
    ["cp", "web:/nosuch", "/var/tmp"],
    ["cp", "a", "b"],
    ["volume", "ls"],
    ["volume", "inspect", "nosuch"],
    ["network", "ls"],
    ["network", "inspect", "nosuch"],
    ["events", "--since", "1h", "--until", "0s", "--filter", "container=web", "--filter", "event=create"],
]


@pytest.fixture(scope="module")
def web(engine):
    """Give a running container with a published port and two lines in its log."""
    identity = engine.barque(
        "run", "-d", "--name", "web", "-p", "127.0.0.1::80", "busybox", "sh", "-c", "echo one; echo two >&2; sleep 600"
    )
    until(lambda: engine.barque("logs", "web", check=False), "the container has said something")
    yield identity
    engine.barque("rm", "-f", "web")


@pytest.mark.parametrize("words", SAME, ids=" ".join)
def test_barque_says_what_docker_says(engine, web, words):
    theirs = engine.docker_result(*words, stdin=-3)
    ours = engine.run([sys.executable, "-m", "barque", *words], stdin=-3)
    for _ in range(3):
        if " ago" not in theirs.stdout or ours.stdout == theirs.stdout:
            break
        # An age went on by a second between the two: ask both again.
        theirs = engine.docker_result(*words, stdin=-3)
        ours = engine.run([sys.executable, "-m", "barque", *words], stdin=-3)
    assert ours.stdout.replace("barque", "docker") == theirs.stdout.replace("barque", "docker")
    assert ours.stderr.replace("barque", "docker") == theirs.stderr.replace("barque", "docker")
    assert ours.returncode == theirs.returncode


def test_input_goes_in_and_the_exit_code_comes_out(engine):
    result = engine.run(
        [sys.executable, "-m", "barque", "run", "-i", "--rm", "busybox", "sh", "-c", "cat; exit 5"], input="typed\n"
    )
    assert (result.stdout, result.returncode) == ("typed\n", 5)


def test_files_travel_both_ways(engine, web, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "file").write_text("content")
    (tmp_path / "in" / "link").symlink_to("file")
    engine.barque("cp", str(tmp_path / "in"), "web:/tmp/")
    assert engine.barque("exec", "web", "cat", "/tmp/in/link") == "content"
    engine.barque("cp", "web:/tmp/in", str(tmp_path / "out"))
    assert (tmp_path / "out" / "file").read_text() == "content"
    assert os.readlink(tmp_path / "out" / "link") == "file"
    engine.barque("cp", "web:/tmp/in/.", str(tmp_path / "in"))
    assert sorted(os.listdir(tmp_path / "in")) == ["file", "link"]
    engine.barque("cp", str(tmp_path / "in" / "file"), "web:/tmp/renamed")
    assert engine.barque("exec", "web", "cat", "/tmp/renamed") == "content"


def test_an_image_travels_through_save_and_load(engine, tmp_path):
    engine.barque("tag", "busybox", "travel:1")
    engine.barque("save", "-o", str(tmp_path / "image.tar"), "travel:1")
    assert "Untagged: travel:1" in engine.barque("rmi", "travel:1")
    assert engine.barque("load", "-i", str(tmp_path / "image.tar")) == "Loaded image: travel:1"
    engine.barque("rmi", "travel:1")


def read_until(descriptor, text, timeout_s=15):
    """Return what a terminal shows up to a text."""
    seen = b""
    deadline = time.monotonic() + timeout_s
    while text not in seen:
        left = deadline - time.monotonic()
        assert left > 0, seen
        if select.select([descriptor], [], [], left)[0]:
            try:
                piece = os.read(descriptor, 4096)
            except OSError:
                piece = b""
            assert piece, seen
            seen += piece
    return seen


def in_terminal(engine, *words):
    """Start the command on a terminal of its own; give its pid and the terminal."""
    pid, master = pty.fork()
    if pid == 0:
        os.execve(sys.executable, [sys.executable, "-m", "barque", *words], engine.environment)
    return pid, master


def test_a_terminal_session_follows_the_size_and_detaches(engine):
    import fcntl
    import struct
    import termios

    pid, master = in_terminal(engine, "run", "-it", "--name", "shell", "busybox", "sh")
    try:
        read_until(master, b"#")
        fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 77, 0, 0))
        os.write(master, b"while [ \"$(stty size)\" != '33 77' ]; do :; done; echo size-$((40+2))\n")
        read_until(master, b"size-42")
        os.write(master, b"\x10\x11")
        read_until(master, b"read escape sequence")
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert engine.barque("inspect", "-f", "{{.State.Status}}", "shell") == "running"
    finally:
        os.close(master)
        engine.barque("rm", "-f", "shell")


def test_a_signal_is_passed_on_to_the_container(engine):
    import signal
    import subprocess

    script = "trap 'echo caught; exit 4' TERM; echo ready; while :; do sleep 0.1; done"
    process = subprocess.Popen(
        [sys.executable, "-m", "barque", "run", "--rm", "busybox", "sh", "-c", script],
        env=engine.environment,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None and process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=20)[0] == b"caught\n"
    assert process.returncode == 4
