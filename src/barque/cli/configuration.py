"""The client's configuration file (config.json): only what the command reads of it."""

from __future__ import annotations

from barque.base import jsontext
from barque.base.errors import InvalidInputError
from barque.cli.connection import config_folder
from barque.cli.flags import Options

TYPE_CHECKING = False  # the module typing costs every start of the command milliseconds
if TYPE_CHECKING:
    from typing import Any


def configured(options: Options, key: str, default: Any) -> Any:
    """Return a value of the configuration file.

    Raises:
        InvalidInputError: the file is there but is not JSON.
    """
    path = f"{config_folder(options)}/config.json"
    try:
        with open(path, "rb") as file:
            content = file.read()
    except OSError:
        return default
    try:
        value = jsontext.loads(content)
    except ValueError as error:
        raise InvalidInputError(f"error parsing config file ({path}): {error}") from error
    found = value.get(key, default) if isinstance(value, dict) else default
    return found if isinstance(found, type(default)) else default
