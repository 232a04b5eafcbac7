"""`device`: what devices containers that exist have been given."""

from barque.base.errors import InvalidInputError
from barque.cli import mounts
from barque.cli.run_spec import devices_of
from barque.cli.tables import show
from barque.cli.verb import Invocation
from barque.client.api import quote


def add(call: Invocation) -> int:
    """Give devices to a container: HOST[:CONTAINER][:PERMISSIONS]."""
    name, *texts = call.words
    devices, named = devices_of(texts)
    if named:
        raise InvalidInputError(f"{named[0]['DeviceIDs'][0]}: a CDI device cannot be added later: name it at create")
    for device in devices:
        call.api.post(f"/containers/{quote(name)}/devices", device)
    return 0


def rm(call: Invocation) -> int:
    """Take devices from a container."""
    return mounts.take(call, "devices")


def ls(call: Invocation) -> int:
    """List the devices that a container was given."""
    host = call.api.get(f"/containers/{quote(call.words[0])}/json")["HostConfig"]
    rows = [(d["PathInContainer"], d["PathOnHost"], d["CgroupPermissions"]) for d in host.get("Devices") or []]
    rows += [("", name, "") for request in host.get("DeviceRequests") or [] for name in request.get("DeviceIDs") or []]
    columns = {"Path": lambda r: r[0], "Device": lambda r: r[1], "Permissions": lambda r: r[2]}
    show(rows, columns, {}, call.options["format"], "Path Device Permissions")
    return 0
