"""What a verb is given, and the loop over names that most verbs share."""

from __future__ import annotations

import sys

from barque.base.errors import BarqueError
from barque.base.record import Record
from barque.cli.flags import Options
from barque.client.api import Api

TYPE_CHECKING = False  # the module typing costs every start of the command milliseconds
if TYPE_CHECKING:
    from collections.abc import Callable


class Invocation(Record):
    """One call of a verb: the engine, the verb as typed, its flags, its positional words, the global flags."""

    api: Api
    typed: str
    options: Options
    words: list[str]
    global_options: Options


def for_each(names: list[str], act: Callable[[str], str | None], *, missing_ok: bool = False) -> int:
    """Call act with every name, print what it returns, and report errors one by one.

    Args:
        names: the names.
        act: what is done with each.
        missing_ok: a name of nothing is told, but is no failure.

    Returns:
        1 if any name failed, else 0.
    """
    code = 0
    for name in names:
        try:
            line = act(name)
        except BarqueError as error:
            sys.stdout.flush()
            print(error, file=sys.stderr)
            if not (missing_ok and getattr(error, "status", 0) == 404):
                code = 1
        else:
            if line is not None:
                print(line)
    return code


def filters_json(pairs: list[str]) -> str | None:
    """Return the `filters` parameter of name=value pairs, None where there are none."""
    if not pairs:
        return None
    from barque.base import jsontext

    filters: dict[str, dict[str, bool]] = {}
    for pair in pairs:
        name, _, value = pair.partition("=")
        filters.setdefault(name.strip().lower(), {})[value.strip()] = True
    return jsontext.dumps(filters)


def short_id(identity: str) -> str:
    """Return the first 12 characters of an id without its algorithm."""
    return identity.partition(":")[2][:12] if ":" in identity else identity[:12]
