"""Shares of processor caches and memory bandwidth: `linux.intelRdt`, by the kernel's resctrl file system.

A class of service is a folder of resctrl (Documentation/arch/x86/resctrl): its `schemata` say what it gets,
its `tasks` who is in it. Who calls it: the parent of a starting process, and `barque runtime delete`.
"""

import os
from typing import Any

from barque.runtime.channel import StepError, errno_text

Json = dict[str, Any]


def mount_point() -> str | None:
    """Return where resctrl is mounted, None where it is not."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            left, _, right = line.partition(" - ")
            if right.startswith("resctrl "):
                return left.split()[4]
    return None


def folder_of(config: Json, container_id: str, root: str | None) -> str:
    """Return the folder of the class of service a container asks for.

    Raises:
        StepError: the kernel has no resctrl, or the class's name is none.
    """
    if root is None:
        raise StepError("linux.intelRdt: resctrl is not mounted: the processor or the kernel cannot share caches out")
    name = config.get("closID") or container_id
    if "/" in name or name in (".", "..", "info", "mon_groups", "mon_data"):
        raise StepError(f"linux.intelRdt.closID: {name!r} cannot name a class of service")
    return f"{root}/{name}"


def apply(config: Json, folder: str, pid: int) -> bool:
    """Make the class of service where it is missing, set its shares, put a process in; tell whether it was made.

    Raises:
        StepError: the kernel refuses a share; a class made here is gone again.
    """
    schemata = [*(config.get("schemata") or []), config.get("l3CacheSchema"), config.get("memBwSchema")]
    lines = [line for entry in schemata if entry for line in str(entry).splitlines()]
    try:
        os.mkdir(folder, 0o755)
        made = True
    except FileExistsError:
        made = False
    except OSError as error:
        raise StepError(f"linux.intelRdt: {folder}: {errno_text(error.errno)}", error.errno or 0) from None
    try:
        for line in lines:
            _write(f"{folder}/schemata", line + "\n")
        _write(f"{folder}/tasks", str(pid))
    except StepError:
        if made:
            remove(folder)
        raise
    return made


def remove(folder: str) -> None:
    """Remove a class of service; its processes go back to the default one."""
    try:
        os.rmdir(folder)
    except OSError:
        # It has been removed by hand, or resctrl unmounted.
        return


def _write(path: str, text: str) -> None:
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, text.encode())
        finally:
            os.close(fd)
    except OSError as error:
        words = f"linux.intelRdt: cannot write {text.strip()!r} to {path}: {errno_text(error.errno)}"
        raise StepError(words, error.errno or 0) from None
