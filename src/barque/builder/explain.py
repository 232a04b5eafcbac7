"""Why a step was not in the cache: what differs from the nearest earlier run. Pure."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

Facts = Mapping[str, Any]
_MOST = 5
_LABEL = re.compile(r"^\[[^\]]*\] ")
_NAMES = {"args": "the command", "cwd": "the working directory", "user": "the user", "network": "the network",
          "security": "the security mode", "hosts": "the extra hosts", "hostname": "the host name",
          "shell": "the shell", "files": "a heredoc", "ulimits": "the limits (ulimit)",
          "exit_codes": "the exit codes that are well", "devices": "the devices", "readonly_root": "whether the root is read-only"}  # fmt: skip


class Reason(NamedTuple):
    """One difference: what kind of thing differs, its name where it has one, and a sentence."""

    kind: str
    name: str
    text: str


class Run(NamedTuple):
    """An earlier run: how the step read, what it was made of, when (nanoseconds since the epoch)."""

    description: str
    facts: Facts
    created_ns: int


NEVER = Reason("new", "", "this step has not been run before")
NO_CACHE = Reason("no-cache", "", "--no-cache was given")


def bare(description: str) -> str:
    """Return how a step reads, less the place in its stage."""
    return _LABEL.sub("", description)


def nearest(description: str, now: Facts, runs: Sequence[Run]) -> Run | None:
    """Return the earlier run that differs least; of equals the latest. None where no run is comparable.

    Args:
        description: how the step reads.
        now: what it is made of.
        runs: earlier ones of the same kind, the oldest first.
    """
    same = [run for run in runs if _same(description, now, run)]
    if same:
        return min(reversed(same), key=lambda run: sum(_weight(reason) for reason in explain(now, run.facts)))
    at_place = [run for run in runs if run.facts.get("root") == now.get("root")]
    return at_place[-1] if at_place else None


def _same(description: str, now: Facts, run: Run) -> bool:
    """Tell whether a run is of the same instruction; how it reads has values in it, its command has not."""
    return bare(run.description) == bare(description) or bool(now.get("args") and run.facts.get("args") == now["args"])


def _weight(reason: Reason) -> int:
    # Other files below say least of the step itself.
    return 3 if reason.kind == "root" else 1


def reasons(description: str, now: Facts, before: Run | None) -> list[Reason]:
    """Return why a step had to be run."""
    if before is None:
        return [NEVER]
    if not _same(description, now, before):
        last = bare(before.description)
        return [Reason("instruction", last, f"this instruction has not been run; the last one at its place was {last}")]
    return explain(now, before.facts)


def explain(now: Facts, before: Facts | None) -> list[Reason]:
    """Return what differs, one sentence each.

    Args:
        now: what the step is made of.
        before: what an earlier run was made of, None where it never ran.
    """
    if before is None:
        return [NEVER]
    found: list[Reason] = []
    if now.get("root") != before.get("root"):
        found.append(Reason("root", "", "a step before it gave other files"))
    found += _files(*_details(now, before))
    found += _environment(now.get("env") or [], before.get("env") or [])
    for key, name in _NAMES.items():
        if now.get(key) != before.get(key):
            found.append(Reason(key, "", f"{name} changed"))
    found += _mounts(now.get("mounts") or [], before.get("mounts") or [])
    if not found and now.get("actions") != before.get("actions"):
        found.append(_actions(now.get("actions") or [], before.get("actions") or []))
    return found or [Reason("removed", "", "nothing that tells steps apart differs: its result was removed from the cache")]


def _details(now: Facts, before: Facts) -> tuple[Mapping[str, str], Mapping[str, str]]:
    """Return digests of files by path, now and before, where what was copied differs at all."""
    taken, other = _taken(now), _taken(before)
    if now.get("actions") and before.get("actions") and taken == other:
        return {}, {}
    if now.get("detail") and before.get("detail"):
        return now["detail"], before["detail"]
    # Of parts of layers whose digest was known, single files are not.
    return (now.get("detail") or {}, before.get("detail") or {}) if not taken or not other else (taken, other)


def _taken(facts: Facts) -> dict[str, str]:
    found: dict[str, str] = {}
    for action in facts.get("actions") or []:
        fields = action[1] if len(action) > 1 and isinstance(action[1], dict) else {}
        if isinstance(fields.get("taken"), dict):
            found |= fields["taken"]
    return found


def _files(now: Mapping[str, str], before: Mapping[str, str]) -> list[Reason]:
    # A folder differs where anything in it does; what differs in it says more.
    changed = [Reason("file", path, f"file {path} changed") for path in sorted(now) if before.get(path, now[path]) != now[path]]
    added = [Reason("file", path, f"file {path} is new") for path in sorted(now) if path not in before]
    removed = [Reason("file", path, f"file {path} is gone") for path in sorted(before) if path not in now]
    return _some([*changed, *added, *removed], "file", "files")


def _environment(now: Iterable[str], before: Iterable[str]) -> list[Reason]:
    new = dict(entry.partition("=")[::2] for entry in now)
    old = dict(entry.partition("=")[::2] for entry in before)
    # Values may be secrets that somebody passed as arguments: names alone are told.
    found = [Reason("variable", name, f"the variable or argument {name} changed") for name in new if old.get(name, new[name]) != new[name]]
    found += [Reason("variable", name, f"the variable or argument {name} is new") for name in new if name not in old]
    found += [Reason("variable", name, f"the variable or argument {name} is gone") for name in old if name not in new]
    return _some(found, "variable", "variables")


def _some(found: list[Reason], kind: str, what: str) -> list[Reason]:
    if len(found) <= _MOST:
        return found
    return [*found[:_MOST], Reason(kind, "", f"{len(found) - _MOST} more {what} differ")]


def _mounts(now: list[Any], before: list[Any]) -> list[Reason]:
    new, old = ({str(mount.get("target")): mount for mount in mounts} for mounts in (now, before))
    found = []
    for target, mount in new.items():
        other = old.get(target)
        if other is None:
            found.append(Reason("mount", target, f"the mount at {target} is new"))
        elif mount.get("content") != other.get("content"):
            found.append(Reason("mount", target, f"the files mounted at {target} changed"))
        elif mount != other:
            found.append(Reason("mount", target, f"the options of the mount at {target} changed"))
    return found + [Reason("mount", target, f"the mount at {target} is gone") for target in old if target not in new]


def _actions(now: list[Any], before: list[Any]) -> Reason:
    if len(now) != len(before):
        return Reason("sources", "", "it copies another number of sources")
    for one, other in zip(now, before, strict=True):
        if one == other:
            continue
        new, old = one[1], other[1]
        for key, name in (("owner", "--chown"), ("mode", "--chmod"), ("target", "the target"),
                          ("excludes", "--exclude"), ("source", "a source")):  # fmt: skip
            if new.get(key) != old.get(key):
                return Reason(key, "", f"{name} changed")
    return Reason("source", "", "what it copies from another stage or image changed")
