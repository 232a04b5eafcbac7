"""Terminals: handing a pty's master over a socket, or relaying it to our own standard streams."""

import errno
import os
import select
import signal
import socket
import termios
import tty
from typing import Any

from barque.base.errors import InvalidInputError
from barque.base.files import write_all
from barque.kernel import tty as kernel_tty


def send_console(path: str, master: int) -> None:
    """Send a pty's master, and its name, to who listens on the console socket; closes it here.

    Raises:
        OSError: nobody listens there.
    """
    try:
        name = os.readlink(f"/proc/self/fd/{master}")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as end:
            connect_unix(end, path)
            socket.send_fds(end, [name.encode()], [master])
    finally:
        os.close(master)


def connect_unix(end: socket.socket, path: str) -> None:
    """Connect to a socket whose path may be longer than an address holds.

    Raises:
        OSError: there is no such socket.
    """
    folder = os.open(os.path.dirname(path) or ".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        end.connect(f"/proc/self/fd/{folder}/{os.path.basename(path)}")
    finally:
        os.close(folder)


def check_console(terminal: bool, detach: bool, console_socket: str) -> None:
    """Refuse combinations that leave a terminal without an owner, or a socket without a terminal.

    Raises:
        InvalidInputError: saying which.
    """
    if detach and terminal and not console_socket:
        raise InvalidInputError("cannot allocate tty if runtime will detach without setting console socket")
    if console_socket and not terminal:
        raise InvalidInputError("cannot use console socket if runtime will not detach or allocate tty")


class Relay:
    """Copies between a pty's master and our own streams until the pty's other end is gone."""

    def __init__(self, master: int) -> None:
        self.master = master
        self._saved: list[Any] | None = None
        self._input_open = True
        self._pending = b""

    def __enter__(self) -> "Relay":
        if os.isatty(0):
            self._saved = termios.tcgetattr(0)
            tty.setraw(0)
            self.copy_size()
        return self

    def __exit__(self, *_: object) -> None:
        if self._saved is not None:
            termios.tcsetattr(0, termios.TCSADRAIN, self._saved)
        os.close(self.master)

    def copy_size(self) -> None:
        """Give the pty the size of our own terminal."""
        try:
            kernel_tty.set_size(self.master, *kernel_tty.size(0))
        except OSError:
            return

    def watch(self, poller: "select.poll") -> None:
        """Register what the relay waits for."""
        poller.register(self.master, select.POLLIN | (select.POLLOUT if self._pending else 0))
        if self._input_open and not self._pending:
            poller.register(0, select.POLLIN)
        else:
            try:
                poller.unregister(0)
            except KeyError:
                pass

    def ready(self, fd: int, events: int) -> bool:
        """Move what there is; False when the pty has ended."""
        if fd == 0:
            data = os.read(0, 65536)
            if data:
                self._pending = data
            else:
                self._input_open = False
                # End of input on a terminal is a character.
                self._pending = b"\x04"
        if fd == self.master and events & select.POLLOUT and self._pending:
            self._pending = self._pending[os.write(self.master, self._pending) :]
        if fd == self.master and events & (select.POLLIN | select.POLLHUP):
            return self.drain_once()
        return True

    def drain_once(self) -> bool:
        """Copy one piece of output; False at the end."""
        try:
            data = os.read(self.master, 65536)
        except OSError as error:
            if error.errno == errno.EIO:
                return False
            raise
        write_all(1, data)
        return bool(data)

    def drain(self) -> None:
        """Copy what is left of the output after the process has ended."""
        poller = select.poll()
        poller.register(self.master, select.POLLIN)
        while poller.poll(0):
            if not self.drain_once():
                return


def wait_foreground(pid: int, pidfd: int, relay: Relay | None) -> int:
    """Wait for our child; forward signals to it and terminal data both ways. Return its exit code."""
    reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for number in set(range(1, 32)) - {
        signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD, signal.SIGURG, signal.SIGPIPE, signal.SIGSEGV,
        signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGTTIN, signal.SIGTTOU,
    }:  # fmt: skip
        signal.signal(number, lambda *_: None)
    poller = select.poll()
    poller.register(pidfd, select.POLLIN)
    poller.register(reader, select.POLLIN)
    while True:
        if relay is not None:
            relay.watch(poller)
        ready = dict(poller.poll())
        if reader in ready:
            _forward(pid, os.read(reader, 4096), relay)
        if relay is not None:
            for fd in (0, relay.master):
                if fd in ready and not relay.ready(fd, ready[fd]):
                    poller.unregister(relay.master)
                    relay_ended = relay
                    relay = None
                    poller_input(poller)
                    relay_ended.drain()
                    break
        if pidfd in ready:
            if relay is not None:
                relay.drain()
            return exit_code(os.waitpid(pid, 0)[1])


def poller_input(poller: "select.poll") -> None:
    """Stop waiting for our own input."""
    try:
        poller.unregister(0)
    except KeyError:
        pass


def _forward(pid: int, numbers: bytes, relay: Relay | None) -> None:
    for number in numbers:
        if number == signal.SIGWINCH and relay is not None:
            relay.copy_size()
            continue
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return


def exit_code(status: int) -> int:
    """Return the shell's number for a wait status: 128 and the signal's number for a killed one."""
    code = os.waitstatus_to_exitcode(status)
    return 128 - code if code < 0 else code
