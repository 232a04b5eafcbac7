"""Control groups version 2: one folder for all controllers (Documentation/admin-guide/cgroup-v2)."""

import errno
import os
import signal
import time
from typing import Any

from barque.kernel import bpf_devices
from barque.runtime.cgroups.files import (
    CgroupError,
    Resources,
    device_rule,
    processes_below,
    read,
    read_int,
    read_pairs,
    remove_tree,
    signal_all,
    write,
)

_FREEZE_TIMEOUT_S = 10.0
_IO_LIMITS = (
    ("throttleReadBpsDevice", "rbps"), ("throttleWriteBpsDevice", "wbps"),
    ("throttleReadIOPSDevice", "riops"), ("throttleWriteIOPSDevice", "wiops"),
)  # fmt: skip


def mount_point() -> str | None:
    """Return where the version 2 tree is mounted, None where it is not."""
    with open("/proc/self/mountinfo", encoding="utf-8") as lines:
        for line in lines:
            left, _, right = line.partition(" - ")
            if right.startswith("cgroup2 "):
                return left.split()[4]
    return None


def weight_of_shares(shares: int) -> int:
    """Return the version 2 cpu weight (1-10000) of version 1 shares (2-262144), as runc maps them."""
    if shares <= 0:
        return 0
    return 1 + (min(max(shares, 2), 262144) - 2) * 9999 // 262142


def swap_max(limit: int | None, swap: int | None) -> int | str | None:
    """Return memory.swap.max for version 1's memory and memory-plus-swap limits; None leaves it.

    Raises:
        CgroupError: the sum is below the memory limit, or the memory limit is missing.
    """
    if not swap:
        return "max" if limit == -1 else None
    if swap == -1:
        return "max"
    if not limit or limit < 0:
        raise CgroupError(errno.EINVAL, "cannot set a limit of memory and swap without a memory limit")
    if swap < limit:
        raise CgroupError(errno.EINVAL, f"memory+swap limit {swap} must not be below the memory limit {limit}")
    return swap - limit


