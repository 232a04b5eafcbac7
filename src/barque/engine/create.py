"""Making a container: checks, the writable layer, its volumes, its row."""

import asyncio
import functools
import os
import resource
import shutil
import time
from typing import TYPE_CHECKING, Any

from barque.base.errors import BarqueError, ConflictError, InvalidInputError, NotFoundError
from barque.base.ids import SHORT_LENGTH, new_id
from barque.engine import (
    apparmor,
    container_mounts,
    endpoints,
    init_layer,
    links,
    log_shipping,
    mount_points,
    storage_options,
)
from barque.engine.checks import check_config, check_types
from barque.engine.container import Container, new_state
from barque.engine.names import check_name, random_name
from barque.engine.rootfiles import make_working_folder
from barque.images.model import Image
from barque.kernel.caps import CAP_SYS_RESOURCE
from barque.network.ports import parse_requests
from barque.oci import platform as platforms

if TYPE_CHECKING:
    from barque.engine.engine import Engine

Json = dict[str, Any]


_NAMESPACES = {"NetworkMode": "network", "PidMode": "PID", "IpcMode": "IPC"}

async def create(engine: "Engine", config: Json, name: str, platform: str) -> Json:
    """Make a container of a request; return {"Id", "Warnings"}.

    Raises:
        InvalidInputError: the request is wrong.
        NotFoundError: no such image, network or container.
        ConflictError: the name is taken.
    """
    if not isinstance(config, dict):
        raise InvalidInputError("invalid JSON: the request must be an object")
    config = dict(config)
    check_types(config)
    if not config.get("Image"):
        raise InvalidInputError("no image specified" if config.get("Image") is None else "config cannot be empty")
    plain = check_name(name) if name else ""
    image = _image(engine, config["Image"], platform)
    warnings = [] if platform else _check_platform(image)
    host = dict(config.pop("HostConfig") or {})
    # Older clients name the runtime beside the image.
    runtime = config.pop("Runtime", None)
    if isinstance(runtime, str) and not host.get("Runtime"):
        host["Runtime"] = runtime
    networking = (config.pop("NetworkingConfig", None) or {}).get("EndpointsConfig") or {}
    warnings += check_config({**config, "HostConfig": host}, engine.config)
    apparmor.check(host)
    warnings += privilege_warnings(host)
    if engine.cgroups_v2 and host.pop("KernelMemoryTCP", None):
        warnings.append("KernelMemoryTCP is unknown to control groups of version 2: the limit is discarded.")
    merged = merge(config, image.run_config)
    if merged.get("NetworkDisabled"):
        host["NetworkMode"], networking = "none", {}
    if not (merged.get("Entrypoint") or merged.get("Cmd")):
        raise InvalidInputError("no command specified")
    fill_host(engine, host)
    engine.secrets.check(host)
    engine.configs.check(host)
    storage_options.check(engine, host)
    engine.logs.check(host["LogConfig"]["Type"], host["LogConfig"]["Config"])
    parse_requests(host.get("PortBindings"), merged.get("ExposedPorts") or ())
    networking, linked = _check_network(engine, merged, host, networking)
    if host["NetworkMode"] == "host" and host.get("PortBindings"):
        warnings.append("Published ports are discarded when using host network mode")
    elif host.get("PortBindings") or host.get("PublishAllPorts"):
        warnings += endpoints.closed_ports(engine, networking)
    container_id = new_id()
    if plain:
        engine.reserve_name(plain, container_id)
    else:
        plain = random_name(lambda n: n in engine.by_name)
        engine.reserve_name(plain, container_id)
    try:
        container = await _make(engine, container_id, plain, image, merged, host, networking)
        container.row["links"] = linked
    except BaseException:
        engine.by_name.pop(plain, None)
        engine.making.pop(container_id, None)
        raise
    engine.add(container)
    engine.making.pop(container_id)
    try:
        engine.save(container)
        await engine.database.flush()
    except BaseException:
        engine.discard(container)
        engine.database.delete("container", container_id)
        await asyncio.to_thread(_undo, engine, container_id)
        await _drop_volumes(engine, container.row["mounts"])
        raise
    engine.publish(container, "create")
    return {"Id": container_id, "Warnings": warnings}


