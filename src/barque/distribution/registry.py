"""The client of one registry: OCI distribution 1.1 and Docker's registry API v2.

https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md
"""

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

from barque.base.errors import BarqueError, InvalidInputError
from barque.distribution.credentials import Authority, Credentials
from barque.distribution.endpoints import Endpoint, endpoints, trust
from barque.distribution.errors import RegistryError, TransportError, of_answer
from barque.distribution.settings import Settings
from barque.distribution.transport import Answer, Calls, Transport, joined, same_host
from barque.oci import digest as digests, manifest as manifests, media

_ACCEPTED = ", ".join(sorted(media.MANIFESTS | media.INDEXES | media.SCHEMA_1 | {"application/json"}))
_TAGS_MAX = 100_000
_SMALL_ATTEMPTS = 3
_WARNING = re.compile(r'299 - "([^"]*)"')


class Fetched(NamedTuple):
    """A manifest or index as the registry sent it."""

    raw: bytes
    media_type: str
    digest: str


class Registry:
    """A registry behind one endpoint, with one user's credentials.

    Args:
        endpoint: where.
        settings: timeouts, proxies, certificates.
        credentials: who asks.
        calls: what can be called off together.
        offline: ask for an identity token on the way.
    """

    def __init__(
        self, endpoint: Endpoint, settings: Settings, credentials: Credentials, calls: Calls, *, offline: bool = False
    ) -> None:
        self.endpoint = endpoint
        self.transport = Transport(settings, calls)
        trust(self.transport, settings, endpoint)
        self.authority = Authority(self.transport, credentials, endpoint.url, offline=offline)
        self.warnings: list[str] = []

    def close(self) -> None:
        """Close its connections."""
        self.transport.close()

    def ping(self) -> None:
        """Find out that a registry is there and what it wants to know of us.

        Raises:
            TransportError: nothing that speaks HTTP is there.
            RegistryError: it speaks HTTP and is no registry.
        """
        answer = self.transport.request("GET", f"{self.endpoint.url}/v2/")
        body = answer.text(1 << 20)
        if answer.status == 401:
            self.authority.challenged(answer.headers.get_all("WWW-Authenticate") or [])
        elif answer.status >= 500:
            raise of_answer(answer.status, answer.headers, body)

    def check_login(self) -> None:
        """Prove that the credentials are taken.

        Raises:
            RegistryError: they are refused.
        """
        url = f"{self.endpoint.url}/v2/"
        answer = self.transport.request("GET", url, self.authority.header(""))
        answer.text(1 << 20)
        if answer.status != 200:
            reason = _reason(answer)
            raise RegistryError(answer.status, "", f"login attempt to {url} failed with status: {reason}")

    def call(
        self, method: str, url: str, scope: str, *, headers: dict[str, str] | None = None, body: Any = None
    ) -> Answer:
        """Send a request with the token of a scope; once more with a new one where it is refused.

        Args:
            method: the method.
            url: whole, or relative to the endpoint.
            scope: what the token must allow.
            headers: more headers.
            body: bytes, or an iterable that is sent once.
        """
        whole = url if "://" in url else self.endpoint.url + url
        # A registry may send uploads to another host; that one gets no credentials of ours.
        own = same_host(whole, self.endpoint.url)
        for fresh in (False, True):
            sent = {**(headers or {}), **(self.authority.header(scope, fresh=fresh) if own else {})}
            answer = self.transport.request(method, whole, sent, body)
            self.warnings += _WARNING.findall(answer.headers.get("Warning", ""))
            if answer.status != 401 or fresh or not (body is None or isinstance(body, bytes)):
                return answer
            if not self.authority.challenged(answer.headers.get_all("WWW-Authenticate") or []):
                return answer
            answer.text(1 << 20)
        raise AssertionError("unreachable")

    def repository(self, path: str, *, domain: str = "", push: bool = False) -> "Repository":
        """Return a repository of this registry by its path; domain is what references call the registry."""
        return Repository(self, f"{domain or self.endpoint.host}/{path}", path, push=push)

    def catalogue(self) -> Iterator[str]:
        """Yield the paths of all repositories, where the registry tells them."""
        yield from _paged(self, f"{self.endpoint.url}/v2/_catalog?n=1000", "registry:catalog:*", "repositories")


