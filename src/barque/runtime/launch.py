"""Start a container: clone, do what only the parent can, and follow the child to its exec.

    child = launch(LaunchRequest(spec=config, bundle=folder, stdio=(0, 1, 2)))
    # poll child.channel for reading, then, until it is no longer Pending:
    outcome = progress(child)                # Pending, Held, Running or Failed

The child executes steps compiled before the clone (`runtime.plan`, `runtime.init`). Only a
single-threaded process may call `launch`; it reaps the child and closes `child` afterwards.

A plain container is cloned straight into its namespaces. Where a user namespace meets joined
namespaces or a cgroup, a short-lived stage joins first and clones the child as its sibling, so
that the child is the caller's own in every case.
"""

import fcntl
import json
import os
import socket
from typing import Any, NamedTuple

from barque.base.errors import KernelError
from barque.kernel import limits, mount as km, namespaces, process
from barque.kernel.packets import close_all
from barque.runtime import channel as messages, hooks, init, intel_rdt, plan
from barque.runtime.channel import StepError, errno_text
from barque.runtime.child import Child, Failed, Held, Pending, Running, progress, release
from barque.runtime.devices import Device, node_trees
from barque.runtime.entering import Entering
from barque.runtime.mount_options import MountOptions
from barque.runtime.mounts import open_bind
from barque.runtime.settings import set_oom_score

__all__ = ["Child", "Failed", "Held", "LaunchRequest", "Pending", "Running", "launch", "progress", "release"]


class LaunchRequest(NamedTuple):
    """All a container needs.

    `spec` is a validated config.json; relative paths in it start at `bundle`. `root_mounts` are
    mounted on the root's path inside the container's mount namespace. `stdio` become 0, 1 and 2
    unless the process has a terminal. `namespace_fds` win over paths in `spec`. `seccomp` is a
    compiled program. `cgroup` exists already. With `hold` the child stops right before exec
    until `release`, or, with `hold_fd` (a FIFO opened O_RDWR), until somebody writes a byte to
    it. `keep_fds` become 3 and up, -1 among them a closed one. Without `pivot` the root is moved
    over / and entered by chroot.
    """

    spec: dict[str, Any]
    bundle: str
    root_mounts: list[dict[str, Any]] | tuple[dict[str, Any], ...] = ()
    stdio: tuple[int, int, int] = (0, 1, 2)
    namespace_fds: dict[str, int] | None = None
    seccomp: bytes | None = None
    cgroup: Any = None
    hold: bool = False
    keep_fds: tuple[int, ...] = ()
    hold_fd: int = -1
    container_id: str = ""
    pivot: bool = True
    new_keyring: bool = True


def launch(request: LaunchRequest) -> Child:
    """Clone the container's first process; it is followed with `progress`.

    Raises:
        StepError: the request cannot be met on this kernel.
        KernelError: a namespace cannot be opened or the clone was refused.
    """
    job = _Job(request)
    try:
        return job.start()
    finally:
        job.close()


