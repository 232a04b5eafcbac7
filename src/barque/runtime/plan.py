"""Compile a config.json into the steps that the child will run: pure but for the host's tables."""

import os
import posixpath
from typing import Any, NamedTuple

from barque.kernel import limits, mount as km
from barque.kernel.namespaces import IdMap
from barque.runtime import devices as dev, mount_options, mounts, rootfs
from barque.runtime.channel import StepError
from barque.runtime.identity import (
    NEW_LISTENER,
    Identity,
    MemoryPolicy,
    OpenLabel,
    Scheduling,
    parse_capabilities,
)
from barque.runtime.init import Step
from barque.runtime.scheduling import memory_policy, process_steps
from barque.runtime.settings import (
    Hooks,
    Keyring,
    LoopbackUp,
    MaskPaths,
    Names,
    NetDevices,
    OomScore,
    ReadonlyPaths,
    ResourceControl,
    Session,
    Sysctls,
    sysctl_path,
)

_KEEP_GROUPS = "run.oci.keep_original_groups"
SECCOMP_FLAGS = {
    "SECCOMP_FILTER_FLAG_TSYNC": 1,
    "SECCOMP_FILTER_FLAG_LOG": 2,
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW": 4,
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV": 32,
}

_IPC_SYSCTLS = frozenset(
    f"kernel.{name}" for name in ("msgmax", "msgmnb", "msgmni", "sem", "shmall", "shmmax", "shmmni", "shm_rmid_forced")
)


class Scene(NamedTuple):
    """What the plan needs to know besides config.json."""

    bundle: str
    root_mounts: tuple[dict[str, Any], ...]
    new: frozenset[str]
    joined: frozenset[str]
    seccomp: bytes | None
    container_id: str
    pivot: bool
    new_keyring: bool
    idmap_tree: Any
    """(source, mount entry, options) -> descriptor of an id-mapped tree."""
    host_tree: Any
    """(source, options) -> descriptor of a tree that the container's root may not reach."""
    device_trees: Any
    """(devices) -> (path, descriptor) of nodes made outside a user namespace."""


def compile_steps(spec: dict[str, Any], scene: Scene) -> tuple[list[Step], Identity, list[str]]:
    """Return the steps, the identity to end with, and warnings for the user.

    Raises:
        StepError: for what this kernel cannot give.
    """
    process = spec.get("process") or {}
    linux = spec.get("linux") or {}
    steps: list[Step] = [Session()]
    if scene.new_keyring:
        steps.append(Keyring(f"_ses.{scene.container_id}"))
    steps += _settings(spec, scene)
    label_step, label, label_name = label_of(process)
    if label_step:
        steps.append(label_step)
    steps += _file_system(spec, process, scene)
    if linux.get("memoryPolicy") is not None:
        steps.append(MemoryPolicy(*memory_policy(linux["memoryPolicy"])))
    if linux.get("personality"):
        domain = linux["personality"]["domain"]
        steps.append(Scheduling(None, None, limits.PERSONALITIES[domain]))
    steps += process_steps(process)
    identity, warnings = make_identity(process, scene.seccomp, seccomp_flags(linux.get("seccomp")), label, label_name)
    if spec.get("mounts") and "mount" not in scene.new | scene.joined:
        warnings.append("the mounts are left out: the container has no mount namespace")
    if (spec.get("annotations") or {}).get(_KEEP_GROUPS) == "1":
        identity = identity._replace(groups=None)
    return steps, identity, warnings


def _settings(spec: dict[str, Any], scene: Scene) -> list[Step]:
    process = spec.get("process") or {}
    steps: list[Step] = []
    if "network" in scene.new:
        steps.append(LoopbackUp())
    if (spec.get("linux") or {}).get("netDevices"):
        steps.append(NetDevices())
    if (spec.get("linux") or {}).get("intelRdt") is not None:
        steps.append(ResourceControl())
    if spec.get("hostname") or spec.get("domainname"):
        if "uts" not in scene.new | scene.joined:
            raise StepError("unable to set hostname without a private UTS namespace")
        steps.append(Names(spec.get("hostname") or "", spec.get("domainname") or ""))
    score = process.get("oomScoreAdj")
    if score is not None:
        steps.append(OomScore(score))
    return steps


