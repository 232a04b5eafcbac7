"""`inspect` of everything: containers, images, volumes, networks."""

from __future__ import annotations

import sys

from barque.base.errors import BarqueError, InvalidInputError
from barque.cli.verb import Invocation
from barque.client.api import quote
from barque.client.http import ApiError

TYPE_CHECKING = False  # the module typing costs every start of the command milliseconds
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Fetch = Callable[[str], Any]

TYPES = ("container", "image", "network", "volume")


def containers(call: Invocation) -> int:
    """Show containers."""
    return show(call, _fetch(call, "container"))


def images(call: Invocation) -> int:
    """Show images."""
    return show(call, _fetch(call, "image"))


def volumes(call: Invocation) -> int:
    """Show volumes."""
    return show(call, _fetch(call, "volume"))


def networks(call: Invocation) -> int:
    """Show networks."""
    return show(call, _fetch(call, "network"))


def anything(call: Invocation) -> int:
    """Show whatever bears the names."""
    kind = call.options["type"]
    if kind and kind not in TYPES:
        known = ", ".join(f'"{one}"' for one in sorted(TYPES))
        raise InvalidInputError(f'unknown type: "{kind}": must be one of {known}')
    if call.options.given("type") and not kind:
        raise InvalidInputError('type is empty: must be one of "container", "image", "network", "volume"')
    if kind:
        return show(call, _fetch(call, kind))

    def fetch(name: str) -> Any:
        for one in TYPES:
            try:
                return _fetch(call, one)(name)
            except ApiError as error:
                if error.status != 404 and not _is_other_kind(error):
                    raise
        raise InvalidInputError(f"Error: No such object: {name}")

    return show(call, fetch)


def _is_other_kind(error: ApiError) -> bool:
    # A name that is none for this kind (an image id prefix that is no reference, say) may fit another kind.
    return error.status == 400


def _fetch(call: Invocation, kind: str) -> Fetch:
    values = call.options.values

    def fetch(name: str) -> Any:
        if kind == "container":
            return call.api.get(f"/containers/{quote(name)}/json", size=values.get("size") or None)
        if kind == "image":
            return _image(call, name)
        if kind == "volume":
            return call.api.get(f"/volumes/{quote(name)}")
        return call.api.get(f"/networks/{quote(name)}", verbose="true" if values.get("verbose") else None)

    return fetch


def _image(call: Invocation, name: str) -> Any:
    from barque.cli.images import platform_json

    platform = call.options.values.get("platform")
    return call.api.get(f"/images/{quote(name, '/')}/json", platform=platform_json(platform, "") if platform else None)


def show(call: Invocation, fetch: Fetch) -> int:
    """Print each named object, as JSON or by the template of --format.

    Returns:
        1 if a name was not found, else 0.
    """
    form = call.options["format"]
    template = _template(form)
    found: list[Any] = []
    problems: list[str] = []
    for name in call.words:
        try:
            found.append(fetch(name))
        except BarqueError as error:
            problems.append(str(error))
    if template is None:
        _print_json(found, compact=form == "json")
    else:
        from barque.cli.tables import render

        for item in found:
            try:
                line = render(template, item)
            except InvalidInputError:
                print()
                raise
            print(line)
        if not found:
            print()
    if problems:
        sys.stdout.flush()
        print("\n".join(problems), file=sys.stderr)
    return 1 if problems else 0


def _template(form: str) -> Any:
    if not form or form == "json":
        return None
    from barque.cli.tables import parse_template

    try:
        return parse_template(form)
    except InvalidInputError as error:
        from barque.cli.main import ExitError

        print(error, file=sys.stderr)
        raise ExitError(64) from error


def _print_json(found: list[Any], *, compact: bool) -> None:
    import json

    if compact:
        print(json.dumps(found, separators=(",", ":"), ensure_ascii=False))
        return
    print(json.dumps(found, indent=4, ensure_ascii=False) if found else "[]")
