"""Builds whose contexts are other builds: the engine's frontend gateway is led from here.

The targets that a build is linked to are solved in its own job first; what comes of them goes in as the inputs of
the build itself.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from barque.base.errors import BarqueError
from barque.builder.buildkit.pb import gateway_pb2, status_pb2

if TYPE_CHECKING:
    from barque.cli.building.link import Link
    from barque.cli.building.request import BuildRequest

_BRIDGE = "moby.buildkit.v1.frontend.LLBBridge"
_FRONTEND = "dockerfile.v0"
_UNKNOWN = 2


async def lead(link: Link, ref: str, request: BuildRequest) -> None:
    """Be the frontend of a build: tell the engine what comes of the request, or why nothing does."""
    metadata = {"buildkit-controlapi-buildid": ref}
    answer = gateway_pb2.ReturnRequest()
    try:
        answer.result.CopyFrom(await _solve(link, metadata, request, {}))
    except BarqueError as error:
        answer.error.CopyFrom(status_pb2.Status(code=_UNKNOWN, message=str(error)))
    await link.call(f"{_BRIDGE}/Return", answer, gateway_pb2.ReturnResponse, metadata=metadata)


async def _solve(link: Link, metadata: dict[str, str], request: BuildRequest, done: dict[str, Any]) -> Any:
    options = request.frontend_options()
    inputs = {}
    platforms = [one for one in options.get("platform", "").split(",") if one]
    for context, target in request.linked.items():
        if target.name not in done:
            done[target.name] = await _solve(link, metadata, target, done)
        result = done[target.name]
        for suffix, definition, about in _definitions(result, platforms):
            name = f"{context}{suffix}"
            options[f"context:{name}"] = f"input:{name}"
            options[f"input-metadata:{name}"] = json.dumps(about)
            inputs[name] = definition
    message = gateway_pb2.SolveRequest(
        Frontend=_FRONTEND, FrontendOpt=options, FrontendInputs=inputs, allowResultReturn=True, allowResultArrayRef=True,
    )  # fmt: skip
    reply = await link.call(f"{_BRIDGE}/Solve", message, gateway_pb2.SolveResponse, metadata=metadata)
    return reply.result


def _definitions(result: Any, platforms: list[str]) -> list[tuple[str, Any, dict[str, str]]]:
    """Return what a result is made of: a suffix of its name, a definition, its config, for each platform."""
    import base64

    def about(key: str) -> dict[str, str]:
        raw = result.metadata.get(key)
        return {"containerimage.config": base64.b64encode(raw).decode()} if raw else {}

    kind = result.WhichOneof("result")
    if kind == "ref":
        return [("", getattr(result.ref, "def"), about("containerimage.config"))]
    if kind == "refs":
        found = []
        for platform, one in result.refs.refs.items():
            suffix = f"::{platform}" if len(result.refs.refs) > 1 or platforms else ""
            found.append((suffix, getattr(one, "def"), about(f"containerimage.config/{platform}")))
        return found
    raise BarqueError("a target that another is linked to has no files")
