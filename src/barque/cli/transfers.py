"""`pull`, `push` and `search`."""

from __future__ import annotations

import os
import sys

from barque.base.errors import InvalidInputError, UnsupportedError
from barque.cli.connection import config_folder
from barque.cli.credentials import HUB_SERVER, CredentialStore, header, server_of
from barque.cli.images import platform_json
from barque.cli.progress import show_progress
from barque.cli.tables import show
from barque.cli.verb import Invocation, filters_json
from barque.client.api import quote
from barque.oci.reference import Reference, parse

TYPE_CHECKING = False  # the module typing costs every start of the command milliseconds
if TYPE_CHECKING:
    from typing import Any

    from barque.cli.flags import Options

_PUSHES_ONE = """
 Info -> Using --platform pushes only the specified platform manifest of a multi-platform image index.
         Other components, like attestations, will not be included.
         To push the complete multi-platform image, remove the --platform flag.
         """


def auth_header(domain: str, global_options: Options) -> dict[str, str]:
    """Return the header with the credentials that are kept for a reference's domain."""
    return header(CredentialStore(config_folder(global_options)).get(server_of(domain)))


def _check_trust(options: Options) -> None:
    if not options["disable-content-trust"]:
        raise UnsupportedError(
            "content trust (Notary v1) is not supported: leave --disable-content-trust at its default, true, "
            "and name images by digest to be sure of what they are"
        )


def _reference(options: Options, text: str) -> Reference:
    """Return what is meant; the default tag is told where it is taken."""
    reference = parse(text)
    bare = not (reference.tag or reference.digest)
    if options["all-tags"]:
        if not bare:
            raise InvalidInputError("tag can't be used with --all-tags/-a")
        return reference
    if bare and not options["quiet"]:
        print("Using default tag: latest", flush=True)
    return reference.with_default_tag()


def pull(call: Invocation) -> int:
    """Download an image."""
    options = call.options
    reference = _reference(options, call.words[0])
    _check_trust(options)
    platform = options["platform"] or os.environ.get("DOCKER_DEFAULT_PLATFORM") or None
    response = call.api.send(
        "POST",
        "/images/create",
        parameters={
            "fromImage": reference.familiar_name,
            "tag": reference.digest or reference.tag or None,
            "platform": platform,
        },
        headers=auth_header(reference.domain, call.global_options),
    )
    show_progress(response.json_stream(), quiet=options["quiet"], to_stdout=True)
    response.close()
    print(reference)
    return 0


def push(call: Invocation) -> int:
    """Upload an image."""
    options = call.options
    platform = platform_json(options["platform"]) if options["platform"] else None
    if platform:
        print(_PUSHES_ONE, flush=True)
    reference = _reference(options, call.words[0])
    _check_trust(options)
    response = call.api.send(
        "POST",
        f"/images/{quote(reference.familiar_name, '/')}/push",
        parameters={
            "tag": reference.tag or None,
            "platform": platform,
        },
        headers=auth_header(reference.domain, call.global_options),
    )
    show_progress(response.json_stream(), quiet=options["quiet"], to_stdout=True)
    response.close()
    if options["quiet"]:
        print(reference)
    return 0


HEADERS = {"StarCount": "STARS", "IsOfficial": "OFFICIAL"}


def search(call: Invocation) -> int:
    """Search a registry."""
    options = call.options
    if any(pair.startswith("is-automated") for pair in options["filter"]):
        print(
            'WARNING: the "is-automated" filter is deprecated, and searching for "is-automated=true" will not yield '
            "any results in future.",
            file=sys.stderr,
        )
    term = call.words[0]
    first, slash, _ = term.partition("/")
    named = slash and ("." in first or ":" in first or first == "localhost")
    store = CredentialStore(config_folder(call.global_options))
    response = call.api.send(
        "GET",
        "/images/search",
        parameters={
            "term": term,
            "limit": options["limit"] or None,
            "filters": filters_json(options["filter"]),
        },
        headers=header(store.get(first if named else HUB_SERVER)),
    )
    rows = response.json() or []
    response.close()
    columns = _columns(not options["no-trunc"], json_wanted=options["format"] == "json")
    show(rows, columns, HEADERS, options["format"], "Name Description StarCount IsOfficial", "search")
    return 0


def _columns(truncated: bool, *, json_wanted: bool) -> dict[str, Any]:
    from barque.cli.ps import ellipsis

    def description(row: dict[str, Any]) -> str:
        text = str(row["description"]).replace("\n", " ").replace("\r", " ")
        return ellipsis(text, 45) if truncated else text

    def official(row: dict[str, Any]) -> str:
        if json_wanted:
            return "true" if row["is_official"] else "false"
        return "[OK]" if row["is_official"] else ""

    return {
        "Name": lambda row: row["name"],
        "Description": description,
        "StarCount": lambda row: str(row["star_count"]),
        "IsOfficial": official,
    }
