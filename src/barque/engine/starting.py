"""One start: files of /etc, network, config.json, the keeper's call."""

import asyncio
import contextlib
import json
import os
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from barque.base.errors import BarqueError, ConflictError, InvalidInputError
from barque.base.files import write_in_place
from barque.engine import (
    container_mounts,
    device_requests,
    endpoints,
    etc_files,
    health,
    late_hooks,
    links,
    log_shipping,
    resources,
    secrets,
    spec,
    storage_options,
    uptime,
)
from barque.engine.container import Container
from barque.engine.rootfiles import user_of_snapshot
from barque.keeper.client import KeeperError
from barque.kernel import mount as kernel_mount
from barque.kernel.namespaces import KINDS
from barque.network.model import SandboxRequest
from barque.network.ports import parse_requests
from barque.runtime.rootfs import HELD

if TYPE_CHECKING:
    from barque.engine.engine import Engine

Json = dict[str, Any]
_PREFIX = (
    "failed to create task for container: failed to create shim task: OCI runtime create failed: "
    "runc create failed: unable to start container process: "
)
_INIT_NAMES = ("/usr/bin/docker-init", "/usr/libexec/docker/docker-init", "/usr/bin/tini-static", "/usr/bin/tini",
               "/usr/bin/catatonit", "/usr/libexec/podman/catatonit")  # fmt: skip


