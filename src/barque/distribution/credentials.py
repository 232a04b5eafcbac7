"""Credentials of a registry: as the API sends them, and as the registry's challenge wants them.

Tokens are fetched as the token specification says (https://distribution.github.io/distribution/spec/auth/token/).
"""

import base64
import binascii
import json
import re
import threading
import time
from typing import Any, NamedTuple
from urllib.parse import urlencode, urlsplit

from barque.base.errors import InvalidInputError
from barque.distribution.errors import RegistryError, TransportError, of_answer
from barque.distribution.transport import Transport

_CLIENT = "barque"
_TOKEN_LIFE_MIN_S = 60
_HEADER_MAX = 1 << 16


class Credentials(NamedTuple):
    """What a user logged in with: a name and a password, an identity token or a ready token."""

    username: str = ""
    password: str = ""
    identity_token: str = ""
    registry_token: str = ""
    server: str = ""


NOBODY = Credentials()


class Challenge(NamedTuple):
    """One way to authenticate that a registry offers: the scheme in lower case and its parameters."""

    scheme: str
    parameters: dict[str, str]


def from_header(text: str) -> Credentials:
    """Return the credentials in an X-Registry-Auth header (base64 of JSON, either alphabet).

    Raises:
        InvalidInputError: it is something else.
    """
    if not text:
        return NOBODY
    if len(text) > _HEADER_MAX:
        raise InvalidInputError("invalid X-Registry-Auth header: too long")
    try:
        padded = text.replace("-", "+").replace("_", "/")
        data = base64.b64decode(padded + "=" * (-len(padded) % 4), validate=True)
        value = json.loads(data)
    except (ValueError, binascii.Error, RecursionError) as error:
        raise InvalidInputError(f"invalid X-Registry-Auth header: {error}") from None
    return from_json(value)


def from_json(value: Any) -> Credentials:
    """Return the credentials in the API's AuthConfig object.

    Raises:
        InvalidInputError: it is something else.
    """
    if value is None:
        return NOBODY
    if not isinstance(value, dict):
        raise InvalidInputError("invalid X-Registry-Auth header: not an object")
    keys = ("username", "password", "identitytoken", "registrytoken", "serveraddress")
    parts = [value.get(key) or "" for key in keys]
    if not all(isinstance(part, str) for part in parts):
        raise InvalidInputError("invalid X-Registry-Auth header: a value is no text")
    if not parts[0] and not parts[1] and isinstance(value.get("auth"), str) and value["auth"]:
        parts[0], parts[1] = _pair(value["auth"])
    return Credentials(*parts)


def _pair(text: str) -> tuple[str, str]:
    try:
        name, _, password = base64.b64decode(text, validate=True).decode().partition(":")
    except (ValueError, binascii.Error):
        raise InvalidInputError("invalid X-Registry-Auth header: auth") from None
    return name, password.rstrip("\0")


_PART = re.compile(r'\s*([A-Za-z0-9_-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))\s*(?:,|$)')
_SCHEME = re.compile(r"\s*([A-Za-z][A-Za-z0-9_-]*)(?:\s+|$)(?!=)")


def challenges(headers: list[str]) -> list[Challenge]:
    """Return the challenges of WWW-Authenticate headers (RFC 9110, section 11.6.1)."""
    found = []
    for header in headers:
        at = 0
        while match := _SCHEME.match(header, at):
            at = match.end()
            parameters: dict[str, str] = {}
            while part := _PART.match(header, at):
                quoted = part[2]
                value = re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else part[3]
                parameters[part[1].lower()] = value
                at = part.end()
            found.append(Challenge(match[1].lower(), parameters))
    return found


