"""Use cases on networks: list, inspect, prune, and refusals for what cannot be changed."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from barque.base.errors import (
    ConflictError,
    ForbiddenError,
    InvalidInputError,
    NotFoundError,
    UnsupportedError,
)
from barque.network import describe, state
from barque.network.manager import NetworkManager
from barque.network.model import Endpoint

Json = dict[str, Any]
Filters = dict[str, list[str]]

_LIST_FILTERS = frozenset({"dangling", "driver", "id", "label", "name", "scope", "type"})
_PRUNE_FILTERS = frozenset({"label", "label!", "until"})
_PREDEFINED = frozenset({"default", *(name for name, _ in state.PREDEFINED)})
_NO_USER_NETWORKS = "user-defined networks are not supported by this version of the engine"


class Networks:
    """Implements the API's NetworksBackend over the manager."""

    def __init__(
        self,
        manager: NetworkManager,
        *,
        others: Callable[[], Iterable[Endpoint]] = tuple,
    ) -> None:
        """Look at the manager's endpoints, and at `others`: members of the networks host and none."""
        self._manager = manager
        self._others = others

    async def list(self, filters: Filters) -> list[Json]:
        """Return the networks that all filters let through, without their containers.

        Raises:
            InvalidInputError: an unknown filter or value.
        """
        _check_filters(filters, _LIST_FILTERS)
        found = []
        for name in sorted(self._manager.rows):
            shown = self._describe(name, ())
            if _matches(shown, filters):
                found.append(shown)
        return found

    async def inspect(self, ref: str, *, verbose: bool, scope: str) -> Json:
        """Return one network with its containers.

        Raises:
            NotFoundError: none has this name or id, or it is of another scope.
        """
        name = self._resolve(ref)
        if scope not in ("", "local"):
            raise NotFoundError(f"network {ref} not found")
        shown = self._describe(name, (i for i in self._endpoints() if i.network == name))
        # Verbose adds the services of a cluster, which a single machine does not have.
        return shown | ({"Services": {}} if verbose and shown["Scope"] == "swarm" else {})

    async def create(self, config: Json) -> Json:
        """Refuse: only the predefined networks are there.

        Raises:
            InvalidInputError: no name.
            ForbiddenError: the name of a predefined network.
            UnsupportedError: any other name.
        """
        name = config.get("Name")
        if not isinstance(name, str) or not name.strip():
            raise InvalidInputError("name is required")
        if name in _PREDEFINED:
            raise ForbiddenError(f"operation is not permitted on predefined {name} network")
        raise UnsupportedError(_NO_USER_NETWORKS)

    async def remove(self, ref: str) -> None:
        """Refuse to remove a predefined network.

        Raises:
            NotFoundError: no such network.
            ForbiddenError: it is predefined.
        """
        name = self._resolve(ref)
        raise ForbiddenError(f"{name} is a pre-defined network and cannot be removed")

    async def connect(self, ref: str, config: Json) -> None:
        """Refuse: a container's network is chosen when it is created.

        Raises:
            NotFoundError: no such network.
            ConflictError: the network cannot be joined later.
            UnsupportedError: it could be, but not by this version.
        """
        self._change(ref, config)

    async def disconnect(self, ref: str, config: Json) -> None:
        """Refuse, as connect does."""
        self._change(ref, config)

    async def prune(self, filters: Filters) -> Json:
        """Remove networks that nobody uses; predefined ones always stay.

        Raises:
            InvalidInputError: an unknown filter.
        """
        _check_filters(filters, _PRUNE_FILTERS)
        return {"NetworksDeleted": None}

    def _change(self, ref: str, config: Json) -> None:
        name = self._resolve(ref)
        if not isinstance(config.get("Container"), str) or not config["Container"]:
            raise InvalidInputError("invalid container reference: empty")
        if name == "host":
            raise ForbiddenError("container cannot be disconnected from host network or connected to host network")
        if name == "none":
            raise ConflictError("container cannot be connected to multiple networks with one of "
                                "the networks in private (none) mode")  # fmt: skip
        raise UnsupportedError("connecting and disconnecting a container later is not supported by "
                               "this version of the engine")  # fmt: skip

    def _endpoints(self) -> Iterator[Endpoint]:
        yield from self._manager.endpoints()
        yield from self._others()

    def _describe(self, name: str, members: Iterable[Endpoint]) -> Json:
        manager = self._manager
        return describe.network(name, manager.rows[name], members, manager.bridge, manager.options)

    def _resolve(self, ref: str) -> str:
        rows = self._manager.rows
        if ref in rows:
            return ref
        found = [name for name, row in rows.items() if ref and row["id"].startswith(ref)]
        if len(found) == 1:
            return found[0]
        if found:
            raise InvalidInputError(f"network {ref} is ambiguous ({len(found)} matches found based on ID prefix)")
        raise NotFoundError(f"network {ref} not found")


def _check_filters(filters: Filters, known: frozenset[str]) -> None:
    for key in filters:
        if key not in known:
            raise InvalidInputError(f"invalid filter '{key}'")


def _matches(shown: Json, filters: Filters) -> bool:
    tests: dict[str, Callable[[str], bool]] = {
        "driver": lambda value: shown["Driver"] == value,
        "id": shown["Id"].startswith,
        "name": lambda value: value in shown["Name"],
        "scope": lambda value: shown["Scope"] == value,
        "type": _is_type,
        # Predefined networks are never dangling: nobody may remove them.
        "dangling": lambda value: not _truth(value),
        "label": lambda value: value.partition("=")[0] in shown["Labels"],
    }
    return all(any(tests[key](value) for value in values) for key, values in filters.items())


def _is_type(value: str) -> bool:
    if value not in ("builtin", "custom"):
        raise InvalidInputError(f"invalid filter: 'type'='{value}'")
    return value == "builtin"


def _truth(value: str) -> bool:
    if value not in ("1", "0", "true", "false"):
        raise InvalidInputError(f"invalid filter 'dangling={value}'")
    return value in ("1", "true")
