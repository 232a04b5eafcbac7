"""The registry's HTTP application: routes, authorisation, errors, counts."""

import logging
import time
from collections.abc import Awaitable, Callable

from aiohttp import web

from barque.registry import downloads, names, uploads
from barque.registry.auth import Access, Guard
from barque.registry.errors import RegistryError
from barque.registry.exchange import Exchange, plain, refused
from barque.registry.metrics import Metrics
from barque.registry.names import Target
from barque.registry.repositories import Repositories
from barque.registry.settings import Settings

log = logging.getLogger(__name__)

Handler = Callable[[Exchange], Awaitable[web.StreamResponse]]

ROUTES: dict[tuple[str, str], Handler] = {
    ("GET", "base"): downloads.base,
    ("GET", "catalog"): downloads.catalog,
    ("GET", "tags"): downloads.tags,
    ("GET", "referrers"): downloads.referrers,
    ("GET", "blob"): downloads.blob,
    ("DELETE", "blob"): uploads.delete_blob,
    ("GET", "manifest"): downloads.manifest,
    ("PUT", "manifest"): uploads.put_manifest,
    ("DELETE", "manifest"): uploads.delete_manifest,
    ("POST", "uploads"): uploads.begin,
    ("GET", "upload"): uploads.status,
    ("PATCH", "upload"): uploads.chunk,
    ("PUT", "upload"): uploads.finish,
    ("DELETE", "upload"): uploads.cancel,
}
_ACTIONS = {"GET": ("pull",), "HEAD": ("pull",), "DELETE": ("delete",)}


class Registry:
    """Answers requests out of a storage.

    Args:
        repositories: what there is.
        guard: who may do what.
        settings: how it behaves.
        metrics: counts what it does.
        routes: handlers by method and kind of target.
    """

    def __init__(
        self,
        repositories: Repositories,
        guard: Guard,
        settings: Settings,
        metrics: Metrics,
        routes: dict[tuple[str, str], Handler] = ROUTES,
    ) -> None:
        self._repositories = repositories
        self._guard = guard
        self._settings = settings
        self._metrics = metrics
        self._routes = routes

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        started = time.monotonic()
        kind = "none"
        self._metrics.in_flight += 1
        status = 499
        try:
            target = names.parse_path(request.path)
            kind = target.kind if target else "none"
            response = await self._dispatch(request, target)
            status = response.status
            return response
        except RegistryError as error:
            status = error.status
            return self._refused(request, error)
        except TimeoutError:
            log.info("%s %s: the client was too slow", request.method, request.path)
            raise ConnectionResetError("the client was too slow") from None
        except ConnectionError:
            raise
        except OSError as error:
            status = 500
            log.error("%s %s: %s", request.method, request.path, error)
            return self._refused(request, RegistryError(500, "UNKNOWN", "the storage failed", detail=error.strerror))
        except Exception:
            status = 500
            log.exception("%s %s failed", request.method, request.path)
            return self._refused(request, RegistryError(500, "UNKNOWN", "internal error; the log has more"))
        finally:
            self._metrics.in_flight -= 1
            self._count(request, kind, status, time.monotonic() - started)

    async def _dispatch(self, request: web.BaseRequest, target: Target | None) -> web.StreamResponse:
        if target is None:
            return plain(404, b"404 page not found\n", "text/plain; charset=utf-8")
        if self._metrics.in_flight > self._settings.requests_max:
            raise RegistryError(429, "TOOMANYREQUESTS", "too many requests", headers={"Retry-After": "1"})
        await self._guard.check(request.headers.get("Authorization", ""), needed(request, target))
        method = "GET" if request.method == "HEAD" and target.kind in ("base", "blob", "manifest") else request.method
        handler = self._routes.get((method, target.kind))
        if handler is None:
            allowed = ", ".join(m for m, kind in self._routes if kind == target.kind)
            raise RegistryError(405, "UNSUPPORTED", "the operation is unsupported", headers={"Allow": allowed})
        return await handler(Exchange(request, target, self._repositories, self._settings))

    def _refused(self, request: web.BaseRequest, error: RegistryError) -> web.StreamResponse:
        log.debug("%s %s: %d %s", request.method, request.path, error.status, error.message)
        response = refused(error, head=request.method == "HEAD")
        if not request.content.at_eof():
            # The rest of a refused body is not worth reading.
            response.force_close()
        return response

    def _count(self, request: web.BaseRequest, kind: str, status: int, seconds: float) -> None:
        method = request.method if request.method in ("GET", "HEAD", "PUT", "POST", "PATCH", "DELETE") else "other"
        text = "Requests answered, by method, target and status."
        self._metrics.add("barque_registry_requests_total", text, method=method, target=kind, status=str(status))
        self._metrics.observe(seconds, method=method, target=kind)
        log.info("%s %s %d %.3f s", method, request.path[:500], status, seconds)


def needed(request: web.BaseRequest, target: Target) -> tuple[Access, ...]:
    """Return the access that a request needs."""
    if target.kind == "base":
        return ()
    if target.kind == "catalog":
        return (Access("registry", "catalog", ("*",)),)
    actions = (
        ("delete",)
        if request.method == "DELETE" and target.kind != "upload"
        else _ACTIONS.get(request.method, ("pull", "push"))
    )
    if target.kind in ("upload", "uploads"):
        actions = ("pull", "push")
    wanted = [Access("repository", target.name, actions)]
    origin = request.query.get("from", "")
    if target.kind == "uploads" and "mount" in request.query and origin:
        wanted.append(Access("repository", names.check_name(origin), ("pull",)))
    return tuple(wanted)
