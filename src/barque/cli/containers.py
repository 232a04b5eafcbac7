"""Verbs that act on containers by name and print little."""

from __future__ import annotations

from barque.base.errors import InvalidInputError
from barque.cli.tables import align
from barque.cli.verb import Invocation, for_each
from barque.client.api import quote

TYPE_CHECKING = False  # the module typing costs every start of the command milliseconds
if TYPE_CHECKING:
    from typing import Any


def _path(name: str, verb: str = "") -> str:
    return f"/containers/{quote(name)}" + (f"/{verb}" if verb else "")


def stop(call: Invocation) -> int:
    """Stop containers."""
    return _stop_or_restart(call, "stop")


def restart(call: Invocation) -> int:
    """Restart containers."""
    return _stop_or_restart(call, "restart")


def _stop_or_restart(call: Invocation, verb: str) -> int:
    options = call.options
    if options.given("timeout") and options.given("time"):
        raise InvalidInputError("conflicting options: cannot specify both --timeout and --time")
    timeout = next((options[name] for name in ("timeout", "time") if options.given(name)), None)

    def act(name: str) -> str:
        call.api.post(_path(name, verb), t=timeout, signal=options["signal"] or None)
        return name

    return for_each(call.words, act)


def kill(call: Invocation) -> int:
    """Send a signal to containers."""

    def act(name: str) -> str:
        call.api.post(_path(name, "kill"), signal=call.options["signal"] or None)
        return name

    return for_each(call.words, act)


def pause(call: Invocation) -> int:
    """Freeze containers."""
    return _plain(call, "pause")


def unpause(call: Invocation) -> int:
    """Let frozen containers go on."""
    return _plain(call, "unpause")


def _plain(call: Invocation, verb: str) -> int:
    def act(name: str) -> str:
        call.api.post(_path(name, verb))
        return name

    return for_each(call.words, act)


def rm(call: Invocation) -> int:
    """Remove containers."""
    options = call.options

    def act(name: str) -> str:
        name = name.strip("/")
        if not name:
            raise InvalidInputError("invalid container name or ID: value is empty")
        call.api.delete(_path(name), force=options["force"], v=options["volumes"], link=options["link"])
        return name

    return for_each(call.words, act, missing_ok=options["force"])


def rename(call: Invocation) -> int:
    """Give a container another name."""
    old, new = (word.strip() for word in call.words)
    if not old or not new:
        raise InvalidInputError("Error: Neither old nor new names may be empty")
    call.api.post(_path(old, "rename"), name=new)
    return 0


def wait(call: Invocation) -> int:
    """Wait for containers and print their exit codes."""

    def act(name: str) -> str:
        answer = call.api.post(_path(name, "wait")) or {}
        problem = (answer.get("Error") or {}).get("Message")
        if problem:
            raise InvalidInputError(problem)
        return str(answer.get("StatusCode", 0))

    return for_each(call.words, act)


def top(call: Invocation) -> int:
    """Show a container's processes."""
    arguments = " ".join(call.words[1:]) or None
    answer = call.api.get(_path(call.words[0], "top"), ps_args=arguments)
    print(align([answer["Titles"], *(answer.get("Processes") or [])], 20), end="")
    return 0


def diff(call: Invocation) -> int:
    """Show what changed in a container's file system."""
    if not call.words[0]:
        raise InvalidInputError("Container name cannot be empty")
    for change in call.api.get(_path(call.words[0], "changes")) or []:
        print("CAD"[change["Kind"]], change["Path"])
    return 0


def port(call: Invocation) -> int:
    """Show a container's published ports."""
    details = call.api.get(_path(call.words[0], "json"))
    ports: dict[str, Any] = (details.get("NetworkSettings") or {}).get("Ports") or {}
    if len(call.words) > 1:
        number, slash, protocol = call.words[1].partition("/")
        if not (number.isascii() and number.isdigit()):
            raise InvalidInputError(
                f'Error: invalid port ({number}): strconv.ParseUint: parsing "{number}": invalid syntax'
            )
        bindings = ports.get(f"{number}/{protocol if slash else 'tcp'}")
        if not bindings:
            raise InvalidInputError(f"Error: No public port '{call.words[1]}' published for {call.words[0]}")
        for binding in bindings:
            print(_address(binding))
        return 0
    lines = [f"{name} -> {_address(binding)}" for name, bindings in ports.items() for binding in bindings or []]
    for line in sorted(lines, key=_natural):
        print(line)
    return 0


def _address(binding: dict[str, str]) -> str:
    ip = binding.get("HostIp") or ""
    return f"[{ip}]:{binding['HostPort']}" if ":" in ip else f"{ip}:{binding['HostPort']}"


def _natural(line: str) -> tuple[int, str]:
    number = line.partition("/")[0]
    return (int(number) if number.isdigit() else 0), line


_CHANGED_WORDS = {"env": "Env", "env-rm": "EnvRemove", "label-rm": "LabelsRemove"}
UPDATE_KEYS = {
    "blkio-weight": "BlkioWeight",
    "cpu-period": "CpuPeriod",
    "cpu-quota": "CpuQuota",
    "cpu-rt-period": "CpuRealtimePeriod",
    "cpu-rt-runtime": "CpuRealtimeRuntime",
    "cpu-shares": "CpuShares",
    "cpus": "NanoCpus",
    "cpuset-cpus": "CpusetCpus",
    "cpuset-mems": "CpusetMems",
    "kernel-memory": "KernelMemory",
    "memory": "Memory",
    "memory-reservation": "MemoryReservation",
    "memory-swap": "MemorySwap",
    "pids-limit": "PidsLimit",
}


def update(call: Invocation) -> int:
    """Change limits, the restart policy, ports, variables and labels of containers."""
    from barque.cli.run_spec import restart_policy

    options = call.options
    if not options.changed:
        raise InvalidInputError("you must provide one or more flags when using this command")
    body: dict[str, Any] = {key: options[flag] for flag, key in UPDATE_KEYS.items() if options.given(flag)}
    if options.given("restart"):
        body["RestartPolicy"] = restart_policy(options["restart"])
    if options.given("publish-add") or options.given("publish-rm"):
        from barque.cli.run_ports import port_maps

        body["PublishAdd"] = port_maps(options["publish-add"], [])[1]
        body["PublishRemove"] = port_maps(options["publish-rm"], [])[1]
    body |= {key: options[flag] for flag, key in _CHANGED_WORDS.items() if options.given(flag)}
    if options.given("label"):
        body["Labels"] = {pair.partition("=")[0]: pair.partition("=")[2] for pair in options["label"]}
    warnings: list[str] = []

    def act(name: str) -> str:
        answer = call.api.post(_path(name, "update"), body) or {}
        warnings.extend(answer.get("Warnings") or [])
        return name

    code = for_each(call.words, act)
    if warnings:
        print("\n".join(warnings))
    return code
