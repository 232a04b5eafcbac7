"""Start another process in a running container (exec).

The process is a direct child of the caller, which alone learns its exit status. It joins every
namespace in which the container's first process differs from the caller, and its cgroup.
"""

import errno
import fcntl
import os
import socket
from typing import Any, NamedTuple

from barque.base.errors import KernelError
from barque.kernel import namespaces, process
from barque.kernel.namespaces import KINDS
from barque.runtime import init, launch, plan
from barque.runtime.channel import StepError
from barque.runtime.child import Child
from barque.runtime.root import Context
from barque.runtime.scheduling import process_steps
from barque.runtime.settings import Keyring, OomScore, Session, set_oom_score


class JoinRequest(NamedTuple):
    """What to run, and in which container.

    `pid` and `pidfd` are of the container's first process (`pidfd` -1: it is opened here),
    `process` is an OCI process. `seccomp` is a compiled program, `profile` the `linux.seccomp`
    object it came from and `state` the container's, both for a filter that asks a listener.
    `cgroup` is where the process is put; None leaves it in the caller's.
    """

    pid: int
    process: dict[str, Any]
    pidfd: int = -1
    stdio: tuple[int, int, int] = (0, 1, 2)
    seccomp: bytes | None = None
    profile: dict[str, Any] | None = None
    state: dict[str, Any] | None = None
    cgroup: Any = None
    keep_fds: tuple[int, ...] = ()
    container_id: str = ""
    new_keyring: bool = False
    hold: bool = False


class JoinAll(NamedTuple):
    """Join the cgroup, then all namespaces of the container at once."""

    pidfd: int
    flags: int
    cgroup: Any

    def describe(self) -> str:
        """Say what the step does."""
        return "join the container's namespaces"

    def run(self, context: Context) -> None:
        """Do it."""
        if self.cgroup is not None:
            self.cgroup.join_self()
        if self.flags:
            namespaces.setns(self.pidfd, self.flags)
        if self.flags & process.CLONE_NEWUSER:
            process.set_ids(0, 0, None)
        context.root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


def join(request: JoinRequest) -> Child:
    """Clone a process into the container; it is followed with `progress` as after `launch`.

    Raises:
        StepError: the request cannot be met on this kernel.
        KernelError: ESRCH when the container is gone.
    """
    # Above what the program is handed, so that the child finds it under its number.
    lowest = 3 + len(request.keep_fds)
    if request.pidfd >= 0:
        pidfd = fcntl.fcntl(request.pidfd, fcntl.F_DUPFD_CLOEXEC, lowest)
    else:
        opened = os.pidfd_open(request.pid)
        pidfd = fcntl.fcntl(opened, fcntl.F_DUPFD_CLOEXEC, lowest)
        os.close(opened)
    cgroup_fd = request.cgroup.dir_fd() if request.cgroup is not None else -1
    try:
        return _join(request, pidfd, cgroup_fd)
    except KernelError as error:
        if cgroup_fd < 0 or error.errno not in (errno.EBUSY, errno.EOPNOTSUPP):
            raise
        # The container hands its limits on to cgroups below, and moved its processes there.
        os.close(cgroup_fd)
        cgroup_fd = request.cgroup.dir_fd_beside(request.pid)
        return _join(request, pidfd, cgroup_fd)
    finally:
        os.close(pidfd)
        if cgroup_fd >= 0:
            os.close(cgroup_fd)


def _join(request: JoinRequest, pidfd: int, cgroup_fd: int) -> Child:
    flags = _differing(request.pid)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    child = Child(ours, _Server(request))
    process.set_dumpable(False)
    own = -1
    try:
        with theirs:
            compiled = _compile(request, pidfd, flags, cgroup_fd >= 0)
            if flags & process.CLONE_NEWPID:
                own = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
                namespaces.setns(pidfd, process.CLONE_NEWPID)
            try:
                cloned = process.clone3(process.CLONE_CLEAR_SIGHAND, cgroup_fd)
                if cloned.pid == 0:
                    _be(compiled, theirs.fileno())
            finally:
                if own >= 0:
                    namespaces.setns(own, process.CLONE_NEWPID)
                    os.close(own)
    except BaseException:
        child.close()
        raise
    child.pid, child.pidfd = cloned
    return child


def _be(compiled: init.Plan, channel_fd: int) -> None:
    try:
        init.run(compiled, channel_fd)
    finally:
        os._exit(1)


def _differing(pid: int) -> int:
    """Return the clone flags of the namespaces in which `pid` is not where we are."""
    flags = 0
    for kind, (flag, _) in KINDS.items():
        try:
            theirs = namespaces.identity(kind, pid)
        except FileNotFoundError:
            if not os.path.exists(f"/proc/{pid}"):
                raise KernelError(3, "exec into a container that is not running") from None
            continue
        if theirs != namespaces.identity(kind):
            flags |= flag
    return flags


def _compile(request: JoinRequest, pidfd: int, flags: int, in_cgroup: bool) -> init.Plan:
    oci = request.process
    userns = bool(flags & process.CLONE_NEWUSER)
    steps: list[init.Step] = [Session()]
    if request.new_keyring:
        steps.append(Keyring(f"_ses.{request.container_id}"))
    label_step, label, label_name = plan.label_of(oci)
    if label_step:
        steps.append(label_step)
    if oci.get("oomScoreAdj") is not None:
        steps.append(OomScore(oci["oomScoreAdj"]))
    cgroup = None if in_cgroup else request.cgroup
    steps.append(JoinAll(pidfd, flags & ~process.CLONE_NEWPID, cgroup))
    if oci.get("terminal"):
        steps.append(plan.console_step(oci, mount_console=False))
    steps += process_steps(oci)
    flag_bits = plan.seccomp_flags(request.profile) if request.seccomp is not None else 0
    identity, warnings = plan.make_identity(oci, request.seccomp, flag_bits, label, label_name)
    env = process.unique_env(oci.get("env") or [])
    return init.Plan(
        tuple(steps),
        identity,
        oci["args"],
        env,
        process.prepare_program(oci["args"], env),
        None if oci.get("terminal") else request.stdio,
        request.keep_fds,
        (pidfd,),
        request.hold,
        -1,
        userns,
        launch.ignored_signals(),
        tuple(warnings),
    )


class _Server:
    """What the parent does when a joining process asks."""

    __slots__ = ("oci", "profile", "state")

    def __init__(self, request: JoinRequest) -> None:
        self.oci = request.process
        self.profile = request.profile or {}
        self.state = request.state or {}

    def __call__(self, child: Child, request: str) -> str:
        """Serve one request.

        Raises:
            OSError: the kernel refuses.
            StepError: the request is unknown.
        """
        if request == "rlimits":
            launch.set_rlimits(child, self.oci)
        elif request == "oom":
            warning = set_oom_score(child.pid, self.oci["oomScoreAdj"])
            if warning:
                child.warnings.append(warning)
        elif request == "listener":
            launch.pass_listener(child, self.profile, self.state)
        else:
            raise StepError(f"unknown request: {request}")
        return ""
