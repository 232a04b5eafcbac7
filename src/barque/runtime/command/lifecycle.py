"""create, run, start, kill, delete, pause and resume of `barque runtime`."""

import json
import os
import select
import signal
import time
from typing import Any

from barque.base import times
from barque.base.errors import BarqueError, ConflictError, InvalidInputError, NotFoundError
from barque.kernel import process, seccomp
from barque.runtime import cgroups, hooks, spec as configs, state
from barque.runtime.channel import StepError
from barque.runtime.child import Child, Failed, Pending, Progress, progress
from barque.runtime.command import terminal
from barque.runtime.command.options import integer
from barque.runtime.launch import LaunchRequest, launch
from barque.runtime.state import Container

Options = dict[str, Any]
_DELETE_TIMEOUT_S = 10.0


class RuntimeContext:
    """What the global options said."""

    def __init__(self, root: str, *, with_cgroups: bool) -> None:
        self.root = root
        self.with_cgroups = with_cgroups


def filter_of(profile: dict[str, Any] | None) -> bytes | None:
    """Return the compiled filter of a `linux.seccomp` object.

    Raises:
        InvalidInputError: it is malformed.
    """
    if not profile:
        return None
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
    """Return the descriptors that --preserve-fds and socket activation hand to the program.

    Raises:
        InvalidInputError: one of them is not open.
    """
    count = integer(options, "preserve_fds") + int(os.environ.get("LISTEN_FDS") or 0)
    for fd in range(3, 3 + count):
        try:
            os.fstat(fd)
        except OSError:
            raise InvalidInputError(f"preserved file descriptor {fd} is not open") from None
    return tuple(range(3, 3 + count))


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
    if os.environ.get("LISTEN_FDS"):
        config["process"].setdefault("env", []).extend([f"LISTEN_FDS={os.environ['LISTEN_FDS']}", "LISTEN_PID=1"])
    return bundle, config


def _cgroup_path(context: RuntimeContext, config: dict[str, Any], container_id: str) -> str:
    if not context.with_cgroups:
        return ""
    path = (config.get("linux") or {}).get("cgroupsPath") or f"/barque/{container_id}"
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


def begin(context: RuntimeContext, container_id: str, options: Options, *, hold: bool, detach: bool) -> "Begun":
    """Make a container up to its program's exec, held or not.

    Raises:
        BarqueError: refused; nothing is left behind.
    """
    bundle, config = _configuration(options)
    wants_terminal = bool(config["process"].get("terminal"))
    terminal.check_console(wants_terminal, detach, options.get("console_socket") or "")
    keep = extra_fds(options)
    program = filter_of((config.get("linux") or {}).get("seccomp"))
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
            spec=config, bundle=bundle, seccomp=program, cgroup=group, hold=hold, hold_fd=hold_fd, keep_fds=keep,
            container_id=container_id, pivot=not options.get("no_pivot"),
            new_keyring=not options.get("no_new_keyring"),
        ))  # fmt: skip
        outcome = follow(child)
        if isinstance(outcome, Failed):
            os.waitpid(child.pid, 0)
            child.close()
            raise StepError(outcome.message, outcome.errno)
    except BaseException:
        if group is not None:
            _empty(group)
        container.remove()
        raise
    finally:
        if hold_fd >= 0:
            os.close(hold_fd)
    assert not isinstance(outcome, Pending)
    _record(container, config, bundle, child.pid, path)
    return Begun(container, child, outcome.console_fd, [*warnings, *outcome.warnings])


class Begun:
    """A container whose first process exists."""

    def __init__(self, container: Container, child: Child, console: int, warnings: list[str]) -> None:
        self.container = container
        self.child = child
        self.console = console
        self.warnings = warnings