class _Job:
    """One launch: what is open during it, and the order of things."""

    def __init__(self, request: LaunchRequest) -> None:
        self.request = request
        self.linux: dict[str, Any] = request.spec.get("linux") or {}
        self.opened: list[int] = []
        # For the clone alone. A child that had it could be named a program of the host's by it: "/proc/self/fd/9/../..".
        self.cgroup_fd = -1
        self.lowest = 3 + len(request.keep_fds)
        self.uids = plan.parse_maps(self.linux.get("uidMappings"))
        self.gids = plan.parse_maps(self.linux.get("gidMappings"))
        if any(entry["type"] == "user" and not entry.get("path") for entry in self.linux.get("namespaces") or []):
            # Without a map nobody could be root inside: as `unshare -r`, root is who calls.
            self.uids = self.uids or [namespaces.IdMap(0, os.geteuid(), 1)]
            self.gids = self.gids or [namespaces.IdMap(0, os.getegid(), 1)]

    def close(self) -> None:
        """Close what only the child and its clone needed."""
        close_all((*self.opened, self.cgroup_fd))

    def keep(self, fd: int) -> int:
        """Own `fd`, moved out of the way of what the program is handed."""
        if fd < self.lowest:
            moved: int = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, self.lowest)
            os.close(fd)
            fd = moved
        self.opened.append(fd)
        return fd

    def start(self) -> Child:
        """Compile, clone, and map ids."""
        entering = self._entering()
        compiled = self._compile(entering)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        child = Child(ours, Server(self))
        # /proc/<pid> of a process that is not dumpable shows nothing to the container.
        process.set_dumpable(False)
        try:
            with theirs:
                entering.clone(child, lambda: init.run(compiled, theirs.fileno()), theirs.fileno())
            if "user" in entering.new:
                self._map_ids(child)
        except BaseException:
            if child.pid > 0:
                _kill(child)
            child.close()
            raise
        return child

    def _map_ids(self, child: Child) -> None:
        try:
            namespaces.write_maps(child.pid, self.uids, self.gids)
        except OSError as error:
            raise StepError(
                f"writing id mappings {error.filename}: {errno_text(error.errno)}", error.errno or 0
            ) from None
        child.send(messages.GO)

    def _entering(self) -> Entering:
        new, joined = set(), {}
        given = self.request.namespace_fds or {}
        for entry in self.linux.get("namespaces") or []:
            kind = entry["type"]
            if kind in given:
                continue
            if entry.get("path"):
                joined[kind] = self.keep(_open_namespace(kind, entry["path"]))
            else:
                new.add(kind)
        for kind, fd in given.items():
            joined[kind] = self.keep(os.dup(fd))
        cgroup = self.request.cgroup
        if cgroup is not None:
            self.cgroup_fd = cgroup.dir_fd()
        return Entering(
            frozenset(new),
            joined,
            cgroup,
            self.cgroup_fd,
            # An empty map would leave the child without any id.
            bool(self.uids or self.gids),
            self._time_offsets(),
        )

    def _time_offsets(self) -> str:
        lines = ""
        for clock, offset in (self.linux.get("timeOffsets") or {}).items():
            lines += f"{clock} {offset.get('secs') or 0} {offset.get('nanosecs') or 0}\n"
        return lines

    def _compile(self, entering: Entering) -> init.Plan:
        request = self.request
        scene = plan.Scene(
            request.bundle,
            tuple(request.root_mounts),
            entering.new,
            frozenset(entering.joined),
            request.seccomp,
            request.container_id,
            request.pivot,
            request.new_keyring,
            self._idmap_tree,
            self._host_tree,
            self._device_trees,
        )
        steps, identity, warnings = plan.compile_steps(request.spec, scene)
        oci = request.spec["process"]
        hold_fd = self.keep(os.dup(request.hold_fd)) if request.hold_fd >= 0 else -1
        env = process.unique_env(oci.get("env") or [])
        return init.Plan(
            (*entering.steps(), *steps),
            identity,
            oci["args"],
            env,
            process.prepare_program(oci["args"], env),
            None if oci.get("terminal") else request.stdio,
            request.keep_fds,
            tuple(self.opened),
            request.hold,
            hold_fd,
            "user" in entering.new or "user" in entering.joined,
            ignored_signals(),
            tuple(warnings),
            tuple((request.spec.get("hooks") or {}).get("startContainer") or ()),
        )

    def _host_tree(self, source: str, options: MountOptions) -> int:
        try:
            return self.keep(open_bind(source, options))
        except OSError as error:
            raise StepError(f'error mounting "{source}": {errno_text(error.errno)}', error.errno or 0) from None

    def _device_trees(self, wanted: list[Device]) -> tuple[tuple[str, int], ...]:
        outside = [
            device._replace(uid=_outside(device.uid, self.uids), gid=_outside(device.gid, self.gids))
            for device in wanted
        ]
        try:
            return tuple((path, self.keep(tree)) for path, tree in node_trees(outside))
        except OSError:
            # The host's own nodes are bound instead.
            return ()

    def _idmap_tree(self, source: str, entry: dict[str, Any], options: MountOptions) -> int:
        uids = plan.parse_maps(entry.get("uidMappings")) or self.uids
        gids = plan.parse_maps(entry.get("gidMappings")) or self.gids
        tree = self._host_tree(source, options)
        try:
            userns = namespaces.open_user_namespace(uids, gids)
            try:
                attr = km.MountAttr(set=km.MOUNT_ATTR_IDMAP, userns_fd=userns)
                km.mount_setattr(tree, attr, recursive=options.idmap == "ridmap")
            finally:
                os.close(userns)
        except OSError as error:
            raise StepError(
                f'failed to set MOUNT_ATTR_IDMAP on "{source}": {errno_text(error.errno)}',
                error.errno or 0,
            ) from None
        return tree


