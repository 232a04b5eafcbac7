"""The last steps before a program: who it runs as, with which rights, from where.

The order is the kernel's and runc's: what needs privilege first, seccomp as late as its own
needs allow, capabilities last.
"""

import errno
import os
import stat
from typing import Any, NamedTuple

from barque.kernel import caps, limits, process, seccomp
from barque.runtime.channel import LISTENER, StepError, errno_text
from barque.runtime.root import Context, is_null

NEW_LISTENER = 8
"""SECCOMP_FILTER_FLAG_NEW_LISTENER: attaching returns the descriptor of a listener."""


class Capabilities(NamedTuple):
    """The five sets as bits."""

    bounding: int
    effective: int
    inheritable: int
    permitted: int
    ambient: int


class Identity(NamedTuple):
    """User, groups, rights and confinement of the program."""

    uid: int
    gid: int
    groups: tuple[int, ...] | None
    umask: int
    cwd: str
    capabilities: Capabilities | None
    no_new_privileges: bool
    seccomp: bytes | None
    seccomp_flags: int
    label: bytes
    label_name: str
    outside: bool = False
    """True in a process without a root of its own."""

    def describe(self) -> str:
        """Say what the step does."""
        return f"become {self.uid}:{self.gid} in {self.cwd}"

    def run(self, context: Context) -> None:
        """Do it; only exec may follow."""
        _own_stdio(self.uid, self.gid)
        if self.capabilities:
            self._drop_bounding()
        late = self._change_folder(last=False)
        process.prctl(process.PR_SET_KEEPCAPS, 1)
        self._become()
        if late:
            self._change_folder(last=True)
        self._check_folder()
        os.umask(self.umask)

    def _drop_bounding(self) -> None:
        assert self.capabilities
        try:
            caps.drop_bounding(self.capabilities.bounding)
        except OSError as error:
            raise StepError(f"unable to apply bounding set: {error}", error.errno or 0) from None

    def _become(self) -> None:
        try:
            process.set_ids(self.uid, self.gid, None if self.groups is None else list(self.groups))
        except OSError as error:
            raise StepError(
                f"unable to setup user: {self.uid}:{self.gid}: {errno_text(error.errno)}",
                error.errno or 0,
            ) from None

    def _change_folder(self, *, last: bool) -> bool:
        """Change to the working folder; say whether to try again as the program's user."""
        try:
            os.chdir(self.cwd)
        except OSError as error:
            if error.errno == errno.EACCES and not last:
                return True
            raise StepError(
                f'chdir to cwd ("{self.cwd}") set in config.json failed: {errno_text(error.errno)}',
                error.errno or 0,
            ) from None
        return False

    def _check_folder(self) -> None:
        try:
            inside = os.getcwd().startswith("/")
        except OSError:
            inside = False
        if not inside:
            raise StepError(
                "current working directory is outside of container mount namespace root"
                " -- possible container breakout detected"
            )

    def finish(self, context: Context) -> None:
        """Take the last rights away: no step may follow but exec."""
        if self.label:
            _write_label(context.attributes, self.label, self.label_name)
        if self.no_new_privileges:
            process.prctl(process.PR_SET_NO_NEW_PRIVS, 1)
        own = self.capabilities
        if self.seccomp is not None and not self.no_new_privileges:
            # Attaching needs CAP_SYS_ADMIN in effect, which setuid has taken away.
            _, permitted, inheritable = caps.sets()
            caps.set_sets(permitted, permitted, inheritable)
            self._attach(context)
        if own is not None:
            refused = self._apply(own)
            if refused:
                context.channel.send(b"W", f"ambient capabilities not set: {', '.join(refused)}")
        if self.seccomp is not None and self.no_new_privileges:
            self._attach(context)

    def _apply(self, own: Capabilities) -> list[str]:
        _, permitted, _ = caps.sets()
        # What the caller itself lacks cannot be given, as runc leaves it out.
        allowed = own.permitted & permitted
        try:
            caps.set_sets(own.effective & allowed, allowed, own.inheritable & permitted)
        except OSError as error:
            raise StepError(f"unable to apply caps: {error}", error.errno or 0) from None
        return caps.set_ambient(own.ambient & allowed & own.inheritable)

    def _attach(self, context: Context) -> None:
        assert self.seccomp is not None
        try:
            listener = seccomp.attach(self.seccomp, self.seccomp_flags)
        except OSError as error:
            raise StepError(f"unable to init seccomp: {errno_text(error.errno)}", error.errno or 0) from None
        if self.seccomp_flags & NEW_LISTENER:
            context.channel.send_fd(LISTENER, listener)
            os.close(listener)


def _own_stdio(uid: int, gid: int) -> None:
    """Give the program's user its stdio, so that /dev/stdout can be opened again."""
    for fd in (0, 1, 2):
        try:
            if is_null(fd):
                _own_null(fd)
                continue
            status = os.fstat(fd)
            if (status.st_uid, status.st_gid) == (uid, gid):
                continue
            # A terminal stays with the group of terminals.
            os.fchown(fd, uid, -1 if stat.S_ISCHR(status.st_mode) else gid)
        except OSError:
            # Files of the caller on read-only or foreign file systems keep their owner.
            continue


