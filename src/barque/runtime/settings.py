"""Steps that set what is neither mount nor identity: names, sysctls, scores, hooks."""

import json
import os
from typing import Any, NamedTuple

from barque.kernel import libc, process
from barque.kernel.interfaces import bring_up
from barque.runtime import hooks
from barque.runtime.channel import StepError, errno_text
from barque.runtime.root import Context, make_readonly, mask


class Session(NamedTuple):
    """Leave the caller's session and its terminal."""

    def describe(self) -> str:
        """Say what the step does."""
        return "start a session"

    def run(self, context: Context) -> None:
        """Do it."""
        os.setsid()


class Keyring(NamedTuple):
    """Enter a session keyring of the container's own."""

    name: str

    def describe(self) -> str:
        """Say what the step does."""
        return "join a session keyring"

    def run(self, context: Context) -> None:
        """Do it."""
        process.join_session_keyring(self.name)


class LoopbackUp(NamedTuple):
    """Bring `lo` up in a new network namespace."""

    def describe(self) -> str:
        """Say what the step does."""
        return "bring the loopback interface up"

    def run(self, context: Context) -> None:
        """Do it."""
        bring_up("lo")


class ResourceControl(NamedTuple):
    """Be put into a class of service by the parent, who sees the host's resctrl."""

    def describe(self) -> str:
        """Say what the step does."""
        return "join a class of service"

    def run(self, context: Context) -> None:
        """Do it."""
        context.channel.ask("resctrl")


class NetDevices(NamedTuple):
    """Take over interfaces of the host's network namespace, which only the parent can hand out."""

    def describe(self) -> str:
        """Say what the step does."""
        return "move network devices"

    def run(self, context: Context) -> None:
        """Do it."""
        context.channel.ask("devices")


class Names(NamedTuple):
    """Set host and domain name."""

    host: str
    domain: str

    def describe(self) -> str:
        """Say what the step does."""
        return "set the host name"

    def run(self, context: Context) -> None:
        """Do it."""
        for call, name in ((libc.sethostname, self.host), (libc.setdomainname, self.domain)):
            raw = name.encode()
            if raw and call(raw, len(raw)):
                raise libc.fail("sethostname" if name == self.host else "setdomainname", name)


class OomScore(NamedTuple):
    """Set oom_score_adj; below what is allowed it is cut with a warning."""

    score: int

    def describe(self) -> str:
        """Say what the step does."""
        return f"set oom_score_adj to {self.score}"

    def run(self, context: Context) -> None:
        """Do it, or have the parent do it where /proc is not this process's to write."""
        if context.userns:
            context.channel.ask("oom")
            return
        warning = set_oom_score("self", self.score)
        if warning:
            context.channel.send(b"W", warning)


def set_oom_score(pid: int | str, score: int) -> str | None:
    """Write oom_score_adj of `pid`; return a warning when it could not be lowered that far.

    Raises:
        OSError: ENOENT when the process is gone, EINVAL out of range.
    """
    fd = os.open(f"/proc/{pid}/oom_score_adj", os.O_RDWR | os.O_CLOEXEC)
    try:
        os.write(fd, str(score).encode())
    except PermissionError:
        now = os.pread(fd, 16, 0).decode().strip()
        return f"oom_score_adj stays {now} instead of {score}: no permission to lower it"
    finally:
        os.close(fd)
    return None


class Sysctls(NamedTuple):
    """Write kernel parameters of the container's namespaces."""

    values: tuple[tuple[str, str], ...]

    def describe(self) -> str:
        """Say what the step does."""
        return "set sysctls"

    def run(self, context: Context) -> None:
        """Do it."""
        for key, value in self.values:
            path = "/proc/sys/" + sysctl_path(key)
            try:
                fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
                try:
                    os.write(fd, str(value).encode())
                finally:
                    os.close(fd)
            except OSError as error:
                raise StepError(f"error setting sysctl {key}: {errno_text(error.errno)}", error.errno or 0) from None


def sysctl_path(key: str) -> str:
    """Return the path below /proc/sys: the first separator decides which of . and / separates."""
    for letter in key:
        if letter == "/":
            return key
        if letter == ".":
            # A dot inside a name, as in an interface's, is written as a slash.
            return key.translate(str.maketrans("./", "/."))
    return key


class Hooks(NamedTuple):
    """Call hooks; those before the container's own createContainer are the parent's to call."""

    kind: str
    hooks: tuple[dict[str, Any], ...]

    def describe(self) -> str:
        """Say what the step does."""
        return f"{self.kind} hooks"

    def run(self, context: Context) -> None:
        """Do it."""
        if self.kind == "createContainer":
            context.channel.ask("hooks")
        if self.hooks:
            state = json.loads(context.channel.ask(f"state {self.kind}"))
            hooks.run_all(list(self.hooks), self.kind, state)


class ReadonlyPaths(NamedTuple):
    """Make trees read-only."""

    paths: tuple[str, ...]

    def describe(self) -> str:
        """Say what the step does."""
        return "make paths read-only"

    def run(self, context: Context) -> None:
        """Do it."""
        for path in self.paths:
            make_readonly(context, path)


class MaskPaths(NamedTuple):
    """Hide paths."""

    paths: tuple[str, ...]

    def describe(self) -> str:
        """Say what the step does."""
        return "hide paths"

    def run(self, context: Context) -> None:
        """Do it."""
        for path in self.paths:
            mask(context, path)
