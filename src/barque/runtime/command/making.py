"""create and run of `barque runtime`: from a bundle to a container's first process."""

import os
import select
import time
from typing import Any

from barque.base import times
from barque.base.errors import ConflictError, InvalidInputError
from barque.kernel import process as kernel_process, seccomp
from barque.runtime import cgroups, intel_rdt, spec as configs, state
from barque.runtime.channel import StepError
from barque.runtime.child import Child, Failed, Pending, Progress, progress
from barque.runtime.command import terminal
from barque.runtime.command.context import Options, RuntimeContext
from barque.runtime.command.lifecycle import after_start, destroy, dispose, empty
from barque.runtime.command.options import integer
from barque.runtime.launch import LaunchRequest, launch
from barque.runtime.state import Container

_MAX_FDS = 4096
_FAIL_UNKNOWN = "run.oci.seccomp_fail_unknown_syscall"


def filter_of(profile: dict[str, Any] | None, config: dict[str, Any]) -> bytes | None:
    """Return the compiled filter of a `linux.seccomp` object.

    Raises:
        InvalidInputError: it is malformed, or names a call that we do not know where an annotation forbids that.
    """
    if not profile:
        return None
    if (config.get("annotations") or {}).get(_FAIL_UNKNOWN, "0") not in ("0", ""):
        unknown = seccomp.unknown_calls(profile)
        if unknown:
            raise InvalidInputError(f"seccomp profile: unknown system calls: {', '.join(unknown)}")
    return seccomp.compile_profile(profile)


def follow(child: Child) -> Progress:
    """Wait until the child is held, runs, or has failed."""
    poller = select.poll()
    poller.register(child.channel, select.POLLIN)
    while True:
        poller.poll()
        outcome = progress(child)
        if not isinstance(outcome, Pending):
            return outcome


def extra_fds(options: Options) -> tuple[int, ...]:
    """Return the descriptors that --preserve-fds and socket activation hand to the program, -1 for a closed one.

    Raises:
        InvalidInputError: their number is not one.
    """
    listening = os.environ.get("LISTEN_FDS") or "0"
    count = integer(options, "preserve_fds")
    if not listening.isdigit() or not 0 <= count <= _MAX_FDS or int(listening) > _MAX_FDS:
        raise InvalidInputError("--preserve-fds and LISTEN_FDS must be small whole numbers")
    return tuple(fd if _is_open(fd) else -1 for fd in range(3, 3 + count + int(listening)))


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def _configuration(options: Options) -> tuple[str, dict[str, Any]]:
    bundle = os.path.abspath(options.get("bundle") or ".")
    path = options.get("config") or "config.json"
    path = os.path.join(bundle, path)
    try:
        with open(path, "rb") as file:
            raw = file.read()
    except FileNotFoundError:
        raise InvalidInputError(f"JSON specification file {path} not found") from None
    config = configs.parse(raw, path)
    if os.environ.get("LISTEN_FDS") and config.get("process"):
        config["process"].setdefault("env", []).extend([f"LISTEN_FDS={os.environ['LISTEN_FDS']}", "LISTEN_PID=1"])
    return bundle, config


def _cgroup_path(context: RuntimeContext, config: dict[str, Any], container_id: str) -> str:
    if not context.with_cgroups:
        return ""
    path = (config.get("linux") or {}).get("cgroupsPath") or f"/{container_id}"
    if path.count(":") == 2 and not path.startswith("/"):
        raise InvalidInputError(f"cgroupsPath {path!r} is for systemd: give a path")
    return str(path)


def _make_cgroup(path: str, config: dict[str, Any], warn: list[str]) -> "cgroups.Cgroup | None":
    if not path:
        return None
    group = cgroups.open_manager(path)
    resources = dict((config.get("linux") or {}).get("resources") or {})
    if resources.get("devices"):
        # What every container needs, whatever the rules before say: its /dev and its terminals.
        resources["devices"] = [*resources["devices"], *_default_devices()]
    if group.exists() and group.processes():
        raise ConflictError(f"container's cgroup is not empty: {len(group.processes())} process(es) found in {path}")
    warn += group.create(resources)
    return group


def _default_devices() -> list[dict[str, Any]]:
    """Return the rules that runc adds to those of a configuration."""
    rules: list[dict[str, Any]] = [{"allow": True, "type": kind, "access": "m"} for kind in "cb"]
    numbers = ((1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 2), (136, None))
    for major, minor in numbers:
        rule: dict[str, Any] = {"allow": True, "type": "c", "major": major, "access": "rwm"}
        if minor is not None:
            rule["minor"] = minor
        rules.append(rule)
    return rules