def _image(engine: "Engine", ref: str, platform: str) -> Image:
    """Return the image that a container is made from: of a name with several platforms the wanted one."""
    if platform:
        return engine.image_store.resolve_platform(ref, platforms.parse(platform))
    return engine.image_store.resolve(ref)


def _check_platform(image: Image) -> list[str]:
    found, here = platforms.of_config(image.config), platforms.host()
    if platforms.fits(found, here):
        return []
    text = f"The requested image's platform ({found}) does not match the detected host platform ({here})"
    return [f"{text} and no specific platform was requested"]


@functools.cache
def _effective() -> int:
    """Return the daemon's capabilities, which stay what they are."""
    with open("/proc/self/status", encoding="ascii") as file:
        return next(int(line.split()[1], 16) for line in file if line.startswith("CapEff:"))


def privilege_warnings(host: Json) -> list[str]:
    """Return what the kernel will not grant for want of CAP_SYS_RESOURCE: it is cut to what is allowed."""
    if _effective() >> CAP_SYS_RESOURCE & 1:
        return []
    warnings = []
    for item in host.get("Ulimits") or []:
        number = getattr(resource, f"RLIMIT_{str(item.get('Name')).upper()}", None)
        wanted = item.get("Hard")
        if number is None or not isinstance(wanted, int):
            continue
        most = resource.getrlimit(number)[1]
        if most != resource.RLIM_INFINITY and (wanted < 0 or wanted > most):
            warnings.append(
                f"The ulimit {item['Name']} cannot be raised above {most} without CAP_SYS_RESOURCE: "
                f"{most} is used instead of {wanted}."
            )
    score = host.get("OomScoreAdj") or 0
    with open("/proc/self/oom_score_adj", encoding="ascii") as file:
        least = int(file.read())
    if score < least:
        warnings.append(
            f"The OOM score adjustment cannot be lowered to {score} without CAP_SYS_RESOURCE: {least} is used instead."
        )
    return warnings


def merge(config: Json, image: Json) -> Json:
    """Return a request's config completed by the image's, as Docker merges them."""
    made: Json = {
        "Hostname": "", "Domainname": "", "User": "", "AttachStdin": False, "AttachStdout": False,
        "AttachStderr": False, "Tty": False, "OpenStdin": False, "StdinOnce": False, "Env": None, "Cmd": None,
        "Image": "", "Volumes": None, "WorkingDir": "", "Entrypoint": None, "OnBuild": None, "Labels": {},
        **{key: value for key, value in config.items() if value is not None},
    }  # fmt: skip
    for key in ("User", "WorkingDir", "StopSignal", "Shell", "StopTimeout"):
        if not made.get(key) and image.get(key):
            made[key] = image[key]
    for key in ("ExposedPorts", "Volumes", "Labels"):
        both = {**(image.get(key) or {}), **(made.get(key) or {})}
        if both or key == "Labels":
            made[key] = both
        elif key == "Volumes":
            made[key] = None
    known = {entry.partition("=")[0] for entry in made["Env"] or []}
    inherited = [entry for entry in image.get("Env") or [] if entry.partition("=")[0] not in known]
    made["Env"] = [*(made["Env"] or []), *inherited]
    if not made["Entrypoint"]:
        # An empty list in the request takes the image's entrypoint away; its command goes with it.
        if made["Entrypoint"] is None and image.get("Entrypoint"):
            made["Entrypoint"] = image["Entrypoint"]
            if not made["Cmd"]:
                made["Cmd"] = image.get("Cmd")
        elif not made["Cmd"]:
            made["Cmd"] = image.get("Cmd")
    if made["Entrypoint"] == [""]:
        made["Entrypoint"] = None
    _merge_health(made, image)
    return made


def _merge_health(made: Json, image: Json) -> None:
    wanted, given = made.get("Healthcheck"), image.get("Healthcheck")
    if wanted is None:
        if given:
            made["Healthcheck"] = given
        return
    if given:
        made["Healthcheck"] = {**given, **{key: value for key, value in wanted.items() if value}}


