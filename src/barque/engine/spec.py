"""From a container's configuration to config.json, with Docker's defaults. Pure but for looking at devices."""

import functools
import glob
import posixpath
from typing import Any, NamedTuple

from barque.base.errors import InvalidInputError
from barque.engine import apparmor
from barque.engine.checks import normal_capability, parse_security_option
from barque.engine.resources import devices_of, rlimits
from barque.kernel.caps import NAMES
from barque.runtime.users import ExecUser

Json = dict[str, Any]
DEFAULT_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DEFAULT_CAPABILITIES = (
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID",
    "CAP_SETUID", "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL",
    "CAP_AUDIT_WRITE",
)  # fmt: skip
MASKED_PATHS = (
    "/proc/asound", "/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
    "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware",
    "/sys/devices/virtual/powercap",
)  # fmt: skip
READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
INIT_PATH = "/sbin/docker-init"
_ONLINE = "/sys/devices/system/cpu/online"
_THROTTLES = "/sys/devices/system/cpu/cpu[0-9]*/thermal_throttle"


class Surroundings(NamedTuple):
    """What a spec needs besides the request: all found out when the container starts."""

    container_id: str
    hostname: str
    user: ExecUser
    etc_files: tuple[tuple[str, str], ...]
    """(source on the host, target) of hosts, hostname and resolv.conf."""
    points: tuple[Json, ...]
    """Mounts with their sources found."""
    joined: dict[str, int]
    """Namespace type -> pid of the process whose namespace is shared."""
    network_path: str
    """Path of the network namespace, empty: given by descriptor."""
    shm_source: str
    """Folder to bind on /dev/shm, empty: a tmpfs of the container's own."""
    init_source: str
    cgroups_v2: bool
    default_shm: int
    default_ulimits: tuple[Json, ...] = ()
    no_new_privileges: bool = False
    cgroup_namespace: str = "private"


def masked_paths() -> list[str]:
    """Return the paths that are hidden by default: with them the counters that tell of other users' work."""
    with open(_ONLINE, encoding="ascii") as file:
        return [*MASKED_PATHS, *_throttles(file.read())]


@functools.lru_cache(maxsize=4)
def _throttles(_online: str) -> list[str]:
    """Return the counters of the processors that are there; looked for anew where these are others."""
    return sorted(glob.glob(_THROTTLES))


def build(config: Json, host: Json, path: str, args: list[str], around: Surroundings) -> Json:
    """Return config.json without its resources.

    Raises:
        InvalidInputError: a setting that cannot be.
    """
    privileged = bool(host.get("Privileged"))
    linux: Json = {
        "cgroupsPath": "",
        "namespaces": _namespaces(host, around),
        "maskedPaths": [] if privileged else _paths(host, "MaskedPaths", masked_paths()),
        "readonlyPaths": [] if privileged else _paths(host, "ReadonlyPaths", list(READONLY_PATHS)),
        "sysctl": _sysctls(host),
        "devices": [],
        "rootfsPropagation": _root_propagation(around.points),
    }
    devices, _ = devices_of(host)
    linux["devices"] = devices
    spec: Json = {
        "ociVersion": "1.2.0",
        "process": process(config, host, [path, *args], around),
        "root": {"path": "rootfs", "readonly": bool(host.get("ReadonlyRootfs"))},
        "mounts": _mounts(host, around),
        "linux": {key: value for key, value in linux.items() if value},
    }
    if (host.get("UTSMode") or "") != "host":
        spec["hostname"] = around.hostname
        if config.get("Domainname"):
            spec["domainname"] = config["Domainname"]
    if host.get("Annotations"):
        spec["annotations"] = dict(host["Annotations"])
    return spec


def _paths(host: Json, key: str, default: list[str]) -> list[str]:
    value = host.get(key)
    for option in host.get("SecurityOpt") or []:
        if parse_security_option(option) == ("systempaths", "unconfined"):
            return []
    return list(default if value is None else value)


