"""Folders of version 1 hierarchies: making them, what a new one must inherit, block I/O counters."""

import os
from typing import Any

from barque.runtime.cgroups.files import CgroupError, read, write


def make(folder: str, made: list[str]) -> None:
    """Make a folder and those above it; add it to `made` where it was not there.

    Raises:
        CgroupError: the kernel refused one.
    """
    missing = []
    while not os.path.isdir(folder):
        missing.append(folder)
        folder = os.path.dirname(folder)
    for path in reversed(missing):
        try:
            os.mkdir(path, 0o755)
        except FileExistsError:
            continue
        except OSError as error:
            raise CgroupError(error.errno, f"cannot make cgroup {path}: {error.strerror}") from error
        if path == missing[0]:
            made.append(path)


def inherit_cpuset(point: str, path: str) -> None:
    """Copy cpus and mems from the parent down: an empty set admits no process."""
    folder = point
    for part in path.strip("/").split("/"):
        parent, folder = folder, f"{folder}/{part}"
        for key in ("cpuset.cpus", "cpuset.mems"):
            if not read(f"{folder}/{key}").strip():
                write(f"{folder}/{key}", read(f"{parent}/{key}").strip())


def blkio_counters(folder: str | None, name: str) -> list[dict[str, Any]]:
    """Return a counter of the first file that has it: device, operation and value a row."""
    for candidate in (f"blkio.bfq.{name}_recursive", f"blkio.throttle.{name}_recursive", f"blkio.throttle.{name}"):
        try:
            text = read(f"{folder}/{candidate}")
        except OSError:
            continue
        rows = []
        for line in text.splitlines():
            words = line.split()
            if len(words) == 3:
                major, _, minor = words[0].partition(":")
                rows.append({"major": int(major), "minor": int(minor), "op": words[1], "value": int(words[2])})
        if rows:
            return rows
    return []
