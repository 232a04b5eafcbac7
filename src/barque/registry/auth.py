"""Who may do what: the contract of the guards, and the two that need no library.

A guard looks at a request's Authorization header and at the access the request needs. It returns the
user's name or refuses with UNAUTHORIZED, whose WWW-Authenticate header says how to try again, or DENIED.
"""

import asyncio
import base64
import binascii
import hashlib
import hmac
import os
import time
from typing import NamedTuple, Protocol

from barque.base.errors import InvalidInputError
from barque.registry.errors import RegistryError

_REMEMBER_S = 300
_REMEMBER_MAX = 1000


class Access(NamedTuple):
    """Access that a request needs: a kind (repository, registry), its name, what is done to it."""

    kind: str
    name: str
    actions: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}:{','.join(self.actions)}"


class Guard(Protocol):
    """Decides on requests."""

    async def check(self, header: str, needs: tuple[Access, ...]) -> str:
        """Return the user's name.

        Args:
            header: Authorization, empty without.
            needs: what the request does; empty for the base, which only asks for a known user.

        Raises:
            RegistryError: UNAUTHORIZED or DENIED.
        """
        ...


class Everyone:
    """Lets everyone do everything."""

    async def check(self, header: str, needs: tuple[Access, ...]) -> str:
        """Return no name (see Guard)."""
        return ""


def unauthorized(challenge: str, needs: tuple[Access, ...]) -> RegistryError:
    """Return the refusal that tells how to prove who one is."""
    detail = [{"Type": a.kind, "Class": "", "Name": a.name, "Action": action} for a in needs for action in a.actions]
    return RegistryError(
        401, "UNAUTHORIZED", "authentication required", detail=detail or None, headers={"WWW-Authenticate": challenge}
    )


def basic_credentials(header: str) -> tuple[str, str] | None:
    """Return user and password of a Basic Authorization header, None of any other."""
    scheme, _, value = header.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        user, colon, password = base64.b64decode(value.strip(), validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return (user, password) if colon else None


class Htpasswd:
    """Basic authentication by a file of `user:bcrypt-hash` lines, read again when it changes.

    A checked password is remembered for a while as a keyed hash: bcrypt is slow on purpose, and a push
    is a hundred requests.

    Args:
        path: the file.
        realm: told to clients.

    Raises:
        InvalidInputError: a line is malformed or not bcrypt.
        OSError: the file cannot be read.
    """

    def __init__(self, path: str, realm: str) -> None:
        self._path = path
        self._challenge = f'Basic realm="{realm}"'
        self._key = os.urandom(32)
        self._known: dict[bytes, float] = {}
        self._stamp: tuple[int, int] = (0, 0)
        self._users: dict[str, bytes] = {}
        self._decoy = b""
        self._load()

    async def check(self, header: str, needs: tuple[Access, ...]) -> str:
        """Return the user's name (see Guard)."""
        self._load()
        credentials = basic_credentials(header)
        if credentials is None or not await self._right(*credentials):
            raise unauthorized(self._challenge, needs)
        return credentials[0]

    async def _right(self, user: str, password: str) -> bool:
        import bcrypt

        hashed = self._users.get(user)
        word = password.encode()
        mark = hmac.new(self._key, b"\0".join((user.encode(), word, hashed or b"")), hashlib.sha256).digest()
        if self._known.get(mark, 0) > time.monotonic():
            return True
        # Longer words are not bcrypt's; an unknown user takes as long as a known one.
        right = await asyncio.to_thread(bcrypt.checkpw, word[:72], hashed or self._decoy)
        if not right or hashed is None:
            return False
        if len(self._known) >= _REMEMBER_MAX:
            self._known.clear()
        self._known[mark] = time.monotonic() + _REMEMBER_S
        return True

    def _load(self) -> None:
        import bcrypt

        found = os.stat(self._path)
        stamp = (found.st_mtime_ns, found.st_size)
        if stamp == self._stamp:
            return
        with open(self._path, encoding="utf-8") as file:
            self._users = parse_htpasswd(file.read())
        self._stamp = stamp
        self._known.clear()
        if not self._decoy:
            self._decoy = bcrypt.hashpw(os.urandom(16).hex().encode(), bcrypt.gensalt(10))


def parse_htpasswd(text: str) -> dict[str, bytes]:
    """Return the users of an htpasswd file with their bcrypt hashes.

    Raises:
        InvalidInputError: a line is malformed or not bcrypt.
    """
    users = {}
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        user, colon, hashed = line.partition(":")
        if not colon or not user:
            raise InvalidInputError(f"htpasswd: line {number} is not user:hash")
        if not hashed.startswith(("$2a$", "$2b$", "$2x$", "$2y$")) or len(hashed) != 60:
            raise InvalidInputError(f"htpasswd: the hash of {user} is not bcrypt; make it with htpasswd -B")
        users[user] = hashed.encode()
    return users
