"""Types of the fields that clients send; what is not listed passes through, as Docker's decoder lets it.

A mismatch is told in the words of Go's decoder, which clients already know.
"""

from typing import Any

from barque.api.call import json_kind
from barque.base.errors import InvalidInputError

Json = dict[str, Any]
Schema = dict[str, Any]

# Kinds: str, int, uint, bool, float, [kind] a list, {"*": kind} a map, a Schema an object,
# "args" a list of strings or one string, "size" rows and columns of a terminal.
_HEALTH: Schema = {
    "Test": ["str"], "Interval": "int", "Timeout": "int", "StartPeriod": "int", "StartInterval": "int",
    "Retries": "int", "OnFailure": "str",
}  # fmt: skip
_THROTTLE: Schema = {"Path": "str", "Rate": "uint"}
DEVICE: Schema = {"PathOnHost": "str", "PathInContainer": "str", "CgroupPermissions": "str"}
_RESOURCES: Schema = {
    "CpuShares": "int", "Memory": "int", "NanoCpus": "int", "CgroupParent": "str", "BlkioWeight": "uint",
    "BlkioWeightDevice": [{"Path": "str", "Weight": "uint"}], "BlkioDeviceReadBps": [_THROTTLE],
    "BlkioDeviceWriteBps": [_THROTTLE], "BlkioDeviceReadIOps": [_THROTTLE], "BlkioDeviceWriteIOps": [_THROTTLE],
    "CpuPeriod": "int", "CpuQuota": "int", "CpuRealtimePeriod": "int", "CpuRealtimeRuntime": "int",
    "CpusetCpus": "str", "CpusetMems": "str", "DeviceCgroupRules": ["str"], "KernelMemory": "int",
    "KernelMemoryTCP": "int", "MemoryReservation": "int", "MemorySwap": "int", "MemorySwappiness": "int",
    "OomKillDisable": "bool", "PidsLimit": "int",
    "Devices": [DEVICE],
    "DeviceRequests": [
        {"Driver": "str", "Count": "int", "DeviceIDs": ["str"], "Capabilities": [["str"]], "Options": {"*": "str"}}
    ],
    "Ulimits": [{"Name": "str", "Soft": "int", "Hard": "int"}],
}  # fmt: skip
_RESTART: Schema = {"Name": "str", "MaximumRetryCount": "int"}
_MOUNT: Schema = {
    "Type": "str", "Source": "str", "Target": "str", "ReadOnly": "bool", "Consistency": "str",
    "BindOptions": {
        "Propagation": "str", "NonRecursive": "bool", "CreateMountpoint": "bool", "ReadOnlyNonRecursive": "bool",
        "ReadOnlyForceRecursive": "bool", "IdMap": "str",
    },
    "VolumeOptions": {
        "NoCopy": "bool", "Labels": {"*": "str"}, "Subpath": "str", "IdMap": "str",
        "DriverConfig": {"Name": "str", "Options": {"*": "str"}},
    },
    "ImageOptions": {"Subpath": "str"},
    "TmpfsOptions": {"SizeBytes": "int", "Mode": "uint", "Options": [["str"]]},
}  # fmt: skip
_PORTS: Schema = {"*": [{"HostIp": "str", "HostPort": "str"}]}
_GIVEN: Schema = {"Source": "str", "Target": "str", "UID": "str", "GID": "str", "Mode": "int"}
HOST: Schema = {
    **_RESOURCES,
    "Binds": ["str"], "ContainerIDFile": "str", "LogConfig": {"Type": "str", "Config": {"*": "str"}},
    "NetworkMode": "str", "PortBindings": _PORTS, "RestartPolicy": _RESTART,
    "AutoRemove": "bool", "VolumeDriver": "str", "VolumesFrom": ["str"], "ConsoleSize": "size",
    "Annotations": {"*": "str"}, "CapAdd": "args", "CapDrop": "args", "CgroupnsMode": "str", "Dns": ["str"],
    "DnsOptions": ["str"], "DnsSearch": ["str"], "ExtraHosts": ["str"], "GroupAdd": ["str"], "IpcMode": "str",
    "Cgroup": "str", "Links": ["str"], "OomScoreAdj": "int", "PidMode": "str", "Privileged": "bool",
    "PublishAllPorts": "bool", "ReadonlyRootfs": "bool", "SecurityOpt": ["str"], "StorageOpt": {"*": "str"},
    "Tmpfs": {"*": "str"}, "UTSMode": "str", "UsernsMode": "str", "ShmSize": "int", "Sysctls": {"*": "str"},
    "Runtime": "str", "Isolation": "str", "Mounts": [_MOUNT], "MaskedPaths": ["str"], "ReadonlyPaths": ["str"],
    "Init": "bool", "TimeLimit": "int", "Secrets": [_GIVEN], "Configs": [_GIVEN],
}  # fmt: skip
ENDPOINT: Schema = {
    "IPAMConfig": {"IPv4Address": "str", "IPv6Address": "str", "LinkLocalIPs": ["str"]}, "Links": ["str"],
    "Aliases": ["str"], "MacAddress": "str", "DriverOpts": {"*": "str"}, "GwPriority": "int", "NetworkID": "str",
    "EndpointID": "str", "Gateway": "str", "IPAddress": "str", "IPPrefixLen": "int", "IPv6Gateway": "str",
    "GlobalIPv6Address": "str", "GlobalIPv6PrefixLen": "int", "DNSNames": ["str"],
}  # fmt: skip
CONFIG: Schema = {
    "Hostname": "str", "Domainname": "str", "User": "str", "AttachStdin": "bool", "AttachStdout": "bool",
    "AttachStderr": "bool", "ExposedPorts": {"*": {}}, "Tty": "bool", "OpenStdin": "bool", "StdinOnce": "bool",
    "Env": ["str"], "Cmd": "args", "Healthcheck": _HEALTH, "ArgsEscaped": "bool", "Image": "str",
    "Volumes": {"*": {}}, "WorkingDir": "str", "Entrypoint": "args", "NetworkDisabled": "bool",
    "MacAddress": "str", "OnBuild": ["str"], "Labels": {"*": "str"}, "StopSignal": "str", "StopTimeout": "int",
    "Shell": "args",
}  # fmt: skip
CREATE: Schema = {
    **CONFIG,
    "HostConfig": HOST,
    "NetworkingConfig": {"EndpointsConfig": {"*": ENDPOINT}},
}
UPDATE: Schema = {
    **_RESOURCES, "RestartPolicy": _RESTART, "PublishAdd": _PORTS, "PublishRemove": _PORTS, "Env": ["str"],
    "EnvRemove": ["str"], "Labels": {"*": "str"}, "LabelsRemove": ["str"],
}  # fmt: skip
EXEC: Schema = {
    "User": "str", "Privileged": "bool", "Tty": "bool", "ConsoleSize": "size", "AttachStdin": "bool",
    "AttachStderr": "bool", "AttachStdout": "bool", "DetachKeys": "str", "Env": ["str"], "WorkingDir": "str",
    "Cmd": "args", "Detach": "bool",
}  # fmt: skip
EXEC_START: Schema = {"Detach": "bool", "Tty": "bool", "ConsoleSize": "size"}
NETWORK: Schema = {
    "Name": "str", "CheckDuplicate": "bool", "Driver": "str", "Scope": "str", "EnableIPv4": "bool",
    "EnableIPv6": "bool", "Internal": "bool", "Attachable": "bool", "Ingress": "bool", "ConfigOnly": "bool",
    "ConfigFrom": {"Network": "str"}, "Options": {"*": "str"}, "Labels": {"*": "str"},
    "IPAM": {
        "Driver": "str", "Options": {"*": "str"},
        "Config": [{"Subnet": "str", "IPRange": "str", "Gateway": "str", "AuxiliaryAddresses": {"*": "str"}}],
    },
}  # fmt: skip
CONNECT: Schema = {"Container": "str", "EndpointConfig": ENDPOINT}
DISCONNECT: Schema = {"Container": "str", "Force": "bool"}
VOLUME: Schema = {"Name": "str", "Driver": "str", "DriverOpts": {"*": "str"}, "Labels": {"*": "str"}}
MOUNT: Schema = {**_MOUNT, "Bind": "str"}
AUTH: Schema = {"username": "str", "password": "str", "email": "str", "serveraddress": "str"}

