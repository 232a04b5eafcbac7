"""The registry that this one caches, as its client: manifests, blobs, listings; tokens and passwords.

A password goes to the registry itself and to the token server that it names, over TLS where the
registry is reached over TLS, and never along a redirection to another host.
"""

import re
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import NamedTuple
from urllib.parse import urlsplit

import aiohttp

from barque.base.errors import InvalidInputError
from barque.oci import media
from barque.registry.config import Upstream
from barque.registry.manifests import SIZE_MAX

_ACCEPT = ", ".join(sorted(media.MANIFESTS | media.INDEXES))
_PARAMETER = re.compile(r'([a-zA-Z_]+)="((?:[^"\\]|\\.)*)"')
_CONNECT_S, _IDLE_S = 15, 60
_TOKENS_MAX = 1000


class UnreachableError(Exception):
    """The upstream registry does not answer, or not as a registry does; str() says why."""


class Answer(NamedTuple):
    """A whole answer."""

    status: int
    headers: dict[str, str]
    body: bytes


class UpstreamRegistry:
    """A client of one registry."""

    def __init__(self, settings: Upstream, session: aiohttp.ClientSession) -> None:
        self._settings = settings
        self._session = session
        self._tokens: dict[str, str] = {}

    async def get(self, name: str, rest: str, *, head: bool = False, most: int = SIZE_MAX) -> Answer:
        """Return a whole answer about a repository; rest is the path behind its name, with its query.

        Raises:
            UnreachableError: there is none, or it is bigger than `most` bytes.
        """
        async with self.stream(name, rest, head=head) as response:
            body = bytearray()
            async for chunk in response.content.iter_any():
                body += chunk
                if len(body) > most:
                    raise UnreachableError(f"the answer is bigger than {most} bytes")
            return Answer(response.status, {k.lower(): v for k, v in response.headers.items()}, bytes(body))

    @asynccontextmanager
    async def stream(self, name: str, rest: str, *, head: bool = False) -> AsyncIterator[aiohttp.ClientResponse]:
        """Yield an answer whose body is not read yet.

        Raises:
            UnreachableError: there is none; credentials are refused.
        """
        url = f"{self._settings.url}/v2/{name}/{rest}"
        method = "HEAD" if head else "GET"
        try:
            response = await self._request(method, url, self._tokens.get(name, ""))
            if response.status == 401:
                challenge = response.headers.get("WWW-Authenticate", "")
                response.release()
                if len(self._tokens) >= _TOKENS_MAX:
                    # Whoever asks for names chooses how many there are.
                    self._tokens.clear()
                authorization = self._tokens[name] = await self._authorization(challenge)
                response = await self._request(method, url, authorization)
            async with response:
                if response.status in (401, 403):
                    raise UnreachableError(f"{self._settings.url} refuses the credentials for {name}")
                if response.status == 429 or response.status >= 500:
                    raise UnreachableError(f"{self._settings.url} answers {response.status} {response.reason}")
                yield response
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise UnreachableError(f"{self._settings.url}: {error or 'no answer in time'}") from None

    async def _request(self, method: str, url: str, authorization: str) -> aiohttp.ClientResponse:
        headers = {"Accept": _ACCEPT, "Accept-Encoding": "identity"}
        if authorization:
            headers["Authorization"] = authorization
        return await self._session.request(method, url, headers=headers, allow_redirects=True, max_redirects=5)

    def _basic(self) -> str:
        return aiohttp.BasicAuth(self._settings.user, self._settings.password, "utf-8").encode()

    async def _authorization(self, challenge: str) -> str:
        scheme, _, rest = challenge.partition(" ")
        if scheme.lower() == "basic":
            if not self._settings.user:
                raise UnreachableError(f"{self._settings.url} asks for a password")
            return self._basic()
        if scheme.lower() != "bearer":
            raise UnreachableError(f"{self._settings.url} asks for an unknown kind of authentication")
        parameters = dict(_PARAMETER.findall(rest))
        realm = parameters.pop("realm", "")
        wanted = ("https",) if self._settings.url.startswith("https:") else ("http", "https")
        if urlsplit(realm).scheme not in wanted:
            raise UnreachableError(f"{self._settings.url} names a token server that is not to be trusted")
        query = {k: v for k, v in parameters.items() if k in ("service", "scope")}
        headers = {"Authorization": self._basic()} if self._settings.user else {}
        async with self._session.get(realm, params=query, headers=headers, allow_redirects=False) as response:
            if response.status != 200:
                raise UnreachableError(f"the token server answers {response.status}")
            try:
                found = await response.json(content_type=None)
                token = found.get("token") or found.get("access_token")
            except (ValueError, AttributeError):
                token = None
        if not isinstance(token, str) or not token.isascii() or not token.isprintable():
            raise UnreachableError("the token server gives no token")
        return f"Bearer {token}"


async def open_upstream(settings: Upstream, stack: AsyncExitStack) -> UpstreamRegistry:
    """Return a client of the upstream registry; the stack closes it.

    Raises:
        InvalidInputError: the file of certificates is of no use.
    """
    context: ssl.SSLContext | bool = True
    if settings.ca:
        try:
            context = ssl.create_default_context(cafile=settings.ca)
        except (ssl.SSLError, OSError) as error:
            raise InvalidInputError(f"--proxy-ca: {error}") from None
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S, sock_read=_IDLE_S)
    connector = aiohttp.TCPConnector(ssl=context, limit=100)
    session = aiohttp.ClientSession(connector=connector, timeout=timeout, auto_decompress=False)
    stack.push_async_callback(session.close)
    return UpstreamRegistry(settings, session)