def fill_host(engine: "Engine", host: Json) -> None:
    """Give HostConfig its defaults."""
    options = engine.config
    defaults: Json = {
        "Binds": None, "ContainerIDFile": "", "NetworkMode": "bridge", "PortBindings": {}, "AutoRemove": False,
        "VolumeDriver": "", "VolumesFrom": None, "ConsoleSize": [0, 0], "CapAdd": None, "CapDrop": None,
        "CgroupnsMode": engine.cgroupns_mode, "Dns": [], "DnsOptions": [], "DnsSearch": [], "ExtraHosts": None,
        "GroupAdd": None, "IpcMode": options.ipc_mode, "Cgroup": "", "Links": None, "OomScoreAdj": 0, "PidMode": "",
        "Privileged": False, "PublishAllPorts": False, "ReadonlyRootfs": False, "SecurityOpt": None, "UTSMode": "",
        "UsernsMode": "", "ShmSize": options.shm_size, "Runtime": options.default_runtime, "Isolation": "",
        "CpuShares": 0, "Memory": 0, "NanoCpus": 0, "CgroupParent": "", "BlkioWeight": 0, "BlkioWeightDevice": [],
        "BlkioDeviceReadBps": [], "BlkioDeviceWriteBps": [], "BlkioDeviceReadIOps": [],
        "BlkioDeviceWriteIOps": [], "CpuPeriod": 0, "CpuQuota": 0, "CpuRealtimePeriod": 0, "CpuRealtimeRuntime": 0,
        "CpusetCpus": "", "CpusetMems": "", "Devices": [], "DeviceCgroupRules": None, "DeviceRequests": None,
        "MemoryReservation": 0, "MemorySwap": 0, "OomKillDisable": None,
        "PidsLimit": None, "Ulimits": [], "CpuCount": 0, "CpuPercent": 0, "IOMaximumIOps": 0,
        "IOMaximumBandwidth": 0,
    }  # fmt: skip
    for key, value in defaults.items():
        if host.get(key) in (None, "", 0):
            host[key] = value
    swappiness = host.get("MemorySwappiness")
    host["MemorySwappiness"] = None if swappiness == -1 else swappiness
    host["OomKillDisable"] = None if engine.cgroups_v2 else bool(host["OomKillDisable"])
    if host["NetworkMode"] == "default":
        host["NetworkMode"] = "bridge"
    labelled = any(option.startswith("label") for option in host["SecurityOpt"] or ())
    if not labelled and (host["Privileged"] or "host" in (host["IpcMode"], host["PidMode"])):
        host["SecurityOpt"] = [*(host["SecurityOpt"] or ()), "label=disable"]
    if host["Privileged"] and not engine.cgroups_v2:
        host["CgroupnsMode"] = host["CgroupnsMode"] or "host"
    if host.get("Init") is None and options.init:
        host["Init"] = True
    policy = host.get("RestartPolicy") or {}
    host["RestartPolicy"] = {"Name": policy.get("Name") or "no",
                             "MaximumRetryCount": policy.get("MaximumRetryCount") or 0}  # fmt: skip
    log = host.get("LogConfig") or {}
    driver = log.get("Type") or options.log_driver
    inherited = options.log_opts if driver == options.log_driver else {}
    host["LogConfig"] = {"Type": driver, "Config": {**inherited, **(log.get("Config") or {})}}
    if host["Memory"] and not host["MemorySwap"]:
        host["MemorySwap"] = host["Memory"] * 2
    for key, default in (("MaskedPaths", None), ("ReadonlyPaths", None)):
        if host.get(key) is None and not host["Privileged"]:
            from barque.engine import spec

            host[key] = spec.masked_paths() if key == "MaskedPaths" else list(spec.READONLY_PATHS)
            if ("systempaths=unconfined") in (host.get("SecurityOpt") or []):
                host[key] = []
        elif host.get(key) is None:
            host[key] = default


