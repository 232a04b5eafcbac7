"""What keeps a volume's data: folders of our own, or a plugin. All here blocks and is called in threads."""

from __future__ import annotations

import contextlib
import os
import socket
from typing import Any, Protocol

from barque.base.errors import BarqueError, InvalidInputError, KernelError
from barque.engine import volume_options
from barque.engine.volume_plugins import Plugin, Plugins
from barque.kernel import mount as km, quota
from barque.runtime import mount_options
from barque.storage import disks
from barque.storage.trees import remove_tree

Json = dict[str, Any]
LOCAL = "local"


class VolumeDriver(Protocol):
    """Makes volumes and says where their data is."""

    def check(self, name: str, options: Json) -> None:
        """Refuse a volume that cannot be."""

    def create(self, name: str, options: Json) -> None:
        """Make it."""

    def remove(self, name: str) -> None:
        """Remove it and its data."""

    def mount(self, name: str, options: Json, user: str) -> str:
        """Make the data reachable for a user (a container's id); return the path."""

    def unmount(self, name: str, options: Json, user: str, *, last: bool) -> None:
        """Take that back; `last` says that no other user is left."""

    def path(self, name: str) -> str:
        """Return where the data is or will be, empty where that is not known before it is mounted."""

    def status(self, name: str) -> Json:
        """Return what the driver tells of the volume besides."""


