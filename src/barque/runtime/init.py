"""The child: run the steps compiled before the clone, then exec; never return.

No imports that the parent has not made, no logs. Every failure is reported as (step, errno,
message) on the channel, and every path ends in exec or _exit.
"""

import fcntl
import gc
import json
import os
import signal
from typing import Any, NamedTuple, Protocol

from barque.kernel import process
from barque.runtime import channel as messages, hooks, identity
from barque.runtime.channel import Channel, StepError, errno_text
from barque.runtime.root import Context


class Step(Protocol):
    """One thing to do; a value made before the clone."""

    def describe(self) -> str:
        """Say what the step does."""

    def run(self, context: Context) -> None:
        """Do it, or raise OSError or StepError."""


class Plan(NamedTuple):
    """All a child does."""

    steps: tuple[Step, ...]
    identity: identity.Identity
    args: list[str]
    env: list[str]
    program: process.Program
    stdio: tuple[int, int, int] | None
    keep_fds: tuple[int, ...]
    own_fds: tuple[int, ...]
    hold: bool
    hold_fd: int
    userns: bool
    ignored_signals: tuple[int, ...]
    warnings: tuple[str, ...]
    start_hooks: tuple[dict[str, Any], ...] = ()


def run(plan: Plan, channel_fd: int) -> None:
    """Be the child; does not return."""
    step = "init"
    channel = Channel(channel_fd)
    try:
        gc.disable()
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        channel = _arrange_descriptors(plan, channel)
        context = Context(channel, plan.userns)
        for warning in plan.warnings:
            channel.send(messages.WARNING, warning)
        for action in plan.steps:
            step = action.describe()
            action.run(context)
        step = "exec"
        _exec(plan, context)
    except BaseException as error:
        channel.fail(step, error)
    finally:
        os._exit(1)


def _reset_signals(ignored: tuple[int, ...]) -> None:
    for number in ignored:
        try:
            process.default_signal(number)
        except OSError:
            continue


def _arrange_descriptors(plan: Plan, channel: Channel) -> Channel:
    """Put stdio on 0..2 and kept descriptors from 3 up; close all the rest but our own."""
    free = 3 + len(plan.keep_fds)
    fd = channel.fd
    if fd < free:
        fd = _above(fd, free)
    own = {fd}
    for number in plan.own_fds:
        # Steps know these by number: the launcher keeps them above what is handed on.
        own.add(number)
    handed = {3 + index: _above(number, free) for index, number in enumerate(plan.keep_fds) if number >= 0}
    if plan.stdio is not None:
        raised = [_above(number, free) for number in plan.stdio]
        for target, number in enumerate(raised):
            os.dup2(number, target)
            os.close(number)
    for target, number in handed.items():
        os.dup2(number, target)
        os.close(number)
    process.close_all_but(own | handed.keys())
    return Channel(fd)


def _above(fd: int, lowest: int) -> int:
    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, lowest)


def _exec(plan: Plan, context: Context) -> None:
    plan.identity.run(context)
    env, program = plan.env, plan.program
    if not any(entry.startswith("HOME=") for entry in env):
        env = [*env, f"HOME={identity.home_of(plan.identity.uid)}"]
        program = process.prepare_program(plan.args, env)
    # A container may be created without a process; nothing can be started in it then.
    path = identity.find_program(plan.args[0], env) if plan.args else b""
    _seal(plan.keep_fds)
    # Asked for now: after `create` nobody is there to answer.
    state = json.loads(context.channel.ask("state startContainer")) if plan.start_hooks else {}
    # A filter's listener goes to the parent, which is gone once a container is created and waits for `start`.
    early = plan.hold and bool(plan.identity.seccomp_flags & identity.NEW_LISTENER)
    if early:
        plan.identity.finish(context)
    if plan.hold:
        _hold(plan, context.channel)
    if not path:
        raise StepError("no process is set to be started")
    hooks.run_all(list(plan.start_hooks), "startContainer", state)
    _reset_signals(plan.ignored_signals)
    if not early:
        plan.identity.finish(context)
    context.channel.send(messages.EXEC)
    error = process.exec_prepared(path, program)
    raise StepError(f"exec {os.fsdecode(path)}: {errno_text(error.errno)}", error.errno or 0)


def _seal(kept: tuple[int, ...]) -> None:
    """Mark everything that is not meant for the program close-on-exec."""
    process.close_range(3 + len(kept), process.MAX_FD, process.CLOSE_RANGE_CLOEXEC)
    for target, number in enumerate(kept, 3):
        if number < 0:
            process.close_range(target, target, process.CLOSE_RANGE_CLOEXEC)


def _hold(plan: Plan, channel: Channel) -> None:
    channel.send(messages.HELD)
    if plan.hold_fd < 0:
        channel.wait(messages.RELEASE)
        return
    channel.detached = True
    if not os.read(plan.hold_fd, 1):
        os._exit(1)
    # It closes at exec: who wrote the byte sees then that the program runs.
