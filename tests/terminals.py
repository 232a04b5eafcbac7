"""The docker command on a pseudo terminal."""

import fcntl
import os
import pty
import re
import select
import shutil
import struct
import subprocess
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from under_test import EngineUnderTest


class Terminal:
    """The docker command on a pseudo terminal."""

    def __init__(self, engine: EngineUnderTest, *arguments: str, **options: Any) -> None:
        docker = shutil.which("docker")
        if docker is None:
            pytest.skip("the docker command is not installed")
        self.fd, inner = pty.openpty()
        self.resize(30, 100)
        self.process = subprocess.Popen(
            [docker, *arguments], stdin=inner, stdout=inner, stderr=inner, start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0), **{"env": engine.environment, **options},  # noqa: PLW1509
        )  # fmt: skip
        os.close(inner)
        self.seen = ""

    def resize(self, rows: int, columns: int) -> None:
        """Change the terminal's size."""
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, text: str) -> None:
        """Type text."""
        os.write(self.fd, text.encode())

    def expect(self, pattern: str, timeout_s: float = 20) -> re.Match[str]:
        """Read until the pattern is seen; what came before it is forgotten."""
        deadline = time.monotonic() + timeout_s
        while True:
            match = re.search(pattern, self.seen)
            if match is not None:
                self.seen = self.seen[match.end() :]
                return match
            left = deadline - time.monotonic()
            assert left > 0, f"{pattern!r} was not seen in {self.seen!r}"
            if select.select([self.fd], [], [], left)[0]:
                try:
                    data = os.read(self.fd, 65536)
                except OSError:
                    data = b""
                assert data, f"the terminal closed; {pattern!r} was not seen in {self.seen!r}"
                self.seen += data.decode(errors="replace")

    def ends_with(self, code: int) -> None:
        """Wait for the command's end."""
        assert self.process.wait(20) == code


@contextmanager
def terminal(engine: EngineUnderTest, *arguments: str, **options: Any) -> Iterator[Terminal]:
    """Give the docker command on a terminal, ended at the end; `options` are Popen's."""
    opened = Terminal(engine, *arguments, **options)
    try:
        yield opened
    finally:
        opened.process.kill()
        opened.process.wait()
        os.close(opened.fd)
