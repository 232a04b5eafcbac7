"""The context of a build and its Dockerfile: folders, standard input, archives, repositories, the web."""

from __future__ import annotations

import hashlib
import io
import os
import socket
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from barque.base.errors import BarqueError, InvalidInputError
from barque.builder.sources import is_git, is_url
from barque.cli.building.stores import Store, layout_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import BinaryIO

    from barque.cli.building.temporary import Temporary

_ARCHIVES = (b"\x1f\x8b\x08", b"BZh", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd")
_TAR_MAGIC, _TAR_MAGIC_AT = b"ustar", 257
_LARGEST_DOCKERFILE = 100 << 20


@dataclass(slots=True)
class Inputs:
    """What a build reads: options for the frontend, folders by the names that they use, files to upload."""

    options: dict[str, str] = field(default_factory=dict)
    folders: dict[str, str] = field(default_factory=dict)
    uploads: dict[str, Callable[[], BinaryIO]] = field(default_factory=dict)
    dockerfile: str = ""
    """Path of the Dockerfile on this machine, empty where it is elsewhere."""
    key: str = ""
    stores: dict[str, Store] = field(default_factory=dict)
    """Folders of blobs that the engine may ask for, by the names that it uses."""


class Stdin:
    """Standard input, which can be read once, by one reader."""

    def __init__(self, file: BinaryIO | None = None) -> None:
        self._file = file
        self._user = ""

    def take(self, user: str) -> BinaryIO:
        """Return it for a use.

        Raises:
            InvalidInputError: something else reads it already.
        """
        if self._user:
            raise InvalidInputError(f"invalid argument: can't use stdin for both {self._user} and {user}")
        self._user = user
        return self._file if self._file is not None else sys.stdin.buffer


def is_remote(context: str) -> bool:
    """Tell whether a context is somewhere else than on this machine."""
    return is_git(context) or is_url(context)


def inputs_of(context: str, file: str, stdin: Stdin, temporary: Temporary, *, prefix: str = "") -> Inputs:
    """Return what a build of a context reads.

    Args:
        context: a folder, a URL, a repository, or `-`.
        file: the Dockerfile as it was given, empty for the usual one.
        stdin: standard input.
        temporary: makes folders for files that are made.
        prefix: what the names of folders begin with where builds share a session.

    Raises:
        InvalidInputError: the context or the Dockerfile does not exist.
    """
    made = Inputs()
    keys = {"context": f"{prefix}context", "dockerfile": f"{prefix}dockerfile"}
    if prefix:
        made.options |= {"contextkey": keys["context"], "dockerfilekey": keys["dockerfile"]}
    if context == "-":
        _from_stdin(made, file, stdin, temporary, keys)
    elif is_remote(context):
        made.options["context"] = context
        if file == "-":
            made.options["dockerfilekey"] = keys["dockerfile"]
            _write_dockerfile(made, stdin.take("dockerfile").read(_LARGEST_DOCKERFILE + 1), temporary, keys)
        elif file:
            made.options["filename"] = file
    else:
        _from_folder(made, context, file, (stdin, temporary), keys)
    return made


def _from_stdin(made: Inputs, file: str, stdin: Stdin, temporary: Temporary, keys: dict[str, str]) -> None:
    if file == "-":
        raise InvalidInputError("invalid argument: can't use stdin for both build context and dockerfile")
    source = stdin.take("build context")
    start = source.read(1024)
    if not start:
        raise InvalidInputError("standard input is empty: pipe a Dockerfile or a tar archive into it")
    if start.startswith(_ARCHIVES) or start[_TAR_MAGIC_AT:].startswith(_TAR_MAGIC):
        name = os.urandom(12).hex()
        made.uploads[name] = lambda: io.BufferedReader(_Chained(start, source))
        made.options["context"] = f"http://buildkit-session/{name}"
        if file:
            made.options["filename"] = file
        return
    if file:
        raise InvalidInputError("ambiguous Dockerfile source: both stdin and flag correspond to Dockerfiles")
    made.folders[keys["context"]] = temporary.folder()
    _write_dockerfile(made, start + source.read(_LARGEST_DOCKERFILE), temporary, keys)


class _Chained(io.RawIOBase):
    """Bytes that were read already, and the file they came from behind them."""

    def __init__(self, start: bytes, rest: BinaryIO) -> None:
        self._start = start
        self._rest = rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer)  # type: ignore[arg-type]
        data = self._start[: len(view)]
        self._start = self._start[len(data) :]
        if not data:
            data = self._rest.read(len(view))
        view[: len(data)] = data
        return len(data)


