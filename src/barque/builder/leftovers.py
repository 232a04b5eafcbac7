"""Containers that a build leaves behind: of a failed command, or of every step with --rm=false."""

import os
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from barque.engine.container import Container
from barque.engine.create import fill_host, merge
from barque.engine.names import random_name
from barque.engine.steps import settle_root

if TYPE_CHECKING:
    from barque.engine.engine import Engine

Json = dict[str, Any]


class Leftover(NamedTuple):
    """A step's container: its id, how its command ended, the command."""

    name: str
    exit_code: int
    created_only: bool
    command: list[str] = []  # noqa: RUF012 - never changed


async def keep(engine: "Engine", left: Leftover, config: Json, image: str, top: str) -> None:
    """Let a step's container be one that users see.

    Args:
        engine: the engine.
        left: the container.
        config: the stage's run config.
        image: id of the image that it was made from, empty for none.
        top: chain id to stand on; empty: its snapshot is still there.
    """
    from barque.engine.container import new_state

    if top or left.created_only:
        engine.snapshots.prepare(left.name, top)
    else:
        settle_root(engine.snapshots, left.name)
    host: Json = {}
    fill_host(engine, host)
    host["LogConfig"] = {"Type": "none", "Config": {}}
    made = merge({"Image": image, "Cmd": left.command or None, "Entrypoint": []}, config)
    if not made.get("Cmd"):
        made["Cmd"] = ["/bin/sh"]
    made["Hostname"] = left.name[:12]
    state = new_state()
    now = time.time_ns()
    if not left.created_only:
        state.update(status="exited", exit_code=left.exit_code, started_ns=now, finished_ns=now, started_before=True)
    name = random_name(lambda n: n in engine.by_name)
    engine.reserve_name(name, left.name)
    os.makedirs(engine.folder(left.name), mode=0o710, exist_ok=True)
    row = {
        "id": left.name, "name": name, "created_ns": now, "image": image, "image_ref": image, "path": made["Cmd"][0],
        "args": made["Cmd"][1:], "config": made, "host": host, "networking": {}, "mounts": [], "restart_count": 0,
        "state": state, "log_path": "",
    }  # fmt: skip
    container = Container(row)
    engine.add(container)
    engine.save(container)
    await engine.database.flush()
