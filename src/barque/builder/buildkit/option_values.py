"""Values of the Dockerfile frontend's options, read. Pure."""

from typing import Any

from barque.base.errors import InvalidInputError
from barque.builder import graph

Json = dict[str, Any]


def number(name: str, text: str) -> int:
    """Return an option that is a count.

    Raises:
        InvalidInputError: it is none.
    """
    if not (text.isascii() and text.isdigit()):
        raise InvalidInputError(f"invalid {name}: {text}")
    return int(text)


def ulimit(text: str) -> Json:
    """Return a limit (`name=soft[:hard]`) as the engine takes it.

    Raises:
        InvalidInputError: it is none.
    """
    name, equals, value = text.partition("=")
    soft, _, hard = value.partition(":")
    if not equals or not soft.lstrip("-").isdigit() or (hard and not hard.lstrip("-").isdigit()):
        raise InvalidInputError(f"invalid ulimit: {text}")
    return {"Name": name, "Soft": int(soft), "Hard": int(hard or soft)}


def network_mode(text: str, entitlements: frozenset[str]) -> str:
    """Return the network of RUN.

    Raises:
        InvalidInputError: it is unknown, or not allowed to this build.
    """
    if text in ("", "sandbox", "default"):
        return graph.DEFAULT_NETWORK
    if text == "host" and "network.host" not in entitlements:
        raise InvalidInputError("network.host is not allowed")
    if text not in ("host", "none"):
        raise InvalidInputError(f"unsupported network mode {text!r}")
    return text