def _file_system(spec: dict[str, Any], process: dict[str, Any], scene: Scene) -> list[Step]:
    linux = spec.get("linux") or {}
    root = spec.get("root") or {}
    path = os.path.join(scene.bundle, root.get("path") or "rootfs")
    sysctls = tuple((linux.get("sysctl") or {}).items())
    hooks = spec.get("hooks") or {}
    tail: list[Step] = []
    if sysctls:
        for key, value in sysctls:
            name = key.replace("/", ".")
            if {"", ".", ".."} & set(sysctl_path(key).split("/")):
                # `net/../kernel/core_pattern` begins as one of the container's own, and is the host's.
                raise StepError(f'sysctl "{key}" names no parameter: it must not lead out of its folder')
            if name == "kernel.domainname" and spec.get("domainname") not in (None, "", value):
                raise StepError(f'sysctl "{name}" conflicts with domainname')
            _check_sysctl(name, scene.new | scene.joined)
        tail.append(Sysctls(sysctls))
    if hooks.get("prestart") or hooks.get("createRuntime") or hooks.get("createContainer"):
        tail.append(Hooks("createContainer", tuple(hooks.get("createContainer") or ())))
    if "mount" not in scene.new | scene.joined:
        return [*tail, rootfs.Chroot(path)]
    flags = mount_options.PROPAGATION[linux.get("rootfsPropagation") or "rslave"]
    # What is unbindable cannot be bound: the root becomes so at the end.
    first = km.MS_SLAVE | km.MS_REC if flags & km.MS_UNBINDABLE else flags
    steps: list[Step] = [rootfs.Propagation(first, path), rootfs.RootMounts(path, scene.root_mounts)]
    entries = spec.get("mounts") or []
    steps += [_mount_step(entry, scene) for entry in entries]
    steps += _dev_steps(entries, linux, process, scene)
    cwd = process.get("cwd") or "/"
    if cwd != "/":
        steps.append(mounts.WorkingFolder(cwd))
    steps += tail
    if linux.get("readonlyPaths"):
        steps.append(ReadonlyPaths(tuple(linux["readonlyPaths"])))
    if linux.get("maskedPaths"):
        steps.append(MaskPaths(tuple(linux["maskedPaths"])))
    if root.get("readonly"):
        steps.append(rootfs.ReadonlyRoot())
    after = 0 if not linux.get("rootfsPropagation") else flags
    steps.append(rootfs.Enter(scene.pivot, after))
    return steps


def _check_sysctl(key: str, own: frozenset[str]) -> None:
    """Refuse parameters that would be the host's, in runc's words."""
    if key in _IPC_SYSCTLS or key.startswith("fs.mqueue."):
        kind = "ipc"
    elif key.startswith("net."):
        if "network" not in own:
            raise StepError(f'sysctl "{key}" not allowed in host network namespace')
        return
    elif key == "kernel.hostname":
        raise StepError('sysctl "kernel.hostname" conflicts with hostname')
    elif key == "kernel.domainname":
        kind = "uts"
    elif key.startswith("user."):
        kind = "user"
    else:
        raise StepError(f'sysctl "{key}" is not in a separate kernel namespace')
    if kind not in own:
        raise StepError(f'sysctl "{key}" is not allowed in the hosts {kind} namespace')


def _dev_steps(
    entries: list[dict[str, Any]], linux: dict[str, Any], process: dict[str, Any], scene: Scene
) -> list[Step]:
    steps: list[Step] = []
    if not any(
        posixpath.normpath("/" + e["destination"].lstrip("/")) == "/dev"
        and ("bind" in (e.get("options") or []) or "rbind" in (e.get("options") or []))
        for e in entries
    ):
        nodes = {device.path: device for device in dev.DEFAULT_DEVICES}
        for entry in linux.get("devices") or []:
            device = dev.parse_device(entry)
            nodes[device.path] = device
        asked = [nodes[entry["path"]] for entry in linux.get("devices") or []]
        trees = scene.device_trees(asked) if "user" in scene.new and asked else ()
        steps.append(dev.MakeDevices(tuple(nodes.values()), trees))
    if process.get("terminal"):
        steps.append(console_step(process, mount_console=True))
    return steps


def console_step(process: dict[str, Any], *, mount_console: bool) -> dev.Console:
    """Return the step that opens a terminal of the size that `process` asks for."""
    size = process.get("consoleSize") or {}
    return dev.Console(size.get("height") or 0, size.get("width") or 0, mount_console)


def _mount_step(entry: dict[str, Any], scene: Scene) -> Step:
    options = mount_options.parse(entry.get("options") or [])
    destination = "/" + entry["destination"].lstrip("/")
    fstype = entry.get("type") or ""
    source = entry.get("source") or ""
    if options.flags & km.MS_REMOUNT:
        return mounts.Remount(destination, options)
    if options.flags & km.MS_BIND or fstype in ("bind", "rbind"):
        if fstype == "rbind":
            options = options._replace(flags=options.flags | km.MS_REC)
        source = os.path.join(scene.bundle, source)
        tree = -1
        if options.idmap or entry.get("uidMappings") or entry.get("gidMappings"):
            tree = scene.idmap_tree(source, entry, options)
        elif "user" in scene.new and not options.copy_symlink:
            tree = scene.host_tree(source, options)
        return mounts.BindMount(source, destination, options, tree)
    if fstype in ("cgroup", "cgroup2"):
        return _cgroup_step(fstype, destination, options, scene)
    if not fstype:
        raise StepError(f'mount at "{destination}" has neither a type nor the option bind')
    if options.idmap:
        raise StepError(f'mount at "{destination}": only bind mounts can be id-mapped')
    return mounts.FileSystemMount(fstype, source, destination, options)


