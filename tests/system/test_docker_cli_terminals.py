"""The docker command at a terminal: run -it, exec -it, attach, detach keys, sizes."""

import os
import signal
import time
from collections.abc import Iterator

import pytest

from terminals import terminal
from under_test import EngineUnderTest

pytestmark = pytest.mark.system


@pytest.fixture
def shell(engine: EngineUnderTest) -> Iterator[str]:
    """Give a running container with a shell on a terminal."""
    name = f"shell{os.getpid()}{time.monotonic_ns()}"
    engine.docker("run", "-dit", "--name", name, "busybox", "sh")
    yield name
    engine.docker("rm", "-f", name, check=False)


def test_a_shell_runs_at_a_terminal_and_its_exit_code_comes_back(engine: EngineUnderTest) -> None:
    with terminal(engine, "run", "--rm", "-it", "busybox", "sh") as tty:
        tty.expect("# ")
        tty.type("tty; stty size; echo $((40+2))\n")
        tty.expect("/dev/(pts/0|console)")
        tty.expect("30 100")
        tty.expect("\r\n42\r\n")
        tty.resize(50, 120)
        tty.process.send_signal(signal.SIGWINCH)
        tty.expect("# ")
        deadline = time.monotonic() + 10
        while True:
            tty.type("stty size\n")
            if tty.expect(r"\r\n(\d+ \d+)\r\n")[1] == "50 120":
                break
            assert time.monotonic() < deadline
        tty.type("exit 9\n")
        tty.ends_with(9)


def test_interrupt_reaches_the_process_at_the_terminal(engine: EngineUnderTest) -> None:
    with terminal(
        engine, "run", "--rm", "-it", "busybox", "sh", "-c", "trap 'exit 5' INT; echo up; while :; do sleep 1; done"
    ) as tty:
        tty.expect("up")
        tty.type("\x03")
        tty.ends_with(5)


def test_detach_keys_leave_the_container_running_and_attach_comes_back(engine: EngineUnderTest, shell: str) -> None:
    with terminal(engine, "attach", shell) as tty:
        tty.type("echo mark$((1+1))\n")
        tty.expect("mark2")
        tty.type("\x10\x11")
        # The docker command's own way to say that it was told to detach.
        tty.expect("read escape sequence")
        tty.ends_with(1)
    assert engine.docker("inspect", "-f", "{{.State.Running}}", shell) == "true"
    with terminal(engine, "attach", "--detach-keys", "ctrl-a,x", shell) as tty:
        tty.type("echo again$((1+1))\n")
        tty.expect("again2")
        tty.type("\x01x")
        tty.expect("read escape sequence")
        tty.ends_with(1)
    with terminal(engine, "attach", shell) as tty:
        tty.type("exit 3\n")
        tty.ends_with(3)


def test_exec_at_a_terminal_runs_beside_the_shell(engine: EngineUnderTest, shell: str) -> None:
    with terminal(engine, "exec", "-it", "-e", "A=b", "-w", "/tmp", shell, "sh") as tty:
        tty.expect("# ")
        tty.type("echo $A $PWD; stty size\n")
        tty.expect("b /tmp")
        tty.expect("30 100")
        tty.type("exit 4\n")
        tty.ends_with(4)
    assert engine.docker("inspect", "-f", "{{.State.Running}}", shell) == "true"


def test_two_clients_see_the_same_terminal(engine: EngineUnderTest, shell: str) -> None:
    with terminal(engine, "attach", shell) as one, terminal(engine, "attach", shell) as two:
        # Who sees an answer is attached.
        for number, client in enumerate((one, two)):
            client.type(f"echo here{number}$((1+1))\n")
            client.expect(f"here{number}2")
        one.type("echo both$((1+1))\n")
        one.expect("both2")
        two.expect("both2")
