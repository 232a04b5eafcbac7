"""Control groups version 1: one folder in each mounted hierarchy (Documentation/admin-guide/cgroup-v1)."""

import errno
import os
import signal
import time
from typing import Any

from barque.runtime.cgroups.files import (
    CgroupError,
    Resources,
    device_rule,
    parts_below,
    processes_below,
    read,
    read_int,
    read_pairs,
    remove_tree,
    signal_all,
    write,
)
from barque.runtime.cgroups.folders_v1 import blkio_counters, inherit_cpuset, make

_FREEZE_TIMEOUT_S = 10.0
_BLKIO_THROTTLES = (
    ("throttleReadBpsDevice", "blkio.throttle.read_bps_device"),
    ("throttleWriteBpsDevice", "blkio.throttle.write_bps_device"),
    ("throttleReadIOPSDevice", "blkio.throttle.read_iops_device"),
    ("throttleWriteIOPSDevice", "blkio.throttle.write_iops_device"),
)
_cache: dict[str, str] | None = None


def hierarchies() -> dict[str, str]:
    """Return the mount point of each version 1 controller (named ones as `name=x`); read once."""
    global _cache  # noqa: PLW0603 - mounts of controllers do not change under a running engine
    if _cache is None:
        found: dict[str, str] = {}
        with open("/proc/self/mountinfo", encoding="utf-8") as lines:
            for line in lines:
                left, _, right = line.partition(" - ")
                kind, _, options = right.partition(" ")
                if kind == "cgroup":
                    names = [name for name in options.split()[-1].split(",") if name not in ("rw", "ro", "xattr")]
                    point = left.split()[4]
                    for name in names:
                        found.setdefault(name, point)
        _cache = found
    return _cache