def process(config: Json, host: Json, command: list[str], around: Surroundings) -> Json:
    """Return the process object of the first process."""
    if host.get("Init") and around.init_source:
        command = [INIT_PATH, "--", *command]
    made: Json = {
        "args": command,
        "env": environment(config, around.hostname, around.user.home, tty=bool(config.get("Tty"))),
        "cwd": posixpath.normpath("/" + (config.get("WorkingDir") or "/").lstrip("/")),
        "user": user_object(around.user),
        "capabilities": capability_sets(capabilities(host), around.user.uid),
        "noNewPrivileges": no_new_privileges(host, default=around.no_new_privileges),
        "oomScoreAdj": host.get("OomScoreAdj") or 0,
    }
    profile = apparmor.profile_of(host)
    if profile:
        made["apparmorProfile"] = profile
    if config.get("Tty"):
        made["terminal"] = True
        size = host.get("ConsoleSize") or [0, 0]
        if any(size):
            made["consoleSize"] = {"height": size[0], "width": size[1]}
    limits = rlimits(host, around.default_ulimits)
    if limits:
        made["rlimits"] = limits
    return made


def user_object(user: ExecUser) -> Json:
    """Return the OCI user of resolved ids."""
    return {"uid": user.uid, "gid": user.gid, "additionalGids": list(user.groups)}


def environment(config: Json, hostname: str, home: str, *, tty: bool) -> list[str]:
    """Return PATH, HOSTNAME, TERM, then the configuration's, then HOME where it is missing."""
    result = {"PATH": DEFAULT_PATH, "HOSTNAME": f"HOSTNAME={hostname}"}
    if tty:
        result["TERM"] = "TERM=xterm"
    for entry in config.get("Env") or []:
        key, has_value, _ = entry.partition("=")
        if has_value:
            result[key] = entry
        else:
            result.pop(key, None)
    result.setdefault("HOME", f"HOME={home}")
    return list(result.values())


def capabilities(host: Json) -> list[str]:
    """Return the names a container may have at all, in the kernel's order."""
    if host.get("Privileged"):
        return list(NAMES)
    add = [normal_capability(name) for name in host.get("CapAdd") or []]
    drop = [normal_capability(name) for name in host.get("CapDrop") or []]
    found = set(NAMES) if "ALL" in add else set(DEFAULT_CAPABILITIES)
    if "ALL" in drop:
        found = set(NAMES) if "ALL" in add else set()
    else:
        found -= set(drop)
    found |= set(add) - {"ALL"}
    return [name for name in NAMES if name in found]


def capability_sets(names: list[str], uid: int) -> Json:
    """Return the OCI sets: users other than root get bounding alone, as after an execve."""
    sets: Json = {"bounding": names}
    if uid == 0:
        sets |= {"effective": names, "permitted": names}
    return sets


def no_new_privileges(host: Json, *, default: bool) -> bool:
    """Tell whether the process may not gain privileges."""
    for option in host.get("SecurityOpt") or []:
        key, value = parse_security_option(option)
        if key == "no-new-privileges":
            return value == "true"
    return default


def seccomp_choice(host: Json) -> str:
    """Return "" for the default profile, "unconfined", or the profile's JSON."""
    if host.get("Privileged"):
        return "unconfined"
    for option in host.get("SecurityOpt") or []:
        key, value = parse_security_option(option)
        if key == "seccomp":
            return "" if value == "builtin" else value
    return ""


def _namespaces(host: Json, around: Surroundings) -> list[Json]:
    found: list[Json] = [{"type": "mount"}]
    network = host.get("NetworkMode") or "default"
    if network != "host":
        entry: Json = {"type": "network"}
        if around.network_path:
            entry["path"] = around.network_path
        elif "network" in around.joined:
            entry["path"] = f"/proc/{around.joined['network']}/ns/net"
        found.append(entry)
    if (host.get("UTSMode") or "") != "host":
        found.append({"type": "uts"})
    for kind, mode in (("pid", host.get("PidMode") or ""), ("ipc", host.get("IpcMode") or "")):
        if mode == "host":
            continue
        entry = {"type": kind}
        if kind in around.joined:
            entry["path"] = f"/proc/{around.joined[kind]}/ns/{kind}"
        found.append(entry)
    if around.cgroup_namespace == "private":
        found.append({"type": "cgroup"})
    return found


def _sysctls(host: Json) -> dict[str, str]:
    found: dict[str, str] = {}
    own_network = (host.get("NetworkMode") or "default") != "host" \
        and not (host.get("NetworkMode") or "").startswith("container:")  # fmt: skip
    if own_network:
        found["net.ipv4.ip_unprivileged_port_start"] = "0"
        found["net.ipv4.ping_group_range"] = "0 2147483647"
    for key, value in (host.get("Sysctls") or {}).items():
        if key.startswith("net.") and (host.get("NetworkMode") or "") == "host":
            raise InvalidInputError(f"sysctl {key} not allowed in host network namespace")
        found[key] = str(value)
    return found


