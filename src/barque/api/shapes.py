"""Answers in the shape of an older API version; the engine gives that of the newest."""

from typing import Any

Json = dict[str, Any]


Version = tuple[int, int]

_OF_IMAGES = frozenset(("User", "ExposedPorts", "Env", "Entrypoint", "Cmd", "Healthcheck", "ArgsEscaped", "Volumes",
                        "WorkingDir", "OnBuild", "Labels", "StopSignal", "Shell"))  # fmt: skip

_RUNTIME_ONLY = {
    "Hostname": "", "Domainname": "", "AttachStdin": False, "AttachStdout": False, "AttachStderr": False,
    "Tty": False, "OpenStdin": False, "StdinOnce": False, "Image": "",
}  # fmt: skip


def container(value: Json, version: Version) -> Json:
    """Return an inspected container."""
    networks = (value.get("NetworkSettings") or {}).get("Networks") or {}
    if version < (1, 45):
        for endpoint in networks.values():
            aliases = list(endpoint.get("Aliases") or [])
            if value["Id"][:12] not in aliases and aliases:
                endpoint["Aliases"] = [*aliases, value["Id"][:12]]
    if version < (1, 44):
        for endpoint in networks.values():
            endpoint.pop("DNSNames", None)
    if version < (1, 42):
        host = value.get("HostConfig") or {}
        host.setdefault("KernelMemory", 0)
        host.setdefault("KernelMemoryTCP", 0)
    return value


def image_row(value: Json, version: Version) -> Json:
    """Return an image of a list."""
    if version < (1, 51):
        value["Containers"] = -1
    if version < (1, 47):
        value.pop("Manifests", None)
    if version < (1, 48):
        value.pop("Descriptor", None)
    if version < (1, 44):
        value["VirtualSize"] = value.get("Size", 0)
    if version < (1, 43):
        value["RepoTags"] = value.get("RepoTags") or ["<none>:<none>"]
        value["RepoDigests"] = value.get("RepoDigests") or ["<none>@<none>"]
    return value


def image(value: Json, version: Version) -> Json:
    """Return an inspected image."""
    config = value.get("Config") or {}
    if version < (1, 48):
        value.pop("Descriptor", None)
        value.pop("Manifests", None)
    if version < (1, 50):
        value["Config"] = {**_RUNTIME_ONLY, **config}
    else:
        # What an image that was made of a container still knows of that one is told no more.
        value["Config"] = {key: item for key, item in config.items() if key in _OF_IMAGES}
    if version < (1, 45):
        value.setdefault("Container", "")
        value.setdefault("ContainerConfig", {**_RUNTIME_ONLY, "Env": None, "Cmd": None, "Volumes": None,
            "WorkingDir": "", "Entrypoint": None, "OnBuild": None, "Labels": None})  # fmt: skip
    if version < (1, 44):
        value["VirtualSize"] = value.get("Size", 0)
        value.setdefault("Created", "0001-01-01T00:00:00Z")
    return value


def info(value: Json, version: Version) -> Json:
    """Return what the engine says of itself."""
    if version < (1, 50):
        value.setdefault("BridgeNfIptables", False)
        value.setdefault("BridgeNfIp6tables", False)
    if version < (1, 49):
        for name in ("ContainerdCommit", "RuncCommit", "InitCommit"):
            commit = value.get(name)
            if isinstance(commit, dict):
                commit.setdefault("Expected", commit.get("ID", ""))
        value.pop("FirewallBackend", None)
    if version < (1, 50):
        value.pop("DiscoveredDevices", None)
    if version < (1, 44):
        value.pop("CDISpecDirs", None)
    if version < (1, 42):
        value.setdefault("KernelMemory", False)
        value.setdefault("KernelMemoryTCP", False)
    return value


def disk_usage(value: Json, version: Version) -> Json:
    """Return what lies on disk."""
    if version < (1, 42):
        value["BuilderSize"] = 0
    if value.get("Images"):
        value["Images"] = [image_row(row, max(version, (1, 51))) for row in value["Images"]]
        if version < (1, 44):
            for row in value["Images"]:
                row["VirtualSize"] = row.get("Size", 0)
    return value
