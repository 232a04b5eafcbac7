"""Whether the engine has anything to do that needs its process: if not, the daemon may doze."""

from typing import TYPE_CHECKING

from barque.engine.container import Container

if TYPE_CHECKING:
    from barque.engine.engine import Engine


def is_quiet(engine: "Engine") -> bool:
    """Tell whether nothing happens, and nothing will but by a client or by the end of a container.

    Health checks, time limits, restarts to come, logs for servers, published ports and names of user-defined networks
    need the process.
    """
    return (
        engine.keeper.is_idle
        and not engine.is_busy
        and not engine.events.listeners
        and not engine.step_exits
        and not engine.step_ends
        and not engine.early_exits
        and not engine.execs.any_to_come()
        and engine.database.failed is None
        and not engine.logs.is_delivering
        and not engine.network.needs_process()
        and all(map(_rests, engine.containers_by_id.values()))
    )


def _rests(container: Container) -> bool:
    return (
        container.health_task is None
        and container.restart_task is None
        and container.status != "restarting"
        and not container.lock.locked()
        and not container.waiters
    )
