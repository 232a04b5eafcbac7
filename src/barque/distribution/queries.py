"""Questions to registries: are these credentials taken, what is behind a name, which repositories are there."""

import json
from typing import Any
from urllib.parse import urlencode, urlsplit

from barque.base.errors import BarqueError, InvalidInputError
from barque.distribution.credentials import NOBODY, Credentials
from barque.distribution.endpoints import Endpoint, endpoints
from barque.distribution.errors import RegistryError, TransportError, of_answer
from barque.distribution.registry import Registry, Repository, connect
from barque.distribution.settings import HUB, HUB_REGISTRY, Settings
from barque.distribution.transport import Calls
from barque.oci import manifest as manifests
from barque.oci.reference import Reference

Json = dict[str, Any]
_HUB_NAMES = ("", HUB, "index.docker.io", HUB_REGISTRY)
_SEARCH_DEFAULT = 25
_SEARCH_MAX = 100
_SEARCH_FILTERS = frozenset({"is-automated", "is-official", "stars"})


def login(settings: Settings, credentials: Credentials, calls: Calls) -> str:
    """Prove credentials at their server; return an identity token if the registry gives one.

    Raises:
        RegistryError: they are refused.
        TransportError: no endpoint of the server answers.
    """
    address = credentials.server if "://" in credentials.server else f"https://{credentials.server}"
    domain = urlsplit(address).netloc
    last: BarqueError = TransportError(f"no registry at {domain}")
    for endpoint in endpoints(settings, HUB if domain in _HUB_NAMES else domain, push=True):
        registry = Registry(endpoint, settings, credentials, calls.part(), offline=True)
        try:
            registry.ping()
            registry.check_login()
            return registry.authority.identity_token
        except RegistryError as error:
            if error.code == "UNAUTHORIZED":
                # The credentials do not go on without TLS.
                raise
            last = error
        except TransportError as error:
            last = error
        finally:
            registry.close()
    raise last


def inspect(settings: Settings, reference: Reference, credentials: Credentials, calls: Calls) -> Json:
    """Return what a name means in its registry: the descriptor, and for which platforms.

    Raises:
        RegistryError: it is refused, or there is none.
        TransportError: no endpoint answers.
    """
    last: BarqueError = TransportError(f"no endpoints for {reference.familiar}")
    try:
        for registry in connect(settings, reference.domain, credentials, calls, push=False):
            try:
                return _described(registry.repository(reference.path), reference)
            except (RegistryError, TransportError) as error:
                last = error
    except TransportError as error:
        last = error
    if isinstance(last, RegistryError):
        last.http_status = last.status
    raise last


def _described(repository: Repository, reference: Reference) -> Json:
    fetched = repository.manifest(reference.digest or reference.tag)
    parsed = manifests.parse(fetched.raw, fetched.media_type)
    descriptor = {"mediaType": parsed.media_type, "digest": fetched.digest, "size": len(fetched.raw)}
    if isinstance(parsed, manifests.Index):
        value = json.loads(fetched.raw)
        return {"Descriptor": descriptor, "Platforms": [m.get("platform") or {} for m in value["manifests"]]}
    found: list[Json] = []
    try:
        config = json.loads(repository.small_blob(parsed.config))
        keys = ("architecture", "os", "os.version", "os.features", "variant")
        platform = {k: config[k] for k in keys if config.get(k)}
        found = [platform] if platform.get("os") or platform.get("architecture") else []
    except (BarqueError, ValueError, AttributeError, RecursionError):
        # The configuration of something that is no image says nothing of platforms.
        pass
    return {"Descriptor": descriptor, "Platforms": found}


def search(
    settings: Settings, term: str, limit: int, filters: dict[str, list[str]], credentials: Credentials, calls: Calls
) -> list[Json]:
    """Return repositories whose names or descriptions have the term, by the registry's search or its catalogue.

    Raises:
        InvalidInputError: a bad term, limit or filter.
        RegistryError: the registry refuses.
        TransportError: it does not answer.
    """
    wanted = _search_filters(filters)
    if limit and not 1 <= limit <= _SEARCH_MAX:
        raise InvalidInputError(f"limit {limit} is outside the range of [1, {_SEARCH_MAX}]")
    if "://" in term:
        raise InvalidInputError(f"invalid repository name: repository name ({term}) should not have a scheme")
    domain, rest = _search_place(term)
    if filters.get("is-automated") and wanted["is-automated"]:
        return []
    rows = _found(settings, domain, rest, limit or _SEARCH_DEFAULT, credentials, calls)
    kept = []
    for row in rows:
        if "is-official" in filters and row["is_official"] != wanted["is-official"]:
            continue
        if row["star_count"] >= wanted["stars"]:
            kept.append(row)
    return kept


def _search_filters(filters: dict[str, list[str]]) -> dict[str, int]:
    for name in filters:
        if name not in _SEARCH_FILTERS:
            raise InvalidInputError(f"invalid filter '{name}'")
    found = {"is-automated": 0, "is-official": 0, "stars": 0}
    for name in ("is-automated", "is-official"):
        for value in filters.get(name, []):
            if value.lower() not in ("1", "true", "0", "false"):
                raise InvalidInputError(f"invalid filter '{name}=[{value}]'")
            found[name] = value.lower() in ("1", "true")
    for value in filters.get("stars", []):
        if not value.isdigit():
            raise InvalidInputError(f"invalid filter 'stars={value}'")
        found["stars"] = max(found["stars"], int(value))
    return found


def _search_place(term: str) -> tuple[str, str]:
    first, slash, rest = term.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        return (HUB if first in _HUB_NAMES else first), rest
    return HUB, term.removeprefix("library/")


def _found(
    settings: Settings, domain: str, term: str, limit: int, credentials: Credentials, calls: Calls
) -> list[Json]:
    if domain == HUB:
        places = [Endpoint("https://index.docker.io")]
    else:
        places = endpoints(settings, domain, push=True)
    last: BarqueError = TransportError(f"no registry at {domain}")
    for endpoint in places:
        registry = Registry(endpoint, settings, NOBODY if domain == HUB else credentials, calls.part())
        try:
            if domain != HUB:
                registry.ping()
            return _asked(registry, term, limit)
        except (TransportError, RegistryError) as error:
            last = error
        finally:
            registry.close()
    raise last


def _asked(registry: Registry, term: str, limit: int) -> list[Json]:
    query = urlencode({"q": term, "n": limit})
    answer = registry.call("GET", f"{registry.endpoint.url}/v1/search?{query}", "")
    body = answer.text()
    if answer.status in (401, 403, 404, 405):
        # Registries of today have no search: their catalogue is looked through.
        names = [name for name in registry.catalogue() if term in name]
        return [_row({"name": name}) for name in names[:limit]]
    if answer.status != 200:
        raise of_answer(answer.status, answer.headers, body)
    try:
        results = json.loads(body).get("results") or []
        if not isinstance(results, list):
            raise ValueError("results")
        return [_row(r) for r in results if isinstance(r, dict)][:limit]
    except (ValueError, AttributeError, RecursionError):
        raise TransportError("the registry's answer to a search is not JSON") from None


def _row(result: Json) -> Json:
    stars = result.get("star_count")
    return {
        "star_count": stars if isinstance(stars, int) else 0,
        "is_official": bool(result.get("is_official")),
        "name": str(result.get("name") or ""),
        "is_automated": False,
        "description": str(result.get("description") or ""),
    }
