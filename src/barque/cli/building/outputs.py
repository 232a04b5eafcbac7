"""Where a build's outcome goes: `--output`, `--push` and `--load`, and the files and folders of this machine."""

from __future__ import annotations

import csv
import os
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from barque.base.errors import InvalidInputError

if TYPE_CHECKING:
    from typing import BinaryIO

_TO_FILE = ("tar", "oci", "docker")
_KNOWN = ("local", "tar", "oci", "docker", "image", "registry", "cacheonly")


def read_fields(text: str) -> dict[str, str]:
    """Return the fields of `key=value,key=value`, quoted as in CSV; keys in lower case.

    Raises:
        InvalidInputError: one is no pair.
    """
    found: dict[str, str] = {}
    for field_text in read_list(text):
        key, equals, value = field_text.partition("=")
        if not equals:
            raise InvalidInputError(f"invalid field '{field_text}' must be a key=value pair")
        found[key.strip().lower()] = value
    return found


def read_list(text: str) -> list[str]:
    """Return the fields of one line of CSV.

    Raises:
        InvalidInputError: quotes do not end.
    """
    try:
        rows = list(csv.reader([text], strict=True))
    except csv.Error as error:
        raise InvalidInputError(f"invalid value {text!r}: {error}") from None
    return rows[0] if rows else []


@dataclass(slots=True)
class Destination:
    """A place of this machine that an export is written to: a folder, a file, or standard output."""

    folder: str = ""
    path: str = ""
    _file: BinaryIO | None = None

    def open(self) -> BinaryIO:
        """Return the file to write to, made anew.

        Raises:
            OSError: it cannot be made.
        """
        if self._file is None:
            self._file = open(self.path, "wb") if self.path else sys.stdout.buffer  # noqa: SIM115
        return self._file

    def close(self) -> None:
        """Close the file."""
        if self._file is not None and self.path:
            self._file.close()
        self._file = None


@dataclass(slots=True)
class Output:
    """One export: its type and attributes as the engine takes them, and where it comes to on this machine."""

    type: str
    attributes: dict[str, str] = field(default_factory=dict)
    destination: Destination | None = None


def read_output(text: str) -> Output:
    """Return what one `--output` says.

    Raises:
        InvalidInputError: it is not understood, or would write binary data to a terminal.
    """
    fields = read_list(text)
    if len(fields) == 1 and "=" not in fields[0]:
        # A path alone is a folder, `-` an archive on standard output.
        fields = ["type=tar", "dest=-"] if fields[0] == "-" else ["type=local", f"dest={fields[0]}"]
    attributes: dict[str, str] = {}
    for one in fields:
        key, equals, value = one.partition("=")
        if not equals:
            raise InvalidInputError(f"invalid value {one}")
        attributes[key.strip().lower()] = value
    kind = attributes.pop("type", "")
    if not kind:
        raise InvalidInputError("type is required for output")
    if kind not in _KNOWN:
        raise InvalidInputError(f"unsupported output type {kind!r}: use one of {', '.join(_KNOWN)}")
    return _placed(Output(kind, attributes))


def _placed(output: Output) -> Output:
    attributes = output.attributes
    if output.type == "registry":
        output.type = "image"
        attributes.setdefault("push", "true")
    if output.type == "local":
        if not attributes.get("dest"):
            raise InvalidInputError("dest is required for local output")
        output.destination = Destination(folder=os.path.abspath(attributes.pop("dest")))
    elif output.type in _TO_FILE:
        path = attributes.pop("dest", "")
        if output.type == "docker" and not path:
            # Without a file it is loaded into the engine.
            output.type = "image"
            return output
        output.destination = _file(path, output.type)
    elif "dest" in attributes:
        raise InvalidInputError(f"dest is not allowed for output type {output.type}")
    return output


def _file(path: str, kind: str) -> Destination:
    if path in ("", "-"):
        if os.isatty(1):
            raise InvalidInputError("dest file is required for " + kind + " output. refusing to write to console")
        return Destination()
    if os.path.isdir(path):
        raise InvalidInputError(f"destination directory {path} is not a file: name a file for {kind} output")
    return Destination(path=path)


def all_outputs(texts: list[str], *, push: bool, load: bool) -> list[Output]:
    """Return what `--output`, `--push` and `--load` say together.

    Raises:
        InvalidInputError: they contradict each other.
    """
    outputs = [read_output(text) for text in texts]
    if push:
        images = [one for one in outputs if one.type == "image"]
        for one in images:
            one.attributes["push"] = "true"
        if not images:
            outputs.append(Output("image", {"push": "true"}))
    if load and not any(one.type == "image" for one in outputs):
        outputs.append(Output("image"))
    return [one for one in outputs if one.type != "cacheonly"] if outputs else [Output("image")]

