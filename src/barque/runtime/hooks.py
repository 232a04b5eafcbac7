"""OCI hooks: programs called at points of a container's life with its state on stdin."""

import json
import os
import select
import signal
from typing import Any

from barque.base.files import write_all
from barque.kernel import process
from barque.runtime.channel import StepError, errno_text

_KILL = 9
# What an interpreter or the keeper ignores, and a program expects to have its default meaning.
_HANDLED = (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)


def state(container_id: str, bundle: str, status: str, pid: int, annotations: dict[str, str] | None) -> dict[str, Any]:
    """Return the OCI state of a container, as `state` prints it and hooks read it."""
    value: dict[str, Any] = {"ociVersion": "1.2.0", "id": container_id, "status": status}
    if status != "stopped":
        value["pid"] = pid
    value["bundle"] = bundle
    if annotations:
        value["annotations"] = annotations
    return value


def run_all(hooks: list[dict[str, Any]], kind: str, oci_state: dict[str, Any]) -> None:
    """Run `hooks` one after the other.

    A hook without `env` inherits the caller's. The annotations run.oci.hooks.stdout and
    run.oci.hooks.stderr name files that take what hooks write.

    Raises:
        StepError: for the first that cannot start, fails, or outlives its timeout.
    """
    stdin, outputs = _streams(oci_state) if hooks else (b"", [])
    for number, hook in enumerate(hooks):
        try:
            _run(hook, stdin, outputs)
        except StepError as error:
            raise StepError(f"error running {kind} hook #{number}: {error}", error.errno) from None


def run_each(hooks: list[dict[str, Any]], kind: str, oci_state: dict[str, Any]) -> list[str]:
    """Run all `hooks` whatever becomes of each; return a sentence for each that failed."""
    stdin, outputs = _streams(oci_state) if hooks else (b"", [])
    failures = []
    for hook in hooks:
        try:
            _run(hook, stdin, outputs)
        except StepError as error:
            failures.append(f"{kind} hook failed with {str(error).replace('exit status', 'exit code')}: {hook['path']}")
    return failures


def _streams(oci_state: dict[str, Any]) -> tuple[bytes, list[tuple[str, int]]]:
    """Return what hooks read, and the files that take what they write."""
    annotations = oci_state.get("annotations") or {}
    outputs = [
        (annotations[f"run.oci.hooks.{name}"], fd)
        for name, fd in (("stdout", 1), ("stderr", 2))
        if annotations.get(f"run.oci.hooks.{name}")
    ]
    return json.dumps(oci_state).encode(), outputs


def _run(hook: dict[str, Any], stdin: bytes, outputs: list[tuple[str, int]]) -> None:
    source = os.memfd_create("state")
    actions: list[tuple[Any, ...]] = [(os.POSIX_SPAWN_DUP2, source, 0)]
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    actions += [(os.POSIX_SPAWN_OPEN, fd, path, flags, 0o644) for path, fd in outputs]
    try:
        write_all(source, stdin)
        os.lseek(source, 0, os.SEEK_SET)
        given = hook.get("env")
        env = os.environ if given is None else dict(item.partition("=")[::2] for item in given)
        pid = os.posix_spawn(
            hook["path"],
            hook.get("args") or [hook["path"]],
            env,
            file_actions=actions,
            setsigmask=[],
            setsigdef=_HANDLED,
        )
    except OSError as error:
        raise StepError(f"{hook['path']}: {errno_text(error.errno)}", error.errno or 0) from None
    finally:
        os.close(source)
    _wait(pid, hook.get("timeout"))


def _wait(pid: int, timeout_s: float | None) -> None:
    timed_out = False
    if timeout_s:
        pidfd = os.pidfd_open(pid)
        poller = select.poll()
        poller.register(pidfd, select.POLLIN)
        timed_out = not poller.poll(timeout_s * 1000)
        if timed_out:
            process.pidfd_send_signal(pidfd, _KILL)
        os.close(pidfd)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if timed_out:
        raise StepError(f"timeout after {timeout_s}s")
    if status < 0:
        raise StepError(f"signal: {-status}")
    if status:
        raise StepError(f"exit status {status}")