_GO = {
    "str": "string", "int": "int64", "uint": "uint64", "bool": "bool", "float": "float64", "args": "[]string",
    "size": "[2]uint",
}  # fmt: skip


def checked(body: Json, schema: Schema, struct: str) -> Json:
    """Return body with its known fields checked and spelled as the schema spells them.

    Args:
        body: what a client sent.
        schema: kinds of the known fields.
        struct: what Docker calls the object in its messages.

    Raises:
        InvalidInputError: a field has another type.
    """
    return _object(body, schema, f"{struct}.")


def _object(value: Json, schema: Schema, where: str) -> Json:
    if "*" in schema:
        return {
            _scalar(key, "str", where.rstrip(".")): _value(item, schema["*"], f"{where}{key}")
            for key, item in value.items()
        }
    if not schema:
        return value
    folded = {name.lower(): name for name in schema}
    result: Json = {}
    for key, item in value.items():
        name = key if key in schema else folded.get(key.lower(), key)
        result[name] = _value(item, schema[name], f"{where}{name}") if name in schema else item
    return result


def _value(value: Any, kind: Any, where: str) -> Any:
    if value is None:
        return None
    if isinstance(kind, dict):
        if not isinstance(value, dict):
            raise _mismatch(value, where, "map" if "*" in kind else "struct")
        return _object(value, kind, where.rstrip(".") + ".")
    if isinstance(kind, list):
        if not isinstance(value, list):
            raise _mismatch(value, where, "[]" + _GO.get(str(kind[0]), "struct"))
        return [_value(_zero(kind[0]) if item is None else item, kind[0], where) for item in value]
    return _scalar(value, kind, where)


