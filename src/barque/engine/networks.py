"""Use cases on networks: list, inspect, make, remove, connect, disconnect, prune."""

import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from barque.base.errors import BarqueError, ConflictError, InvalidInputError, NotFoundError
from barque.base.ids import new_id
from barque.base.times import until_ns
from barque.engine import endpoints
from barque.engine.filters import finder, label_matches
from barque.network import describe, request
from barque.network.model import Endpoint, Network

if TYPE_CHECKING:
    from barque.engine.engine import Engine

Json = dict[str, Any]
Filters = dict[str, list[str]]

_LIST_FILTERS = frozenset({"dangling", "driver", "id", "label", "name", "scope", "type"})
_PRUNE_FILTERS = frozenset({"label", "label!", "until"})


class Networks:
    """Implements the API's NetworksBackend."""

    def __init__(self, engine: "Engine") -> None:
        self._engine = engine

    async def list(self, filters: Filters) -> list[Json]:
        """Return the networks that all filters let through, without their containers.

        Raises:
            InvalidInputError: an unknown filter or value.
        """
        _check_filters(filters, _LIST_FILTERS)
        patterns = {key: finder(filters[key]) for key in ("id", "name") if filters.get(key)}
        return [
            describe.network(item) for item in self._engine.network.catalog.all()
            if self._matches(item, filters) and all(finds(getattr(item, key)) for key, finds in patterns.items())
        ]  # fmt: skip

    async def inspect(self, ref: str, *, verbose: bool, scope: str) -> Json:
        """Return one network with its containers and the use of its addresses.

        Raises:
            NotFoundError: none has this name or id, or it is of another scope.
        """
        network = self._engine.network.catalog.find(ref)
        if scope not in ("", "local"):
            raise NotFoundError(f"network {ref} not found")
        shown = describe.network(network, self._members(network))
        if network.subnets and not network.config_only:
            shown["Status"] = describe.ipam_status(self._engine.network.catalog.usage(network))
        return shown

    async def create(self, config: Json) -> Json:
        """Make a network; return {"Id", "Warning"}.

        Raises:
            ConflictError: the name is taken.
            InvalidInputError: a field or option cannot be.
            ForbiddenError: it collides with another network, or may not be made.
            BarqueError: the kernel refused.
        """
        engine = self._engine
        try:
            defaults = engine.network.options.default_network_options
            made, warning = engine.network.create(request.parse(config, new_id(), time.time_ns(), defaults))
        except OSError as error:
            raise BarqueError(f"cannot make the network: {error}") from error
        try:
            await engine.database.flush()
        except BarqueError:
            engine.network.remove(made)
            raise
        engine.events.publish("network", "create", made.id, endpoints.event(made))
        return {"Id": made.id, "Warning": warning}

    async def remove(self, ref: str) -> None:
        """Remove a network that no running container is in.

        Raises:
            NotFoundError: no such network.
            ForbiddenError: it is predefined or in use.
        """
        await self._remove(self._engine.network.catalog.find(ref))

    async def _remove(self, network: Network) -> None:
        engine = self._engine
        engine.network.remove(network)
        await engine.database.flush()
        engine.events.publish("network", "destroy", network.id, endpoints.event(network))

    async def rename(self, ref: str, name: str) -> None:
        """Give a network that no container is in, running or not, another name.

        Raises:
            NotFoundError: no such network.
            ConflictError: the name is taken, or somebody uses the network.
            InvalidInputError: the name is bad.
            ForbiddenError: it is predefined, or the name is.
        """
        engine = self._engine
        network = engine.network.catalog.find(ref)
        request.check_name(name)
        users = [item.name for item in engine.containers_by_id.values() if endpoints.is_in(item, network)]
        if users:
            raise ConflictError(f"rename {network.name}: network is in use - [{', '.join(sorted(users))}]")
        made = engine.network.catalog.rename(network, name)
        await engine.database.flush()
        engine.events.publish("network", "rename", made.id, {**endpoints.event(made), "oldName": network.name})

    async def connect(self, ref: str, config: Json) -> None:
        """Add a network to a container.

        Raises:
            NotFoundError: no such network or container.
            InvalidInputError: settings that cannot be.
            ForbiddenError: it is in the network already.
        """
        container = self._engine.find(str(config.get("Container")))
        network = self._engine.network.catalog.find(ref)
        await endpoints.connect(self._engine, container, network, config.get("EndpointConfig") or {})

    async def disconnect(self, ref: str, config: Json) -> None:
        """Take a container off a network.

        Raises:
            NotFoundError: no such network or container.
            BarqueError: the container is not in the network.
        """
        try:
            container = self._engine.find(str(config.get("Container")))
        except NotFoundError:
            if config.get("Force"):
                raise NotFoundError(f"endpoint {config.get('Container')} not found") from None
            raise
        try:
            network: Network | None = self._engine.network.catalog.find(ref)
        except NotFoundError:
            network = None
        await endpoints.disconnect(self._engine, container, network, ref, force=bool(config.get("Force")))

    async def prune(self, filters: Filters, *, dry_run: bool = False) -> Json:
        """Remove networks that nobody uses, or only say which; predefined ones always stay.

        Raises:
            InvalidInputError: an unknown filter or value.
        """
        _check_filters(filters, _PRUNE_FILTERS)
        if len(filters.get("until", ())) > 1:
            raise InvalidInputError("more than one until filter specified")
        limit_ns = min((until_ns(value) for value in filters.get("until", ())), default=0)
        removed = []
        for network in self._engine.network.catalog.all():
            if self._is_used(network) or (limit_ns and network.created_ns > limit_ns):
                continue
            if not _labels_match(network, filters):
                continue
            try:
                if not dry_run:
                    await self._remove(network)
            except BarqueError:
                continue
            removed.append(network.name)
        if not dry_run:
            self._engine.events.publish("network", "prune", "", {"reclaimed": "0"})
        return {"NetworksDeleted": removed or None}

    def _members(self, network: Network) -> Iterable[Endpoint]:
        if network.name not in ("host", "none"):
            return self._engine.network.endpoints_of(network)
        running = [item for item in self._engine.containers_by_id.values() if item.is_running]
        return [
            Endpoint(item.id, item.name, network.name, network.id, item.id, -1, "", "", "", 0, "", "", "", 0, "")
            for item in running if network.name in item.row["networking"]
        ]  # fmt: skip

    def _is_used(self, network: Network) -> bool:
        if network.is_predefined or self._engine.network.endpoints_of(network):
            return True
        return network.config_only and any(
            item.config_from == network.name for item in self._engine.network.catalog.all()
        )

    def _matches(self, network: Network, filters: Filters) -> bool:
        tests: dict[str, Callable[[str], bool]] = {
            "driver": lambda value: network.driver == value,
            "scope": lambda value: value == "local",
            "type": lambda value: network.is_predefined == (value == "builtin"),
            "dangling": lambda value: (not self._is_used(network)) == (value in ("1", "true")),
        }
        return _labels_match(network, filters) and all(
            any(tests[key](value) for value in values) for key, values in filters.items() if key in tests and values
        )


def _labels_match(network: Network, filters: Filters) -> bool:
    return all(label_matches(network.labels, value) for value in filters.get("label", ())) and not any(
        label_matches(network.labels, value) for value in filters.get("label!", ())
    )


def _check_filters(filters: Filters, known: frozenset[str]) -> None:
    for key in filters:
        if key not in known:
            raise InvalidInputError(f"invalid filter '{key}'")
    for value in filters.get("type", ()):
        if value not in ("builtin", "custom"):
            raise InvalidInputError(f"invalid filter: 'type'='{value}'")
    dangling = filters.get("dangling", [])
    if len(dangling) > 1:
        raise InvalidInputError('got more than one value for filter key "dangling"')
    for value in dangling:
        if value not in ("1", "0", "true", "false"):
            raise InvalidInputError(
                "invalid value for filter 'dangling', must be \"true\" (or \"1\"), or \"false\" (or \"0\")"
            )
