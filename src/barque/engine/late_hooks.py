"""Hooks of CDI devices that run once their container has started, and when it has stopped."""

import json
import logging
import os
from typing import TYPE_CHECKING, Any

from barque.engine import commands
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
        env = dict(os.environ) if hook.get("env") is None else dict(item.partition("=")[::2] for item in hook["env"])
        longest_s = hook.get("timeout") or _LONGEST_S
        try:
            await commands.run(hook.get("args") or [hook["path"]], env, state, program=hook["path"], longest_s=longest_s)
        except (OSError, TimeoutError, ValueError) as error:
            log.warning("container %s: %s hook %s: %s", container.name, kind, hook["path"], error or "took too long")
