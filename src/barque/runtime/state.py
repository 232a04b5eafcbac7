"""Containers of the runtime command: a folder each below its --root.

    <root>/<id>/state.json      what was made, by whom, from what
    <root>/<id>/config.json     the configuration as it was then
    <root>/<id>/exec.fifo       there until `start`: a byte written to it lets the program begin

A container's status is never stored: it follows from the process, the FIFO and the freezer.
"""

import errno
import json
import os
import re
import shutil
from typing import Any

from barque.base.errors import ConflictError, InvalidInputError, NotFoundError
from barque.base.files import write_atomic
from barque.runtime import cgroups

Json = dict[str, Any]
_ID = re.compile(r"[A-Za-z0-9_+-][A-Za-z0-9_+.-]*")
_STRANGE = re.compile(r"[^A-Za-z0-9_+.-]")


def check_id(container_id: str) -> None:
    """Refuse what cannot be a container's id.

    Raises:
        InvalidInputError: it is empty or would leave the folder.
    """
    strange = _STRANGE.search(container_id)
    if strange:
        raise InvalidInputError(f"invalid character {strange[0]!r} in the container ID {container_id!r}")
    if not _ID.fullmatch(container_id):
        raise InvalidInputError(f"invalid container ID format: {container_id!r}")


def start_time(pid: int) -> int:
    """Return a process's start in clock ticks since boot (proc(5), field 22), 0 where it is gone or a zombie."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return 0
    return 0 if fields[0] in (b"Z", b"X") else int(fields[19])


class Container:
    """A container on disk."""

    def __init__(self, root: str, container_id: str) -> None:
        check_id(container_id)
        self.id = container_id
        self.folder = os.path.join(root, container_id)
        self.fifo = os.path.join(self.folder, "exec.fifo")
        self.record: Json = {}
        self.config: Json = {}

    @classmethod
    def make(cls, root: str, container_id: str) -> "Container":
        """Reserve the id.

        Raises:
            ConflictError: a container of that id exists.
        """
        made = cls(root, container_id)
        os.makedirs(root, mode=0o700, exist_ok=True)
        try:
            os.mkdir(made.folder, 0o700)
        except FileExistsError:
            raise ConflictError(f"container with given ID already exists: {container_id}") from None
        return made

    @classmethod
    def load(cls, root: str, container_id: str) -> "Container":
        """Read a container.

        Raises:
            NotFoundError: there is none of that id.
        """
        found = cls(root, container_id)
        try:
            with open(f"{found.folder}/state.json", encoding="utf-8") as file:
                found.record = json.load(file)
            with open(f"{found.folder}/config.json", encoding="utf-8") as file:
                found.config = json.load(file)
        except FileNotFoundError:
            raise NotFoundError(f"container {container_id!r} does not exist") from None
        return found

    def save(self) -> None:
        """Write both files."""
        write_atomic(f"{self.folder}/config.json", json.dumps(self.config).encode(), mode=0o600, durable=False)
        write_atomic(f"{self.folder}/state.json", json.dumps(self.record).encode(), mode=0o600, durable=False)

    def remove(self) -> None:
        """Forget the container; its processes and cgroup must be gone."""
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def pid(self) -> int:
        """Return the first process's pid."""
        return int(self.record.get("pid", 0))

    def cgroup(self) -> "cgroups.Cgroup | None":
        """Return the container's cgroup, None where it has none."""
        path = self.record.get("cgroup")
        return cgroups.open_manager(path) if path else None

    def is_alive(self) -> bool:
        """Tell whether the first process still runs."""
        started = start_time(self.pid) if self.pid > 0 else 0
        return started != 0 and started == self.record.get("start_time")

    def status(self) -> str:
        """Return created, running, paused or stopped."""
        if not self.is_alive():
            return "stopped"
        if os.path.exists(self.fifo):
            return "created"
        group = self.cgroup()
        return "paused" if group is not None and group.is_frozen() else "running"

    def oci_state(self) -> Json:
        """Return the state as the runtime spec defines it."""
        status = self.status()
        value: Json = {
            "ociVersion": "1.2.0",
            "id": self.id,
            "pid": 0 if status == "stopped" else self.pid,
            "status": status,
            "bundle": self.record["bundle"],
            "rootfs": self.record["rootfs"],
            "created": self.record["created"],
            "owner": self.record.get("owner", ""),
        }
        if self.config.get("annotations"):
            value["annotations"] = self.config["annotations"]
        return value


def load_all(root: str) -> list[Container]:
    """Return the containers below a root; one that is half-made is left out."""
    try:
        names = sorted(os.listdir(root))
    except OSError as error:
        if error.errno == errno.ENOENT:
            return []
        raise
    found = []
    for name in names:
        try:
            found.append(Container.load(root, name))
        except (NotFoundError, InvalidInputError, NotADirectoryError, ValueError):
            continue
    return found