def _record(container: Container, config: dict[str, Any], bundle: str, pid: int, cgroup: str) -> None:
    container.config = config
    root = config["root"]["path"]
    container.record = {
        "pid": pid,
        "start_time": state.start_time(pid),
        "bundle": bundle,
        "rootfs": os.path.join(bundle, root),
        "created": times.format_ns(time.time_ns()),
        "cgroup": cgroup,
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


def create(context: RuntimeContext, container_id: str, options: Options) -> int:
    """Make a container whose program waits for `start`."""
    begun = begin(context, container_id, options, hold=True, detach=True)
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
        process.set_child_subreaper()
    begun = begin(context, container_id, options, hold=False, detach=detach)
    try:
        _publish(begun, options)
        _after_start(begun.container)
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
        destroy(begun.container, force=True)
    return code


def start(context: RuntimeContext, container_id: str) -> int:
    """Let a created container's program begin.

    Raises:
        ConflictError: it is not in the state `created`.
    """
    container = Container.load(context.root, container_id)
    status = container.status()
    if status == "stopped":
        raise ConflictError("cannot start a container that has stopped")
    if status != "created":
        raise ConflictError(f"cannot start an already {status} container")
    fd = os.open(container.fifo, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        os.unlink(container.fifo)
        os.write(fd, b"\0")
    finally:
        os.close(fd)
    _after_start(container)
    return 0


def _after_start(container: Container) -> None:
    listed = (container.config.get("hooks") or {}).get("poststart") or []
    try:
        hooks.run_all(listed, "poststart", _hook_state(container, "running"))
    except StepError:
        destroy(container, force=True)
        raise


def _hook_state(container: Container, status: str) -> dict[str, Any]:
    annotations = container.config.get("annotations")
    return hooks.state(container.id, container.record["bundle"], status, container.pid, annotations)


def signal_number(text: str) -> int:
    """Return a signal given by number or name.

    Raises:
        InvalidInputError: there is no such signal.
    """
    if text.isdigit() and int(text) < signal.NSIG:
        return int(text)
    name = text.upper().removeprefix("SIG")
    base, plus, offset = name.partition("+")
    try:
        if base in ("RTMIN", "RTMAX") and plus and offset.isdigit():
            return int(signal.Signals[f"SIG{base}"]) + int(offset)
        return int(signal.Signals[f"SIG{name}"])
    except KeyError:
        raise InvalidInputError(f"unknown signal {text!r}") from None


def kill(context: RuntimeContext, container_id: str, sign: str, options: Options) -> int:
    """Send a signal to the first process, or to all.

    Raises:
        ConflictError: the container does not run.
    """
    number = signal_number(sign)
    container = Container.load(context.root, container_id)
    group = container.cgroup()
    if options.get("all") and group is not None:
        group.kill(number)
        return 0
    if container.status() == "stopped":
        raise ConflictError("container not running")
    os.kill(container.pid, number)
    if number == signal.SIGKILL and group is not None and group.is_frozen():
        group.thaw()
    return 0


def delete(context: RuntimeContext, container_id: str, options: Options) -> int:
    """Remove a stopped container; with force a living one too.

    Raises:
        NotFoundError: there is none, unless forced.
        ConflictError: it lives.
    """
    force = bool(options.get("force"))
    try:
        container = Container.load(context.root, container_id)
    except NotFoundError:
        if force:
            return 0
        raise
    status = container.status()
    if status in ("running", "paused") and not force:
        raise ConflictError(f"cannot delete container {container_id} that is not stopped: {status}")
    destroy(container, force=True)
    listed = (container.config.get("hooks") or {}).get("poststop") or []
    hooks.run_all(listed, "poststop", _hook_state(container, "stopped"))
    return 0


def destroy(container: Container, *, force: bool) -> None:
    """End all processes, remove the cgroup and the record.

    Raises:
        BarqueError: processes did not end within 10 s.
    """
    if force and container.is_alive():
        try:
            os.kill(container.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    group = container.cgroup()
    if group is not None:
        _empty(group)
    deadline = time.monotonic() + _DELETE_TIMEOUT_S
    while container.is_alive():
        if time.monotonic() > deadline:
            raise BarqueError(f"process {container.pid} of container {container.id} did not end")
        time.sleep(0.001)
    container.remove()


def _empty(group: "cgroups.Cgroup") -> None:
    """Kill what is left in a cgroup and remove it."""
    deadline = time.monotonic() + _DELETE_TIMEOUT_S
    while not group.delete():
        group.kill(signal.SIGKILL)
        if group.is_frozen():
            group.thaw()
        _reap()
        if time.monotonic() > deadline:
            raise BarqueError(f"cgroup {group.path} still has processes: {group.processes()}")
        time.sleep(0.001)


def _reap() -> None:
    """Take the exit of children that this process has inherited."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            continue
    except ChildProcessError:
        return


def pause(context: RuntimeContext, container_id: str) -> int:
    """Freeze all processes.

    Raises:
        ConflictError: the container does not run.
    """
    container = Container.load(context.root, container_id)
    group = container.cgroup()
    if container.status() not in ("running", "created") or group is None:
        raise ConflictError(f"cannot pause container {container_id}: it is {container.status()}")
    group.freeze()
    return 0


def resume(context: RuntimeContext, container_id: str) -> int:
    """Let frozen processes go on.

    Raises:
        ConflictError: the container is not paused.
    """
    container = Container.load(context.root, container_id)
    group = container.cgroup()
    if container.status() != "paused" or group is None:
        raise ConflictError(f"cannot resume container {container_id}: it is not paused")
    group.thaw()
    return 0


def update(context: RuntimeContext, container_id: str, options: Options) -> int:
    """Change limits, from a file of OCI resources or from options.

    Raises:
        InvalidInputError: a value is not a number, or a limit is refused.
    """
    container = Container.load(context.root, container_id)
    group = container.cgroup()
    if group is None:
        raise ConflictError(f"container {container_id} has no cgroup")
    resources = _resources(options)
    group.update(resources)
    linux = container.config.setdefault("linux", {})
    saved = linux.setdefault("resources", {})
    for part, values in resources.items():
        if isinstance(values, dict):
            saved.setdefault(part, {}).update(values)
    container.save()
    return 0


_UPDATES = (
    ("memory", "memory", "limit"), ("memory_reservation", "memory", "reservation"),
    ("memory_swap", "memory", "swap"), ("kernel_memory", "memory", "kernel"),
    ("kernel_memory_tcp", "memory", "kernelTCP"), ("cpu_period", "cpu", "period"), ("cpu_quota", "cpu", "quota"),
    ("cpu_burst", "cpu", "burst"), ("cpu_share", "cpu", "shares"), ("cpu_rt_period", "cpu", "realtimePeriod"),
    ("cpu_rt_runtime", "cpu", "realtimeRuntime"), ("cpu_idle", "cpu", "idle"), ("pids_limit", "pids", "limit"),
    ("blkio_weight", "blockIO", "weight"),
)  # fmt: skip


def _resources(options: Options) -> dict[str, Any]:
    if options.get("resources"):
        import sys

        source = options["resources"]
        try:
            if source == "-":
                text = sys.stdin.read()
            else:
                with open(source, encoding="utf-8") as file:
                    text = file.read()
            return configs.validate_resources(json.loads(text))
        except (OSError, ValueError) as error:
            raise InvalidInputError(f"cannot read resources from {source}: {error}") from error
    resources: dict[str, Any] = {}
    for name, part, key in _UPDATES:
        if options.get(name) is not None:
            resources.setdefault(part, {})[key] = integer(options, name)
    for name, key in (("cpuset_cpus", "cpus"), ("cpuset_mems", "mems")):
        if options.get(name):
            resources.setdefault("cpu", {})[key] = options[name]
    return resources
