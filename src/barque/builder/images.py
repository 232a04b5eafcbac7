"""Image configs step by step: the parent's, one more history entry, one more layer."""

from collections.abc import Mapping
from typing import Any

from barque.base.times import format_ns
from barque.builder import graph
from barque.builder.keys import key_of
from barque.builder.results import Result
from barque.builder.stages import StageState, Step
from barque.dockerfile import instructions as of

Json = dict[str, Any]
_SHELL = ["/bin/sh", "-c"]
_EMPTY_VALUES: tuple[Any, ...] = (None, "", [], {})


def created_by(step: Step, shell: list[str] | None, *, taken: str = "") -> str:
    """Return what the history says of a step of the classic API.

    Args:
        step: the step.
        shell: the stage's SHELL.
        taken: digest of what a COPY or ADD took.
    """
    if step.shell:
        count = len(step.arguments)
        return " ".join([*((f"|{count}", *step.arguments) if count else ()), step.comment])
    prefix = " ".join(shell or _SHELL)
    if taken:
        return f"{prefix} #(nop) {taken}"
    space = " " if step.comment.startswith("WORKDIR ") else "  "
    return f"{prefix} #(nop){space}{step.comment}"


def history_entry(created_ns: int, text: str, author: str, *, empty: bool, comment: str = "") -> Json:
    """Return one history entry."""
    entry: Json = {"created": format_ns(created_ns), "created_by": text}
    if author:
        entry["author"] = author
    if comment:
        entry["comment"] = comment
    if empty:
        entry["empty_layer"] = True
    return entry


def image_config(state: StageState, result: Result, history: list[Json], created_ns: int) -> Json:
    """Return a whole image config, keys sorted as Docker writes them."""
    made: Json = {
        "architecture": state.platform.get("architecture"),
        "author": state.author,
        "config": {key: value for key, value in sorted(state.config.items()) if value not in _EMPTY_VALUES},
        "created": format_ns(created_ns),
        "history": history,
        "os": state.platform.get("os"),
        "rootfs": {"type": "layers", "diff_ids": [diff for _, diff in result.layers]},
        "variant": state.platform.get("variant"),
    }
    return {key: value for key, value in made.items() if value not in (None, "")}


def taken_by(step: Step, facts: Mapping[graph.Vertex, Json]) -> str:
    """Return the digest of what a COPY or ADD took, as the classic history has it."""
    made = step.instruction
    if not isinstance(made, of.Files) or step.vertex is None:
        return ""
    vertex = step.vertex.inputs[-1] if isinstance(step.vertex, graph.Merge) else step.vertex
    actions = facts.get(vertex, {}).get("actions") or []
    found = {path: value for action in actions for path, value in action[1].get("taken", {}).items()}
    name = "ADD" if isinstance(made, of.Add) else "COPY"
    kind = "file" if len(found) == 1 else "multi"
    digest = next(iter(found.values())) if len(found) == 1 else key_of(found)
    owner = f"--chown={made.chown} " if made.chown else ""
    return f"{name} {owner}{kind}:{digest} in {made.target} "
