"""state, list, ps, events, features and spec of `barque runtime`: what only looks."""

import json
import os
import subprocess
import time
from typing import Any

from barque.base.errors import ConflictError, InvalidInputError
from barque.kernel import caps, seccomp
from barque.runtime import intel_rdt, mount_options, spec as configs
from barque.runtime.command.context import Options, RuntimeContext
from barque.runtime.command.options import ARGUMENTS, FLAG, GLOBAL, MANY, VALUE, VERBS, Option
from barque.runtime.state import Container, load_all


def show_state(context: RuntimeContext, container_id: str) -> int:
    """Print a container's state as JSON."""
    print(json.dumps(Container.load(context.root, container_id).oci_state(), indent=2))
    return 0


def show_list(context: RuntimeContext, options: Options) -> int:
    """Print the containers: a table, JSON, or ids."""
    containers = load_all(context.root)
    if options.get("quiet"):
        for container in containers:
            print(container.id)
        return 0
    form = options.get("format") or "table"
    states = [container.oci_state() for container in containers]
    if form == "json":
        print(json.dumps(states))
        return 0
    if form != "table":
        raise InvalidInputError(f"invalid format {form!r}: use table or json")
    rows = [("ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER")]
    rows += [(each["id"], str(each["pid"]), each["status"], each["bundle"], each["created"], each["owner"])
             for each in states]  # fmt: skip
    widths = [max(max(len(row[column]) for row in rows) + 4, 12) for column in range(5)]
    for row in rows:
        print("".join(cell.ljust(width) for cell, width in zip(row[:5], widths, strict=True)) + row[5])
    return 0


def show_processes(context: RuntimeContext, container_id: str, words: list[str], options: Options) -> int:
    """Print the container's processes as ps shows them, or their pids as JSON."""
    container = Container.load(context.root, container_id)
    group = container.cgroup()
    if group is None:
        raise ConflictError(f"container {container_id} has no cgroup")
    pids = group.processes()
    form = options.get("format") or "table"
    if form == "json":
        print(json.dumps(pids))
        return 0
    if form != "table":
        raise InvalidInputError(f"invalid format {form!r}: use table or json")
    output = subprocess.run(["ps", *(words or ["-ef"])], capture_output=True, text=True, check=True).stdout.splitlines()
    titles = output[0].split()
    if "PID" not in titles:
        raise InvalidInputError("Couldn't find PID field in ps output")
    column = titles.index("PID")
    wanted = {str(pid) for pid in pids}
    print(output[0])
    for line in output[1:]:
        if line.split()[column] in wanted:
            print(line)
    return 0


def show_events(context: RuntimeContext, container_id: str, options: Options) -> int:
    """Print statistics as JSON: once with --stats, else at each interval until the container ends."""
    container = Container.load(context.root, container_id)
    group = container.cgroup()
    if group is None or container.status() == "stopped":
        raise ConflictError(f"container with id {container_id} is not running")
    interval = _seconds(options.get("interval") or "5s")
    while True:
        raw = group.stats()
        data = {
            "cpu": {
                "usage": {"total": raw["cpu"]["total_ns"], "percpu": raw["cpu"]["per_cpu_ns"],
                          "kernel": raw["cpu"]["system_ns"], "user": raw["cpu"]["user_ns"]},
                "throttling": {"periods": raw["cpu"]["periods"],
                               "throttledPeriods": raw["cpu"]["throttled_periods"],
                               "throttledTime": raw["cpu"]["throttled_ns"]},
            },
            "memory": {
                "usage": {"limit": raw["memory"]["limit"], "usage": raw["memory"]["usage"],
                          "max": raw["memory"]["max_usage"], "failcnt": raw["memory"]["failcnt"]},
                "raw": raw["memory"]["stat"],
            },
            "pids": raw["pids"],
            "blkio": raw["blkio"],
            "hugetlb": {},
            "intel_rdt": {},
        }  # fmt: skip
        print(json.dumps({"type": "stats", "id": container_id, "data": data}), flush=True)
        if options.get("stats"):
            return 0
        time.sleep(interval)
        if container.status() == "stopped":
            return 0


def _seconds(text: str) -> float:
    units = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
    for unit, factor in units.items():
        number = text.removesuffix(unit)
        if number != text and number.replace(".", "", 1).isdigit():
            value = float(number) * factor
            if value > 0:
                return value
    raise InvalidInputError(f"invalid interval {text!r}: give a positive time such as 5s")


def show_features() -> int:
    """Print what this runtime can do, as the runtime spec's features document."""
    print(json.dumps({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": configs.OCI_VERSION,
        "hooks": list(configs.HOOKS),
        "mountOptions": sorted(mount_options.names()),
        "linux": {
            "namespaces": ["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"],
            "capabilities": sorted(caps.NUMBERS),
            "cgroup": {"v1": True, "v2": True, "systemd": False, "systemdUser": False, "rdma": True},
            "seccomp": {
                "enabled": True,
                "actions": sorted(seccomp.ACTIONS),
                "operators": sorted(seccomp.OPERATORS),
                "archs": sorted(seccomp.architectures()),
                "knownFlags": sorted(seccomp.FLAGS),
                "supportedFlags": sorted(seccomp.FLAGS),
            },
            "apparmor": {"enabled": os.path.isdir("/sys/kernel/security/apparmor")},
            "selinux": {"enabled": os.path.isdir("/sys/fs/selinux")},
            "intelRdt": {"enabled": intel_rdt.mount_point() is not None},
            "netDevices": {"enabled": True},
            "mountExtensions": {"idmap": {"enabled": True}},
        },
    }, indent=2))  # fmt: skip
    return 0


def write_spec(options: Options) -> int:
    """Write a default config.json into the bundle.

    Raises:
        ConflictError: there is one already.
    """
    path = os.path.join(options.get("bundle") or ".", "config.json")
    text: Any = json.dumps(configs.default_config(rootless=bool(options.get("rootless"))), indent=4) + "\n"
    try:
        with open(path, "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise ConflictError(f"File {path} exists. Remove it first") from None
    return 0


def print_usage() -> None:
    """Print the list of commands and the global options."""
    print("Usage: barque runtime [OPTION...] COMMAND [OPTION...] CONTAINER\n\nCommands:")
    for verb in sorted(VERBS):
        print(f"  {verb}")
    _print_options(GLOBAL)


def print_verb_usage(verb: str) -> None:
    """Print how one command is called."""
    words = f"Usage: barque runtime [OPTION...] {verb} {ARGUMENTS.get(verb, 'CONTAINER')}"
    print(words.rstrip())
    _print_options(VERBS[verb])


def _print_options(table: dict[str, Option]) -> None:
    names: dict[Option, list[str]] = {}
    for name, option in table.items():
        names.setdefault(option, []).append(name)
    print("\nOptions:")
    for option, spellings in names.items():
        value = {FLAG: "", VALUE: " VALUE", MANY: " VALUE (may be given again)"}[option.kind]
        print(f"  {', '.join(spellings)}{value}")