class CgroupV1:
    """A cgroup of the same path in every hierarchy."""

    version = 1
    # The keeper has one for each container: it holds no more than it must.
    __slots__ = ("_below", "_mounts", "path")

    def __init__(self, path: str, mounts: dict[str, str]) -> None:
        self.path = path
        self._mounts = mounts
        self._below: dict[str, str] | None = None

    @property
    def _folders(self) -> list[str]:
        return [point + self.path for point in dict.fromkeys(self._mounts.values())]

    def folder(self, controller: str) -> str | None:
        """Return the folder in a controller's hierarchy, None where it is not mounted."""
        point = self._mounts.get(controller)
        return None if point is None else point + self.path

    def exists(self) -> bool:
        """Tell whether one of the folders is there."""
        return any(os.path.isdir(folder) for folder in self._folders)

    def create(self, resources: Resources) -> list[str]:
        """Make the folders and set the limits; return warnings (see files.Cgroup)."""
        made: list[str] = []
        try:
            for folder in self._folders:
                make(folder, made)
            cpuset = self._mounts.get("cpuset")
            if cpuset is not None:
                inherit_cpuset(cpuset, self.path)
            return self.update(resources)
        except BaseException:
            for folder in reversed(made):
                remove_tree(folder)
            raise

    def update(self, resources: Resources) -> list[str]:
        """Change limits; return warnings (see files.Cgroup)."""
        warnings: list[str] = []
        if resources.get("unified"):
            raise CgroupError(errno.EINVAL, "unified resources need cgroup version 2: this machine uses version 1")
        self._devices(resources.get("devices") or [])
        self._cpu(resources.get("cpu") or {})
        self._memory(resources.get("memory") or {}, warnings)
        pids = resources.get("pids") or {}
        if pids.get("limit") is not None:
            limit = pids["limit"]
            self._set("pids", "pids.max", "max" if limit <= 0 else limit)
        self._block_io(resources.get("blockIO") or {}, warnings)
        for limit in resources.get("hugepageLimits") or []:
            self._set("hugetlb", f"hugetlb.{limit['pageSize']}.limit_in_bytes", limit["limit"])
        network = resources.get("network") or {}
        if network.get("classID"):
            self._set("net_cls", "net_cls.classid", network["classID"])
        for priority in network.get("priorities") or []:
            self._set("net_prio", "net_prio.ifpriomap", f"{priority['name']} {priority['priority']}")
        for device, limits in (resources.get("rdma") or {}).items():
            words = [device]
            words += [f"{key}={limits[name]}" for key, name in
                      (("hca_handle", "hcaHandles"), ("hca_object", "hcaObjects")) if limits.get(name) is not None]
            self._set("rdma", "rdma.max", " ".join(words))
        return warnings

    def _set(self, controller: str, key: str, value: str | int) -> None:
        folder = self.folder(controller)
        if folder is None:
            raise CgroupError(errno.ENOENT, f"cannot set {key}: the {controller} controller is not mounted")
        write(f"{folder}/{key}", value)

    def _devices(self, rules: list[Resources]) -> None:
        folder = self.folder("devices")
        for rule in rules:
            text = device_rule(rule)
            if folder is None:
                raise CgroupError(errno.ENOENT, "cannot set device rules: the devices controller is not mounted")
            write(f"{folder}/devices.{'allow' if rule.get('allow') else 'deny'}", text)

    def _cpu(self, cpu: Resources) -> None:
        keys = (
            ("shares", "cpu.shares"), ("idle", "cpu.idle"), ("realtimePeriod", "cpu.rt_period_us"),
            ("realtimeRuntime", "cpu.rt_runtime_us"),
        )  # fmt: skip
        for name, key in keys:
            if cpu.get(name):
                self._set("cpu", key, cpu[name])
        self._cpu_quota(cpu.get("period"), cpu.get("quota"))
        if cpu.get("burst") is not None:
            self._set("cpu", "cpu.cfs_burst_us", cpu["burst"])
        for name, key in (("cpus", "cpuset.cpus"), ("mems", "cpuset.mems")):
            if cpu.get(name):
                self._set("cpuset", key, cpu[name])

    def _cpu_quota(self, period: int | None, quota: int | None) -> None:
        """Set period and quota in the order that the kernel takes: their ratio is checked at each write."""
        if not period:
            if quota:
                self._set("cpu", "cpu.cfs_quota_us", quota)
            return
        try:
            self._set("cpu", "cpu.cfs_period_us", period)
            if quota:
                self._set("cpu", "cpu.cfs_quota_us", quota)
        except CgroupError as error:
            if error.errno != errno.EINVAL or not quota:
                raise
            self._set("cpu", "cpu.cfs_quota_us", quota)
            self._set("cpu", "cpu.cfs_period_us", period)

    def _memory(self, memory: Resources, warnings: list[str]) -> None:
        limit, swap = memory.get("limit"), memory.get("swap")
        self._memory_and_swap(limit, swap, warnings)
        if memory.get("reservation") is not None:
            self._set("memory", "memory.soft_limit_in_bytes", memory["reservation"])
        if memory.get("kernelTCP"):
            self._set("memory", "memory.kmem.tcp.limit_in_bytes", memory["kernelTCP"])
        if memory.get("kernel"):
            warnings.append("kernel memory limits are not supported by the kernel any more and were left out")
        swappiness = memory.get("swappiness")
        if swappiness is not None and 0 <= swappiness <= 100:
            self._set("memory", "memory.swappiness", swappiness)
        elif swappiness is not None and swappiness != -1:
            raise CgroupError(errno.EINVAL, f"memory swappiness {swappiness}: must be from 0 to 100")
        if memory.get("disableOOMKiller") is not None:
            folder = self.folder("memory")
            wanted = int(memory["disableOOMKiller"])
            if wanted or (folder and read_pairs(f"{folder}/memory.oom_control").get("oom_kill_disable")):
                self._set("memory", "memory.oom_control", wanted)

    def _memory_and_swap(self, limit: int | None, swap: int | None, warnings: list[str]) -> None:
        """Set both; the sum must never be below the memory limit, so the order depends on the direction."""
        folder = self.folder("memory")
        if not limit and not swap:
            return
        if folder is None:
            raise CgroupError(errno.ENOENT, "cannot set memory limits: the memory controller is not mounted")
        steps = [("memory.limit_in_bytes", limit), ("memory.memsw.limit_in_bytes", swap)]
        if limit == -1 and not swap:
            steps[1] = ("memory.memsw.limit_in_bytes", -1)
        if swap and not os.path.exists(f"{folder}/memory.memsw.limit_in_bytes"):
            warnings.append("the kernel does not account swap: the memory limit is set without a swap limit")
            steps.pop()
        current = read_int(f"{folder}/memory.limit_in_bytes")
        if limit == -1 or swap == -1 or (limit and limit > current) or (swap and not limit and swap > current):
            steps.reverse()
        for key, value in steps:
            if value:
                write(f"{folder}/{key}", value)

    def _block_io(self, block: Resources, warnings: list[str]) -> None:
        folder = self.folder("blkio")
        if block.get("weight"):
            name = "blkio.bfq.weight" if folder and os.path.exists(f"{folder}/blkio.bfq.weight") else "blkio.weight"
            if folder and not os.path.exists(f"{folder}/{name}"):
                warnings.append("the kernel has no block I/O weight: it was left out")
            else:
                self._set("blkio", name, block["weight"])
        for entry in block.get("weightDevice") or []:
            name = "blkio.bfq.weight_device"
            if folder and not os.path.exists(f"{folder}/{name}"):
                name = "blkio.weight_device"
            if entry.get("weight"):
                self._set("blkio", name, f"{entry['major']}:{entry['minor']} {entry['weight']}")
        for name, key in _BLKIO_THROTTLES:
            for entry in block.get(name) or []:
                self._set("blkio", key, f"{entry['major']}:{entry['minor']} {entry['rate']}")

    def join_self(self) -> None:
        """Move the calling thread in, by `tasks`: `cgroup.procs` waits for a grace period of RCU."""
        for folder in self._folders:
            tasks = f"{(self._below or {}).get(folder, folder)}/tasks"
            try:
                fd = os.open(tasks, os.O_WRONLY | os.O_CLOEXEC)
                try:
                    os.write(fd, b"0")
                finally:
                    os.close(fd)
            except OSError as error:
                raise CgroupError(error.errno, f"cannot join {tasks}: {error.strerror}") from error

    def dir_fd(self) -> int:
        """Return -1: version 1 has no CLONE_INTO_CGROUP."""
        return -1

    def dir_fd_beside(self, pid: int) -> int:
        """Return -1: version 1 has no CLONE_INTO_CGROUP."""
        return -1

    def below(self, path: str) -> "CgroupV1":
        """Return a cgroup below this one: `controllers:path` for some hierarchies, a path for those that have it.

        Raises:
            CgroupError: no hierarchy has it, or the path would leave this cgroup.
        """
        names, colon, wanted = path.rpartition(":")
        parts = parts_below(wanted)
        points = {self._mounts.get(name) for name in names.split(",")} if colon else set(self._mounts.values())
        found = CgroupV1(self.path, self._mounts)
        folders = {point + self.path: f"{point + self.path}/{'/'.join(parts)}" for point in points if point}
        there = {old: new for old, new in folders.items() if os.path.isdir(new)}
        if not there or (colon and None in points):
            raise CgroupError(errno.ENOENT, f"no cgroup `{path}` below {self.path}")
        found._below = there
        return found

    def bring_back(self, pid: int) -> None:
        """Move a process to this cgroup's freezer: the kernel thaws what it attaches to a thawed one."""
        folder = self.folder("freezer")
        if folder is None:
            return
        try:
            placed = read(f"/proc/{pid}/cgroup")
            if not any(line.partition(":")[2] == f"freezer:{self.path}" for line in placed.splitlines()):
                write(f"{folder}/cgroup.procs", pid)
        except OSError as error:
            # The process has ended meanwhile, or its cgroup was taken away.
            if error.errno not in (errno.ENOENT, errno.ESRCH, errno.ENODEV):
                raise

    def _freezer(self) -> str:
        folder = self.folder("freezer")
        if folder is None:
            raise CgroupError(errno.EOPNOTSUPP, "cannot pause: the freezer controller is not mounted")
        return f"{folder}/freezer.state"

    def freeze(self) -> None:
        """Stop all processes and wait until the kernel says FROZEN.

        Raises:
            CgroupError: it did not happen within 10 s; the processes run on.
        """
        state = self._freezer()
        deadline = time.monotonic() + _FREEZE_TIMEOUT_S
        while True:
            write(state, "FROZEN")
            if read(state).strip() == "FROZEN":
                return
            if time.monotonic() > deadline:
                write(state, "THAWED")
                raise CgroupError(errno.ETIMEDOUT, "cannot pause: the processes did not freeze in time")
            time.sleep(0.001)

    def thaw(self) -> None:
        """Let the processes run on."""
        write(self._freezer(), "THAWED")

    def is_frozen(self) -> bool:
        """Tell whether the processes are stopped."""
        folder = self.folder("freezer")
        try:
            return folder is not None and read(f"{folder}/freezer.state").strip() in ("FROZEN", "FREEZING")
        except OSError:
            return False

    def _any_folder(self) -> str:
        return next((folder for name in ("pids", "freezer", "devices", "memory")
                     if (folder := self.folder(name)) is not None), self._folders[0])  # fmt: skip

    def processes(self) -> list[int]:
        """Return the pids inside, those of cgroups below included."""
        return processes_below(self._any_folder())

    def kill(self, signo: int = signal.SIGKILL) -> None:
        """Send a signal to all processes inside."""
        signal_all(self.processes(), signo)

    def oom_kills(self) -> int:
        """Return how many processes the kernel killed for want of memory."""
        folder = self.folder("memory")
        return read_pairs(f"{folder}/memory.oom_control").get("oom_kill", 0) if folder else 0

    def cpu_stats(self) -> dict[str, Any]:
        """Return raw counters of processors, in ns."""
        cpuacct = self.folder("cpuacct") or ""
        throttled = read_pairs(f"{self.folder('cpu')}/cpu.stat")
        ticks = read_pairs(f"{cpuacct}/cpuacct.stat")
        tick_ns = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
        try:
            per_cpu = [int(value) for value in read(f"{cpuacct}/cpuacct.usage_percpu").split()]
        except OSError:
            per_cpu = []
        return {
            "total_ns": read_int(f"{cpuacct}/cpuacct.usage"),
            "per_cpu_ns": per_cpu,
            "user_ns": ticks.get("user", 0) * tick_ns,
            "system_ns": ticks.get("system", 0) * tick_ns,
            "periods": throttled.get("nr_periods", 0),
            "throttled_periods": throttled.get("nr_throttled", 0),
            "throttled_ns": throttled.get("throttled_time", 0),
        }

    def stats(self) -> dict[str, Any]:
        """Return raw counters: cpu in ns, memory and block I/O in bytes, pids."""
        memory = self.folder("memory") or ""
        pids = self.folder("pids") or ""
        return {
            "cpu": self.cpu_stats(),
            "memory": {
                "usage": read_int(f"{memory}/memory.usage_in_bytes"),
                "max_usage": read_int(f"{memory}/memory.max_usage_in_bytes"),
                "limit": read_int(f"{memory}/memory.limit_in_bytes"),
                "failcnt": read_int(f"{memory}/memory.failcnt"),
                "stat": read_pairs(f"{memory}/memory.stat"),
            },
            "blkio": {
                "io_service_bytes_recursive": blkio_counters(self.folder("blkio"), "io_service_bytes"),
                "io_serviced_recursive": blkio_counters(self.folder("blkio"), "io_serviced"),
            },
            "pids": {"current": read_int(f"{pids}/pids.current"), "limit": read_int(f"{pids}/pids.max")},
        }

    def delete(self) -> bool:
        """Remove the folders; False while processes are left (see files.Cgroup)."""
        return all([remove_tree(folder) for folder in self._folders])  # noqa: C419 - each is tried
