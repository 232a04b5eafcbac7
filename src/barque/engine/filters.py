"""What all filters share: labels, truth values, patterns, unknown names."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from barque.base import go_regex
from barque.base.errors import InvalidInputError


def check_known(filters: Mapping[str, Any], known: set[str]) -> None:
    """Refuse a filter that the object has not.

    Raises:
        InvalidInputError: names it.
    """
    for key in filters:
        if key not in known:
            raise InvalidInputError(f"invalid filter '{key}'")


def truth(name: str, value: str) -> bool:
    """Return a truth value.

    Raises:
        InvalidInputError: it is none.
    """
    if value.lower() in ("1", "t", "true"):
        return True
    if value.lower() in ("0", "f", "false"):
        return False
    raise InvalidInputError(f"invalid filter '{name}=[{value}]'")


def label_matches(labels: Mapping[str, str], wanted: str) -> bool:
    """Tell whether `key` or `key=value` is among the labels."""
    key, has_value, value = wanted.partition("=")
    return key in labels and (not has_value or labels[key] == value)


def finder(patterns: Sequence[str]) -> Callable[[str], bool]:
    """Return what tells whether a text is one of the patterns, or has what one of them describes as a regular expression.

    Raises:
        InvalidInputError: the patterns are too large.
    """
    try:
        search = go_regex.Search(patterns)
    except go_regex.RegexError as error:
        raise InvalidInputError(f"invalid filter: {error}") from None
    return lambda text: text in patterns or search.finds(text)