class LocalDriver:
    """Folders under the data root; options make a folder the place of a mount.

    <folder>/<name>/_data    the data
    <folder>/<name>/disk     the file system that holds them, where a size is kept without project quotas
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        os.makedirs(folder, mode=0o701, exist_ok=True)

    def check(self, name: str, options: Json) -> None:
        """Refuse names and options of a wrong form."""
        volume_options.check_name(name)
        volume_options.check_options(options)
        size = volume_options.size_limit(options)
        if size and not quota.supported(self._folder):
            if options.get("type"):
                raise InvalidInputError("quota size requested but no quota support")
            disks.check(size, "a volume")

    def create(self, name: str, options: Json) -> None:
        """Make the folder."""
        os.makedirs(self.path(name), mode=0o755, exist_ok=True)
        os.chmod(f"{self._folder}/{name}", 0o701)
        os.chmod(self.path(name), 0o755)
        size = volume_options.size_limit(options)
        if size and not quota.supported(self._folder):
            disks.make(self._disk(name), size, self.path(name))
        elif size:
            quota.limit([self.path(name)], quota.new_project(self._folder), size)

    def remove(self, name: str) -> None:
        """Remove the folder; what is mounted on it is let go first, never removed."""
        km.unmount_below(f"{self._folder}/{name}")
        quota.release(self.path(name))
        remove_tree(f"{self._folder}/{name}")

    def drop_empty(self, known: set[str]) -> None:
        """Remove folders of no known volume that hold nothing; what holds data is never guessed to be rubbish."""
        for name in set(os.listdir(self._folder)) - known:
            with contextlib.suppress(OSError):
                os.rmdir(self.path(name))
            with contextlib.suppress(OSError):
                os.rmdir(f"{self._folder}/{name}")

    def rename(self, old: str, new: str) -> None:
        """Give a volume another name."""
        os.rename(f"{self._folder}/{old}", f"{self._folder}/{new}")

    def mount(self, name: str, options: Json, user: str) -> str:
        """Mount what the options say, once for all users."""
        path = self.path(name)
        if os.path.exists(self._disk(name)) and not km.mounts_below(path):
            disks.mount(self._disk(name), path)
        wanted = volume_options.local_mount(options, _address_of)
        if wanted is not None and not km.mounts_below(path):
            mount_local(wanted, path)
        return path

    def unmount(self, name: str, options: Json, user: str, *, last: bool) -> None:
        """Unmount after the last user."""
        if last and (options.get("type") or options.get("device") or os.path.exists(self._disk(name))):
            km.unmount_below(self.path(name))

    def _disk(self, name: str) -> str:
        return f"{self._folder}/{name}/disk"

    def path(self, name: str) -> str:
        """Return the folder of the data."""
        return f"{self._folder}/{name}/_data"

    def status(self, name: str) -> Json:
        """Tell nothing."""
        return {}


def mount_local(wanted: volume_options.LocalMount, path: str) -> None:
    """Mount a local volume's device on its folder.

    Raises:
        BarqueError: the kernel refused; a password in the options is not repeated.
    """
    options = mount_options.parse(wanted.words)
    try:
        if options.flags & km.MS_BIND or (wanted.kind in ("none", "bind") and not options.data):
            _bind(wanted.device, path, options)
        else:
            km.mount(wanted.device, path, wanted.kind or None, options.flags, options.data or None)
        for flags in options.propagation:
            km.mount(None, path, None, flags)
    except OSError as error:
        words = f", flags: {options.flags:#x}" if options.flags else ""
        words += f", data: {volume_options.without_password(options.data)}" if options.data else ""
        reason = (os.strerror(error.errno) if error.errno else str(error)).lower()
        raise BarqueError(f"failed to mount local volume: mount {wanted.device}:{path}{words}: {reason}") from None


def _bind(source: str, path: str, options: mount_options.MountOptions) -> None:
    recursive = km.AT_RECURSIVE if options.flags & km.MS_REC else 0
    tree = km.open_tree(km.AT_FDCWD, source, km.OPEN_TREE_CLONE | recursive)
    try:
        if options.attr.set or options.attr.clear:
            km.mount_setattr(tree, options.attr)
        try:
            km.move_mount(tree, path)
        except KernelError as error:
            raise KernelError(error.errno or 0, "mount", source) from None
    finally:
        os.close(tree)


def _address_of(host: str) -> str:
    try:
        return str(socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][4][0])
    except OSError as error:
        raise BarqueError(f"error resolving passed in network volume address: {error}") from None


class PluginDriver:
    """A plugin that speaks `VolumeDriver`."""

    def __init__(self, plugin: Plugin) -> None:
        self._plugin = plugin

    def check(self, name: str, options: Json) -> None:
        """Leave that to the plugin."""

    def create(self, name: str, options: Json) -> None:
        """Have the plugin make it."""
        self._plugin.call("VolumeDriver.Create", {"Name": name, "Opts": options})

    def remove(self, name: str) -> None:
        """Have the plugin remove it."""
        self._plugin.call("VolumeDriver.Remove", {"Name": name})

    def mount(self, name: str, options: Json, user: str) -> str:
        """Return the place at which the plugin mounted it."""
        place = self._plugin.call("VolumeDriver.Mount", {"Name": name, "ID": user}).get("Mountpoint")
        if not isinstance(place, str) or not place.startswith("/"):
            raise BarqueError(f"the volume plugin {self._plugin.name} mounted {name} nowhere")
        return place

    def unmount(self, name: str, options: Json, user: str, *, last: bool) -> None:
        """Tell the plugin that a user is gone."""
        self._plugin.call("VolumeDriver.Unmount", {"Name": name, "ID": user})

    def path(self, name: str) -> str:
        """Return the place that the plugin tells."""
        return str(self._plugin.call("VolumeDriver.Path", {"Name": name}).get("Mountpoint") or "")

    def status(self, name: str) -> Json:
        """Return the plugin's `Volume` object: Name, Mountpoint, Status."""
        found = self._plugin.call("VolumeDriver.Get", {"Name": name}).get("Volume")
        return found if isinstance(found, dict) else {}

    def scope(self) -> str:
        """Return `local` or `global`."""
        try:
            found = self._plugin.call("VolumeDriver.Capabilities").get("Capabilities")
        except BarqueError:
            return "local"
        scope = str(found.get("Scope") or "local").lower() if isinstance(found, dict) else "local"
        return scope if scope in ("local", "global") else "local"


def plugin_volumes(plugins: Plugins) -> tuple[list[Json], list[str]]:
    """Return (volumes of all plugins with "driver", warnings of those that do not answer)."""
    found: list[Json] = []
    warnings: list[str] = []
    for plugin in plugins.of_kind("VolumeDriver"):
        try:
            listed = plugin.call("VolumeDriver.List").get("Volumes")
        except BarqueError as error:
            warnings.append(str(error))
            continue
        for item in listed if isinstance(listed, list) else []:
            if isinstance(item, dict) and item.get("Name"):
                found.append({**item, "driver": plugin.name})
    return found, warnings