class StartError(BarqueError):
    """A start failed; exit_code is what the container shows: 126, 127 or 128."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.exit_code = exit_code_of(message)
        self.http_status = 400 if self.exit_code in (126, 127) else 500


def exit_code_of(message: str) -> int:
    """Return the code that Docker gives a container whose start failed with this message."""
    lower = message.lower()
    if any(words in lower for words in ("executable file not found", "no such file or directory")):
        return 127
    if any(words in lower for words in ("permission denied", "is a directory", "exec format error")):
        return 126
    if "not a directory" in lower:
        return 127
    return 128


async def start(engine: "Engine", container: Container) -> None:
    """Start the container's first process and take note of it.

    Raises:
        StartError: the runtime refused.
        BarqueError: a port is taken, a file is missing.
    """
    try:
        started = await launch(engine, container)
    except BaseException:
        if container.sandbox is not None:
            endpoints.publish_events(engine, container, "connect")
            endpoints.publish_events(engine, container, "disconnect")
        raise
    state = container.state
    state.update(status="running", pid=started["pid"], exit_code=0, error="", started_ns=time.time_ns(),
                 finished_ns=state["finished_ns"], oom_killed=False, started_before=True)  # fmt: skip
    container.began_ns = uptime.now_ns()
    engine.changed(container)
    engine.save(container)
    container.started.set()
    endpoints.publish_events(engine, container, "connect")
    container_mounts.tell_mounts(engine, container.row["mounts"], container)
    engine.publish(container, "start")
    etc_files.tell_parents(engine, container)
    early = engine.early_exits.pop(container.id, None)
    if early is not None:
        engine.lifecycle.exited(container, early)
        return
    health.start(engine, container)
    engine.time_limits.begin(container)


async def launch(engine: "Engine", container: Container, root_options: tuple[str, ...] = ()) -> Json:
    """Start the first process of a container that the index need not know; return what the keeper says.

    Args:
        engine: the engine.
        container: what to start.
        root_options: mount options added to its root's.

    Raises:
        StartError: the runtime refused.
        BarqueError: a port is taken, a file is missing.
    """
    endpoint_fd, network_path = _connect(engine, container)
    try:
        points = await container_mounts.prepare(engine, container)
        points += secrets.give(engine, container)
        surroundings = _surroundings(engine, container, points, network_path)
        await _begin_log(engine, container)
        return await _launch(engine, container, surroundings, endpoint_fd, root_options)
    except BaseException:
        clean(engine, container)
        raise


async def _launch(
    engine: "Engine", container: Container, surroundings: spec.Surroundings, endpoint_fd: int | None,
    root_options: tuple[str, ...],
) -> Json:
    host = container.host
    made = spec.build(_config(engine, container), host, container.row["path"], container.row["args"], surroundings)
    runtime = engine.runtime_path(host.get("Runtime") or "")
    limits = resources.resources(host)
    device_requests.inject(engine, host.get("DeviceRequests") or [], made, limits["devices"])
    program = engine.seccomp_program(host, external=bool(runtime))
    cgroup_path = engine.cgroup_path(container)
    if runtime:
        made["linux"]["resources"] = limits
        made["linux"]["cgroupsPath"] = cgroup_path
        profile = engine.seccomp_profile(host)
        if profile is not None:
            made["linux"]["seccomp"] = profile
    # Another runtime runs all hooks itself.
    late_hooks.keep(container, {} if runtime else made)
    bundle = engine.bundle(container.id)
    os.makedirs(f"{bundle}/rootfs", mode=0o710, exist_ok=True)
    # dumps encodes in C, dump in Python.
    write_in_place(f"{bundle}/config.json", json.dumps(made, separators=(",", ":")).encode())
    size = host.get("ConsoleSize") or [0, 0]
    held = (HELD,) if storage_options.size_of(host) else ()
    if held:
        # A file system of its own is mounted here, which takes its time.
        await asyncio.to_thread(engine.snapshots.mounts, container.id)
    container.exited.clear()
    engine.early_exits.pop(container.id, None)
    try:
        with _shared_namespaces(engine, container) as shared:
            started = await engine.keeper.start(
                container.id,
                bundle=bundle,
                root_mounts=[
                    mount._replace(options=(*mount.options, *root_options, *held))._asdict()
                    for mount in engine.snapshots.mounts(container.id)
                ],
                tty=container.tty,
                open_stdin=bool(container.config.get("OpenStdin")),
                stdin_once=bool(container.config.get("StdinOnce")),
                log=log_shipping.keeper_settings(container),
                cgroup={"path": cgroup_path, "resources": limits},
                netns_fd=endpoint_fd,
                namespace_fds=shared,
                seccomp=None if runtime else program,
                runtime=runtime or None,
                console_size=(size[0], size[1]) if container.tty and any(size) else None,
            )
    except KeeperError as error:
        raise StartError(f"{_PREFIX}error during container init: {error}") from error
    container_mounts.release_places(engine, container.id)
    engine.network.started(container.id, started["pid"])
    if container.row.get("hooks"):
        await late_hooks.run(engine, container, "poststart", started["pid"])
    return started


async def _begin_log(engine: "Engine", container: Container) -> None:
    try:
        await engine.logs.begin(container)
    except BarqueError as error:
        raise StartError(f"failed to create task for container: {error}") from error


def _connect(engine: "Engine", container: Container) -> tuple[int | None, str]:
    """Give it its network; return the namespace's descriptor or path where it has one of its own."""
    mode = container.network_mode
    engine.network.release(container.id)
    if mode.startswith("ns:"):
        return None, endpoints.namespace_path(mode)
    if not endpoints.has_own_namespace(container):
        return None, ""
    ports = parse_requests(
        container.host.get("PortBindings"), container.config.get("ExposedPorts") or (),
        publish_all=bool(container.host.get("PublishAllPorts")),
    )  # fmt: skip
    try:
        options, upstreams = endpoints.served(engine, container)
        container.sandbox = engine.network.allocate(
            SandboxRequest(
                container.id,
                container.name,
                endpoints.requests(engine, container),
                ports=ports,
                upstreams=upstreams,
                dns_options=options,
            )
        )
    except BarqueError as error:
        raise type(error)(f"failed to set up container networking: {error}") from error
    if container.row.get("links"):
        links.open_ways(engine, container)
    return container.sandbox.netns_fd, ""


def _config(engine: "Engine", container: Container) -> Json:
    """Return Config with the variables that links bring."""
    if not container.row.get("links"):
        return container.config
    return {**container.config, "Env": links.with_variables(engine, container)}


def _others(engine: "Engine", container: Container) -> Iterator[tuple[str, Container]]:
    """Yield the kinds of namespaces that a container shares with others, and those."""
    for key, kind in (("NetworkMode", "network"), ("PidMode", "pid"), ("IpcMode", "ipc")):
        mode, _, ref = str(container.host.get(key) or "").partition(":")
        if mode == "container":
            yield kind, engine.find(ref)