class Server:
    """What the parent does when a child asks."""

    __slots__ = ("bundle", "container_id", "offsets", "spec")

    def __init__(self, job: _Job) -> None:
        self.spec = job.request.spec
        self.bundle = job.request.bundle
        self.container_id = job.request.container_id
        self.offsets = job._time_offsets()

    def __call__(self, child: Child, request: str) -> str:
        """Serve one request.

        Raises:
            OSError: the kernel refuses.
            StepError: a hook failed.
        """
        if request == "hooks":
            listed = self.spec.get("hooks") or {}
            for kind in ("prestart", "createRuntime"):
                hooks.run_all(listed.get(kind) or [], kind, self._state(child, "creating"))
        elif request.startswith("state "):
            status = "created" if request == "state startContainer" else "creating"
            return json.dumps(self._state(child, status))
        elif request == "rlimits":
            set_rlimits(child, self.spec["process"])
        elif request == "oom":
            warning = set_oom_score(child.pid, self.spec["process"]["oomScoreAdj"])
            if warning:
                child.warnings.append(warning)
        elif request == "time":
            _write_offsets(child.pid, self.offsets)
        elif request == "devices":
            _move_devices(child.pid, self.spec["linux"]["netDevices"])
        elif request == "resctrl":
            config = self.spec["linux"]["intelRdt"]
            folder = intel_rdt.folder_of(config, self.container_id, intel_rdt.mount_point())
            child.resctrl = folder if intel_rdt.apply(config, folder, child.pid) else ""
        elif request == "listener":
            pass_listener(child, self.spec["linux"]["seccomp"], self._state(child, "creating"))
        return ""

    def _state(self, child: Child, status: str) -> dict[str, Any]:
        annotations = self.spec.get("annotations")
        return hooks.state(self.container_id, self.bundle, status, child.pid, annotations)


def pass_listener(child: Child, profile: dict[str, Any], container: dict[str, Any]) -> None:
    """Hand a filter's listener to who listens on the profile's `listenerPath`.

    Raises:
        StepError: nobody does; the process, which would wait for ever, is killed.
    """
    state = {
        # The version of this message, not of the specification around it.
        "ociVersion": "0.2.0",
        "fds": ["seccompFd"],
        "pid": child.pid,
        "metadata": profile.get("listenerMetadata") or "",
        "state": container,
    }
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as end:
        try:
            end.connect(profile["listenerPath"])
            socket.send_fds(end, [json.dumps(state).encode()], [child.listener_fd])
        except OSError as error:
            process.pidfd_send_signal(child.pidfd, 9)
            raise StepError(
                f"seccomp listener {profile['listenerPath']}: {errno_text(error.errno)}", error.errno or 0
            ) from None


def set_rlimits(child: Child, oci: dict[str, Any]) -> None:
    """Set the limits of an OCI process on a child that may not do so itself.

    Raises:
        KernelError: even the cut limits are refused.
    """
    for value in oci.get("rlimits") or []:
        warning = limits.set_rlimit_clamped(child.pid, value["type"], value["soft"], value["hard"])
        if warning:
            child.warnings.append(warning)


def _move_devices(pid: int, devices: dict[str, Any]) -> None:
    from barque.kernel.netlink.moving import move

    netns = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        for name, wanted in devices.items():
            try:
                move(name, (wanted or {}).get("name") or name, netns)
            except OSError as error:
                raise StepError(
                    f"cannot move network device {name}: {errno_text(error.errno)}", error.errno or 0
                ) from None
    finally:
        os.close(netns)


def _write_offsets(pid: int, offsets: str) -> None:
    fd = os.open(f"/proc/{pid}/timens_offsets", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, offsets.encode())
    finally:
        os.close(fd)


def _open_namespace(kind: str, path: str) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise KernelError(error.errno or 0, f"open {kind} namespace", path) from None


def _outside(inside: int, maps: list[namespaces.IdMap]) -> int:
    for entry in maps:
        if entry.inside <= inside < entry.inside + entry.size:
            return entry.outside + inside - entry.inside
    return inside


def _kill(child: Child) -> None:
    process.pidfd_send_signal(child.pidfd, 9)
    os.waitpid(child.pid, 0)


_ignored: list[tuple[int, ...]] = []


def ignored_signals() -> tuple[int, ...]:
    """Return the signals that this process ignores; read once."""
    if not _ignored:
        _ignored.append(tuple(process.ignored_signals()))
    return _ignored[0]
