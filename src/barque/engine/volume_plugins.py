"""Volume drivers outside the engine: Docker's plugin protocol, version 1, over a socket.

A plugin announces itself by a socket `<name>.sock` in one of the folders of sockets, or by `<name>.spec`
(its address) or `<name>.json` ({"Name","Addr","TLSConfig"}) in one of the folders of specifications.
Every call is a POST of JSON; an answer with `Err` is a refusal. All here blocks and is called in threads.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import ssl
from typing import Any
from urllib.parse import urlsplit

from barque.base.errors import BarqueError, NotFoundError

Json = dict[str, Any]
SOCKET_FOLDERS = ("/run/docker/plugins", "/run/barque/plugins")
SPEC_FOLDERS = ("/etc/docker/plugins", "/usr/lib/docker/plugins", "/etc/barque/plugins")
_TYPE = "application/vnd.docker.plugins.v1.2+json"
_TIMEOUT_S = 30.0
_MOST = 8 << 20


class PluginError(BarqueError):
    """A plugin refused, or did not answer."""


class Plugin:
    """One plugin by its address."""

    def __init__(self, name: str, address: str, tls: Json | None = None) -> None:
        self.name = name
        self.address = address
        self._tls = tls or {}
        self.implements: list[str] | None = None

    def call(self, method: str, body: Json | None = None, timeout_s: float = _TIMEOUT_S) -> Json:
        """Return the answer to one call, such as `VolumeDriver.Mount`.

        Raises:
            PluginError: it refused (with its words), or is not reachable.
        """
        try:
            connection = self._connection(timeout_s)
            try:
                data = json.dumps(body or {}).encode()
                headers = {"Accept": _TYPE, "Content-Type": "application/json"}
                connection.request("POST", f"/{method}", data, headers)
                answer = connection.getresponse()
                text = answer.read(_MOST)
            finally:
                connection.close()
        except (OSError, http.client.HTTPException) as error:
            raise PluginError(f'error while calling plugin "{self.name}" ({method}): {error}') from None
        return self._decoded(method, answer.status, text)

    def _decoded(self, method: str, status: int, text: bytes) -> Json:
        try:
            value = json.loads(text) if text.strip() else {}
        except ValueError:
            value = {"Err": text.decode("utf-8", "replace")} if status >= 400 else None
        if not isinstance(value, dict):
            raise PluginError(f"{method}: the plugin {self.name} did not answer with a JSON object")
        if value.get("Err"):
            raise PluginError(f"{method}: {value['Err']}")
        if status >= 400:
            raise PluginError(f"{method}: the plugin {self.name} answered with status {status}")
        return value

    def activate(self) -> list[str]:
        """Return what the plugin implements; asked once."""
        if self.implements is None:
            found = self.call("Plugin.Activate").get("Implements")
            self.implements = [str(kind) for kind in found] if isinstance(found, list) else []
        return self.implements

    def _connection(self, timeout_s: float) -> http.client.HTTPConnection:
        parts = urlsplit(self.address)
        if parts.scheme == "unix":
            return _unix_connection(parts.path, timeout_s)
        if parts.scheme == "https" or self._tls:
            return http.client.HTTPSConnection(
                parts.hostname or "", parts.port or 443, timeout=timeout_s, context=self._context()
            )
        return http.client.HTTPConnection(parts.hostname or "", parts.port or 80, timeout=timeout_s)

    def _context(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self._tls.get("CAFile") or None)
        if self._tls.get("InsecureSkipVerify"):
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        if self._tls.get("CertFile"):
            context.load_cert_chain(self._tls["CertFile"], self._tls.get("KeyFile") or None)
        return context


def _unix_connection(path: str, timeout_s: float) -> http.client.HTTPConnection:
    connection = http.client.HTTPConnection("plugin", timeout=timeout_s)
    connection.sock = socket.socket(socket.AF_UNIX)
    try:
        connection.sock.settimeout(timeout_s)
        connection.sock.connect(path)
    except OSError:
        connection.close()
        raise
    return connection


class Plugins:
    """The plugins that announce themselves on this machine, kept while their address stays."""

    def __init__(
        self, socket_folders: tuple[str, ...] = SOCKET_FOLDERS, spec_folders: tuple[str, ...] = SPEC_FOLDERS
    ) -> None:
        self._sockets, self._specs = socket_folders, spec_folders
        self._known: dict[str, Plugin] = {}

    def names(self) -> list[str]:
        """Return the names of all plugins, sorted."""
        found = set()
        for folders, suffixes in ((self._sockets, (".sock",)), (self._specs, (".spec", ".json"))):
            for folder in folders:
                for entry in _entries(folder):
                    stem, suffix = os.path.splitext(entry)
                    if suffix in suffixes:
                        found.add(stem)
                    elif os.path.exists(f"{folder}/{entry}/{entry}.sock"):
                        found.add(entry)
        return sorted(found)

    def get(self, name: str, kind: str) -> Plugin:
        """Return the plugin of a name that implements kind, such as `VolumeDriver`.

        Raises:
            NotFoundError: there is none.
            PluginError: it does not answer.
        """
        address, tls = self._address(name)
        if not address:
            raise NotFoundError(f'plugin "{name}" not found')
        plugin = self._known.get(name)
        if plugin is None or plugin.address != address:
            plugin = self._known[name] = Plugin(name, address, tls)
        if kind not in plugin.activate():
            raise NotFoundError(f'plugin "{name}" does not implement the required interface: {kind}')
        return plugin

    def of_kind(self, kind: str) -> list[Plugin]:
        """Return all plugins that answer and implement kind."""
        found = []
        for name in self.names():
            try:
                found.append(self.get(name, kind))
            except BarqueError:
                continue
        return found

    def _address(self, name: str) -> tuple[str, Json | None]:
        if "/" in name or name in ("", ".", ".."):
            return "", None
        for folder in self._sockets:
            for path in (f"{folder}/{name}.sock", f"{folder}/{name}/{name}.sock"):
                if os.path.exists(path):
                    return f"unix://{path}", None
        for folder in self._specs:
            text = _text(f"{folder}/{name}.spec")
            if text:
                return text.strip(), None
            text = _text(f"{folder}/{name}.json")
            if text:
                return _of_json(text)
        return "", None


def _of_json(text: str) -> tuple[str, Json | None]:
    try:
        value = json.loads(text)
        tls = value.get("TLSConfig")
        return str(value["Addr"]), tls if isinstance(tls, dict) else None
    except (ValueError, KeyError, AttributeError):
        return "", None


def _entries(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except (OSError, ValueError):
        return ""
