"""exec of `barque runtime`: another process in a running container."""

import copy
import json
import os
from typing import Any

from barque.base.errors import ConflictError, InvalidInputError
from barque.kernel import process as kernel_process
from barque.runtime import spec as configs
from barque.runtime.channel import StepError
from barque.runtime.child import Failed, Pending
from barque.runtime.command import terminal
from barque.runtime.command.context import Options, RuntimeContext
from barque.runtime.command.making import extra_fds, filter_of, follow
from barque.runtime.join import JoinRequest, join
from barque.runtime.state import Container

_CAP_SETS = ("bounding", "effective", "permitted")


def _user(text: str) -> dict[str, int]:
    uid, _, gid = text.partition(":")
    if not uid.isdigit() or (gid and not gid.isdigit()):
        raise InvalidInputError(f"--user {text!r} must be uid or uid:gid, as numbers")
    return {"uid": int(uid), "gid": int(gid or 0)}


def process_of(container: Container, command: list[str], options: Options) -> dict[str, Any]:
    """Return the OCI process to run: from a file, or the container's own with changes.

    Raises:
        InvalidInputError: it is missing or malformed.
    """
    if options.get("process"):
        try:
            with open(options["process"], encoding="utf-8") as file:
                wanted: dict[str, Any] = json.load(file)
        except (OSError, ValueError) as error:
            raise InvalidInputError(f"cannot read the process from {options['process']}: {error}") from error
        configs.validate_process(wanted)
        return wanted
    if not command:
        raise InvalidInputError("exec needs a command")
    wanted = copy.deepcopy(container.config.get("process") or {})
    wanted["args"] = command
    wanted["terminal"] = bool(options.get("tty"))
    if options.get("cwd"):
        wanted["cwd"] = options["cwd"]
    wanted["env"] = [*(wanted.get("env") or []), *options.get("env", [])]
    if options.get("user"):
        wanted["user"] = _user(options["user"])
    for text in options.get("additional_gids", []):
        if not text.isdigit():
            raise InvalidInputError(f"--additional-gids {text!r} is not a number")
        wanted.setdefault("user", {}).setdefault("additionalGids", []).append(int(text))
    if options.get("no_new_privs"):
        wanted["noNewPrivileges"] = True
    for name, key in (("apparmor", "apparmorProfile"), ("process_label", "selinuxLabel")):
        if options.get(name):
            wanted[key] = options[name]
    capabilities = wanted.setdefault("capabilities", {})
    for name in options.get("cap", []):
        full = name.upper() if name.upper().startswith("CAP_") else f"CAP_{name.upper()}"
        for kind in _CAP_SETS:
            if full not in capabilities.setdefault(kind, []):
                capabilities[kind].append(full)
    configs.validate_process(wanted)
    return wanted


def execute(context: RuntimeContext, container_id: str, command: list[str], options: Options) -> int:
    """Run a process; in the foreground return its exit code.

    Raises:
        ConflictError: the container does not run.
        StepError: the process could not be started.
    """
    container = Container.load(context.root, container_id)
    status = container.status()
    if status == "stopped":
        raise ConflictError("cannot exec in a stopped container")
    if status == "paused" and not options.get("ignore_paused"):
        raise ConflictError("cannot exec in a paused container (use --ignore-paused to override)")
    wanted = process_of(container, command, options)
    detach = bool(options.get("detach"))
    terminal.check_console(bool(wanted.get("terminal")), detach, options.get("console_socket") or "")
    group = container.cgroup()
    if options.get("cgroup"):
        if group is None:
            raise ConflictError(f"container {container_id} has no cgroup")
        group = group.below(options["cgroup"])
    kernel_process.set_child_subreaper()
    profile = (container.config.get("linux") or {}).get("seccomp")
    child = join(JoinRequest(
        pid=container.pid, process=wanted, seccomp=filter_of(profile, container.config), profile=profile,
        state=container.oci_state(), cgroup=group, keep_fds=extra_fds(options), container_id=container.id,
    ))  # fmt: skip
    outcome = follow(child)
    if isinstance(outcome, Failed):
        os.waitpid(child.pid, 0)
        raise StepError(outcome.message, outcome.errno)
    assert not isinstance(outcome, Pending)
    console = outcome.console_fd
    if options.get("console_socket") and console >= 0:
        terminal.send_console(options["console_socket"], console)
        console = -1
    if options.get("pid_file"):
        from barque.base.files import write_atomic

        write_atomic(os.path.abspath(options["pid_file"]), str(child.pid).encode(), durable=False)
    if detach:
        return 0
    if console >= 0:
        with terminal.Relay(console) as relay:
            return terminal.wait_foreground(child.pid, child.pidfd, relay)
    return terminal.wait_foreground(child.pid, child.pidfd, None)
