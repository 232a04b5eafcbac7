"""Building images: the classic API, pruning and cancelling."""

import base64
import json
from typing import Any

from aiohttp import web

from barque.api import checks
from barque.api.call import Call, answer, nothing
from barque.api.router import Table
from barque.api.streams import send_messages
from barque.base.errors import InvalidInputError, UnsupportedError

Json = dict[str, Any]
_LIMITS = {
    "memory": "Memory", "memswap": "MemorySwap", "cpushares": "CpuShares", "cpuperiod": "CpuPeriod",
    "cpuquota": "CpuQuota", "shmsize": "ShmSize",
}  # fmt: skip


def add(table: Table) -> None:
    """Add these routes."""
    table.add("POST", "/build", build, follows=True)
    table.add("POST", "/build/prune", prune)
    table.add("POST", "/build/cancel", cancel)


async def build(call: Call) -> web.StreamResponse:
    """Build an image of an archive, a URL or a repository."""
    version = call.text("version") or "1"
    if version not in ("1", "2"):
        raise InvalidInputError(f'invalid version "{version}"')
    if version == "2":
        raise UnsupportedError("builds by BuildKit's protocol go over /grpc and /session: use buildx, or DOCKER_BUILDKIT=0")
    if call.text("outputs"):
        raise UnsupportedError("outputs are not supported by the classic builder: use buildx")
    if call.texts("securityopt"):
        raise InvalidInputError("security options are not supported on linux")
    if call.text("isolation") not in ("", "default"):
        raise InvalidInputError(f'unsupported isolation: "{call.text("isolation")}"')
    options = {
        "dockerfile": call.text("dockerfile"), "remote": call.text("remote"), "tags": call.texts("t"),
        "build_args": _strings(call, "buildargs", "error reading build args", nulls=True),
        "labels": _strings(call, "labels", "error reading labels"), "target": call.text("target"),
        "platform": call.text("platform") if call.version >= (1, 32) else "", "no_cache": call.flag("nocache"),
        "cache_from": _list(call, "cachefrom", "error reading cache-from"), "pull": call.flag("pull"),
        "quiet": call.flag("q"), "remove": call.flag("rm", default=True) or call.flag("forcerm"),
        "force_remove": call.flag("forcerm"), "squash": call.flag("squash"), "network": _network(call),
        "build_id": call.text("buildid"), "host": _host(call), "auth": _auth(call),
        "explain": call.flag("explain"),
    }  # fmt: skip
    return await send_messages(call, call.backend.builds.build(options, call.reader()))


def _network(call: Call) -> str:
    mode = call.text("networkmode")
    return "" if mode in ("default", "bridge") else mode


def _host(call: Call) -> Json:
    host: Json = {key: call.number(name) for name, key in _LIMITS.items() if call.text(name)}
    for name, key in (("cpusetcpus", "CpusetCpus"), ("cpusetmems", "CpusetMems"), ("cgroupparent", "CgroupParent")):
        if call.text(name):
            host[key] = call.text(name)
    if call.texts("extrahosts"):
        host["ExtraHosts"] = call.texts("extrahosts")
    ulimits = _list(call, "ulimits", "error reading ulimit settings", of=dict)
    if ulimits:
        host["Ulimits"] = ulimits
    return checks.checked(host, checks.HOST, "HostConfig")


def _json(call: Call, name: str, complaint: str) -> Any:
    text = call.text(name)
    if not text:
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"{complaint}: {error}") from None


def _strings(call: Call, name: str, complaint: str, *, nulls: bool = False) -> dict[str, str | None]:
    value = _json(call, name, complaint)
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(v, str) or (nulls and v is None) for v in value.values()):
        raise InvalidInputError(f"{complaint}: not an object of strings")
    return value


def _list(call: Call, name: str, complaint: str, *, of: type = str) -> list[Any]:
    value = _json(call, name, complaint)
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(item, of) for item in value):
        raise InvalidInputError(f"{complaint}: not a list")
    return value


def _auth(call: Call) -> Json:
    """Return the credentials of X-Registry-Config; what cannot be read is none, as with Docker."""
    text = call.request.headers.get("X-Registry-Config", "")
    try:
        value = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)) or b"{}")
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


async def prune(call: Call) -> web.StreamResponse:
    """Remove unused parts of the build cache."""
    spaces: dict[str, int] = {}
    for name in ("reserved-space", "max-used-space", "min-free-space", "keep-storage"):
        text = call.text(name)
        if not text:
            continue
        if not text.lstrip("-").isascii() or not text.lstrip("-").isdigit():
            raise InvalidInputError(f"{name} is in bytes and expects an integer, got {text}")
        spaces[name] = int(text)
    value = await call.backend.builds.prune(
        all=call.flag("all"),
        filters=call.filters(),
        reserved_space=spaces.get("reserved-space") or spaces.get("keep-storage", 0),
        max_used_space=spaces.get("max-used-space", 0),
        min_free_space=spaces.get("min-free-space", 0),
        dry_run=call.flag("dry-run"),
    )
    return answer(value)


async def cancel(call: Call) -> web.StreamResponse:
    """Cancel a build."""
    build_id = call.text("id")
    if not build_id:
        raise InvalidInputError("build ID not provided")
    await call.backend.builds.cancel(build_id)
    return nothing(200)
