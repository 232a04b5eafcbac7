"""`system check`: is all that the engine keeps on disk what its rows say?"""

import asyncio
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from barque.base.errors import BarqueError, NotFoundError
from barque.base.ids import is_full_id, short
from barque.engine.volume_drivers import LOCAL
from barque.images.checking import Checker, Problem
from barque.storage.snapshots import ACTIVE

if TYPE_CHECKING:
    from barque.engine.engine import Engine

Json = dict[str, Any]
_AGAIN_S = 1.0


async def check(engine: "Engine", *, read: bool, repair: bool) -> Json:
    """Look at everything and return what is wrong.

    Args:
        engine: the engine; it goes on working meanwhile.
        read: read every blob and compare its digest.
        repair: repair what can be repaired.
    """
    await engine.database.flush()
    checker = Checker(engine.image_store, read=read, repair=repair)
    problems = await asyncio.to_thread(lambda: list(checker.run()))
    problems += list(_containers(engine))
    problems += await _strangers(engine, repair=repair)
    problems += list(_volumes(engine))
    counts = {**checker.counts, "Containers": len(engine.containers_by_id), "Volumes": len(engine.volumes.rows)}
    rows = [{"Kind": p.kind, "Subject": p.subject, "Problem": p.text, "Repaired": p.repaired} for p in problems]
    return {"Checked": counts, "Problems": rows, "Consistent": all(p.repaired for p in problems)}


def _containers(engine: "Engine") -> Iterator[Problem]:
    """Each container has its writable layer, its folder and its image's layers."""
    for container in list(engine.containers_by_id.values()):
        if container.status == "removing":
            continue
        name = container.name
        try:
            engine.snapshots.stat(container.id)
            engine.snapshots.places(container.id)
        except NotFoundError as error:
            yield Problem("container", name, f"{error}; remove it: barque rm -f {short(container.id)}")
        if not os.path.isdir(engine.folder(container.id)):
            yield Problem("container", name, f"its folder {engine.folder(container.id)} is missing")


def _unowned(engine: "Engine") -> set[str]:
    return {
        info.name for info in engine.snapshots.walk()
        if info.kind == ACTIVE and is_full_id(info.name) and info.name not in engine.containers_by_id
    }  # fmt: skip


async def _strangers(engine: "Engine", *, repair: bool) -> list[Problem]:
    """Writable layers of containers that do not exist; one that is being created has no row for a moment."""
    found = _unowned(engine)
    if found:
        await asyncio.sleep(_AGAIN_S)
        found &= _unowned(engine)
    problems = []
    for name in sorted(found):
        repaired = repair
        if repair:
            try:
                engine.snapshots.remove(name)
            except (BarqueError, OSError):
                repaired = False
        problems.append(Problem("snapshot", name, "it belongs to no container", repaired))
    return problems


def _volumes(engine: "Engine") -> Iterator[Problem]:
    for name, row in list(engine.volumes.rows.items()):
        if row["driver"] == LOCAL and not os.path.isdir(engine.volumes.path(name)):
            yield Problem("volume", name, f"its folder {engine.volumes.path(name)} is missing")
