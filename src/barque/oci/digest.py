"""Digests: an algorithm, a colon and hexadecimal digits; chain ids of layers.

Images are named by sha256 alone; content may also be named by sha512, the other algorithm that the
image specification registers.
"""

import hashlib
import re
from collections.abc import Iterable

from barque.base.errors import InvalidInputError

SHA256 = "sha256"
ALGORITHMS = {SHA256: 64, "sha512": 128}
"""Registered algorithms and the number of their hexadecimal digits."""

_FORM = re.compile(r"sha256:[0-9a-f]{64}")
_ANY = re.compile(r"(?:sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})")


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


def split(text: str) -> tuple[str, str]:
    """Return the algorithm and the digits of a digest of any registered algorithm.

    Raises:
        InvalidInputError: it is something else.
    """
    if not isinstance(text, str) or not _ANY.fullmatch(text):
        raise InvalidInputError(f"invalid digest: {text!r}")
    return text[:6], text[7:]


def chain_ids(diff_ids: Iterable[str]) -> list[str]:
    """Return the chain id of every prefix of the layers, lowest first."""
    chain: list[str] = []
    for diff_id in diff_ids:
        chain.append(of(f"{chain[-1]} {diff_id}".encode()) if chain else diff_id)
    return chain