class Repository:
    """One repository: its manifests, blobs and tags."""

    def __init__(self, registry: Registry, name: str, path: str, *, push: bool) -> None:
        self.registry = registry
        self.name = name
        self.path = path
        self._base = f"{registry.endpoint.url}/v2/{quote(path)}"
        self.scope = f"repository:{path}:{'pull,push' if push else 'pull'}"

    def manifest(self, reference: str) -> Fetched:
        """Return the manifest that a tag or a digest names, verified.

        Raises:
            RegistryError: there is none, or it is refused.
            TransportError: the answer is broken.
            InvalidInputError: its digest is another.
        """
        answer = self._get(f"/manifests/{reference}", {"Accept": _ACCEPTED})
        raw = answer.text(manifests.BYTES_MAX)
        found = digests.of(raw)
        told = answer.headers.get("Docker-Content-Digest", "")
        wanted = reference if ":" in reference else told
        if wanted and wanted.startswith("sha256:") and wanted != found:
            raise InvalidInputError(f"manifest verification failed for digest {wanted}")
        return Fetched(raw, answer.headers.get("Content-Type", ""), found)

    def has_manifest(self, reference: str) -> str:
        """Return the digest of the manifest that a tag or a digest names, empty if there is none."""
        answer = self.registry.call(
            "HEAD", f"{self._base}/manifests/{reference}", self.scope, headers={"Accept": _ACCEPTED}
        )
        answer.text()
        return answer.headers.get("Docker-Content-Digest", "") if answer.status == 200 else ""

    def put_manifest(self, reference: str, raw: bytes, media_type: str) -> str:
        """Store a manifest under a tag or its digest; return the digest."""
        answer = self.registry.call(
            "PUT", f"{self._base}/manifests/{reference}", self.scope, headers={"Content-Type": media_type}, body=raw
        )
        _expect(answer, 201, 202, 200)
        return digests.of(raw)

    def blob(self, digest: str, start: int = 0) -> Answer:
        """Return a blob's bytes as they come, from a position on where the registry can (status 206).

        Raises:
            RegistryError: there is none, or it is refused.
        """
        headers = {"Accept-Encoding": "identity"}
        if start:
            headers["Range"] = f"bytes={start}-"
        answer = self.registry.call("GET", f"{self._base}/blobs/{digest}", self.scope, headers=headers)
        if answer.status not in (200, 206, 416):
            raise of_answer(answer.status, answer.headers, answer.text(1 << 20))
        return answer

    def small_blob(self, descriptor: manifests.Descriptor) -> bytes:
        """Return the whole of a small blob, verified.

        Raises:
            InvalidInputError: it is too big, or its size or digest is another.
        """
        if descriptor.size > manifests.BYTES_MAX:
            raise InvalidInputError(f"blob {descriptor.digest} of {descriptor.size} bytes is too big for a configuration")
        answer = self.blob(descriptor.digest)
        data = answer.text(descriptor.size)
        if len(data) != descriptor.size or digests.of(data) != descriptor.digest:
            raise InvalidInputError(f"image config verification failed for digest {descriptor.digest}")
        return data

    def has_blob(self, digest: str) -> bool:
        """Tell whether the repository has a blob."""
        answer = self.registry.call("HEAD", f"{self._base}/blobs/{digest}", self.scope)
        answer.text()
        if answer.status in (200, 404):
            return answer.status == 200
        raise of_answer(answer.status, answer.headers, b"")

    def mount(self, digest: str, source: str) -> "Upload | None":
        """Take a blob over from another repository; None if that worked, else an upload that is open now."""
        scope = f"{self.scope} repository:{source}:pull"
        query = urlencode({"mount": digest, "from": source})
        answer = self.registry.call("POST", f"{self._base}/blobs/uploads/?{query}", scope)
        if answer.status == 201:
            answer.text()
            return None
        return self._upload(answer)

    def start_upload(self) -> "Upload":
        """Open an upload."""
        return self._upload(self.registry.call("POST", f"{self._base}/blobs/uploads/", self.scope))

    def _upload(self, answer: Answer) -> "Upload":
        _expect(answer, 202)
        return Upload(self, joined(answer.url, answer.headers.get("Location", "")))

    def tags(self) -> list[str]:
        """Return the repository's tags in order."""
        return sorted(_paged(self.registry, f"{self._base}/tags/list?n=1000", self.scope, "tags"))

    def referrers(self, digest: str, artifact_type: str = "") -> manifests.Index:
        """Return the manifests that refer to one, by the API or else by the tag that stands in for it."""
        query = f"?{urlencode({'artifactType': artifact_type})}" if artifact_type else ""
        answer = self.registry.call(
            "GET", f"{self._base}/referrers/{digest}{query}", self.scope, headers={"Accept": media.OCI_INDEX}
        )
        raw = answer.text(manifests.BYTES_MAX)
        if answer.status == 404:
            try:
                raw = self.manifest(digest.replace(":", "-")).raw
            except RegistryError:
                return manifests.Index(media.OCI_INDEX, (), {})
        elif answer.status != 200:
            raise of_answer(answer.status, answer.headers, raw)
        parsed = manifests.parse(raw, media.OCI_INDEX)
        if not isinstance(parsed, manifests.Index):
            raise TransportError("the registry's list of referrers is no index")
        return parsed

    def _get(self, path: str, headers: dict[str, str]) -> Answer:
        """Ask for something small; a registry that is in trouble for a moment is asked again."""
        transport = self.registry.transport
        for attempt in range(1, _SMALL_ATTEMPTS + 1):
            try:
                answer = self.registry.call("GET", self._base + path, self.scope, headers=headers)
                if answer.status == 200:
                    return answer
                raise of_answer(answer.status, answer.headers, answer.text(1 << 20))
            except (TransportError, RegistryError) as error:
                if attempt == _SMALL_ATTEMPTS or (isinstance(error, RegistryError) and error.is_final):
                    raise
            transport.calls.wait(transport.settings.retry_delay_s * 2 ** (attempt - 1))
        raise AssertionError("unreachable")


