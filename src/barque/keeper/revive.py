"""Starts the daemon again when it ended without a goodbye."""

import os
import time
from typing import Any

from barque.keeper.children import IGNORED, Children
from barque.kernel.poller import Poller

_FIRST_DELAY_S = 0.05
_LONGEST_DELAY_S = 30.0
_HEALTHY_S = 10.0


class Reviver:
    """Back-off between restarts of the daemon; a daemon that lived long enough resets it."""

    __slots__ = ("_children", "_delay_s", "_poller", "_since", "is_connected")

    def __init__(self, poller: Poller, children: Children) -> None:
        self._poller = poller
        self._children = children
        self._delay_s = _FIRST_DELAY_S
        self._since = 0.0
        self.is_connected = False

    def connected(self) -> None:
        """Take note that a daemon is there."""
        self.is_connected = True
        self._since = time.monotonic()

    def lost(self, hello: dict[str, Any], stderr: int) -> None:
        """Start the daemon after a pause, unless another has connected by then; takes stderr over."""
        self.is_connected = False
        if time.monotonic() - self._since > _HEALTHY_S:
            self._delay_s = _FIRST_DELAY_S
        delay_s = self._delay_s
        self._delay_s = min(self._delay_s * 2, _LONGEST_DELAY_S)
        self._poller.later(delay_s, lambda: self._start(hello, stderr))

    def _start(self, hello: dict[str, Any], stderr: int) -> None:
        if self.is_connected:
            os.close(stderr)
            return

        since = self._since

        def ended(_: int) -> None:
            if self._since == since:
                self.lost(hello, kept)
            else:
                # One has connected meanwhile: how that one ends is told by its connection.
                os.close(kept)

        argv = hello["daemon_argv"]
        kept = os.dup(stderr)
        null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        try:
            actions = [
                (os.POSIX_SPAWN_DUP2, null, 0), (os.POSIX_SPAWN_DUP2, stderr, 1), (os.POSIX_SPAWN_DUP2, 1, 2)
            ]  # fmt: skip
            pid = os.posix_spawnp(
                argv[0], argv, hello["daemon_env"], file_actions=actions, setsid=True, setsigdef=IGNORED
            )
        except OSError:
            # No memory, say, or its program is being replaced just now.
            self.lost(hello, kept)
            return
        finally:
            os.close(null)
            os.close(stderr)
        self._children.expect(pid, ended)