def _root_propagation(points: tuple[Json, ...]) -> str:
    modes = {point.get("Propagation") for point in points}
    if modes & {"shared", "rshared"}:
        return "shared"
    return "rslave" if modes & {"slave", "rslave"} else ""


def _mounts(host: Json, around: Surroundings) -> list[Json]:
    privileged = bool(host.get("Privileged"))
    shm = host.get("ShmSize") or around.default_shm
    sys_mode = "rw" if privileged else "ro"
    cgroup_rw = privileged or any(
        parse_security_option(o) == ("writable-cgroups", "true") for o in host.get("SecurityOpt") or []
    )
    found: list[Json] = [
        _mount("/proc", "proc", "proc", "nosuid", "noexec", "nodev"),
        _mount("/dev", "tmpfs", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k"),
        _mount("/dev/pts", "devpts", "devpts", "nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620",
               "gid=5"),
        _mount("/sys", "sysfs", "sysfs", "nosuid", "noexec", "nodev", sys_mode),
        _mount("/sys/fs/cgroup", "cgroup", "cgroup", "rw" if cgroup_rw else "ro", "nosuid", "noexec", "nodev",
               *([] if around.cgroups_v2 else ["relatime"])),
        _mount("/dev/mqueue", "mqueue", "mqueue", "nosuid", "noexec", "nodev"),
    ]  # fmt: skip
    ipc = host.get("IpcMode") or ""
    if not around.shm_source and ipc != "none":
        found.append(_mount("/dev/shm", "tmpfs", "shm", "nosuid", "noexec", "nodev", "mode=1777", f"size={shm}"))
    taken = {point["Destination"] for point in around.points} | set(host.get("Tmpfs") or {})
    found = [mount for mount in found if mount["destination"] not in taken]
    own: list[Json] = [_mount(target, "bind", source, "rbind", "rprivate")
                       for source, target in around.etc_files if target not in taken]  # fmt: skip
    if around.shm_source and "/dev/shm" not in taken:
        own.append(_mount("/dev/shm", "bind", around.shm_source, "rbind", "rprivate"))
    if host.get("Init") and around.init_source:
        own.append(_mount(INIT_PATH, "bind", around.init_source, "bind", "ro"))
    for point in around.points:
        own.append(mount_of_point(point))
    for target, options in (host.get("Tmpfs") or {}).items():
        own.append(_tmpfs(target, options))
    # A mount inside another comes after it; the sort is stable.
    own.sort(key=lambda mount: mount["destination"].rstrip("/").count("/"))
    if host.get("ReadonlyRootfs"):
        for mount in own:
            if mount["source"] in {source for source, _ in around.etc_files}:
                mount["options"].append("ro")
    return found + own


def _mount(target: str, kind: str, source: str, *options: str) -> Json:
    return {"destination": target, "type": kind, "source": source, "options": list(options)}


def mount_of_point(point: Json) -> Json:
    """Return the OCI mount of one that a user asked for."""
    if point["Type"] == "tmpfs":
        return _tmpfs(point["Destination"], point.get("tmpfs") or "")
    deep = not point.get("non_recursive")
    options = ["rbind" if deep else "bind"]
    if not point["RW"]:
        # What is mounted below a read-only bind is read-only too, unless the user wants it otherwise.
        options += ["ro", "rro"] if deep and not point.get("shallow_ro") else ["ro"]
    made = _mount(point["Destination"], "bind", point.get("path") or point["Source"], *options,
                  point.get("Propagation") or "rprivate")  # fmt: skip
    if point.get("maps"):
        made["options"].append("idmap")
        made["uidMappings"], made["gidMappings"] = point["maps"]
    return made


def _tmpfs(target: str, options: str) -> Json:
    words = ["noexec", "nosuid", "nodev"]
    opposite = {"exec": "noexec", "suid": "nosuid", "dev": "nodev"}
    for word in filter(None, options.split(",")):
        if word in opposite:
            words = [w for w in words if w != opposite[word]]
        if word not in words:
            words.append(word)
    return _mount(posixpath.normpath(target), "tmpfs", "tmpfs", *words)
