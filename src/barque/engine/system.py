"""What the engine says of itself: info, version, disk usage, events."""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import barque
from barque.base.errors import InvalidInputError
from barque.base.times import format_ns
from barque.distribution.settings import HUB, mirrors_of
from barque.engine import log_files, stats
from barque.logdrivers import options as log_drivers
from barque.storage.drivers import file_system

if TYPE_CHECKING:
    from barque.engine.engine import Engine

Json = dict[str, Any]
Filters = dict[str, list[str]]
API_VERSION, MIN_API_VERSION = "1.51", "1.24"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def _os_release() -> dict[str, str]:
    found = {}
    try:
        with open("/etc/os-release", encoding="utf-8") as file:
            for line in file:
                key, has_value, value = line.strip().partition("=")
                if has_value:
                    found[key] = value.strip("\"'")
    except OSError:
        pass
    return found


def _driver_status(engine: "Engine") -> list[list[str]]:
    rows = [["Backing Filesystem", file_system(engine.config.data_root)], ["Supports d_type", "true"],
            ["Using metacopy", "false"], ["Native Overlay Diff", "true"], ["userxattr", "false"]]  # fmt: skip
    if engine.snapshots.driver == "erofs":
        rows.append(["Layers", "indexed archives"])
    return rows


def _without_password(proxy: str) -> str:
    """Return a proxy's address with who uses it and the password masked, as Docker shows it."""
    parts = urlsplit(proxy)
    return parts._replace(netloc="xxxxx:xxxxx@" + parts.netloc.rpartition("@")[2]).geturl() if "@" in parts.netloc else proxy