class Authority:
    """Answers one registry's challenges; keeps its tokens. Safe to use from several threads.

    Args:
        transport: to reach token servers.
        credentials: whose.
        registry: the registry's base URL.
        offline: ask for an identity token besides, to keep instead of the password.
    """

    def __init__(self, transport: Transport, credentials: Credentials, registry: str, *, offline: bool = False) -> None:
        self._offline = offline
        self._transport = transport
        self._credentials = credentials
        self._registry = registry
        self._lock = threading.Lock()
        self._challenge: Challenge | None = None
        self._tokens: dict[str, tuple[str, float]] = {}
        self.identity_token = credentials.identity_token

    def challenged(self, headers: list[str]) -> bool:
        """Remember what the registry asks for; tell whether we can answer that."""
        for challenge in challenges(headers):
            if challenge.scheme in ("bearer", "basic"):
                self._challenge = challenge
                return True
        return False

    def header(self, scope: str, *, fresh: bool = False) -> dict[str, str]:
        """Return the header that authorises a request of a scope; nothing where no challenge was seen.

        Args:
            scope: such as `repository:library/x:pull,push`; several are separated by spaces.
            fresh: a token that is kept was refused.

        Raises:
            RegistryError: no credentials, or the token server refuses them.
            TransportError: the token server does not answer.
        """
        challenge = self._challenge
        if challenge is None:
            return {}
        if self._credentials.registry_token:
            return {"Authorization": f"Bearer {self._credentials.registry_token}"}
        if challenge.scheme == "basic":
            if not self._credentials.username:
                raise RegistryError(401, "", "no basic auth credentials")
            return {"Authorization": self._basic()}
        with self._lock:
            token, until = self._tokens.get(scope, ("", 0.0))
            if fresh or time.monotonic() >= until:
                token, life_s = self._fetch(challenge.parameters, scope)
                self._tokens[scope] = (token, time.monotonic() + life_s * 0.9)
        return {"Authorization": f"Bearer {token}"}

    def _basic(self) -> str:
        pair = f"{self._credentials.username}:{self._credentials.password}"
        return "Basic " + base64.b64encode(pair.encode()).decode()

    def _fetch(self, parameters: dict[str, str], scope: str) -> tuple[str, float]:
        realm = parameters.get("realm", "")
        try:
            scheme = urlsplit(realm).scheme
        except ValueError:
            scheme = ""
        if scheme not in ("http", "https"):
            raise TransportError(f"invalid realm of the registry's token server: {realm[:200]!r}")
        scopes = scope.split()
        service = parameters.get("service", "")
        if self.identity_token:
            form = {"grant_type": "refresh_token", "service": service, "client_id": _CLIENT}
            form |= {"scope": scope, "refresh_token": self.identity_token}
            self._guard(realm)
            headers = {"Content-Type": "application/x-www-form-urlencoded"}
            answer = self._transport.request("POST", realm, headers, urlencode(form).encode())
        else:
            query = [("service", service)] if service else []
            query += [("scope", one) for one in scopes]
            headers = {}
            if self._credentials.username:
                self._guard(realm)
                query += [("account", self._credentials.username), ("client_id", _CLIENT)]
                query += [("offline_token", "true")] if self._offline else []
                headers = {"Authorization": self._basic()}
            joint = "&" if "?" in realm else "?"
            answer = self._transport.request("GET", realm + joint + urlencode(query), headers)
        body = answer.text()
        if answer.status != 200:
            raise of_answer(answer.status, answer.headers, body)
        return self._token(body)

    def _guard(self, realm: str) -> None:
        if self._registry.startswith("https:") and not realm.startswith("https:"):
            raise TransportError(
                f"the registry {self._registry} wants credentials to be sent without TLS to {realm[:200]!r}: refused"
            )

    def _token(self, body: bytes) -> tuple[str, float]:
        try:
            value = json.loads(body)
            token = value.get("token") or value.get("access_token")
            life = value.get("expires_in") or _TOKEN_LIFE_MIN_S
            refresh = value.get("refresh_token") or ""
        except (ValueError, AttributeError, RecursionError):
            raise TransportError("unable to decode token response: it is not JSON") from None
        if not isinstance(token, str) or not token or not token.isprintable():
            raise TransportError("authorization server did not include a token in the response")
        if self._offline and isinstance(refresh, str) and refresh:
            self.identity_token = refresh
        return token, max(_TOKEN_LIFE_MIN_S, life if isinstance(life, int | float) else 0)