def _not_joinable(kind: str, other: Container, status: str) -> ConflictError:
    words = {"pid": "PID", "ipc": "IPC"}.get(kind, kind)
    return ConflictError(
        f"cannot join {words} namespace of a non running container: container {other.name} is {status}"
    )


@contextlib.contextmanager
def _shared_namespaces(engine: "Engine", container: Container) -> Iterator[dict[str, int]]:
    """Give descriptors of the namespaces that a container shares: by then, the number of a process may be another's.

    Raises:
        ConflictError: a container has ended.
    """
    opened: dict[str, int] = {}
    try:
        for kind, other in _others(engine, container):
            try:
                opened[kind] = engine.keeper.open_namespace(other.id, KINDS[kind][1])
            except OSError:
                raise _not_joinable(kind, other, "exited") from None
        yield opened
    finally:
        for fd in opened.values():
            os.close(fd)


def _surroundings(engine: "Engine", container: Container, points: list[Json], network_path: str) -> spec.Surroundings:
    host, config = container.host, container.config
    joined = {}
    for kind, other in _others(engine, container):
        if not other.is_running:
            raise _not_joinable(kind, other, other.status)
        joined[kind] = other.pid
    try:
        user = user_of_snapshot(engine.snapshots, container.id, config.get("User") or "", host.get("GroupAdd") or ())
    except InvalidInputError as error:
        raise StartError(str(error)) from error
    container_mounts.add_id_maps(points, (user.uid, user.gid))
    init = find_init(engine.config.init_path) if host.get("Init") else ""
    return spec.Surroundings(
        container_id=container.id,
        hostname=str(config.get("Hostname") or ""),
        user=user,
        etc_files=etc_files.prepare(engine, container),
        points=tuple(points),
        joined=joined,
        network_path=network_path,
        shm_source=_shm(engine, container),
        init_source=init,
        cgroups_v2=engine.cgroups_v2,
        default_shm=engine.config.shm_size,
        default_ulimits=tuple(engine.config.default_ulimits),
        no_new_privileges=engine.config.no_new_privileges,
        cgroup_namespace=str(host.get("CgroupnsMode") or engine.cgroupns_mode),
    )


def find_init(wanted: str) -> str:
    """Return the path of an init program on this machine.

    Raises:
        BarqueError: there is none.
    """
    for path in (wanted,) if wanted else _INIT_NAMES:
        if os.access(path, os.X_OK):
            return path
    raise BarqueError("no init program was found for --init: install tini, or name one with --init-path")


def _shm(engine: "Engine", container: Container) -> str:
    """Return the folder to bind on /dev/shm, which is shared with others; empty for one of its own."""
    mode, _, ref = str(container.host.get("IpcMode") or "").partition(":")
    if mode == "host":
        return "/dev/shm"
    if mode == "container":
        other = engine.find(ref)
        return _shm(engine, other) if other.host.get("IpcMode") == "host" else f"{engine.bundle(other.id)}/shm"
    if mode != "shareable":
        return ""
    path = f"{engine.bundle(container.id)}/shm"
    os.makedirs(path, exist_ok=True)
    if not os.path.ismount(path):
        size = container.host.get("ShmSize") or engine.config.shm_size
        flags = kernel_mount.MS_NOSUID | kernel_mount.MS_NODEV | kernel_mount.MS_NOEXEC
        kernel_mount.mount("shm", path, "tmpfs", flags, f"mode=1777,size={size}")
    return path


def clean(engine: "Engine", container: Container) -> None:
    """Take back what a start made on the host."""
    container_mounts.release_places(engine, container.id)
    container_mounts.release_volumes(engine, container)
    secrets.take(engine, container)
    engine.logs.ended(container)
    if container.host.get("IpcMode") == "shareable":
        path = f"{engine.bundle(container.id)}/shm"
        if os.path.ismount(path):
            kernel_mount.umount(path, kernel_mount.MNT_DETACH)
