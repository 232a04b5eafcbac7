"""Hooks of CDI devices that run once their container has started, and when it has stopped."""

import asyncio
import json
import logging
import os
from typing import TYPE_CHECKING, Any

from barque.engine.container import Container
from barque.runtime import hooks

if TYPE_CHECKING:
    from barque.engine.engine import Engine

Json = dict[str, Any]
log = logging.getLogger(__name__)
_LONGEST_S = 60.0


def keep(container: Container, spec: Json) -> None:
    """Note the hooks of a container's config.json that come later; they are kept with its row."""
    listed = spec.get("hooks") or {}
    late = {kind: listed[kind] for kind in ("poststart", "poststop") if listed.get(kind)}
    if late:
        container.row["hooks"] = late
    else:
        container.row.pop("hooks", None)


async def run(engine: "Engine", container: Container, kind: str, pid: int = 0) -> None:
    """Run those of a kind one after the other, whatever becomes of each."""
    status = "running" if pid else "stopped"
    state = json.dumps(hooks.state(container.id, engine.bundle(container.id), status, pid, None)).encode()
    for hook in (container.row.get("hooks") or {}).get(kind) or []:
        try:
            await asyncio.wait_for(_run(hook, state), hook.get("timeout") or _LONGEST_S)
        except (OSError, TimeoutError, ValueError) as error:
            log.warning("container %s: %s hook %s: %s", container.name, kind, hook["path"], error or "took too long")


async def _run(hook: Json, state: bytes) -> None:
    env = dict(os.environ) if hook.get("env") is None else dict(item.partition("=")[::2] for item in hook["env"])
    words = hook.get("args") or [hook["path"]]
    child = await asyncio.create_subprocess_exec(
        *words, executable=hook["path"], env=env, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        await child.communicate(state)
    except BaseException:
        child.kill()
        raise
    if child.returncode:
        raise OSError(f"exit status {child.returncode}")
