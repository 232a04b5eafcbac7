"""`build`: flags become one request; it is carried out, and what came of it is told."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from barque.base.errors import InvalidInputError, UnsupportedError
from barque.cli.building.contexts import Inputs, Stdin, inputs_of, named_context
from barque.cli.building.outputs import all_outputs
from barque.cli.building.request import BuildRequest, Wishes, call_of, tagged
from barque.cli.building.running import Runner, told
from barque.cli.building.temporary import Temporary
from barque.cli.connection import config_folder
from barque.cli.credentials import CredentialStore

if TYPE_CHECKING:
    from barque.cli.flags import Options
    from barque.cli.verb import Invocation

_BUILDERS = ("", "default")


@told
def build(call: Invocation) -> int:
    """Build an image of a Dockerfile.

    Raises:
        BarqueError: what is asked for cannot be done.
    """
    options = call.options
    check_builder(options)
    with Temporary() as temporary:
        inputs = inputs_of(call.words[0], options["file"], Stdin(), temporary)
        for text in options["build-context"]:
            name, equals, value = text.partition("=")
            if not equals or not name or not value:
                raise InvalidInputError(f"invalid context value: {text}, expected key=value")
            named_context(name.lower(), value, inputs)
        request = _request(call, inputs)
        runner = Runner(call, temporary, request.name)
        if options["verify-reproducible"]:
            from barque.cli.building.reproducible import verify

            return verify(runner, request)
        return runner.build(request)


def check_builder(options: Options) -> None:
    """Refuse another builder than the engine's own.

    Raises:
        UnsupportedError: one was named.
    """
    name = options["builder"] or os.environ.get("BUILDX_BUILDER", "")
    if name not in _BUILDERS:
        raise UnsupportedError(f'no builder "{name}" found: the engine has one builder, "default"')


def _request(call: Invocation, inputs: Inputs) -> BuildRequest:
    options = call.options
    wishes = Wishes(os.environ)
    wishes.arguments(options["build-arg"])
    wishes.proxies(CredentialStore(config_folder(call.global_options)).content, call.api.endpoint.text)
    wishes.labels(options["label"])
    wishes.hosts(options["add-host"])
    wishes.network(options["network"])
    wishes.allow(options["allow"])
    wishes.platforms(options["platform"] or [os.environ.get("DOCKER_DEFAULT_PLATFORM", "")])
    asked = call_of("check" if options["check"] else options["call"])
    wishes.attestations(
        options["attest"], provenance=options["provenance"], sbom=options["sbom"], defaults=not asked
    )  # fmt: skip
    wishes.caches(options["cache-from"], options["cache-to"])
    wishes.plain(
        target=options["target"], cgroup_parent=options["cgroup-parent"],
        shm_size=str(options["shm-size"]) if options["shm-size"] else "", ulimit=",".join(options["ulimit"]),
        image_resolve_mode="pull" if options["pull"] else "",
    )  # fmt: skip
    if options["no-cache"] and options["no-cache-filter"]:
        raise InvalidInputError("--no-cache and --no-cache-filter cannot currently be used together")
    if options["no-cache"] or options["no-cache-filter"]:
        wishes.options["no-cache"] = ",".join(options["no-cache-filter"])
    if asked:
        return _asking(asked, wishes, inputs, options)
    outputs = all_outputs(options["output"], push=options["push"], load=options["load"])
    tagged(outputs, options["tag"], options["annotation"])
    inputs.stores |= wishes.stores
    return BuildRequest("", inputs, wishes.options, outputs, wishes.entitlements, wishes.cache_exports)


def _asking(asked: str, wishes: Wishes, inputs: Inputs, options: Options) -> BuildRequest:
    """Return a request that asks the frontend and builds nothing."""
    if options["output"] or options["push"] or options["load"]:
        raise InvalidInputError("--check and --call build nothing: leave --output, --push and --load out")
    wishes.options |= {"requestid": asked, "frontend.caps": "moby.buildkit.frontend.subrequests"}
    return BuildRequest("", inputs, wishes.options, [], wishes.entitlements, [], asked)


