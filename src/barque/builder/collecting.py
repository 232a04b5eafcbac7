"""Making the cache smaller without being asked: `builder.gc` of daemon.json, after builds."""

import asyncio
import os
import re
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, NamedTuple

from barque.base.errors import InvalidInputError
from barque.builder.filters import passes
from barque.builder.pruning import PruneOptions, duration_ns

Json = dict[str, Any]
_QUIET_S = 2.0
_UNITS = {unit: 1024**power for power, unit in enumerate("bkmgtp")}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([bkmgtp])?(?:i?b)?", re.IGNORECASE)
_CHEAP = ("source.local", "exec.cachemount", "source.git.checkout")
_SPACES = {"reservedSpace": "reserved_space", "keepStorage": "reserved_space", "maxUsedSpace": "max_used_space",
           "minFreeSpace": "min_free_space"}  # fmt: skip
_DEFAULTS = {"defaultReservedSpace": "reserved_space", "defaultKeepStorage": "reserved_space",
             "defaultMaxUsedSpace": "max_used_space", "defaultMinFreeSpace": "min_free_space"}  # fmt: skip
_POLICY = (*_SPACES, "all", "filter", "keepDuration")
_DAY_NS = 24 * 3600 * 1_000_000_000


def policies_of(builder: Json, disk_bytes: int) -> list[PruneOptions]:
    """Return what is done after builds, in order; nothing where collecting is switched off.

    Args:
        builder: `builder` of daemon.json.
        disk_bytes: size of the disk that the cache lies on, for parts of it.

    Raises:
        InvalidInputError: a key is unknown, or a value is wrong.
    """
    _known(builder, ("gc", "history", "frontends"), "builder")
    history_limits(builder)
    frontend_limits(builder)
    gc = _object(builder.get("gc") or {}, "builder.gc")
    _known(gc, ("enabled", "policy", *_DEFAULTS), "builder.gc")
    enabled = gc.get("enabled", True)
    if not isinstance(enabled, bool):
        raise InvalidInputError("builder.gc.enabled: wants true or false")
    given = {name: size_of(gc[key], disk_bytes, f"builder.gc.{key}") for key, name in _DEFAULTS.items() if key in gc}
    listed = gc.get("policy")
    if listed is not None and not isinstance(listed, list):
        raise InvalidInputError("builder.gc.policy: wants a list")
    policies = [_policy(_object(one, "builder.gc.policy"), disk_bytes, given) for one in listed or []]
    if not enabled:
        return []
    return policies or _usual(given, disk_bytes)


class HistoryLimits(NamedTuple):
    """How many builds are recorded, for how long in nanoseconds, and with how many bytes in all."""

    entries: int = 50
    age_ns: int = 30 * _DAY_NS
    size: int = 64 << 20


def history_limits(builder: Json) -> HistoryLimits:
    """Return what `builder.history` of daemon.json says of the records of builds.

    Raises:
        InvalidInputError: a key is unknown, or a value is wrong.
    """
    where = "builder.history"
    given = _object(builder.get("history") or {}, where)
    _known(given, ("maxEntries", "maxAge", "maxSize"), where)
    made = HistoryLimits()
    if "maxEntries" in given:
        entries = given["maxEntries"]
        if not isinstance(entries, int) or isinstance(entries, bool) or entries < 0:
            raise InvalidInputError(f"{where}.maxEntries: wants a count, got {entries!r}")
        made = made._replace(entries=entries)
    if "maxAge" in given:
        made = made._replace(age_ns=_duration(given["maxAge"], f"{where}.maxAge"))
    if "maxSize" in given:
        made = made._replace(size=size_of(given["maxSize"], 0, f"{where}.maxSize"))
    return made


class FrontendLimits(NamedTuple):
    """How many bytes of memory a frontend that is an image may use, and for how long it may ask for nothing."""

    memory: int = 1 << 30
    silence_ns: int = 600_000_000_000


def frontend_limits(builder: Json) -> FrontendLimits:
    """Return what `builder.frontends` of daemon.json says of frontends that are images.

    Raises:
        InvalidInputError: a key is unknown, or a value is wrong.
    """
    where = "builder.frontends"
    given = _object(builder.get("frontends") or {}, where)
    _known(given, ("maxMemory", "maxSilence"), where)
    made = FrontendLimits()
    if "maxMemory" in given:
        made = made._replace(memory=size_of(given["maxMemory"], 0, f"{where}.maxMemory"))
    if "maxSilence" in given:
        made = made._replace(silence_ns=_duration(given["maxSilence"], f"{where}.maxSilence"))
    return made