class Upload:
    """A blob on its way to a repository."""

    def __init__(self, repository: Repository, url: str) -> None:
        self._repository = repository
        self._url = url

    def send(self, chunks: Iterable[bytes]) -> None:
        """Send bytes that come after those sent before, as one streamed request."""
        answer = self._repository.registry.call(
            "PATCH", self._url, self._repository.scope,
            headers={"Content-Type": "application/octet-stream"}, body=iter(chunks),
        )  # fmt: skip
        _expect(answer, 202, 201)
        self._moved(answer)

    def send_chunk(self, data: bytes, start: int) -> None:
        """Send one chunk with its place, for registries and proxies that do not take streams."""
        headers = {"Content-Type": "application/octet-stream", "Content-Range": f"{start}-{start + len(data) - 1}"}
        answer = self._repository.registry.call("PATCH", self._url, self._repository.scope, headers=headers, body=data)
        _expect(answer, 202, 201)
        self._moved(answer)

    def finish(self, digest: str, data: bytes | None = None) -> None:
        """End the upload: all that was sent, and data behind it, is the blob of this digest."""
        joint = "&" if "?" in self._url else "?"
        answer = self._repository.registry.call(
            "PUT", f"{self._url}{joint}{urlencode({'digest': digest})}", self._repository.scope,
            headers={"Content-Type": "application/octet-stream"}, body=data if data is not None else b"",
        )  # fmt: skip
        _expect(answer, 201, 204)

    def cancel(self) -> None:
        """Tell the registry that nothing more comes; it may not care."""
        try:
            self._repository.registry.call("DELETE", self._url, self._repository.scope).text()
        except BarqueError:
            return

    def _moved(self, answer: Answer) -> None:
        if location := answer.headers.get("Location"):
            self._url = joined(answer.url, location)


def connect(
    settings: Settings, domain: str, credentials: Credentials, calls: Calls, *, push: bool
) -> Iterator[Registry]:
    """Yield the registries behind a domain that answer, in the order to try them; each is closed afterwards.

    Raises:
        TransportError: none answers; it tells of the last one tried.
    """
    last: BarqueError | None = None
    over_tls: set[str] = set()
    for endpoint in endpoints(settings, domain, push=push):
        if not endpoint.secure and endpoint.host in over_tls:
            continue
        # What a user told us for a domain is not for its mirrors.
        registry = Registry(endpoint, settings, Credentials() if endpoint.mirror else credentials, calls.part())
        try:
            try:
                registry.ping()
            except (TransportError, RegistryError) as error:
                last = error
                if isinstance(error, RegistryError) and endpoint.secure:
                    over_tls.add(endpoint.host)
                continue
            if endpoint.secure:
                over_tls.add(endpoint.host)
            last = None
            yield registry
        finally:
            registry.close()
    if last is not None:
        raise last


def _paged(registry: Registry, url: str, scope: str, key: str) -> Iterator[str]:
    count = 0
    seen: set[str] = set()
    while url not in seen:
        seen.add(url)
        answer = registry.call("GET", url, scope)
        body = answer.text()
        if answer.status != 200:
            raise of_answer(answer.status, answer.headers, body)
        try:
            values = json.loads(body).get(key) or []
            if not isinstance(values, list):
                raise ValueError(key)
        except (ValueError, AttributeError, RecursionError):
            raise TransportError(f"{url}: the registry's list is not JSON") from None
        for value in values:
            count += 1
            if not isinstance(value, str) or count > _TAGS_MAX:
                raise TransportError(f"{url}: the registry's list is broken or endless")
            yield value
        link = re.match(r'\s*<([^>]*)>\s*;\s*rel="?next"?', answer.headers.get("Link", ""))
        if link is None:
            return
        following = joined(url, link[1])
        if not same_host(following, url):
            raise TransportError(f"{url}: the registry's list goes on at another host")
        url = following


def _expect(answer: Answer, *statuses: int) -> None:
    body = answer.text(1 << 20)
    if answer.status not in statuses:
        raise of_answer(answer.status, answer.headers, body)


def _reason(answer: Answer) -> str:
    from http import HTTPStatus

    try:
        return f"{answer.status} {HTTPStatus(answer.status).phrase}"
    except ValueError:
        return str(answer.status)
