"""Images that a classic build takes as its cache: their histories tell what steps made."""

from collections.abc import Iterable
from typing import Any

from barque.base.times import parse_ns
from barque.builder.cache import Record
from barque.builder.results import Result
from barque.builder.stages import StageState
from barque.images.model import Image

Json = dict[str, Any]


class StageUnderWay:
    """A stage of a classic build: its state, layers, image and history so far."""

    __slots__ = ("history", "image", "result", "state")

    def __init__(self, state: StageState, result: Result, image: str, history: list[Json]) -> None:
        self.state, self.result, self.image, self.history = state, result, image, history


def record_from(images: Iterable[Image], work: StageUnderWay, text: str, key: str) -> Record | None:
    """Return a record of the next step out of the history of one of the images; None where none has it."""
    for image in images:
        record = _record_of(image, work, text, key)
        if record is not None:
            return record
    return None


def _record_of(image: Image, work: StageUnderWay, text: str, key: str) -> Record | None:
    """Return a record that an image's history gives for the step after what is built so far."""
    history = image.config.get("history") or []
    count = len(work.history)
    if len(history) <= count or [h.get("created_by") for h in history[:count]] != [
        h.get("created_by") for h in work.history
    ]:
        return None
    depth = len(work.result.layers)
    entry = history[count]
    if entry.get("created_by") != text or image.diff_ids[:depth] != [diff for _, diff in work.result.layers]:
        return None
    created = parse_ns(entry.get("created") or "")
    if entry.get("empty_layer"):
        return Record(key, work.result.top, "", work.result.top, "image", text, created)
    if len(image.chain) <= depth:
        return None
    return Record(key, image.chain[depth], image.diff_ids[depth], work.result.top, "image", text, created)
