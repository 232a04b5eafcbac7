"""What a build's client provides on request: secrets, SSH agents, credentials of registries."""

import asyncio
import base64
import json
import os
from typing import Any

from barque.base.errors import BarqueError, NotFoundError, UnsupportedError
from barque.builder.buildkit.pb import auth_pb2, secrets_pb2, ssh_pb2
from barque.builder.buildkit.sessions import ClientSession

_TIMEOUT_S = 30.0
_CHUNK = 32 << 10
_CREDENTIALS = "moby.filesync.v1.Auth/Credentials"
_SECRET = "moby.buildkit.secrets.v1.Secrets/GetSecret"
_CHECK_AGENT = "moby.sshforward.v1.SSH/CheckAgent"
_FORWARD_AGENT = "moby.sshforward.v1.SSH/ForwardAgent"
_DOCKER_HUB = "https://index.docker.io/v1/"


class ClientSecrets:
    """Secrets and agents of one client (see execution.SecretProvider)."""

    def __init__(self, client: ClientSession) -> None:
        self._client = client
        self._servers: list[asyncio.AbstractServer] = []

    async def secret(self, name: str) -> bytes | None:
        """Return a secret's bytes, None where the client has none of that name."""
        try:
            answer = await self._client.client.call(
                _SECRET, secrets_pb2.GetSecretRequest(ID=name), secrets_pb2.GetSecretResponse, timeout_s=_TIMEOUT_S
            )
        except (NotFoundError, UnsupportedError):
            return None
        return bytes(answer.data)

    async def agent(self, name: str, folder: str) -> str | None:
        """Return the path of a socket in folder that reaches the client's agent, None where it has none."""
        try:
            await self._client.client.call(
                _CHECK_AGENT, ssh_pb2.CheckAgentRequest(ID=name), ssh_pb2.CheckAgentResponse, timeout_s=_TIMEOUT_S
            )
        except BarqueError:
            return None
        path = f"{folder}/agent"

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                await self._forward(name, reader, writer)
            finally:
                writer.close()

        self._servers.append(await asyncio.start_unix_server(serve, path))
        os.chmod(path, 0o600)
        return path

    async def _forward(self, name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        message = ssh_pb2.BytesMessage
        async with self._client.client.stream(_FORWARD_AGENT, metadata={"buildkit.ssh.id": name}) as stream:
            await stream.send_request()

            async def up() -> None:
                while data := await reader.read(_CHUNK):
                    await stream.send_message(message(data=data))
                await stream.end()

            sending = asyncio.create_task(up())
            try:
                while (answer := await stream.recv_message()) is not None:
                    writer.write(answer.data)
                    await writer.drain()
            finally:
                sending.cancel()

    def close(self) -> None:
        """Take no more connections to agents."""
        for server in self._servers:
            server.close()
        self._servers.clear()


async def registry_header(client: ClientSession | None, domain: str) -> str:
    """Return the credentials that a client has for a registry, as the header that the engine takes; empty without.

    Args:
        client: whose.
        domain: the registry as image names have it.
    """
    if client is None or not client.serves(_CREDENTIALS):
        return ""
    host = _DOCKER_HUB if domain == "docker.io" else domain
    try:
        found = await client.client.call(
            _CREDENTIALS, auth_pb2.CredentialsRequest(Host="registry-1.docker.io" if domain == "docker.io" else domain),
            auth_pb2.CredentialsResponse, timeout_s=_TIMEOUT_S,
        )  # fmt: skip
    except BarqueError:
        return ""
    if not found.Secret:
        return ""
    value: dict[str, Any] = {"serveraddress": host}
    if found.Username:
        value |= {"username": found.Username, "password": found.Secret}
    else:
        value["identitytoken"] = found.Secret
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode()