def _own_null(fd: int) -> None:
    """Put the container's null device where the caller's is, whose mode its root could change for the host.

    Where the container has none, input is at its end at once.
    """
    flags = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    try:
        own = os.open("/dev/null", os.O_RDWR | flags)
    except OSError:
        own = -1
    try:
        if own >= 0 and is_null(own):
            os.set_blocking(own, True)
            os.dup2(own, fd)
        elif fd == 0:
            read, write = os.pipe2(os.O_CLOEXEC)
            os.close(write)
            os.dup2(read, fd)
            os.close(read)
    finally:
        if own >= 0:
            os.close(own)


def _write_label(fd: int, label: bytes, name: str) -> None:
    try:
        os.write(fd, label)
    except OSError as error:
        raise StepError(f"unable to apply {name}: {errno_text(error.errno)}", error.errno or 0) from None


class OpenLabel(NamedTuple):
    """Open the file that takes the security label of the next exec, while /proc is the host's."""

    path: str

    def describe(self) -> str:
        """Say what the step does."""
        return f"open {self.path}"

    def run(self, context: Context) -> None:
        """Do it."""
        context.attributes = os.open(self.path, os.O_WRONLY | os.O_CLOEXEC)


class Limits(NamedTuple):
    """Set the resource limits; what may not be raised is cut with a warning."""

    values: tuple[tuple[str, int, int], ...]

    def describe(self) -> str:
        """Say what the step does."""
        return f"set {len(self.values)} resource limits"

    def run(self, context: Context) -> None:
        """Do it, or have the parent do it where this process lost the right to."""
        if context.userns:
            context.channel.ask("rlimits")
            return
        for name, soft, hard in self.values:
            try:
                warning = limits.set_rlimit_clamped(0, name, soft, hard)
            except OSError as error:
                raise StepError(
                    f"error setting rlimit type {name}: {errno_text(error.errno)}", error.errno or 0
                ) from None
            if warning:
                context.channel.send(b"W", warning)


class Scheduling(NamedTuple):
    """Scheduler, I/O priority, personality, CPU affinity."""

    scheduler: tuple[int, int, int, int, tuple[int, int, int]] | None
    io_priority: tuple[int, int] | None
    personality: int | None
    cpus: frozenset[int] | None = None

    def describe(self) -> str:
        """Say what the step does."""
        return "set scheduler, I/O priority and personality"

    def run(self, context: Context) -> None:
        """Do it."""
        if self.cpus:
            limits.set_affinity(set(self.cpus))
        if self.scheduler:
            limits.set_scheduler(*self.scheduler)
        if self.io_priority:
            limits.set_io_priority(*self.io_priority)
        if self.personality is not None:
            limits.set_personality(self.personality)


class MemoryPolicy(NamedTuple):
    """Choose the memory nodes that pages come from."""

    mode: int
    nodes: int

    def describe(self) -> str:
        """Say what the step does."""
        return "set the memory policy"

    def run(self, context: Context) -> None:
        """Do it."""
        limits.set_memory_policy(self.mode, self.nodes)


def find_program(name: str, env: list[str]) -> bytes:
    """Return the path that exec takes, looked up in PATH of `env` as the program's user.

    Raises:
        StepError: in runc's words; ENOENT for 127, EACCES or EISDIR for 126.
    """
    if "/" in name:
        problem = _not_executable(name)
        if problem == errno.ENOENT:
            raise StepError(f'exec: "{name}": stat {name}: no such file or directory', problem)
        if problem:
            raise StepError(f'exec: "{name}": {errno_text(problem)}', problem)
        return os.fsencode(name)
    path = ""
    for entry in env:
        if entry.startswith("PATH="):
            path = entry[5:]
    if name:
        for folder in path.split(":") if path else []:
            candidate = f"{folder or '.'}/{name}"
            if not _not_executable(candidate):
                return os.fsencode(candidate)
    raise StepError(f'exec: "{name}": executable file not found in $PATH', errno.ENOENT)


def _not_executable(path: str) -> int:
    """Return why `path` cannot be executed, 0 when it can."""
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        return error.errno or errno.ENOENT
    if stat.S_ISDIR(mode):
        return errno.EISDIR
    if not mode & 0o111 or not os.access(path, os.X_OK, effective_ids=True):
        return errno.EACCES
    return 0


def home_of(uid: int) -> str:
    """Return the home of `uid` by the container's /etc/passwd, "/" when it has none there."""
    try:
        with open("/etc/passwd", "rb") as table:
            for line in table.read(1 << 20).splitlines():
                fields = line.split(b":")
                if len(fields) >= 6 and fields[2] == b"%d" % uid:
                    return os.fsdecode(fields[5]) or "/"
    except OSError:
        pass
    return "/"


def parse_capabilities(sets: dict[str, Any] | None) -> tuple[Capabilities | None, list[str]]:
    """Turn process.capabilities into bits; also return warnings about unknown names."""
    if sets is None:
        return None, []
    unknown: list[str] = []
    bits = []
    for kind in Capabilities._fields:
        mask, strange = caps.mask(sets.get(kind) or [])
        bits.append(mask)
        unknown += [name for name in strange if name not in unknown]
    warnings = [f"ignoring unknown or unavailable capabilities: {', '.join(unknown)}"] if unknown else []
    return Capabilities(*bits), warnings
