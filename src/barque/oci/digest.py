"""Digests: `sha256:` and 64 hexadecimal digits; chain ids of layers."""

import hashlib
import re
from collections.abc import Iterable

from barque.base.errors import InvalidInputError

_FORM = re.compile(r"sha256:[0-9a-f]{64}")


def of(data: bytes) -> str:
    """Return the sha256 digest of data."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def check(text: object) -> str:
    """Return text if it is a sha256 digest.

    Raises:
        InvalidInputError: it is something else.
    """
    if not isinstance(text, str) or not _FORM.fullmatch(text):
        raise InvalidInputError(f"invalid digest: {text!r}")
    return text


def chain_ids(diff_ids: Iterable[str]) -> list[str]:
    """Return the chain id of every prefix of the layers, lowest first."""
    chain: list[str] = []
    for diff_id in diff_ids:
        chain.append(of(f"{chain[-1]} {diff_id}".encode()) if chain else diff_id)
    return chain