def _cgroup_step(fstype: str, destination: str, options: mount_options.MountOptions, scene: Scene) -> Step:
    namespaced = "cgroup" in scene.new or "cgroup" in scene.joined
    hierarchies = host_hierarchies()
    if fstype == "cgroup2" or not hierarchies:
        return mounts.CgroupV2Mount(destination, options, namespaced)
    return mounts.CgroupV1Mount(destination, options, hierarchies, namespaced)


_hierarchies: list[tuple[mounts.CgroupHierarchy, ...]] = []


def host_hierarchies() -> tuple[mounts.CgroupHierarchy, ...]:
    """Return the v1 hierarchies mounted on this machine; read once."""
    if not _hierarchies:
        _hierarchies.append(tuple(_read_hierarchies()))
    return _hierarchies[0]


def _read_hierarchies() -> list[mounts.CgroupHierarchy]:
    with open("/proc/self/cgroup", encoding="utf-8") as table:
        attached = [line.split(":", 2)[1] for line in table]
    points: dict[frozenset[str], str] = {}
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
        for line in table:
            before, _, after = line.partition(" - ")
            fstype, _, options = after.rstrip("\n").split(" ", 2)
            if fstype == "cgroup":
                points.setdefault(frozenset(options.split(",")), before.split(" ")[4])
    found = []
    for data in attached:
        words = data.split(",")
        for options_set, path in points.items():
            if data and options_set.issuperset(words):
                name = posixpath.basename(path)
                plain = tuple(word for word in words if not word.startswith("name="))
                found.append(mounts.CgroupHierarchy(name, data, plain, path))
                break
    return found


def make_identity(
    process: dict[str, Any],
    seccomp: bytes | None,
    seccomp_flags: int,
    label: bytes,
    label_name: str,
) -> tuple[Identity, list[str]]:
    """Return who the program runs as, and warnings about capabilities."""
    user = process.get("user") or {}
    capabilities, warnings = parse_capabilities(process.get("capabilities"))
    umask = user.get("umask")
    identity = Identity(
        user.get("uid") or 0,
        user.get("gid") or 0,
        tuple(user.get("additionalGids") or ()),
        0o022 if umask is None else umask,
        process.get("cwd") or "/",
        capabilities,
        bool(process.get("noNewPrivileges")),
        seccomp,
        seccomp_flags,
        label,
        label_name,
    )
    return identity, warnings


def seccomp_flags(profile: dict[str, Any] | None) -> int:
    """Return the flags to attach a `linux.seccomp` object's filter with."""
    seccomp = profile or {}
    flags = 0
    for word in seccomp.get("flags") or []:
        flags |= SECCOMP_FLAGS[word]
    if seccomp.get("listenerPath"):
        # A listener and TSYNC exclude each other in their results; one thread needs no TSYNC.
        flags = flags & ~1 | NEW_LISTENER
    return flags


def label_of(process: dict[str, Any]) -> tuple[Step | None, bytes, str]:
    """Return how to write the security label, when one is asked for.

    Raises:
        StepError: the kernel has no such security module.
    """
    profile = process.get("apparmorProfile")
    if profile:
        if not _reads("/sys/module/apparmor/parameters/enabled", "Y"):
            raise StepError(f"unable to apply apparmor profile {profile}: apparmor is not enabled")
        path = "/proc/self/attr/apparmor/exec"
        if not os.path.exists(path):
            path = "/proc/self/attr/exec"
        return OpenLabel(path), f"exec {profile}".encode(), "apparmor profile"
    label = process.get("selinuxLabel")
    if label:
        if not os.path.exists("/sys/fs/selinux/enforce"):
            raise StepError("selinux label is specified in config, but selinux is disabled or not supported")
        return OpenLabel("/proc/self/attr/exec"), label.encode(), "selinux label"
    return None, b"", ""


def _reads(path: str, start: str) -> bool:
    try:
        with open(path, encoding="ascii") as file:
            return file.read(8).startswith(start)
    except OSError:
        return False


def parse_maps(entries: list[dict[str, int]] | None) -> list[IdMap]:
    """Turn linux.uidMappings (or gidMappings) into lines of the kernel's table."""
    return [IdMap(e["containerID"], e["hostID"], e["size"]) for e in entries or []]