class Begun:
    """A container whose first process exists."""

    def __init__(self, container: Container, child: Child, console: int, warnings: list[str]) -> None:
        self.container = container
        self.child = child
        self.console = console
        self.warnings = warnings


def begin(context: RuntimeContext, container_id: str, options: Options, *, hold: bool, detach: bool) -> Begun:
    """Make a container up to its program's exec, held or not.

    Raises:
        BarqueError: refused; nothing is left behind.
    """
    bundle, config = _configuration(options)
    process = config.get("process") or _no_process(hold=hold)
    wants_terminal = bool(process.get("terminal"))
    terminal.check_console(wants_terminal, detach, options.get("console_socket") or "")
    keep = extra_fds(options)
    program = filter_of((config.get("linux") or {}).get("seccomp"), config)
    path = _cgroup_path(context, config, container_id)
    container = Container.make(context.root, container_id)
    group: cgroups.Cgroup | None = None
    warnings: list[str] = []
    hold_fd = -1
    try:
        group = _make_cgroup(path, config, warnings)
        if hold:
            os.mkfifo(container.fifo, 0o600)
            hold_fd = os.open(container.fifo, os.O_RDWR | os.O_CLOEXEC)
        child = launch(LaunchRequest(
            spec={**config, "process": process}, bundle=bundle, seccomp=program, cgroup=group, hold=hold, hold_fd=hold_fd, keep_fds=keep,
            container_id=container_id, pivot=not options.get("no_pivot"),
            new_keyring=not options.get("no_new_keyring"),
        ))  # fmt: skip
        outcome = follow(child)
        if isinstance(outcome, Failed):
            os.waitpid(child.pid, 0)
            child.close()
            if child.resctrl:
                intel_rdt.remove(child.resctrl)
            raise StepError(outcome.message, outcome.errno)
    except BaseException:
        if group is not None:
            empty(group)
        container.remove()
        raise
    finally:
        if hold_fd >= 0:
            os.close(hold_fd)
    assert not isinstance(outcome, Pending)
    _record(container, config, bundle, child, path)
    return Begun(container, child, outcome.console_fd, [*warnings, *outcome.warnings])


def _no_process(*, hold: bool) -> dict[str, Any]:
    """Return what stands for the process of a configuration without one, which cannot be started.

    Raises:
        InvalidInputError: it would be started at once.
    """
    if not hold:
        raise InvalidInputError("process: is missing: nothing can be started")
    return {"args": [], "cwd": "/"}


def _record(container: Container, config: dict[str, Any], bundle: str, child: Child, cgroup: str) -> None:
    container.config = config
    root = config["root"]["path"]
    container.record = {
        "pid": child.pid,
        "start_time": state.start_time(child.pid),
        "bundle": bundle,
        "rootfs": os.path.join(bundle, root),
        "created": times.format_ns(time.time_ns()),
        "cgroup": cgroup,
        "resctrl": child.resctrl,
        "owner": "root" if os.geteuid() == 0 else str(os.geteuid()),
    }
    container.save()


def _publish(begun: Begun, options: Options) -> None:
    """Hand over the terminal and write the pid file; a failure ends the container."""
    if options.get("console_socket") and begun.console >= 0:
        terminal.send_console(options["console_socket"], begun.console)
        begun.console = -1
    if options.get("pid_file"):
        from barque.base.files import write_atomic

        write_atomic(os.path.abspath(options["pid_file"]), str(begun.child.pid).encode(), durable=False)


def _tell(context: RuntimeContext, begun: Begun) -> None:
    for warning in begun.warnings:
        context.log.write("warning", warning)


def create(context: RuntimeContext, container_id: str, options: Options) -> int:
    """Make a container whose program waits for `start`."""
    begun = begin(context, container_id, options, hold=True, detach=True)
    _tell(context, begun)
    try:
        _publish(begun, options)
    except BaseException:
        destroy(begun.container, force=True)
        raise
    return 0


def run(context: RuntimeContext, container_id: str, options: Options) -> int:
    """Make and start a container; in the foreground return its exit code and delete it."""
    detach = bool(options.get("detach"))
    if not detach:
        kernel_process.set_child_subreaper()
    begun = begin(context, container_id, options, hold=False, detach=detach)
    _tell(context, begun)
    try:
        _publish(begun, options)
        after_start(begun.container)
    except BaseException:
        destroy(begun.container, force=True)
        raise
    if detach:
        return 0
    if begun.console >= 0:
        with terminal.Relay(begun.console) as relay:
            code = terminal.wait_foreground(begun.child.pid, begun.child.pidfd, relay)
    else:
        code = terminal.wait_foreground(begun.child.pid, begun.child.pidfd, None)
    if not options.get("keep"):
        dispose(context, begun.container)
    return code


