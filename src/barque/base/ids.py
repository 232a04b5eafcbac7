"""Identifiers: 64 hexadecimal digits, as Docker's."""

import os
import re

_FULL = re.compile(r"[0-9a-f]{64}")
SHORT_LENGTH = 12


def new_id() -> str:
    """Return 64 random hexadecimal digits whose first 12 are not all decimal.

    Docker refuses all-decimal short ids because they look like numbers to other programs.
    """
    while True:
        value = os.urandom(32).hex()
        if not value[:SHORT_LENGTH].isdecimal():
            return value


def is_full_id(text: str) -> bool:
    """Tell whether text is a full identifier."""
    return _FULL.fullmatch(text) is not None


def short(identifier: str) -> str:
    """Return the first 12 digits, without a digest's algorithm."""
    return identifier.rpartition(":")[2][:SHORT_LENGTH]