def _check_network(
    engine: "Engine", config: Json, host: Json, networking: Json
) -> tuple[Json, list[list[str]]]:
    """Return what the row keeps of the container's networks, and its links."""
    mode = host["NetworkMode"]
    for key in ("NetworkMode", "PidMode", "IpcMode"):
        kind, _, ref = host[key].partition(":")
        if kind == "container":
            try:
                other = engine.find(ref)
            except NotFoundError as error:
                # Not the answer "not found", which makes clients look for the image.
                raise InvalidInputError(f"joining {_NAMESPACES[key]} namespace of container: {error}") from error
            if key == "IpcMode" and other.host.get("IpcMode") not in ("shareable", "host") \
                    and not str(other.host.get("IpcMode")).startswith("container:"):  # fmt: skip
                raise InvalidInputError(f"cannot join IPC of a container {ref}: non-shareable IPC "
                                        "(hint: use IpcMode:shareable for the donor container)")  # fmt: skip
            host[key] = f"container:{other.id}"
    if mode.startswith("ns:"):
        endpoints.namespace_path(mode)
    if mode.startswith("container:") and any((row or {}).get("MacAddress") for row in networking.values()):
        raise InvalidInputError("conflicting options: mac-address and the network mode")
    made = endpoints.initial(engine, config, host, networking)
    if endpoints.is_user_defined(mode):
        # There links are names that the name server knows, and part of the endpoint's settings.
        return made, []
    return made, links.resolve(engine, host.get("Links") or [])


async def _make(
    engine: "Engine", container_id: str, name: str, image: Image, config: Json, host: Json, networking: Json
) -> Container:
    points = mount_points.collect(config, host, lambda ref: engine.find(ref).row["mounts"])
    if not config.get("Hostname"):
        config["Hostname"] = _hostname(engine, container_id, host)
    command = [*(config.get("Entrypoint") or []), *(config.get("Cmd") or [])]
    folder = engine.folder(container_id)
    # From here on others have turns: what the container is made of must stay until it is in the index.
    engine.making[container_id] = (image.id, points)
    try:
        os.mkdir(folder, 0o710)
        await init_layer.prepare(engine, container_id, image.top)
        size = storage_options.size_of(host)
        if size:
            await asyncio.to_thread(storage_options.hold, engine, container_id, size)
        workdir = config.get("WorkingDir") or "/"
        if workdir != (image.run_config.get("WorkingDir") or "/"):
            await asyncio.to_thread(make_working_folder, engine.snapshots, container_id, workdir)
        await container_mounts.make(engine, container_id, points)
    except BaseException as error:
        await asyncio.to_thread(_undo, engine, container_id)
        del engine.making[container_id]
        await _drop_volumes(engine, points)
        if isinstance(error, OSError):
            raise BarqueError(f"cannot make the container: {(error.strerror or str(error)).lower()}") from error
        raise
    row = {
        "id": container_id, "name": name, "created_ns": time.time_ns(), "image": image.id,
        "image_ref": config["Image"], "path": command[0], "args": command[1:], "config": config, "host": host,
        "networking": networking, "mounts": points, "restart_count": 0, "state": new_state(),
        "log_path": _log_path(folder, host["LogConfig"]["Type"], container_id),
    }  # fmt: skip
    return Container(row)


async def _drop_volumes(engine: "Engine", points: list[Json]) -> None:
    await engine.volumes.drop_anonymous([p["Name"] for p in points if p["anonymous"] and p["Name"]])


def _log_path(folder: str, driver: str, container_id: str) -> str:
    name = log_shipping.log_name(driver, container_id)
    return f"{folder}/{name}" if name else ""


def _hostname(engine: "Engine", container_id: str, host: Json) -> str:
    kind, _, ref = host["NetworkMode"].partition(":")
    if kind == "container":
        return str(engine.find(ref).config.get("Hostname") or "")
    if kind == "host":
        return os.uname().nodename
    return container_id[:SHORT_LENGTH]


def _undo(engine: "Engine", container_id: str) -> None:
    try:
        engine.snapshots.remove(container_id)
    except (BarqueError, OSError):
        pass
    shutil.rmtree(engine.folder(container_id), ignore_errors=True)


def conflict(name: str, owner: str) -> ConflictError:
    """Return the refusal of a name that is taken."""
    return ConflictError(
        f'Conflict. The container name "/{name}" is already in use by container "{owner}". '
        "You have to remove (or rename) that container to be able to reuse that name."
    )
