"""start, kill, delete, pause and resume of `barque runtime`."""

import os
import re
import select
import signal
import time
from typing import Any

from barque.base.errors import BarqueError, ConflictError, InvalidInputError, NotFoundError
from barque.runtime import cgroups, hooks, intel_rdt
from barque.runtime.channel import StepError
from barque.runtime.command.context import Options, RuntimeContext
from barque.runtime.state import Container, load_all

_DELETE_TIMEOUT_S = 10.0
# Hooks before the program may take their time.
_START_TIMEOUT_S = 60.0


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
    if not container.config.get("process"):
        os.kill(container.pid, signal.SIGKILL)
        raise InvalidInputError("process: is missing: nothing can be started")
    fd = os.open(container.fifo, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        os.unlink(container.fifo)
        os.write(fd, b"\0")
        _wait_program(fd)
    finally:
        os.close(fd)
    after_start(container)
    return 0


def _wait_program(fifo: int) -> None:
    """Wait until the process has closed its end of the FIFO, by its exec or its end."""
    poller = select.poll()
    # POLLERR alone, which needs no asking: nobody reads any more.
    poller.register(fifo, 0)
    if not poller.poll(_START_TIMEOUT_S * 1000):
        raise BarqueError("the program did not begin in time")


def after_start(container: Container) -> None:
    """Run the poststart hooks; where one fails the container goes.

    Raises:
        StepError: a hook failed.
    """
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


def chosen(context: RuntimeContext, word: str, options: Options) -> list[Container]:
    """Return the container of an id, or with --regex those whose whole id an expression describes.

    Raises:
        InvalidInputError: the expression is malformed.
        NotFoundError: there is no container of that id.
    """
    if not options.get("regex"):
        return [Container.load(context.root, word)]
    try:
        pattern = re.compile(word)
    except re.error as error:
        raise InvalidInputError(f"invalid regular expression {word!r}: {error}") from None
    return [container for container in load_all(context.root) if pattern.match(container.id)]


def kill(context: RuntimeContext, container_id: str, sign: str, options: Options) -> int:
    """Send a signal to the first process, or to all.

    Raises:
        ConflictError: the container does not run.
    """
    number = signal_number(sign)
    for container in chosen(context, container_id, options):
        _kill(container, number, options)
    return 0


def _kill(container: Container, number: int, options: Options) -> None:
    group = container.cgroup()
    if options.get("all") and group is not None:
        group.kill(number)
        return
    if container.status() == "stopped":
        raise ConflictError("container not running")
    os.kill(container.pid, number)
    if number == signal.SIGKILL and group is not None and group.is_frozen():
        group.thaw()


def delete(context: RuntimeContext, container_id: str, options: Options) -> int:
    """Remove a stopped container; with force a living one too.

    Raises:
        NotFoundError: there is none, unless forced.
        ConflictError: it lives.
    """
    force = bool(options.get("force"))
    try:
        found = chosen(context, container_id, options)
    except NotFoundError:
        if force:
            return 0
        raise
    for container in found:
        status = container.status()
        if status in ("running", "paused") and not force:
            raise ConflictError(f"cannot delete container {container.id} that is not stopped: {status}")
        dispose(context, container)
    return 0


def dispose(context: RuntimeContext, container: Container) -> None:
    """Destroy a container and run its poststop hooks, whose failures are only told."""
    destroy(container, force=True)
    listed = (container.config.get("hooks") or {}).get("poststop") or []
    for failure in hooks.run_each(listed, "poststop", _hook_state(container, "stopped")):
        context.log.write("warning", failure)


def destroy(container: Container, *, force: bool) -> None:
    """End all processes, remove the cgroup and the record.

    Raises:
        BarqueError: processes did not end within 10 s.
    """
    group = container.cgroup()
    if force and container.is_alive():
        try:
            os.kill(container.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        if group is not None:
            group.bring_back(container.pid)
    if group is not None:
        empty(group)
    deadline = time.monotonic() + _DELETE_TIMEOUT_S
    while container.is_alive():
        if time.monotonic() > deadline:
            raise BarqueError(f"process {container.pid} of container {container.id} did not end")
        time.sleep(0.001)
    if container.record.get("resctrl"):
        intel_rdt.remove(container.record["resctrl"])
    container.remove()


def empty(group: "cgroups.Cgroup") -> None:
    """Kill what is left in a cgroup and remove it.

    Raises:
        BarqueError: processes did not end within 10 s.
    """
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


