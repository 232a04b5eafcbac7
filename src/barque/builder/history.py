"""The config of an image out of a solved stage, with a history as BuildKit writes it."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from barque.base.times import format_ns, parse_ns
from barque.builder import graph
from barque.builder.results import Result
from barque.builder.stages import Step
from barque.dockerfile import instructions as of

if TYPE_CHECKING:
    from barque.builder.dockerfile import Target

Json = dict[str, Any]
_COMMENT = "buildkit.dockerfile.v0"
_EMPTY_VALUES: tuple[Any, ...] = (None, "", [], {})


def image_config(target: "Target", results: Mapping[graph.Vertex, Result], *, time_ns: int | None = None) -> Json:
    """Return the image config of a solved target.

    Args:
        target: the stage.
        results: of its vertices.
        time_ns: the one time for all that was made; None takes when each layer was made.
    """
    history: list[Json] = []
    times: list[int | None] = []
    for stage in target.chain():
        if stage.parent is None:
            history += stage.history
            times += [_time_of(entry) for entry in stage.history]
        before = results[stage.base_root].layers if stage.base_root in results else ()
        for step, root in stage.steps:
            if isinstance(step.instruction, of.Onbuild):
                # BuildKit's histories have none of them.
                continue
            result = results.get(root)
            layers = result.layers if result is not None else before
            empty = layers == before
            before = layers
            # A time that nobody knows is none.
            times.append(None if empty or result is None else result.created_ns or None)
            entry: Json = {"created_by": told(step), "comment": _COMMENT}
            if empty:
                entry["empty_layer"] = True
            history.append(entry)
    inherited = len(target.chain()[0].history)
    filled = _filled(times)
    for number in range(inherited, len(history)):
        made_ns = filled[number] if time_ns is None else time_ns
        if made_ns is not None:
            history[number] = {"created": format_ns(made_ns), **history[number]}
    created_ns = (filled[-1] if filled else None) if time_ns is None else time_ns
    state = target.state
    made: Json = {
        "architecture": state.platform.get("architecture"), "author": state.author,
        "config": {key: value for key, value in sorted(state.config.items()) if value not in _EMPTY_VALUES},
        "created": None if created_ns is None else format_ns(created_ns), "history": history, "os": state.platform.get("os"),
        "rootfs": {"type": "layers", "diff_ids": [diff for _, diff in results[target.vertex].layers]},
        "variant": state.platform.get("variant"),
    }  # fmt: skip
    return {key: value for key, value in made.items() if value not in (None, "")}


def _time_of(entry: Json) -> int | None:
    try:
        return parse_ns(entry.get("created") or "")
    except ValueError:
        return None


def _filled(times: list[int | None]) -> list[int | None]:
    """Return times where every step has one, if any has.

    A step without a layer was made when the last layer before it was; those before the first new layer
    when that one was, as the base image's time says nothing of them.
    """
    first_gap = next((i for i, time in enumerate(times) if time is None), len(times))
    after = next((time for time in times[first_gap:] if time is not None), None)
    before = next((time for time in reversed(times[:first_gap]) if time is not None), None)
    current = before if after is None else after
    filled: list[int | None] = []
    for number, time in enumerate(times):
        if time is not None and number > first_gap:
            current = time
        filled.append(current if time is None else time)
    return filled


def told(step: Step) -> str:
    """Return what the history says of a step."""
    if step.shell:
        count = len(step.shown)
        words = [*((f"|{count}", *step.shown) if count else ()), step.comment]
        return f"RUN {' '.join(words)} # buildkit"
    if isinstance(step.instruction, of.Files):
        return f"{step.comment} # buildkit"
    if isinstance(step.instruction, of.Arg):
        return f"ARG {' '.join(step.shown)}"
    if isinstance(step.instruction, of.Expose):
        return f"EXPOSE [{' '.join(step.shown)}]"
    return step.comment
