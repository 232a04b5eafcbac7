"""What another OCI runtime finds and leaves: the root's mounts, namespaces by path, its log."""

import json
import os
from typing import Any

from barque.keeper.task import Task

# The engine puts the same words before every runtime's.
_OWN_WORDS = ("runc create failed: ", "runc run failed: ", "unable to start container process: ")


def offer_namespaces(spec: dict[str, Any], namespaces: dict[str, int]) -> list[int]:
    """Let spec name the given namespaces by paths; return descriptors to keep until the start is over."""
    kept = []
    entries = spec.setdefault("linux", {}).setdefault("namespaces", [])
    for kind, fd in namespaces.items():
        kept.append(os.dup(fd))
        entries[:] = [entry for entry in entries if entry["type"] != kind]
        entries.append({"type": kind, "path": f"/proc/{os.getpid()}/fd/{kept[-1]}"})
    return kept


def mount_roots(mounts: list[dict[str, Any]], target: str) -> None:
    """Mount the root's layers in the host's namespace.

    Raises:
        OSError: a mount was refused; those before it are undone.
    """
    from barque.kernel.mount import MNT_DETACH, umount
    from barque.runtime.rootfs import mount_root

    target = os.path.normpath(target)
    os.makedirs(target, exist_ok=True)
    done = 0
    try:
        for entry in mounts:
            mount_root(entry, target.encode())
            done += 1
    except BaseException:
        for _ in range(done):
            umount(target, MNT_DETACH)
        raise


def unmount_root(task: Task) -> None:
    """Let go of the root of a container's bundle, if it is a mount."""
    from barque.kernel.mount import MNT_DETACH, umount

    try:
        with open(f"{task.folder}/config.json", "rb") as file:
            root = os.path.join(task.folder, json.loads(file.read())["root"]["path"])
        while True:
            umount(root, MNT_DETACH)
    except (OSError, ValueError, KeyError):
        # EINVAL: nothing is mounted there any more.
        return


def last_error(log: str) -> str:
    """Return the last error of a runtime's log of JSON lines, empty where it has none."""
    for line in reversed(log.splitlines()):
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and entry.get("level") in ("error", "fatal") and entry.get("msg"):
            message = str(entry["msg"])
            for words in _OWN_WORDS:
                message = message.removeprefix(words)
            return message
    return ""
