"""Steps told apart by how they are defined, not by the files of other steps that they take.

A cache that lies elsewhere is asked by such keys before anything is carried out: where the last step is
known there, no other one is needed. Only what a step takes of the client's files counts by its content.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from barque.base.errors import BarqueError
from barque.builder import keys
from barque.builder.graph import CopyFiles, Diff, Exec, Files, Layers, Merge, Scratch, Source, Vertex
from barque.builder.results import Result
from barque.storage.snapshots import Snapshotter

Facts = dict[str, Any]
Definitions = dict[Vertex, str | None]


class _UnknownError(Exception):
    """A step cannot be told apart by its definition."""


def definitions(
    steps: Iterable[Vertex], sources: Mapping[Vertex, Result], facts: Mapping[Vertex, Facts], snapshots: Snapshotter,
    digests: keys.Digests,
) -> Definitions:  # fmt: skip
    """Return the keys of steps, None for those that have none; blocking: it reads what is copied of contexts.

    Args:
        steps: each after its inputs.
        sources: the results of those that bring files in.
        facts: what the keys of solved steps were made of.
        snapshots: where layers lie.
        digests: of parts of trees.
    """
    made: Definitions = {}
    for step in steps:
        try:
            found = _facts(step, made, sources, facts.get(step), (snapshots, digests))
            made[step] = None if step.no_cache else keys.key_of({"by": "definition", **found})
        except (_UnknownError, BarqueError, OSError):
            # What is wrong with it shows when it is carried out.
            made[step] = None
    return made


def _facts(
    step: Vertex, made: Definitions, sources: Mapping[Vertex, Result], known: Facts | None,
    tools: tuple[Snapshotter, keys.Digests],
) -> Facts:  # fmt: skip
    if isinstance(step, Scratch):
        return {"kind": "layers", "top": ""}
    if isinstance(step, Layers):
        return {"kind": "layers", "top": step.layers[-1][0] if step.layers else ""}
    if isinstance(step, Source):
        result = sources.get(step)
        if result is None or result.tree is not None:
            raise _UnknownError
        return {"kind": "layers", "top": result.top}
    inputs = [_given(made, one) for one in step.inputs] if isinstance(step, Merge | Diff) else []
    if isinstance(step, Merge | Diff):
        return {"kind": type(step).__name__.lower(), "inputs": inputs}
    root = _given(made, step.inputs[0])
    if isinstance(step, Files):
        taken = (known or {}).get("actions") or [None] * len(step.actions)
        actions = [_action(action, step, made, sources, one, tools) if isinstance(action, CopyFiles)
                   else keys.action_facts(action) for action, one in zip(step.actions, taken, strict=True)]  # fmt: skip
        return {"kind": "files", "root": root, "actions": actions}
    if not isinstance(step, Exec) or any(mount.output for mount in step.mounts):
        # Where the command's result is known, what it left in its mounts is not.
        raise _UnknownError
    return keys.command_facts(step, root, [_mount(mount, step, made, sources, tools) for mount in step.mounts])


def _given(made: Definitions, step: Vertex) -> str:
    found = made.get(step)
    if found is None:
        raise _UnknownError
    return found


def _action(
    action: CopyFiles, step: Files, made: Definitions, sources: Mapping[Vertex, Result], known: Any,
    tools: tuple[Snapshotter, keys.Digests],
) -> Any:  # fmt: skip
    source = step.needs[action.input]
    result = sources.get(source)
    if result is not None and result.tree is not None:
        return known if known is not None else keys.copy_facts(action, result, *tools, {})
    return ["copied", _given(made, source), {key: value for key, value in asdict(action).items() if key != "input"}]


def _mount(
    mount: Any, step: Exec, made: Definitions, sources: Mapping[Vertex, Result], tools: tuple[Snapshotter, keys.Digests]
) -> Facts:
    facts = keys.mount_facts(mount)
    if mount.input > 0 and mount.type == "bind":
        source = step.needs[mount.input]
        result = sources.get(source)
        if result is not None and result.tree is not None:
            snapshots, digests = tools
            facts["content"] = digests.of(result, mount.selector, snapshots, owners=True)
        else:
            facts["of"] = _given(made, source)
    return facts