def _write_dockerfile(made: Inputs, text: bytes, temporary: Temporary, keys: dict[str, str]) -> None:
    if len(text) > _LARGEST_DOCKERFILE:
        raise InvalidInputError(f"the Dockerfile on standard input is larger than {_LARGEST_DOCKERFILE >> 20} MiB")
    folder = temporary.folder()
    made.dockerfile = os.path.join(folder, "Dockerfile")
    with open(made.dockerfile, "wb") as out:
        out.write(text)
    made.folders[keys["dockerfile"]] = folder
    made.options["filename"] = "Dockerfile"


def _from_folder(made: Inputs, context: str, file: str, outside: tuple[Stdin, Temporary], keys: dict[str, str]) -> None:
    if not os.path.isdir(context):
        reason = "not a directory" if os.path.exists(context) else "no such file or directory"
        raise InvalidInputError(f'unable to prepare context: path "{context}" not found' if "no such" in reason
                                else f"unable to prepare context: {context}: {reason}")  # fmt: skip
    root = os.path.abspath(context)
    made.folders[keys["context"]] = root
    made.key = shared_key(root)
    stdin, temporary = outside
    if file == "-":
        _write_dockerfile(made, stdin.take("dockerfile").read(_LARGEST_DOCKERFILE + 1), temporary, keys)
        return
    if is_url(file):
        _write_dockerfile(made, _download(file), temporary, keys)
        return
    path = os.path.abspath(file or _usual(root))
    if not os.path.exists(path):
        raise InvalidInputError(f"failed to read dockerfile: open {file or 'Dockerfile'}: no such file or directory")
    if os.path.isdir(path):
        raise InvalidInputError(f"failed to read dockerfile: read {file}: is a directory")
    made.dockerfile = path
    # A link is followed: what it leads to may lie outside the folder that is sent.
    real = os.path.realpath(path) if os.path.islink(path) else path
    made.folders[keys["dockerfile"]] = os.path.dirname(real)
    made.options["filename"] = os.path.basename(real)


def _usual(root: str) -> str:
    for name in ("Dockerfile", "dockerfile"):
        if os.path.exists(os.path.join(root, name)):
            return os.path.join(root, name)
    return os.path.join(root, "Dockerfile")


def _download(url: str) -> bytes:
    import urllib.error
    import urllib.request

    try:
        with urllib.request.urlopen(url, timeout=60) as answer:
            data: bytes = answer.read(_LARGEST_DOCKERFILE + 1)
            return data
    except (urllib.error.URLError, OSError, ValueError) as error:
        raise InvalidInputError(f"failed to read the Dockerfile from {url}: {error}") from None


def shared_key(folder: str) -> str:
    """Return what tells an engine that a later build comes from the same folder of the same user and machine."""
    return hashlib.sha256(f"{socket.gethostname()}:{os.getuid()}:{folder}".encode("utf-8", "surrogateescape")).hexdigest()


def named_context(name: str, value: str, made: Inputs, *, prefix: str = "") -> None:
    """Add a context with a name (`--build-context name=value`).

    Raises:
        BarqueError: it is a folder or an OCI layout that does not exist.
    """
    if is_remote(value) or value.startswith(("docker-image://", "input:", "target:")):
        made.options[f"context:{name}"] = value
        return
    if value.startswith("oci-layout://"):
        try:
            store, tag, digest = layout_of(value.removeprefix("oci-layout://"))
        except BarqueError as error:
            raise InvalidInputError(f"failed to get build context {name}: {error}") from None
        identity = os.urandom(12).hex()
        made.stores[f"oci:{identity}"] = store
        made.options[f"context:{name}"] = f"oci-layout://{identity}:{tag}@{digest}"
        return
    if not os.path.isdir(value):
        raise InvalidInputError(f"failed to get build context {name}: path \"{value}\" is no folder and no URL")
    key = f"{prefix}{name}"
    made.folders[key] = os.path.abspath(value)
    made.options[f"context:{name}"] = f"local:{key}"
