"""Why a step was not in the cache: what differs from the run before that reads the same. Pure."""

from collections.abc import Iterable, Mapping
from typing import Any

Facts = Mapping[str, Any]
_MOST = 5
_NAMES = {"args": "the command", "cwd": "the working directory", "user": "the user", "network": "the network",
          "security": "the security mode", "hosts": "the extra hosts", "hostname": "the host name",
          "shell": "the shell", "files": "a heredoc", "mounts": "a mount"}  # fmt: skip


def explain(now: Facts, before: Facts | None) -> list[str]:
    """Return what differs, one sentence each.

    Args:
        now: what the step is made of.
        before: what its last run was made of, None where it never ran.
    """
    if before is None:
        return ["this step has not been run before"]
    found: list[str] = []
    if now.get("root") != before.get("root"):
        found.append("a step before it gave other files")
    found += _files(now.get("detail") or {}, before.get("detail") or {})
    found += _environment(now.get("env") or [], before.get("env") or [])
    for key, name in _NAMES.items():
        if now.get(key) != before.get(key):
            found.append(f"{name} changed")
    if not found and now.get("actions") != before.get("actions"):
        found.append(_actions(now.get("actions") or [], before.get("actions") or []))
    return found or ["nothing that tells steps apart differs: its result was removed from the cache"]


def _files(now: Mapping[str, str], before: Mapping[str, str]) -> list[str]:
    changed = [f"file {path} changed" for path in now if path in before and now[path] != before[path]]
    added = [f"file {path} is new" for path in now if path not in before]
    removed = [f"file {path} is gone" for path in before if path not in now]
    # A folder differs where anything in it does; what differs in it says more.
    return _some([*sorted(changed), *sorted(added), *sorted(removed)], "files")


def _environment(now: Iterable[str], before: Iterable[str]) -> list[str]:
    new = dict(entry.partition("=")[::2] for entry in now)
    old = dict(entry.partition("=")[::2] for entry in before)
    # Values may be secrets that somebody passed as arguments: names alone are told.
    changed = [f"the variable {name} changed" for name in new if name in old and new[name] != old[name]]
    added = [f"the variable {name} is new" for name in new if name not in old]
    removed = [f"the variable {name} is gone" for name in old if name not in new]
    return _some([*changed, *added, *removed], "variables")


def _some(sentences: list[str], what: str) -> list[str]:
    if len(sentences) <= _MOST:
        return sentences
    return [*sentences[:_MOST], f"{len(sentences) - _MOST} more {what} differ"]


def _actions(now: list[Any], before: list[Any]) -> str:
    if len(now) != len(before):
        return "it copies another number of sources"
    for one, other in zip(now, before, strict=True):
        if one == other:
            continue
        new, old = one[1], other[1]
        for key, name in (("owner", "--chown"), ("mode", "--chmod"), ("target", "the target"),
                          ("excludes", "--exclude"), ("source", "a source")):  # fmt: skip
            if new.get(key) != old.get(key):
                return f"{name} changed"
    return "what it copies from another stage or image changed"
