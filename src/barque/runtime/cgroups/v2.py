"""Control groups version 2: one tree, limits under new names (Documentation/admin-guide/cgroup-v2)."""

import errno
import os
import select
import signal
import time
from typing import Any

from barque.base.errors import KernelError
from barque.kernel import bpf_devices
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

_FREEZE_TIMEOUT_S = 10.0
_IO_KEYS = (
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
    """Return cpu.weight (1 to 10000) for version 1 shares (2 to 262144)."""
    return max(1, min(10000, 1 + (shares - 2) * 9999 // 262142))


def weight_of_block_io(weight: int) -> int:
    """Return io.weight (1 to 10000) for a version 1 weight (10 to 1000)."""
    return max(1, min(10000, 1 + (weight - 10) * 9999 // 990))


def swap_alone(limit: int | None, both: int) -> str | int:
    """Return memory.swap.max for a version 1 limit of memory and swap together; 0 allows no swap at all.

    Raises:
        CgroupError: the sum is below the memory limit, or there is no memory limit to subtract.
    """
    if both == -1:
        return "max"
    if both == 0:
        return 0
    if not limit or limit < 0:
        raise CgroupError(errno.EINVAL, "cannot set memory.swap.max: a swap limit needs a memory limit")
    if both < limit:
        raise CgroupError(
            errno.EINVAL, f"cannot set memory.swap.max: memory+swap limit {both} is below memory limit {limit}"
        )
    return both - limit


class CgroupV2:
    """A folder of the one tree."""

    version = 2
    __slots__ = ("_folder", "_root", "path")

    def __init__(self, path: str, root: str) -> None:
        self.path = path
        self._root = root
        self._folder = root + path

    def exists(self) -> bool:
        """Tell whether the folder is there."""
        return os.path.isdir(self._folder)

    def folder(self, controller: str = "") -> str:
        """Return the folder: the same for every controller."""
        return self._folder

    def create(self, resources: Resources) -> list[str]:
        """Make the folder, with controllers enabled above it, and set the limits."""
        existed = self.exists()
        try:
            self._make_parents()
            try:
                os.mkdir(self._folder, 0o755)
            except FileExistsError:
                pass
            except OSError as error:
                raise CgroupError(error.errno, f"cannot make cgroup {self._folder}: {error.strerror}") from error
            return self.update(resources)
        except BaseException:
            if not existed:
                remove_tree(self._folder)
            raise

    def _make_parents(self) -> None:
        folder = self._root
        parts = self.path.strip("/").split("/")
        for depth, part in enumerate(parts):
            _enable(folder)
            if depth < len(parts) - 1:
                folder = f"{folder}/{part}"
                if not os.path.isdir(folder):
                    os.mkdir(folder, 0o755)

    def update(self, resources: Resources) -> list[str]:
        """Change limits; return warnings (see files.Cgroup)."""
        warnings: list[str] = []
        self._devices(resources.get("devices") or [])
        self._cpu(resources.get("cpu") or {}, warnings)
        self._memory(resources.get("memory") or {}, warnings)
        limit = (resources.get("pids") or {}).get("limit")
        if limit is not None:
            self._set("pids.max", "max" if limit <= 0 else limit)
        self._block_io(resources.get("blockIO") or {}, warnings)
        for huge in resources.get("hugepageLimits") or []:
            for kind in ("max", "rsvd.max"):
                key = f"hugetlb.{huge['pageSize']}.{kind}"
                if kind == "max" or os.path.exists(f"{self._folder}/{key}"):
                    self._set(key, huge["limit"])
        for device, limits in (resources.get("rdma") or {}).items():
            names = (("hca_handle", "hcaHandles"), ("hca_object", "hcaObjects"))
            words = [f"{key}={limits[name]}" for key, name in names if limits.get(name) is not None]
            self._set("rdma.max", " ".join([device, *words]))
        if resources.get("network"):
            warnings.append("cgroup version 2 has no network class or priority: they were left out")
        for key, value in (resources.get("unified") or {}).items():
            if "/" in key or key.startswith("."):
                raise CgroupError(errno.EINVAL, f"unified resource {key!r}: not a file name")
            if "." not in key:
                raise CgroupError(
                    errno.EINVAL, f"unified resource: the specified key has not the form CONTROLLER.VALUE `{key}`"
                )
            for line in str(value).splitlines():
                self._set(key, line)
        return warnings

    def _set(self, key: str, value: str | int) -> None:
        try:
            write(f"{self._folder}/{key}", value)
        except CgroupError as error:
            if error.errno != errno.ENOENT:
                raise
            controller = key.partition(".")[0]
            known = controller == "cgroup" or controller in read(f"{self._folder}/cgroup.controllers").split()
            reason = "no such file or directory" if known else f"the requested cgroup controller `{controller}` is not available"
            raise CgroupError(errno.ENOENT, f"cannot set {key}: {reason}") from error

    def _devices(self, rules: list[Resources]) -> None:
        if not rules:
            return
        for rule in rules:
            device_rule(rule)
        fd = self.dir_fd()
        try:
            bpf_devices.replace(fd, bpf_devices.compile_rules(rules))
        except KernelError as error:
            raise CgroupError(error.errno, f"cannot set device rules: {error.strerror}") from error
        finally:
            os.close(fd)

    def _cpu(self, cpu: Resources, warnings: list[str]) -> None:
        if cpu.get("shares"):
            self._set("cpu.weight", weight_of_shares(cpu["shares"]))
        if cpu.get("idle") is not None:
            self._set("cpu.idle", cpu["idle"])
        period, quota = cpu.get("period"), cpu.get("quota")
        if quota or period:
            amount = "max" if quota is not None and quota < 0 else quota
            if not amount:
                amount = read(f"{self._folder}/cpu.max").split()[0]
            self._set("cpu.max", f"{amount} {period}" if period else str(amount))
        if cpu.get("burst") is not None:
            self._set("cpu.max.burst", cpu["burst"])
        if cpu.get("realtimePeriod") or cpu.get("realtimeRuntime"):
            warnings.append("cgroup version 2 has no realtime limits: they were left out")
        for name, key in (("cpus", "cpuset.cpus"), ("mems", "cpuset.mems")):
            if cpu.get(name):
                self._set(key, cpu[name])

    def _memory(self, memory: Resources, warnings: list[str]) -> None:
        limit, both = memory.get("limit"), memory.get("swap")
        if both is not None or limit == -1:
            known = limit or read_int(f"{self._folder}/memory.max")
            value = swap_alone(known, -1 if both is None else both)
            if os.path.exists(f"{self._folder}/memory.swap.max") or value not in ("max", 0):
                self._set("memory.swap.max", value)
        if limit:
            self._set("memory.max", "max" if limit == -1 else limit)
        if memory.get("reservation"):
            self._set("memory.low", "max" if memory["reservation"] == -1 else memory["reservation"])
        for name in ("kernel", "kernelTCP", "disableOOMKiller"):
            if memory.get(name):
                warnings.append(f"cgroup version 2 has no memory.{name}: it was left out")
        if memory.get("swappiness") not in (None, -1):
            warnings.append("cgroup version 2 has no memory.swappiness: it was left out")

    def _block_io(self, block: Resources, warnings: list[str]) -> None:
        if block.get("weight"):
            if os.path.exists(f"{self._folder}/io.bfq.weight"):
                self._set("io.bfq.weight", block["weight"])
            elif os.path.exists(f"{self._folder}/io.weight"):
                self._set("io.weight", f"default {weight_of_block_io(block['weight'])}")
            else:
                warnings.append("the kernel has no block I/O weight: it was left out")
        for entry in block.get("weightDevice") or []:
            if entry.get("weight"):
                self._set("io.bfq.weight", f"{entry['major']}:{entry['minor']} {entry['weight']}")
        for name, key in _IO_KEYS:
            for entry in block.get(name) or []:
                rate = entry["rate"] or "max"
                self._set("io.max", f"{entry['major']}:{entry['minor']} {key}={rate}")

    def join_self(self) -> None:
        """Move the calling process in."""
        try:
            write(f"{self._folder}/cgroup.procs", "0")
        except OSError as error:
            raise CgroupError(error.errno, f"cannot join {self._folder}: {os.strerror(error.errno or 0)}") from error

    def dir_fd(self) -> int:
        """Return a descriptor of the folder, the caller's to close."""
        return os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def dir_fd_beside(self, pid: int) -> int:
        """Return a descriptor of the cgroup that a process is in, when that is below this one.

        Raises:
            CgroupError: it is elsewhere.
        """
        for line in read(f"/proc/{pid}/cgroup").splitlines():
            path = line.removeprefix("0::")
            if path != line and f"{path}/".startswith(f"{self.path}/"):
                return os.open(self._root + path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        raise CgroupError(errno.EBUSY, f"process {pid} is not below cgroup {self.path}")

    def below(self, path: str) -> "CgroupV2":
        """Return an existing cgroup below this one (see files.Cgroup)."""
        found = CgroupV2("/".join([self.path, *parts_below(path.removeprefix(":"))]), self._root)
        if not found.exists():
            raise CgroupError(errno.ENOENT, f"no cgroup `{path}` below {self.path}")
        return found

    def bring_back(self, pid: int) -> None:
        """Do nothing: a frozen process of version 2 ends at once when it is killed."""

    def _wait_frozen(self, wanted: int) -> None:
        deadline = time.monotonic() + _FREEZE_TIMEOUT_S
        fd = os.open(f"{self._folder}/cgroup.events", os.O_RDONLY | os.O_CLOEXEC)
        try:
            poller = select.poll()
            poller.register(fd, select.POLLPRI)
            while True:
                if f"frozen {wanted}".encode() in os.pread(fd, 4096, 0):
                    return
                left = deadline - time.monotonic()
                if left <= 0:
                    raise CgroupError(errno.ETIMEDOUT, "cannot pause: the processes did not freeze in time")
                poller.poll(left * 1000)
        finally:
            os.close(fd)

    def freeze(self) -> None:
        """Stop all processes and wait until the kernel says so.

        Raises:
            CgroupError: it did not happen within 10 s; the processes run on.
        """
        write(f"{self._folder}/cgroup.freeze", "1")
        try:
            self._wait_frozen(1)
        except CgroupError:
            write(f"{self._folder}/cgroup.freeze", "0")
            raise

    def thaw(self) -> None:
        """Let the processes run on."""
        write(f"{self._folder}/cgroup.freeze", "0")

    def is_frozen(self) -> bool:
        """Tell whether the processes are stopped."""
        return read_pairs(f"{self._folder}/cgroup.events").get("frozen") == 1

    def processes(self) -> list[int]:
        """Return the pids inside, those of cgroups below included."""
        return processes_below(self._folder)

    def kill(self, signo: int = signal.SIGKILL) -> None:
        """Send a signal to all processes inside; SIGKILL in one step where the kernel can."""
        if signo == signal.SIGKILL:
            try:
                write(f"{self._folder}/cgroup.kill", "1")
                return
            except OSError:
                pass
        signal_all(self.processes(), signo)

    def oom_kills(self) -> int:
        """Return how many processes the kernel killed for want of memory."""
        return read_pairs(f"{self._folder}/memory.events").get("oom_kill", 0)

    def cpu_stats(self) -> dict[str, Any]:
        """Return raw counters of processors, in ns."""
        cpu = read_pairs(f"{self._folder}/cpu.stat")
        return {
            "total_ns": cpu.get("usage_usec", 0) * 1000,
            "per_cpu_ns": [],
            "user_ns": cpu.get("user_usec", 0) * 1000,
            "system_ns": cpu.get("system_usec", 0) * 1000,
            "periods": cpu.get("nr_periods", 0),
            "throttled_periods": cpu.get("nr_throttled", 0),
            "throttled_ns": cpu.get("throttled_usec", 0) * 1000,
        }

    def stats(self) -> dict[str, Any]:
        """Return raw counters: cpu in ns, memory and block I/O in bytes, pids."""
        folder = self._folder
        return {
            "cpu": self.cpu_stats(),
            "memory": {
                "usage": read_int(f"{folder}/memory.current"),
                "max_usage": read_int(f"{folder}/memory.peak"),
                "limit": read_int(f"{folder}/memory.max", 2**64 - 1),
                "failcnt": read_pairs(f"{folder}/memory.events").get("max", 0),
                "stat": read_pairs(f"{folder}/memory.stat"),
            },
            "blkio": {
                "io_service_bytes_recursive": _io(folder, ("rbytes", "Read"), ("wbytes", "Write")),
                "io_serviced_recursive": _io(folder, ("rios", "Read"), ("wios", "Write")),
            },
            "pids": {"current": read_int(f"{folder}/pids.current"), "limit": read_int(f"{folder}/pids.max")},
        }

    def delete(self) -> bool:
        """Remove the folder; False while processes are left (see files.Cgroup)."""
        return remove_tree(self._folder)


def _enable(folder: str) -> None:
    """Enable every available controller for the cgroups below `folder`, each by itself."""
    wanted = set(read(f"{folder}/cgroup.controllers").split())
    for name in sorted(wanted - set(read(f"{folder}/cgroup.subtree_control").split())):
        try:
            write(f"{folder}/cgroup.subtree_control", f"+{name}")
        except CgroupError as error:
            # A controller that this cgroup cannot delegate is missed only by a limit that needs it.
            if error.errno not in (errno.EBUSY, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOENT, errno.EPERM):
                raise


def _io(folder: str, *keys: tuple[str, str]) -> list[dict[str, Any]]:
    try:
        text = read(f"{folder}/io.stat")
    except OSError:
        return []
    rows = []
    for line in text.splitlines():
        device, *pairs = line.split()
        if ":" not in device:
            continue
        major, minor = map(int, device.split(":"))
        values = dict(pair.split("=", 1) for pair in pairs if "=" in pair)
        rows += [{"major": major, "minor": minor, "op": op, "value": int(values.get(key, 0))} for key, op in keys]
    return rows
