"""What a build may ask its client for besides files: secrets, SSH agents, credentials of registries."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any, NamedTuple

from grpclib.const import Status
from grpclib.exceptions import GRPCError

from barque.base.errors import InvalidInputError
from barque.builder.buildkit.pb import auth_pb2, secrets_pb2, ssh_pb2
from barque.cli.credentials import HUB_SERVER, CredentialStore

if TYPE_CHECKING:
    from collections.abc import Mapping

_LARGEST_SECRET = 500 << 10
_CHUNK = 32 << 10
_HUB_HOSTS = ("registry-1.docker.io", "docker.io", "index.docker.io")


class Auth:
    """Serves moby.filesync.v1.Auth from the client's configuration."""

    descriptor = auth_pb2.DESCRIPTOR.services_by_name["Auth"]

    def __init__(self, store: CredentialStore) -> None:
        self._store = store
        self._lock = asyncio.Lock()

    async def credentials(self, stream: Any) -> None:
        """Give what is kept for a registry, nothing where nothing is."""
        request = await stream.recv_message()
        server = HUB_SERVER if request.Host in _HUB_HOSTS else request.Host
        async with self._lock:
            # A credential helper may ask the user; one question at a time.
            found = await asyncio.to_thread(self._store.get, server)
        secret = found.get("identitytoken") or found.get("password", "")
        name = "" if found.get("identitytoken") else found.get("username", "")
        await stream.send_message(auth_pb2.CredentialsResponse(Username=name, Secret=secret))


class SecretSource(NamedTuple):
    """Where a secret's bytes are: a file's path, or the name of a variable of the environment."""

    path: str = ""
    variable: str = ""


def read_secrets(texts: list[str], environment: Mapping[str, str]) -> dict[str, SecretSource]:
    """Return secrets by their ids, as `id=name,src=path` or `id=name,env=VARIABLE` name them.

    Raises:
        InvalidInputError: one is not understood, or its file does not exist.
    """
    from barque.cli.building.outputs import read_fields

    found: dict[str, SecretSource] = {}
    for text in texts:
        fields = read_fields(text)
        for key in fields:
            if key not in ("id", "src", "source", "type", "env"):
                raise InvalidInputError(f"unexpected key '{key}' in '{text}'")
        if fields.get("type", "file") not in ("file", "env"):
            raise InvalidInputError(f"unsupported secret type {fields['type']!r}")
        name = fields.get("id", "")
        path, variable = fields.get("src") or fields.get("source", ""), fields.get("env", "")
        if not name:
            raise InvalidInputError("secret is missing 'id'")
        if fields.get("type") == "env":
            path, variable = "", variable or path or name
        elif not path and not variable:
            # Alone, an id names a variable first and a file second.
            path, variable = ("", name) if name in environment else (name, "")
        if path:
            _check_secret(name, path)
        found[name] = SecretSource(path, variable)
    return found


def _check_secret(name: str, path: str) -> None:
    try:
        status = os.stat(path)
    except OSError as error:
        raise InvalidInputError(f"failed to stat {path}: {(error.strerror or str(error)).lower()}") from None
    if status.st_size > _LARGEST_SECRET:
        raise InvalidInputError(f"secret {name} is too large: {status.st_size} bytes, at most {_LARGEST_SECRET}")


class Secrets:
    """Serves moby.buildkit.secrets.v1.Secrets."""

    descriptor = secrets_pb2.DESCRIPTOR.services_by_name["Secrets"]

    def __init__(self, sources: dict[str, SecretSource], environment: Mapping[str, str]) -> None:
        self._sources = sources
        self._environment = environment

    async def get_secret(self, stream: Any) -> None:
        """Give one secret."""
        request = await stream.recv_message()
        source = self._sources.get(request.ID)
        if source is None:
            raise GRPCError(Status.NOT_FOUND, f"secret {request.ID} not found")
        if source.path:
            with open(source.path, "rb") as file:
                data = file.read(_LARGEST_SECRET + 1)
            if len(data) > _LARGEST_SECRET:
                raise GRPCError(Status.INVALID_ARGUMENT, f"secret {request.ID} is too large")
        elif source.variable in self._environment:
            data = os.fsencode(self._environment[source.variable])
        else:
            raise GRPCError(Status.NOT_FOUND, f"secret {request.ID} not found: no variable {source.variable}")
        await stream.send_message(secrets_pb2.GetSecretResponse(data=data))


def read_agents(texts: list[str], environment: Mapping[str, str]) -> dict[str, str]:
    """Return paths of agents' sockets by id, as `default` or `id=path` name them.

    Raises:
        InvalidInputError: there is no agent, or what is named is none.
    """
    found: dict[str, str] = {}
    for text in texts:
        name, _, rest = text.partition("=")
        paths = [path for path in rest.split(",") if path]
        if not paths and environment.get("SSH_AUTH_SOCK"):
            paths = [environment["SSH_AUTH_SOCK"]]
        if not paths:
            raise InvalidInputError(
                f"invalid empty ssh agent socket for {name}: start an ssh-agent and set SSH_AUTH_SOCK, or name its "
                f"socket: --ssh {name}=/path/to/socket"
            )
        if len(paths) > 1 or not _is_socket(paths[0]):
            raise InvalidInputError(
                f"--ssh {text}: key files are not supported: add the key to an ssh-agent (ssh-add) and name its socket"
            )
        found[name or "default"] = paths[0]
    return found


def _is_socket(path: str) -> bool:
    import stat

    try:
        return stat.S_ISSOCK(os.stat(path).st_mode)
    except OSError as error:
        raise InvalidInputError(f"failed to stat {path}: {(error.strerror or str(error)).lower()}") from None


class Agents:
    """Serves moby.sshforward.v1.SSH: connections to agents' sockets."""

    descriptor = ssh_pb2.DESCRIPTOR.services_by_name["SSH"]

    def __init__(self, paths: dict[str, str]) -> None:
        self._paths = paths

    async def check_agent(self, stream: Any) -> None:
        """Say whether there is an agent of an id."""
        request = await stream.recv_message()
        self._path(request.ID)
        await stream.send_message(ssh_pb2.CheckAgentResponse())

    def _path(self, name: str) -> str:
        path = self._paths.get(name or "default")
        if path is None:
            raise GRPCError(Status.NOT_FOUND, f"unset ssh forward key {name or 'default'}")
        return path

    async def forward_agent(self, stream: Any) -> None:
        """Carry one connection."""
        path = self._path(str(stream.metadata.get("buildkit.ssh.id", "")))
        try:
            reader, writer = await asyncio.open_unix_connection(path)
        except OSError as error:
            raise GRPCError(Status.UNAVAILABLE, f"failed to connect to {path}: {error.strerror}") from None

        async def down() -> None:
            while data := await reader.read(_CHUNK):
                await stream.send_message(ssh_pb2.BytesMessage(data=data))

        answering = asyncio.create_task(down())
        try:
            while (message := await stream.recv_message()) is not None:
                writer.write(message.data)
                await writer.drain()
            writer.write_eof()
            await answering
        finally:
            answering.cancel()
            writer.close()


