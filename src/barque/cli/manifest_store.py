"""Manifest lists that are being put together: files in the folder of the client's configuration.

    <folder>/manifests/<list>/<manifest>    one entry as JSON, in the form that Docker's command keeps too

Slashes in names become `_`, colons become `-`.
"""

from __future__ import annotations

import json
import os
import shutil

from barque.base.errors import InvalidInputError, NotFoundError
from barque.base.files import write_atomic
from barque.oci.reference import Reference, parse

TYPE_CHECKING = False  # the module typing costs every start of the command milliseconds
if TYPE_CHECKING:
    from typing import Any


class ManifestStore:
    """The lists of one user.

    Args:
        folder: of the client's configuration.
    """

    def __init__(self, folder: str) -> None:
        self._root = f"{folder}/manifests"

    def entries(self, reference: Reference) -> list[dict[str, Any]]:
        """Return a list's entries.

        Raises:
            NotFoundError: there is no such list.
        """
        folder = self._folder(reference)
        try:
            names = sorted(os.listdir(folder))
        except FileNotFoundError:
            raise NotFoundError(f"No such manifest: {reference.familiar}") from None
        return [self._read(f"{folder}/{name}") for name in names]

    def entry(self, reference: Reference, member: Reference) -> dict[str, Any]:
        """Return one entry of a list.

        Raises:
            NotFoundError: it is not in the list.
        """
        try:
            return self._read(f"{self._folder(reference)}/{_file_name(member)}")
        except FileNotFoundError:
            raise NotFoundError(f"No such manifest: {member.familiar}") from None

    def save(self, reference: Reference, member: Reference, value: dict[str, Any]) -> None:
        """Keep an entry of a list."""
        folder = self._folder(reference)
        os.makedirs(folder, mode=0o755, exist_ok=True)
        text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
        write_atomic(f"{folder}/{_file_name(member)}", text.encode(), durable=False)

    def remove(self, reference: Reference) -> None:
        """Forget a list."""
        shutil.rmtree(self._folder(reference), ignore_errors=True)

    def _folder(self, reference: Reference) -> str:
        return f"{self._root}/{_file_name(reference)}"

    def _read(self, path: str) -> dict[str, Any]:
        with open(path, "rb") as file:
            try:
                value = json.loads(file.read())
                parse(value["Ref"])
                if isinstance(value["Descriptor"], dict) and isinstance(value["Raw"], str):
                    return dict(value)
            except (ValueError, KeyError, TypeError):
                pass
        raise InvalidInputError(f"{path} is no entry of a manifest list")


def _file_name(reference: Reference) -> str:
    text = reference.familiar_name if reference.domain == "docker.io" else reference.name
    text = f"{reference.domain}/{text}" if reference.domain == "docker.io" else text
    text += f":{reference.tag}" if reference.tag else f"@{reference.digest}"
    return text.replace(":", "-").replace("/", "_")
