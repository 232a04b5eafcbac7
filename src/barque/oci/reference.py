"""Image references: `[domain/]path[:tag][@digest]`, their grammar and Docker's short forms."""

import re
from typing import NamedTuple

from barque.base.errors import InvalidInputError

DEFAULT_DOMAIN = "docker.io"
DEFAULT_TAG = "latest"
NAME_LENGTH_MAX = 255

_COMPONENT = r"[a-z0-9]+(?:(?:[._]|__|[-]+)[a-z0-9]+)*"
_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN = rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?"
_TAG = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"
_DIGEST = r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}"
_REFERENCE = re.compile(rf"((?:{_DOMAIN}/)?{_COMPONENT}(?:/{_COMPONENT})*)(?::({_TAG}))?(?:@({_DIGEST}))?")
_TAG_ONLY = re.compile(_TAG)
_DIGEST_LENGTHS = {"sha256": 64, "sha384": 96, "sha512": 128}
_HEX64 = re.compile(r"[0-9a-f]{64}")


class Reference(NamedTuple):
    """A whole reference; tag and digest are empty where the text had none."""

    domain: str
    path: str
    tag: str = ""
    digest: str = ""

    @property
    def name(self) -> str:
        """Return the full name with its domain, without tag and digest."""
        return f"{self.domain}/{self.path}"

    @property
    def familiar_name(self) -> str:
        """Return the name as Docker shows it: the default domain and `library/` left out."""
        if self.domain != DEFAULT_DOMAIN:
            return self.name
        return self.path.removeprefix("library/") if self.path.count("/") == 1 else self.path

    @property
    def familiar(self) -> str:
        """Return the whole reference as Docker shows it."""
        text = self.familiar_name
        if self.tag:
            text += f":{self.tag}"
        return f"{text}@{self.digest}" if self.digest else text

    def with_default_tag(self) -> "Reference":
        """Return the reference with `latest` where it has neither tag nor digest."""
        return self if self.tag or self.digest else self._replace(tag=DEFAULT_TAG)

    def __str__(self) -> str:
        text = self.name
        if self.tag:
            text += f":{self.tag}"
        return f"{text}@{self.digest}" if self.digest else text


def parse(text: str) -> Reference:
    """Return the reference that the user's text means, short forms completed.

    Raises:
        InvalidInputError: text is not a reference; the message is Docker's.
    """
    if _HEX64.fullmatch(text):
        raise InvalidInputError(f"invalid repository name ({text}), cannot specify 64-byte hexadecimal strings")
    domain, path = _split_domain(text)
    bare = path.partition(":")[0]
    if bare.lower() != bare:
        raise InvalidInputError(f"invalid reference format: repository name ({bare}) must be lowercase")
    match = _REFERENCE.fullmatch(f"{domain}/{path}")
    if match is None:
        raise InvalidInputError("invalid reference format")
    name, tag, digest = match.groups()
    if len(name) - len(domain) - 1 > NAME_LENGTH_MAX:
        raise InvalidInputError(f"repository name must not be more than {NAME_LENGTH_MAX} characters")
    if digest:
        _check_digest(digest)
    return Reference(domain, name[len(domain) + 1 :], tag or "", digest or "")


def _check_digest(text: str) -> None:
    algorithm, _, digits = text.partition(":")
    length = _DIGEST_LENGTHS.get(algorithm)
    if length is None:
        raise InvalidInputError("unsupported digest algorithm")
    if len(digits) != length:
        raise InvalidInputError("invalid checksum digest length")
    if digits.lower() != digits:
        raise InvalidInputError("invalid checksum digest format")


def is_tag(text: str) -> bool:
    """Tell whether text can be a tag."""
    return _TAG_ONLY.fullmatch(text) is not None


def _split_domain(text: str) -> tuple[str, str]:
    first, slash, rest = text.partition("/")
    if not slash or not ("." in first or ":" in first or first == "localhost" or first.lower() != first):
        domain, path = DEFAULT_DOMAIN, text
    else:
        domain, path = first, rest
    if domain == "index.docker.io":
        domain = DEFAULT_DOMAIN
    if domain == DEFAULT_DOMAIN and "/" not in path:
        path = "library/" + path
    return domain, path
