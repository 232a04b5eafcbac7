"""`info`."""

import sys
from typing import Any

from barque import __version__
from barque.base.errors import UnavailableError
from barque.cli.units import binary_size
from barque.cli.verb import Invocation


def info(call: Invocation) -> int:
    """Show what the engine is and has."""
    server: dict[str, Any] = {}
    problem = ""
    try:
        server = call.api.get("/info")
    except UnavailableError as error:
        problem = str(error)
    client = {"Debug": call.global_options["debug"], "Context": "default", "Plugins": [], "Version": __version__}
    form = call.options["format"]
    if form:
        data = {**server, "ClientInfo": client} if server else {"ServerErrors": [problem], "ClientInfo": client}
        _formatted(form, data)
    else:
        print(f"Client:\n Version:    {__version__}\n Context:    default\n Debug Mode: {_word(client['Debug'])}\n")
        print("Server:")
        for line in lines(server) if server else []:
            print(line)
    if problem:
        sys.stdout.flush()
        print(f"errors pretty printing info\n{problem}" if not form else problem, file=sys.stderr)
        return 1
    for warning in server.get("Warnings") or []:
        print(warning, file=sys.stderr)
    return 0


def _formatted(form: str, data: dict[str, Any]) -> None:
    if form == "json":
        from barque.base.go_functions import to_json

        print(to_json(data))
        return
    from barque.cli.tables import parse_template, render

    print(render(parse_template(form), data))


def _word(value: Any) -> str:
    return "true" if value else "false"


def lines(server: dict[str, Any]) -> list[str]:
    """Return the lines about the engine."""
    return [*_objects(server), *_drivers(server), *_runtimes(server), *_machine(server), *_settings(server), ""]


def _objects(server: dict[str, Any]) -> list[str]:
    rows = [
        f" Containers: {server['Containers']}",
        f"  Running: {server['ContainersRunning']}",
        f"  Paused: {server['ContainersPaused']}",
        f"  Stopped: {server['ContainersStopped']}",
        f" Images: {server['Images']}",
    ]
    if server.get("ServerVersion"):
        rows.append(f" Server Version: {server['ServerVersion']}")
    rows.append(f" Storage Driver: {server.get('Driver', '')}")
    rows += [f"  {name}: {value}" for name, value in server.get("DriverStatus") or []]
    for name, value in server.get("SystemStatus") or []:
        rows.append(f" {name}: {value}")
    return rows


def _drivers(server: dict[str, Any]) -> list[str]:
    rows = []
    for key, label in (("LoggingDriver", "Logging Driver"), ("CgroupDriver", "Cgroup Driver")):
        if server.get(key):
            rows.append(f" {label}: {server[key]}")
    if server.get("CgroupVersion"):
        rows.append(f" Cgroup Version: {server['CgroupVersion']}")
    plugins = server.get("Plugins") or {}
    rows += [" Plugins:"]
    for kind in ("Volume", "Network", "Authorization", "Log"):
        if plugins.get(kind) or kind in ("Volume", "Network", "Log"):
            rows.append(f"  {kind}: {' '.join(plugins.get(kind) or [])}")
    if server.get("CDISpecDirs"):
        rows += [" CDI spec directories:", *(f"  {folder}" for folder in server["CDISpecDirs"])]
    if server.get("DiscoveredDevices"):
        rows.append(" Discovered Devices:")
        rows += [f"  {device['Source']}: {device['ID']}" for device in server["DiscoveredDevices"]]
    swarm = server.get("Swarm") or {}
    rows.append(f" Swarm: {swarm.get('LocalNodeState', 'inactive')}")
    return rows


def _runtimes(server: dict[str, Any]) -> list[str]:
    rows = []
    if server.get("Runtimes"):
        rows.append(" Runtimes: " + " ".join(sorted(server["Runtimes"])))
        rows.append(f" Default Runtime: {server.get('DefaultRuntime', '')}")
    if server.get("OSType") == "linux":
        rows.append(f" Init Binary: {server.get('InitBinary', '')}")
        for key, label in (("ContainerdCommit", "containerd"), ("RuncCommit", "runc"), ("InitCommit", "init")):
            if key in server:
                rows.append(f" {label} version: {(server[key] or {}).get('ID', '')}")
    if server.get("SecurityOptions"):
        rows.append(" Security Options:")
        for option in server["SecurityOptions"]:
            fields = dict(field.partition("=")[::2] for field in option.split(","))
            rows.append(f"  {fields.pop('name', option)}")
            rows += [f"   {key.capitalize()}: {value}" for key, value in fields.items()]
    return rows


def _machine(server: dict[str, Any]) -> list[str]:
    rows = []
    for key, label in (
        ("KernelVersion", "Kernel Version"),
        ("OperatingSystem", "Operating System"),
        ("OSType", "OSType"),
        ("Architecture", "Architecture"),
    ):
        if server.get(key):
            rows.append(f" {label}: {server[key]}")
    rows += [
        f" CPUs: {server.get('NCPU', 0)}",
        f" Total Memory: {binary_size(server.get('MemTotal', 0))}",
        f" Name: {server.get('Name', '')}",
        f" ID: {server.get('ID', '')}",
        f" Docker Root Dir: {server.get('DockerRootDir', '')}",
        f" Debug Mode: {_word(server.get('Debug'))}",
    ]
    if server.get("Debug"):
        rows += [
            f"  File Descriptors: {server.get('NFd', 0)}",
            f"  Goroutines: {server.get('NGoroutines', 0)}",
            f"  System Time: {server.get('SystemTime', '')}",
            f"  EventsListeners: {server.get('NEventsListener', 0)}",
        ]
    return rows


def _settings(server: dict[str, Any]) -> list[str]:
    rows = []
    for key, label in (("HttpProxy", "HTTP Proxy"), ("HttpsProxy", "HTTPS Proxy"), ("NoProxy", "No Proxy")):
        if server.get(key):
            rows.append(f" {label}: {server[key]}")
    if server.get("Labels"):
        rows += [" Labels:", *(f"  {label}" for label in server["Labels"])]
    rows.append(f" Experimental: {_word(server.get('ExperimentalBuild'))}")
    registry = server.get("RegistryConfig") or {}
    insecure = [name for name, index in (registry.get("IndexConfigs") or {}).items() if not index.get("Secure")] + list(
        registry.get("InsecureRegistryCIDRs") or []
    )
    if insecure:
        rows += [" Insecure Registries:", *(f"  {name}" for name in insecure)]
    if registry.get("Mirrors"):
        rows += [" Registry Mirrors:", *(f"  {name}" for name in registry["Mirrors"])]
    rows.append(f" Live Restore Enabled: {_word(server.get('LiveRestoreEnabled'))}")
    if server.get("ProductLicense"):
        rows.append(f" Product License: {server['ProductLicense']}")
    if server.get("DefaultAddressPools"):
        rows.append(" Default Address Pools:")
        rows += [f"   Base: {pool['Base']}, Size: {pool['Size']}" for pool in server["DefaultAddressPools"]]
    return rows