class System:
    """Implements the API's SystemBackend."""

    def __init__(self, engine: "Engine") -> None:
        self._engine = engine
        self._started_ns = time.time_ns()

    async def version(self) -> Json:
        """Return versions of the engine and its parts."""
        host = os.uname()
        arch = _ARCHITECTURES.get(host.machine, host.machine)
        details = {
            "ApiVersion": API_VERSION, "MinAPIVersion": MIN_API_VERSION, "Arch": arch, "Os": "linux",
            "KernelVersion": host.release, "BuildTime": "", "Experimental": str(self._engine.config.experimental).lower(),
            "GitCommit": "", "GoVersion": "",
        }  # fmt: skip
        return {
            "Platform": {"Name": "Barque"},
            "Components": [{"Name": "Engine", "Version": barque.__version__, "Details": details}],
            "Version": barque.__version__, "ApiVersion": API_VERSION, "MinAPIVersion": MIN_API_VERSION,
            "GitCommit": "", "GoVersion": "", "Os": "linux", "Arch": arch, "KernelVersion": host.release,
            "BuildTime": "", **({"Experimental": True} if self._engine.config.experimental else {}),
        }  # fmt: skip

    async def info(self) -> Json:
        """Return numbers and settings of the engine and the machine."""
        engine = self._engine
        config = engine.config
        host, release = os.uname(), _os_release()
        states = [c.status for c in engine.containers_by_id.values()]
        running = states.count("running") + states.count("restarting")
        paused = states.count("paused")
        pools = config.network.default_address_pools
        return {
            "ID": engine.engine_id,
            "Containers": len(states), "ContainersRunning": running, "ContainersPaused": paused,
            "ContainersStopped": len(states) - running - paused,
            "Images": len(engine.image_store.images()),
            "Driver": engine.snapshots.driver,
            "DriverStatus": _driver_status(engine),
            "Plugins": {"Volume": ["local", *await asyncio.to_thread(self._plugins, "VolumeDriver")], "Network": ["bridge", "host", "ipvlan", "macvlan", "null", "overlay"], "Authorization": None,
                        "Log": [*sorted(log_drivers.DRIVERS), *await asyncio.to_thread(self._plugins, "LogDriver")]},
            **self._limits(),
            "Debug": config.debug, "NFd": len(os.listdir("/proc/self/fd")), "NGoroutines": len(asyncio.all_tasks()),
            "OomKillDisable": not engine.cgroups_v2, "SystemTime": format_ns(time.time_ns()),
            "LoggingDriver": config.log_driver,
            "CgroupDriver": "cgroupfs", "CgroupVersion": "2" if engine.cgroups_v2 else "1",
            "NEventsListener": engine.events.listeners,
            "KernelVersion": host.release, "OperatingSystem": release.get("PRETTY_NAME", "Linux"),
            "OSVersion": release.get("VERSION_ID", ""), "OSType": "linux", "Architecture": host.machine,
            "IndexServerAddress": "https://index.docker.io/v1/",
            "RegistryConfig": self._registries(),
            "NCPU": os.cpu_count() or 1, "MemTotal": stats.memory_total(), "GenericResources": None,
            "DockerRootDir": config.data_root,
            "HttpProxy": _without_password(config.http_proxy), "HttpsProxy": _without_password(config.https_proxy),
            "NoProxy": config.no_proxy,
            "Name": host.nodename, "Labels": list(config.labels), "ExperimentalBuild": config.experimental,
            "ServerVersion": barque.__version__,
            "Runtimes": {"barque": {"path": "barque"},
                         **{name: {"path": path} for name, path in config.runtimes.items()}},
            "DefaultRuntime": config.default_runtime,
            "Swarm": {"NodeID": "", "NodeAddr": "", "LocalNodeState": "inactive", "ControlAvailable": False,
                      "Error": "", "RemoteManagers": None},
            "LiveRestoreEnabled": config.live_restore, "Isolation": "",
            "InitBinary": "docker-init",
            "ContainerdCommit": {"ID": ""}, "RuncCommit": {"ID": ""}, "InitCommit": {"ID": ""},
            "SecurityOptions": ["name=seccomp,profile=" + (config.seccomp_profile or "builtin"),
                                *(["name=cgroupns"])],
            "CDISpecDirs": list(config.cdi_spec_dirs), "Warnings": self._warnings() or None,
            "DiscoveredDevices": [{"Source": "cdi", "ID": name} for name in engine.cdi.names()],
            **({"DefaultAddressPools": [{"Base": base, "Size": size} for base, size in pools]} if pools else {}),
            **({"FirewallBackend": {"Driver": "nftables"}} if config.network.iptables else {}),
        }  # fmt: skip

    def _plugins(self, kind: str) -> list[str]:
        return [plugin.name for plugin in self._engine.plugins.of_kind(kind)]

    def _warnings(self) -> list[str]:
        network = self._engine.network
        return [f"WARNING: {text}" for text in network.closed_by_others(network.catalog.standing(), ports=False)]

    def _limits(self) -> Json:
        return {
            "MemoryLimit": True, "SwapLimit": True, "CpuCfsPeriod": True, "CpuCfsQuota": True, "CPUShares": True,
            "CPUSet": True, "PidsLimit": True, "IPv4Forwarding": _ipv4_forwarding(),
        }  # fmt: skip

    def _registries(self) -> Json:
        config = self._engine.config
        mirrors = {domain: [f"{url}/" for url in urls] for domain, urls in mirrors_of(config.registry_mirrors).items()}
        hub = mirrors.get(HUB, [])
        index = {HUB: {"Name": HUB, "Mirrors": hub, "Secure": True, "Official": True}}
        insecure = [name for name in config.insecure_registries if "/" not in name]
        for name in [*insecure, *(domain for domain in mirrors if domain != HUB)]:
            index[name] = {
                "Name": name, "Mirrors": mirrors.get(name, []), "Secure": name not in insecure, "Official": False,
            }  # fmt: skip
        ranges = [name for name in config.insecure_registries if "/" in name]
        return {"InsecureRegistryCIDRs": ["::1/128", "127.0.0.0/8", *ranges], "IndexConfigs": index, "Mirrors": hub}

    async def check(self, *, read: bool, repair: bool) -> Json:
        """Verify all that lies on disk (see barque.engine.checking)."""
        from barque.engine import checking

        return await checking.check(self._engine, read=read, repair=repair)

    async def disk_usage(self, types: list[str]) -> Json:
        """Return what images, containers and volumes take; an empty list means all but logs (our own)."""
        engine = self._engine
        wanted = set(types) or {"container", "image", "volume", "build-cache"}
        unknown = wanted - {"container", "image", "volume", "build-cache", "log"}
        if unknown:
            raise InvalidInputError(f"unknown object type: {min(unknown)}")
        found: Json = {}
        if "image" in wanted:
            found["LayersSize"] = await asyncio.to_thread(engine.image_store.layers_size)
            found["Images"] = await engine.images.disk_usage()
        if "container" in wanted:
            found["Containers"] = await engine.containers.list(all=True, limit=0, size=True, filters={})
        if "volume" in wanted:
            found["Volumes"] = await engine.volumes.usage()
        if "build-cache" in wanted:
            found["BuildCache"] = await self._engine.builds.disk_usage() if self._engine.builds is not None else []
        if "log" in wanted:
            logs = [(c.id, c.name, c.row["log_path"]) for c in engine.containers_by_id.values() if c.row["log_path"]]
            found["Logs"] = await asyncio.to_thread(
                lambda: [{"Container": i, "Name": name, "Size": log_files.size(path)} for i, name, path in logs]
            )
        return found

    async def events(self, *, since_ns: int, until_ns: int, filters: Filters) -> AsyncIterator[Json]:
        """Return past and live events."""
        return self._engine.events.subscribe(since_ns, until_ns, filters)


def _ipv4_forwarding() -> bool:
    try:
        with open("/proc/sys/net/ipv4/ip_forward", encoding="ascii") as file:
            return file.read().strip() == "1"
    except OSError:
        return False
