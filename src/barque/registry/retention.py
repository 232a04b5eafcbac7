"""Which tags a registry keeps: the newest ones, or those of the last time, by rules for repositories and tags."""

import time
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

from barque.base.durations import parse_duration
from barque.base.errors import InvalidInputError
from barque.registry.storage import Entry


class Rule(NamedTuple):
    """Of the tags that match, the newest ones stay, and those that are young enough; `*` matches anything."""

    repository: str
    tag: str
    newest: int = 0
    age_s: float = 0


def parse_rule(text: str) -> Rule:
    """Return the rule that `[REPOSITORY[:TAG]=]COUNT` or an age in the count's place means.

    Raises:
        InvalidInputError: it is none, or keeps nothing.
    """
    where, _, kept = text.rpartition("=")
    repository, _, tag = (where or "*").partition(":")
    try:
        newest = int(kept) if kept.isdecimal() else 0
        age_s = 0 if newest else parse_duration(kept) / 1e9
    except ValueError:
        raise InvalidInputError(f"--retain: neither a count nor an age: {text}") from None
    if age_s <= 0 and not newest:
        raise InvalidInputError(f"--retain: this keeps nothing: {text}")
    return Rule(repository or "*", tag or "*", newest, age_s)


def superfluous(repository: str, tags: Sequence[Entry], rules: Iterable[Rule]) -> list[str]:
    """Return the names of the tags that some rule is about and none keeps."""
    now = time.time()
    seen: set[str] = set()
    kept: set[str] = set()
    for rule in rules:
        if not fnmatchcase(repository, rule.repository):
            continue
        found = sorted((tag for tag in tags if fnmatchcase(tag.name, rule.tag)), key=lambda tag: tag.time, reverse=True)
        seen.update(tag.name for tag in found)
        kept.update(tag.name for place, tag in enumerate(found) if place < rule.newest or now - tag.time < rule.age_s)
    return sorted(seen - kept)