def _zero(kind: Any) -> Any:
    """Return what a null in a list stands for, as in Go."""
    if isinstance(kind, dict):
        return {}
    if isinstance(kind, list):
        return []
    return {"str": "", "args": [], "bool": False}.get(kind, 0)


def _scalar(value: Any, kind: str, where: str) -> Any:
    if kind == "args":
        if isinstance(value, str):
            return [_scalar(value, "str", where)]
        if isinstance(value, list):
            return [_scalar(item, "str", where) for item in value]
    elif kind == "size":
        if isinstance(value, list):
            return _size(value, where)
    elif kind == "str" and isinstance(value, str):
        if "\0" in value:
            # No path, argument or name may have one: the kernel would cut it there.
            raise InvalidInputError(f"invalid value of {where}: it holds a NUL byte")
        return value
    elif kind == "bool" and isinstance(value, bool):
        return value
    elif kind in ("int", "uint") and isinstance(value, int) and not isinstance(value, bool):
        low, high = (-(1 << 63), 1 << 63) if kind == "int" else (0, 1 << 64)
        if low <= value < high:
            return value
        raise InvalidInputError(
            f"invalid JSON: json: cannot unmarshal number {value} into Go struct field {where} of type {_GO[kind]}"
        )
    raise _mismatch(value, where, _GO[kind])


def _size(value: list[Any], where: str) -> list[int]:
    """Return two numbers of 16 bits; what is missing is 0, and what is too much is dropped, as in Go."""
    rows, columns = [*(_scalar(item, "uint", where) for item in value), 0, 0][:2]
    if max(rows, columns) >= 1 << 16:
        raise InvalidInputError(f"invalid value of {where}: a terminal has at most 65535 rows and columns")
    return [rows, columns]


def _mismatch(value: Any, where: str, wanted: str) -> InvalidInputError:
    kind = json_kind(value)
    if kind == "number":
        kind = f"number {value}"
    return InvalidInputError(
        f"invalid JSON: json: cannot unmarshal {kind} into Go struct field {where} of type {wanted}"
    )
