"""Files of environment variables and of labels, one `NAME=value` a line."""

import os

from barque.base.errors import InvalidInputError


def read_file(path: str, *, from_environment: bool) -> list[str]:
    """Return the lines of a file of NAME=value pairs.

    Args:
        path: the file; blank lines and lines that begin with # are skipped.
        from_environment: a bare name takes the value of our own environment, or is dropped.

    Raises:
        InvalidInputError: the file cannot be read or a line is wrong.
    """
    try:
        with open(path, "rb") as file:
            content = file.read()
    except OSError as error:
        raise InvalidInputError(f"open {path}: {os.strerror(error.errno or 0).lower()}") from error
    lines = []
    for number, raw in enumerate(content.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        try:
            line = raw.decode().lstrip().rstrip("\r")
        except UnicodeDecodeError:
            raise InvalidInputError(
                f"invalid env file ({path}): invalid utf8 bytes at line {number}: {list(raw)}"
            ) from None
        if line and not line.startswith("#"):
            lines += _line(path, line, from_environment)
    return lines


def _line(path: str, line: str, from_environment: bool) -> list[str]:
    name, equals, _ = line.partition("=")
    if not name:
        raise InvalidInputError(f"invalid env file ({path}): no variable name on line '{line}'")
    if any(character.isspace() for character in name.lstrip()):
        raise InvalidInputError(f"invalid env file ({path}): variable '{name}' contains whitespaces")
    if equals:
        return [line]
    if not from_environment:
        return [name]
    return [f"{name}={os.environ[name]}"] if name in os.environ else []


def pairs(items: list[str]) -> dict[str, str]:
    """Return NAME=value texts as a dictionary; a bare name has the empty value."""
    result = {}
    for item in items:
        name, _, value = item.partition("=")
        result[name] = value
    return result
