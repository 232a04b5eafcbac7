"""What clients offer a build: their files, secrets, agents and credentials, called over a connection of theirs."""

import asyncio
from dataclasses import dataclass, field

from barque.base.errors import InvalidInputError, NotFoundError
from barque.builder.buildkit.connection import GrpcClient

_WAIT_S = 5.0


@dataclass(slots=True, eq=False)
class ClientSession:
    """One client's services; `methods` are the paths that it serves, in lower case."""

    id: str
    name: str
    shared_key: str
    methods: frozenset[str]
    client: GrpcClient = field(default_factory=GrpcClient)

    def serves(self, method: str) -> bool:
        """Whether the client serves a method (`package.Service/Name`)."""
        return f"/{method}".lower() in self.methods


def session_of(headers: dict[str, list[str]]) -> ClientSession:
    """Return the session that a client's headers (names in lower case) describe.

    Raises:
        InvalidInputError: they name none.
    """
    found = {key: (headers.get(f"x-docker-expose-session-{key}") or [""]) for key in ("uuid", "name", "sharedkey")}
    methods = headers.get("x-docker-expose-session-grpc-method", [])
    if not found["uuid"][0]:
        raise InvalidInputError("session id is required: send it as X-Docker-Expose-Session-Uuid")
    names = frozenset(method.lower() for method in methods)
    return ClientSession(found["uuid"][0], found["name"][0], found["sharedkey"][0], names)


class Sessions:
    """The sessions that are open, by id."""

    def __init__(self) -> None:
        self._open: dict[str, ClientSession] = {}
        self._changed = asyncio.Condition()

    async def add(self, session: ClientSession) -> None:
        """Let builds find a session.

        Raises:
            InvalidInputError: its id is in use.
        """
        if session.id in self._open:
            raise InvalidInputError(f"session {session.id} already exists")
        self._open[session.id] = session
        async with self._changed:
            self._changed.notify_all()

    def remove(self, session: ClientSession) -> None:
        """Forget a session whose connection has ended."""
        if self._open.get(session.id) is session:
            del self._open[session.id]
        session.client.close()

    async def get(self, identity: str) -> ClientSession:
        """Return a session; one that is still being opened is waited for, at most 5 s.

        Raises:
            NotFoundError: it does not come.
        """
        # Clients put a prefix before the id to tell contexts apart.
        identity = identity.rpartition(":")[2]
        found = self._open.get(identity)
        if found is not None:
            return found
        try:
            async with asyncio.timeout(_WAIT_S), self._changed:
                await self._changed.wait_for(lambda: identity in self._open)
        except TimeoutError:
            raise NotFoundError(f"no active session for {identity}: context deadline exceeded") from None
        return self._open[identity]
