"""Start, stop, kill, exit, restart: a container's ways from state to state."""

import asyncio
import signal as signals
import time
from typing import TYPE_CHECKING, Any

from barque.base.errors import BarqueError, ConflictError, NotModifiedError
from barque.base.signals import parse_signal
from barque.engine import container_mounts, endpoints, health, late_hooks, pausing, removal, starting, uptime, waiting
from barque.engine.container import Container
from barque.keeper.client import KeeperError

if TYPE_CHECKING:
    from barque.engine.engine import Engine

Json = dict[str, Any]
_LONGEST_BACK_OFF_S = 60.0
_RESET_AFTER_NS = 10_000_000_000


class Lifecycle:
    """Moves containers of one engine from state to state."""

    def __init__(self, engine: "Engine") -> None:
        self._engine = engine

    async def start(self, container: Container) -> None:
        """Start it.

        Raises:
            NotModifiedError: it runs.
            ConflictError: it is paused or being removed.
            BarqueError: the start failed.
        """
        async with container.lock:
            if container.status == "paused":
                raise ConflictError("cannot start a paused container, try unpause instead")
            if container.status == "running":
                raise NotModifiedError("container is already running")
            if container.status in ("removing", "dead"):
                raise ConflictError("container is marked for removal and cannot be started")
            self.cancel_restart(container)
            container.state["stopped_by_user"] = False
            container.back_off = 0.1
            container.row["restart_count"] = 0
            await self._start(container)

    async def _start(self, container: Container) -> None:
        try:
            await starting.start(self._engine, container)
        except BaseException as error:
            self._start_failed(container, error)
            if container.host.get("AutoRemove"):
                self._engine.spawn(removal.auto_remove(self._engine, container))
            if isinstance(error, OSError):
                # The file is the engine's own affair.
                reason = (error.strerror or str(error)).lower()
                raise BarqueError(f"cannot start container {container.id}: {reason}") from error
            raise

    def _start_failed(self, container: Container, error: BaseException) -> None:
        state = container.state
        code = getattr(error, "exit_code", 128)
        state.update(error=(error.strerror or "").lower() if isinstance(error, OSError) else str(error), exit_code=code, pid=0)
        if state["status"] not in ("created",) or code in (126, 127):
            state["status"] = "created" if not state["started_before"] else "exited"
        self._engine.network.release(container.id)
        container.sandbox = None
        self._engine.changed(container)
        self._engine.save(container)
        waiting.settle(container, "not-running")

    # Exits.

    def exited(self, container: Container, event: Json) -> None:
        """Take note of the first process's end, which the keeper reports once the logs are on file."""
        state = container.state
        if container.pid == 0:
            return
        engine = self._engine
        ran_ns = uptime.now_ns() - container.began_ns
        oom = bool(event.get("oom_killed"))
        state.update(pid=0, exit_code=event["exit_code"], finished_ns=event["at_ns"], oom_killed=oom, error="")
        state["status"] = "exited"
        health.stop(container)
        engine.time_limits.end(container)
        engine.network.release(container.id)
        container.sandbox = None
        starting.clean(engine, container)
        if oom:
            engine.publish(container, "oom")
        duration = str(max(ran_ns, 0) // 1_000_000_000)
        engine.publish(container, "die", execDuration=duration, exitCode=str(event["exit_code"]))
        endpoints.publish_events(engine, container, "disconnect")
        container_mounts.tell_unmounts(engine, container.row["mounts"], container)
        again = self._wants_restart(container, ran_ns)
        if again:
            state["status"] = "restarting"
        engine.changed(container)
        engine.save(container)
        container.exited.set()
        container.started.clear()
        # An exit ends both waits, whether or not a restart follows.
        waiting.settle(container, "not-running")
        waiting.settle(container, "next-exit")
        engine.execs.container_ended(container)
        engine.spawn(self._after_exit(container, again))

    async def _after_exit(self, container: Container, again: bool) -> None:
        if container.row.get("hooks"):
            await late_hooks.run(self._engine, container, "poststop")
        try:
            await self._engine.keeper.forget(container.id)
        except BarqueError:
            pass
        if again:
            container.restart_task = self._engine.spawn(self._restart_later(container))
        elif container.host.get("AutoRemove"):
            await removal.auto_remove(self._engine, container)

    def _wants_restart(self, container: Container, ran_ns: int) -> bool:
        policy = container.host["RestartPolicy"]
        name = policy["Name"]
        if container.state["stopped_by_user"] or self._engine.closing or name in ("", "no"):
            return False
        if ran_ns > _RESET_AFTER_NS:
            container.back_off = 0.1
        if name == "on-failure":
            most = policy.get("MaximumRetryCount") or 0
            if container.state["exit_code"] == 0 or (most and container.row["restart_count"] >= most):
                return False
        return True

    async def _restart_later(self, container: Container) -> None:
        """Start anew after the back-off, for as long as starting fails and the policy says so."""
        while True:
            delay = container.back_off
            container.back_off = min(delay * 2, _LONGEST_BACK_OFF_S)
            await asyncio.sleep(delay)
            if container.restart_task is asyncio.current_task():
                # A start that has begun is waited for, not cancelled: the keeper would go on with it.
                container.restart_task = None
            async with container.lock:
                if container.status != "restarting" or container.state["stopped_by_user"]:
                    return
                container.row["restart_count"] += 1
                try:
                    await starting.start(self._engine, container)
                    return
                except (BarqueError, OSError) as error:
                    self._start_failed(container, error)
                    if not self._wants_restart(container, 0):
                        return
                    container.state["status"] = "restarting"
                    self._engine.changed(container)

    def cancel_restart(self, container: Container) -> None:
        """Let no restart come that its policy asked for."""
        task, container.restart_task = container.restart_task, None
        if task is not None and task is not asyncio.current_task():
            task.cancel()

    # Stopping.

    async def stop(self, container: Container, signal: str, timeout_s: int | None) -> None:
        """Stop it: the signal, and SIGKILL after the timeout (negative: never).

        Raises:
            NotModifiedError: it does not run.
        """
        if not container.is_running and container.status != "restarting":
            raise NotModifiedError("container is already stopped")
        number = parse_signal(signal or container.config.get("StopSignal") or "SIGTERM")
        if timeout_s is None:
            timeout_s = container.config.get("StopTimeout")
        container.state["stopped_by_user"] = True
        self._engine.save(container)
        await self.end(container, number, 10 if timeout_s is None else timeout_s)
        self._engine.publish(container, "stop")

    async def end(self, container: Container, number: int, timeout_s: float) -> None:
        """Send the signal, and SIGKILL after the timeout (negative: never); return once it has ended.

        Raises:
            BarqueError: it does not end.
        """
        await self._end_restarts(container)
        if not container.is_running:
            return
        await pausing.thaw(self._engine, container)
        await self._signal(container, number)
        try:
            await asyncio.wait_for(container.exited.wait(), None if timeout_s < 0 else max(timeout_s, 0.001))
        except TimeoutError:
            await self._signal(container, signals.SIGKILL)
            try:
                await asyncio.wait_for(container.exited.wait(), 10)
            except TimeoutError:
                raise BarqueError(f"cannot stop container: {container.id}: tried to kill container, "
                                  "but did not receive an exit event") from None  # fmt: skip
        # An exit that raced with us may have asked for a restart before the user's wish was known.
        await self._end_restarts(container)

    async def _end_restarts(self, container: Container) -> None:
        """Let no restart come, and wait for one that has begun."""
        self.cancel_restart(container)
        async with container.lock:
            if container.status == "restarting":
                self._give_up_restart(container)

    def _give_up_restart(self, container: Container) -> None:
        container.state["status"] = "exited"
        self._engine.changed(container)
        self._engine.save(container)
        waiting.settle(container, "not-running")

    async def _signal(self, container: Container, number: int, *, quiet: bool = True) -> None:
        # Told before it is sent: the end that it may bring is told by another path.
        if container.is_running:
            self._engine.publish(container, "kill", signal=str(int(number)))
        try:
            await self._engine.keeper.signal(container.id, None, number)
        except KeeperError:
            if not quiet:
                raise

    async def kill(self, container: Container, signal: str) -> None:
        """Send a signal.

        Raises:
            ConflictError: it does not run.
        """
        number = parse_signal(signal or "SIGKILL")
        if not container.is_running:
            if container.status == "restarting":
                container.state["stopped_by_user"] = True
                await self._end_restarts(container)
                if not container.is_running:
                    return
            else:
                raise ConflictError(f"container {container.id} is not running")
        stop = parse_signal(container.config.get("StopSignal") or "SIGTERM")
        if number in (signals.SIGKILL, stop):
            container.state["stopped_by_user"] = True
            self._engine.save(container)
        if number == signals.SIGKILL:
            await pausing.thaw(self._engine, container)
        try:
            await self._signal(container, number, quiet=False)
        except KeeperError as error:
            raise ConflictError(str(error)) from error
        if number == signals.SIGKILL:
            try:
                await asyncio.wait_for(container.exited.wait(), 10)
            except TimeoutError:
                pass

    async def restart(self, container: Container, signal: str, timeout_s: int | None) -> None:
        """Stop it where it runs, and start it."""
        if container.is_running or container.status == "restarting":
            stopped_by_user = container.state["stopped_by_user"]
            auto, container.auto_removing = container.auto_removing, True
            try:
                await self.stop(container, signal, timeout_s)
                await self._engine.keeper.forget(container.id)
            finally:
                container.state["stopped_by_user"] = stopped_by_user
                container.auto_removing = auto
        await self.start(container)
        self._engine.publish(container, "restart")

    async def stop_all(self) -> None:
        """Stop everything that runs, for the engine's own end."""
        running = [c for c in self._engine.containers_by_id.values() if c.is_running or c.status == "restarting"]
        await asyncio.gather(*(self._stop_for_shutdown(c) for c in running))

    async def _stop_for_shutdown(self, container: Container) -> None:
        limit = container.config.get("StopTimeout")
        seconds = 10 if limit is None else limit
        number = parse_signal(container.config.get("StopSignal") or "SIGTERM")
        try:
            await self.end(container, number, min(seconds, self._engine.config.shutdown_timeout_s))
        except BarqueError:
            return


def now_ns() -> int:
    """Return the time since the epoch in nanoseconds."""
    return time.time_ns()