class CgroupV2:
    """A cgroup in the one tree."""

    version = 2

    def __init__(self, path: str, root: str) -> None:
        self.path = path
        self._root = root
        self._folder = root + path

    def exists(self) -> bool:
        """Tell whether the folder is there."""
        return os.path.isdir(self._folder)

    def create(self, resources: Resources) -> list[str]:
        """Make the folder with all controllers and set the limits; return warnings (see files.Cgroup)."""
        folder = self._root
        made: list[str] = []
        try:
            for part in self.path.strip("/").split("/"):
                _enable_controllers(folder)
                folder = f"{folder}/{part}"
                try:
                    os.mkdir(folder, 0o755)
                    made.append(folder)
                except FileExistsError:
                    continue
                except OSError as error:
                    raise CgroupError(error.errno, f"cannot make cgroup {folder}: {error.strerror}") from error
            return self.update(resources)
        except BaseException:
            if self._folder in made:
                remove_tree(self._folder)
            raise

    def update(self, resources: Resources) -> list[str]:
        """Change limits; return warnings (see files.Cgroup)."""
        warnings: list[str] = []
        if resources.get("devices"):
            self._devices(resources["devices"])
        self._memory(resources.get("memory") or {}, warnings)
        self._cpu(resources.get("cpu") or {})
        pids = resources.get("pids") or {}
        if pids.get("limit") is not None:
            self._set("pids.max", "max" if pids["limit"] <= 0 else pids["limit"])
        self._io(resources.get("blockIO") or {})
        for limit in resources.get("hugepageLimits") or []:
            self._set(f"hugetlb.{limit['pageSize']}.max", limit["limit"])
        for key, value in (resources.get("unified") or {}).items():
            if "/" in key or key in ("cgroup.procs", "cgroup.threads", "cgroup.subtree_control"):
                raise CgroupError(errno.EINVAL, f"unified resource {key!r} is not the name of a limit")
            self._set(key, value)
        return warnings

    def _set(self, key: str, value: str | int) -> None:
        write(f"{self._folder}/{key}", value)

    def _devices(self, rules: list[Resources]) -> None:
        for rule in rules:
            device_rule(rule)
        fd = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            bpf_devices.replace(fd, bpf_devices.compile_rules(rules))
        finally:
            os.close(fd)

    def _memory(self, memory: Resources, warnings: list[str]) -> None:
        limit = memory.get("limit")
        swap = swap_max(limit, memory.get("swap"))
        if swap is not None:
            if os.path.exists(f"{self._folder}/memory.swap.max"):
                self._set("memory.swap.max", swap)
            else:
                warnings.append("the kernel does not account swap: the swap limit was left out")
        if limit:
            self._set("memory.max", "max" if limit == -1 else limit)
        if memory.get("reservation"):
            low = memory["reservation"]
            self._set("memory.low", "max" if low == -1 else low)
        if memory.get("disableOOMKiller"):
            warnings.append("version 2 cgroups cannot disable the OOM killer: it was left on")
        if memory.get("swappiness") not in (None, -1):
            warnings.append("version 2 cgroups have no swappiness: it was left out")

    def _cpu(self, cpu: Resources) -> None:
        if cpu.get("idle"):
            self._set("cpu.idle", cpu["idle"])
        if cpu.get("shares"):
            self._set("cpu.weight", weight_of_shares(cpu["shares"]))
        quota, period = cpu.get("quota"), cpu.get("period")
        if quota or period:
            value = str(quota) if quota and quota > 0 else "max"
            self._set("cpu.max", f"{value} {period or 100000}")
        if cpu.get("burst") is not None:
            self._set("cpu.max.burst", cpu["burst"])
        for name, key in (("cpus", "cpuset.cpus"), ("mems", "cpuset.mems")):
            if cpu.get(name):
                self._set(key, cpu[name])

    def _io(self, block: Resources) -> None:
        if block.get("weight"):
            if os.path.exists(f"{self._folder}/io.bfq.weight"):
                self._set("io.bfq.weight", block["weight"])
            else:
                # io.weight is 1-10000 where blkio.weight is 10-1000.
                self._set("io.weight", f"default {1 + (block['weight'] - 10) * 9999 // 990}")
        for name, key in _IO_LIMITS:
            for entry in block.get(name) or []:
                rate = entry["rate"] or "max"
                self._set("io.max", f"{entry['major']}:{entry['minor']} {key}={rate}")

    def join_self(self) -> None:
        """Move the calling process in."""
        self._set("cgroup.procs", 0)

    def dir_fd(self) -> int:
        """Return a descriptor of the folder for CLONE_INTO_CGROUP, owned by the caller."""
        return os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def freeze(self) -> None:
        """Stop all processes and wait until the kernel says so.

        Raises:
            CgroupError: it did not happen within 10 s; the processes run on.
        """
        self._set("cgroup.freeze", 1)
        deadline = time.monotonic() + _FREEZE_TIMEOUT_S
        while not read_pairs(f"{self._folder}/cgroup.events").get("frozen"):
            if time.monotonic() > deadline:
                self._set("cgroup.freeze", 0)
                raise CgroupError(errno.ETIMEDOUT, "cannot pause: the processes did not freeze in time")
            time.sleep(0.001)

    def thaw(self) -> None:
        """Let the processes run on."""
        self._set("cgroup.freeze", 0)

    def is_frozen(self) -> bool:
        """Tell whether the processes are stopped."""
        return read_int(f"{self._folder}/cgroup.freeze") == 1

    def processes(self) -> list[int]:
        """Return the pids inside, those of cgroups below included."""
        return processes_below(self._folder)

    def kill(self, signo: int = signal.SIGKILL) -> None:
        """Send a signal to all processes inside; SIGKILL reaches forks under way too."""
        if signo == signal.SIGKILL and os.path.exists(f"{self._folder}/cgroup.kill"):
            self._set("cgroup.kill", 1)
        else:
            signal_all(self.processes(), signo)

    def oom_kills(self) -> int:
        """Return how many processes the kernel killed for want of memory."""
        return read_pairs(f"{self._folder}/memory.events").get("oom_kill", 0)

    def stats(self) -> dict[str, Any]:
        """Return raw counters: cpu in ns, memory and block I/O in bytes, pids."""
        cpu = read_pairs(f"{self._folder}/cpu.stat")
        return {
            "cpu": {
                "total_ns": cpu.get("usage_usec", 0) * 1000,
                "per_cpu_ns": [],
                "user_ns": cpu.get("user_usec", 0) * 1000,
                "system_ns": cpu.get("system_usec", 0) * 1000,
                "periods": cpu.get("nr_periods", 0),
                "throttled_periods": cpu.get("nr_throttled", 0),
                "throttled_ns": cpu.get("throttled_usec", 0) * 1000,
            },
            "memory": {
                "usage": read_int(f"{self._folder}/memory.current"),
                "max_usage": read_int(f"{self._folder}/memory.peak"),
                "limit": read_int(f"{self._folder}/memory.max"),
                "failcnt": read_pairs(f"{self._folder}/memory.events").get("max", 0),
                "stat": read_pairs(f"{self._folder}/memory.stat"),
            },
            "blkio": self._io_stats(),
            "pids": {
                "current": read_int(f"{self._folder}/pids.current"),
                "limit": read_int(f"{self._folder}/pids.max"),
            },
        }

    def _io_stats(self) -> dict[str, Any]:
        try:
            text = read(f"{self._folder}/io.stat")
        except OSError:
            text = ""
        sizes: list[dict[str, Any]] = []
        counts: list[dict[str, Any]] = []
        wanted = {"rbytes": ("read", sizes), "wbytes": ("write", sizes), "rios": ("read", counts),
                  "wios": ("write", counts)}  # fmt: skip
        for line in text.splitlines():
            device, *pairs = line.split()
            major, _, minor = device.partition(":")
            for pair in pairs:
                key, _, value = pair.partition("=")
                if key in wanted:
                    operation, rows = wanted[key]
                    rows.append({"major": int(major), "minor": int(minor), "op": operation, "value": int(value)})
        return {"io_service_bytes_recursive": sizes, "io_serviced_recursive": counts}

    def delete(self) -> bool:
        """Remove the folder; False while processes are left (see files.Cgroup)."""
        return remove_tree(self._folder)


def _enable_controllers(folder: str) -> None:
    """Give the children of a cgroup all controllers it has; one that refuses is left out."""
    available = set(read(f"{folder}/cgroup.controllers").split())
    for name in sorted(available - set(read(f"{folder}/cgroup.subtree_control").split())):
        try:
            write(f"{folder}/cgroup.subtree_control", f"+{name}")
        except CgroupError as error:
            if error.errno not in (errno.EBUSY, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOENT):
                raise