def _usual(given: dict[str, int], disk_bytes: int) -> list[PruneOptions]:
    """Return BuildKit's policies: what is cheap to make again goes first, then what is old, then the rest."""
    sizes = given or {
        "reserved_space": disk_bytes // 10, "max_used_space": disk_bytes * 6 // 10, "min_free_space": disk_bytes // 5
    }  # fmt: skip
    whole = _sized(PruneOptions(), sizes)
    cheap = [f"type=={kind}" for kind in _CHEAP]
    return [
        PruneOptions(matching=cheap, unused_ns=2 * _DAY_NS, max_used_space=512 << 20), replace(whole, unused_ns=60 * _DAY_NS),
        whole, replace(whole, all=True),
    ]  # fmt: skip


def _policy(value: Json, disk_bytes: int, given: dict[str, int]) -> PruneOptions:
    where = "builder.gc.policy"
    _known(value, _POLICY, where)
    sizes = {name: size_of(value[key], disk_bytes, f"{where}.{key}") for key, name in _SPACES.items() if key in value}
    matching, unused_ns = _filters(value.get("filter") or [], where)
    if "keepDuration" in value:
        unused_ns = _duration(value["keepDuration"], f"{where}.keepDuration")
    if not isinstance(value.get("all", False), bool):
        raise InvalidInputError(f"{where}.all: wants true or false")
    passes(matching)
    return _sized(PruneOptions(all=value.get("all", False), matching=matching, unused_ns=unused_ns), sizes or given)


def _sized(options: PruneOptions, sizes: dict[str, int]) -> PruneOptions:
    for name, size in sizes.items():
        setattr(options, name, size)
    return options


def _filters(value: Any, where: str) -> tuple[list[str], int]:
    """Return filters, and for how long what is removed was not used, out of Docker's words for both."""
    if isinstance(value, dict):
        value = [f"{key}={one}" for key, values in value.items() for one in (values if isinstance(values, dict) else [values])]
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise InvalidInputError(f"{where}.filter: wants a list of filters such as unused-for=48h")
    terms, unused_ns = [], 0
    for text in value:
        key, equals, rest = text.partition("=")
        if equals and key in ("unused-for", "until"):
            unused_ns = _duration(rest, f"{where}.filter")
        else:
            terms.append(text)
    if all(term.startswith("type=") for text in terms for term in text.split(",")):
        # Docker's own examples list types that nothing can have all at once: one of them is meant.
        return [term for text in terms for term in text.split(",")], unused_ns
    return ([",".join(terms)] if terms else []), unused_ns


def _duration(value: Any, where: str) -> int:
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, int) and not isinstance(value, bool):
        return value * 1_000_000_000
    try:
        return duration_ns(value) if isinstance(value, str) else duration_ns("")
    except InvalidInputError:
        raise InvalidInputError(f"{where}: wants a duration such as 48h, got {value!r}") from None


def size_of(value: Any, disk_bytes: int, where: str) -> int:
    """Return a size in bytes: a number, 20GB (units of 1024), or a part of the disk such as 10%.

    Raises:
        InvalidInputError: it is none of these.
    """
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    text = value.strip() if isinstance(value, str) else ""
    if text.endswith("%") and text[:-1].isascii() and text[:-1].isdigit() and int(text[:-1]) <= 100:
        return disk_bytes * int(text[:-1]) // 100
    match = _SIZE.fullmatch(text)
    if match is None:
        raise InvalidInputError(f"{where}: invalid size: {value!r}")
    return int(float(match[1]) * _UNITS[(match[2] or "b").lower()])


def _known(value: Json, keys: tuple[str, ...], where: str) -> None:
    unknown = [key for key in value if key not in keys]
    if unknown:
        raise InvalidInputError(f"{where}: {', '.join(unknown)} is not supported by this engine")


def _object(value: Any, where: str) -> Json:
    if not isinstance(value, dict):
        raise InvalidInputError(f"{where}: wants an object")
    return value


class Collector:
    """Runs the policies some moments after a build, one run at a time.

    Args:
        policies: called for each run, as options may change while the daemon runs.
        prune: carries one out.
    """

    def __init__(
        self, policies: Callable[[], list[PruneOptions]], prune: Callable[[PruneOptions], Awaitable[object]]
    ) -> None:
        self._policies = policies
        self._prune = prune
        self._task: asyncio.Task[None] | None = None
        self._again = False

    def wake(self) -> None:
        """Say that a build has ended."""
        self._again = True
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())

    @property
    def is_due(self) -> bool:
        """Tell whether a run goes on, or is about to."""
        return self._task is not None and not self._task.done()

    async def close(self) -> None:
        """End what runs."""
        if self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        while self._again:
            self._again = False
            await asyncio.sleep(_QUIET_S)
            if self._again:
                continue
            for policy in self._policies():
                await self._prune(policy)


def disk_of(path: str) -> int:
    """Return the size in bytes of the disk that a path lies on."""
    found = os.statvfs(path)
    return found.f_blocks * found.f_frsize
