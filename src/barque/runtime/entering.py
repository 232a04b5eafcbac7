"""How a child comes into its namespaces and its cgroup: by clone, by setns, in one or two stages."""

import json
import os
from collections.abc import Callable
from typing import Any, NamedTuple

from barque.base.errors import KernelError
from barque.kernel import namespaces, process
from barque.kernel.namespaces import KINDS
from barque.runtime import channel as messages
from barque.runtime.channel import Channel, StepError
from barque.runtime.child import Child
from barque.runtime.root import Context

# The cgroup namespace begins where the process is, so it comes after joining the cgroup; the
# time namespace takes its offsets only while nobody is in it.
_AFTER_CLONE = frozenset(("cgroup", "time"))


class Entering(NamedTuple):
    """Which namespaces are new, which are joined, and the cgroup."""

    new: frozenset[str]
    joined: dict[str, int]
    cgroup: Any
    cgroup_fd: int
    mapped: bool
    time_offsets: str

    def staged(self) -> bool:
        """Say whether another process must join before the child can be cloned."""
        if "user" in self.joined:
            return bool(self.new) or "pid" in self.joined
        others = bool(self.joined) or (self.cgroup is not None and self.cgroup_fd < 0)
        return "user" in self.new and others

    def clone(self, child: Child, run: Callable[[], None], channel_fd: int) -> None:
        """Make the child, which calls `run`; fill in its pid and pidfd.

        Raises:
            KernelError: a namespace cannot be joined or made.
            StepError: the stage failed.
        """
        if self.staged():
            self._clone_in_stages(child, run, channel_fd)
            return
        own = -1
        if "pid" in self.joined:
            own = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
            _join("pid", self.joined["pid"])
        try:
            cloned = process.clone3(self._flags() | process.CLONE_CLEAR_SIGHAND, self.cgroup_fd)
            if cloned.pid == 0:
                _be(run)
        finally:
            if own >= 0:
                namespaces.setns(own, process.CLONE_NEWPID)
                os.close(own)
        child.pid, child.pidfd = cloned

    def _flags(self) -> int:
        flags = 0
        for kind in self.new - _AFTER_CLONE:
            flags |= KINDS[kind][0]
        return flags

    def _clone_in_stages(self, child: Child, run: Callable[[], None], channel_fd: int) -> None:
        stage = process.clone3(process.CLONE_CLEAR_SIGHAND, self.cgroup_fd)
        if stage.pid == 0:
            _be(lambda: self._stage(run, channel_fd))
        try:
            message = child.receive(block=True) or b""
        finally:
            os.waitpid(stage.pid, 0)
            os.close(stage.pidfd)
        if message[:1] != messages.PID:
            raise _stage_error(message)
        child.pid = int(message[1:])
        child.pidfd = os.pidfd_open(child.pid)

    def _stage(self, run: Callable[[], None], channel_fd: int) -> None:
        channel = Channel(channel_fd)
        try:
            if self.cgroup is not None and self.cgroup_fd < 0:
                self.cgroup.join_self()
            # The user namespace last: in it the rights over the others are gone.
            for kind in sorted(self.joined, key=lambda kind: kind == "user"):
                _join(kind, self.joined[kind])
            cloned = process.clone3(self._flags() | process.CLONE_PARENT | process.CLONE_CLEAR_SIGHAND)
        except BaseException as error:
            channel.fail("namespaces", error)
            os._exit(1)
        if cloned.pid == 0:
            run()
        channel.send(messages.PID, str(cloned.pid))
        os._exit(0)

    def steps(self) -> list["Join | Ids | CgroupNamespace | TimeNamespace"]:
        """Return what the child itself still has to do."""
        staged = self.staged()
        steps: list[Join | Ids | CgroupNamespace | TimeNamespace] = []
        joined = {} if staged else {k: v for k, v in self.joined.items() if k != "pid"}
        cgroup = None if staged or self.cgroup_fd >= 0 else self.cgroup
        if joined or cgroup is not None:
            steps.append(Join(tuple(joined.items()), cgroup))
        if "user" in self.new or "user" in self.joined:
            steps.append(Ids("user" in self.new))
        if "cgroup" in self.new:
            steps.append(CgroupNamespace())
        if "time" in self.new:
            steps.append(TimeNamespace(bool(self.time_offsets)))
        return steps


def _stage_error(message: bytes) -> StepError:
    if message[:1] == messages.FAILURE:
        _, err, text = json.loads(message[1:])
        return StepError(text, err)
    return StepError("the process that joins namespaces ended early")


def _be(run: Callable[[], None]) -> None:
    """Be a child: whatever happens, never return into the parent's code."""
    try:
        run()
    finally:
        os._exit(1)


def _join(kind: str, fd: int) -> None:
    try:
        namespaces.setns(fd, KINDS[kind][0])
    except KernelError as error:
        raise KernelError(error.errno or 0, f"setns {kind}") from None


class Join(NamedTuple):
    """Join the cgroup, then namespaces."""

    joined: tuple[tuple[str, int], ...]
    cgroup: Any

    def describe(self) -> str:
        """Say what the step does."""
        return "join the cgroup and namespaces"

    def run(self, context: Context) -> None:
        """Do it."""
        if self.cgroup is not None:
            self.cgroup.join_self()
        for kind, fd in sorted(self.joined, key=lambda item: item[0] == "user"):
            _join(kind, fd)
            os.close(fd)


class Ids(NamedTuple):
    """Become root of the user namespace, once the parent has mapped its ids."""

    new: bool

    def describe(self) -> str:
        """Say what the step does."""
        return "become root of the user namespace"

    def run(self, context: Context) -> None:
        """Do it."""
        if self.new:
            context.channel.wait(messages.GO)
        process.set_ids(0, 0, [])


class CgroupNamespace(NamedTuple):
    """Make the process's cgroup the root of what it sees."""

    def describe(self) -> str:
        """Say what the step does."""
        return "make a cgroup namespace"

    def run(self, context: Context) -> None:
        """Do it."""
        namespaces.unshare(process.CLONE_NEWCGROUP)


class TimeNamespace(NamedTuple):
    """Enter a new time namespace after its offsets are set."""

    offsets: bool

    def describe(self) -> str:
        """Say what the step does."""
        return "make a time namespace"

    def run(self, context: Context) -> None:
        """Do it."""
        namespaces.unshare(process.CLONE_NEWTIME)
        if self.offsets:
            context.channel.ask("time")
        fd = os.open("/proc/self/ns/time_for_children", os.O_RDONLY | os.O_CLOEXEC)
        namespaces.setns(fd, process.CLONE_NEWTIME)
        os.close(fd)
