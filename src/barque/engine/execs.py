"""Further processes in running containers."""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections.abc import AsyncIterator, Awaitable
from typing import TYPE_CHECKING, Any

from barque.base.errors import BarqueError, ConflictError, InvalidInputError, NotFoundError
from barque.base.ids import new_id
from barque.engine import detach as detaching, exec_process, starting, types
from barque.engine.container import Container
from barque.keeper.client import KeeperError

if TYPE_CHECKING:
    from barque.engine.engine import Engine

Json = dict[str, Any]
_MOST = 2000
_FAILED = "OCI runtime exec failed: exec failed: unable to start container process: "


class Exec:
    """One exec instance."""

    __slots__ = ("attached", "config", "container", "done", "ended_s", "exit_code", "id", "keys", "pid", "running", "started")

    def __init__(self, container: Container, config: Json, keys: bytes) -> None:
        self.id = new_id()
        self.container = container
        self.config = config
        self.keys = keys
        self.pid = 0
        self.running = False
        self.started = False
        self.attached = False
        self.exit_code: int | None = None
        self.ended_s = 0.0
        self.done = asyncio.Event()

    @property
    def command(self) -> str:
        """Return the command line as events show it: a blank follows the program in any case."""
        program, *arguments = self.config["Cmd"]
        return f"{program} {' '.join(arguments)}"

_KILLED_S = 5.0
# Docker, too, keeps them for so long.
_ASKED_FOR_S = 300.0


class Execs:
    """All exec instances of an engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._execs: dict[str, Exec] = {}

    async def create(self, container: Container, config: Json, called: str) -> Json:
        """Prepare a process in a container that a client calls so; return {"Id"}.

        Raises:
            ConflictError: the container does not run.
            InvalidInputError: the request is wrong.
        """
        command = config.get("Cmd")
        if isinstance(command, str):
            command = [command]
        if not isinstance(command, list) or not command or not all(isinstance(c, str) for c in command):
            raise InvalidInputError("No exec command specified")
        for entry in config.get("Env") or []:
            if not isinstance(entry, str) or entry.startswith("=") or "\0" in entry:
                raise InvalidInputError(f"invalid environment variable: {entry}")
        workdir = config.get("WorkingDir") or ""
        if not isinstance(workdir, str) or not isinstance(config.get("User") or "", str):
            raise InvalidInputError("invalid JSON: WorkingDir and User must be strings")
        self._check_running(container, called)
        made = Exec(container, {**config, "Cmd": command}, detaching.parse_keys(config.get("DetachKeys") or ""))
        if len(self._execs) > _MOST:
            self._forget_old()
        self._execs[made.id] = made
        container.exec_ids.append(made.id)
        self._publish(made, f"exec_create: {made.command}")
        return {"Id": made.id}

    def _check_running(self, container: Container, called: str) -> None:
        if container.status == "paused":
            raise ConflictError(f"Container {called} is paused, unpause the container before exec")
        if container.status == "restarting":
            raise ConflictError(f"Container {container.id} is restarting, wait until the container is running")
        if not container.is_running:
            raise ConflictError(f"container {container.id} is not running")

    def _publish(self, made: Exec, action: str, **more: str) -> None:
        self._engine.publish(made.container, action, execID=made.id, **more)

    def is_running(self, exec_id: str) -> bool:
        """Tell whether an instance runs."""
        return exec_id in self._execs and self._execs[exec_id].running

    def any_to_come(self) -> bool:
        """Tell whether any instance runs, or was made and may still be started."""
        return any(made.running or (not made.started and made.container.is_running) for made in self._execs.values())

    def ended(self) -> list[Json]:
        """Return those that ended so lately that somebody may still ask for their exit codes, for `restore`."""
        early = time.monotonic() - _ASKED_FOR_S
        return [
            {"id": made.id, "container": made.container.id, "config": made.config, "keys": made.keys.hex(),
             "exit_code": made.exit_code, "ended_s": made.ended_s}
            for made in self._execs.values() if made.started and not made.running and made.ended_s > early
        ]  # fmt: skip

    def restore(self, rows: list[Json]) -> None:
        """Take over instances that had ended when an engine dozed off."""
        for row in rows:
            container = self._engine.containers_by_id.get(row["container"])
            if container is not None:
                made = self._execs[row["id"]] = Exec(container, row["config"], bytes.fromhex(row["keys"]))
                made.id, made.started, made.exit_code, made.ended_s = row["id"], True, row["exit_code"], row["ended_s"]
                made.done.set()
                container.exec_ids.append(made.id)

    def find(self, exec_id: str) -> Exec:
        """Return an instance by id.

        Raises:
            NotFoundError: there is none.
        """
        if exec_id in self._execs:
            return self._execs[exec_id]
        raise NotFoundError(f"No such exec instance: {exec_id}")

    async def start(self, exec_id: str, *, detach: bool, console_size: tuple[int, int] | None) -> types.Attachment | None:
        """Start it; return its streams unless detached.

        Raises:
            ConflictError: it was started before, or the container stopped.
            BarqueError: a detached start failed.
        """
        made = self.find(exec_id)
        if made.started:
            raise ConflictError(f"Error: Exec command {exec_id} has already run"
                                if not made.running else f"Error: Exec command {exec_id} is already running")  # fmt: skip
        self._check_running(made.container, made.container.id)
        made.started = made.running = True
        keeper = self._engine.keeper
        config = made.config
        rows, columns = console_size or config.get("ConsoleSize") or (0, 0)
        tty = bool(config.get("Tty"))
        sock = None
        asked = False
        attaching: asyncio.Task[socket.socket] | None = None
        try:
            if not detach:
                attaching = asyncio.ensure_future(keeper.attach(
                    made.container.id, made.id, stdin=bool(config.get("AttachStdin")),
                    stdout=bool(config.get("AttachStdout")), stderr=bool(config.get("AttachStderr")),
                ))  # fmt: skip
                # It is asked now, and answers while we find out what to start.
                await asyncio.sleep(0)
            try:
                process = exec_process.describe(self._engine, made.container, config, tty=tty)
            finally:
                sock = await attaching if attaching is not None else None
            self._publish(made, f"exec_start: {made.command}")
            asked = True
            starting = keeper.exec(
                made.container.id, made.id, process=process, tty=tty,
                open_stdin=bool(config.get("AttachStdin")) and not detach,
                seccomp=None if config.get("Privileged") else self._engine.seccomp_program(
                    made.container.host, external=False),
                console_size=(rows, columns) if tty and (rows or columns) else None,
            )  # fmt: skip
            if sock is not None and not tty:
                # The client takes the head of its answer while the process starts: why it did not is told as its output.
                made.attached = True
                outcome = self._engine.spawn(self._outcome(made, starting))
                return types.Attachment(sock, tty, made.keys, _told(outcome), None)
            started = await starting
        except (BarqueError, OSError) as error:
            if sock is not None:
                sock.close()
            text, failure = await self._failed(made, error)
            if detach:
                raise failure from error
            return types.Attachment(None, tty, b"", _said(text, tty=tty))
        except BaseException:
            if sock is not None:
                sock.close()
            if not asked:
                # Nobody will tell of its end: the client went before there was a process.
                self._never_began(made, 126)
                self._engine.spawn(self._forget_in_keeper(made))
            raise
        self._began(made, started)
        made.attached = sock is not None
        if sock is None:
            return None
        return types.Attachment(sock, tty, made.keys, None, lambda: self._publish(made, "exec_detach"))

    @staticmethod
    def _began(made: Exec, started: Json) -> None:
        made.pid = 0 if made.done.is_set() else started["pid"]

    async def _outcome(self, made: Exec, starting: Awaitable[Json]) -> str:
        """Wait for a start; return why it failed, empty where it did not."""
        try:
            self._began(made, await starting)
        except (BarqueError, OSError) as error:
            return (await self._failed(made, error))[0]
        return ""

    async def _failed(self, made: Exec, error: Exception) -> tuple[str, BarqueError]:
        """Take note of a start that failed; return why in words, and as the answer to who waits for the start alone."""
        text = str(error)
        if isinstance(error, KeeperError):
            text = _FAILED + text
        code = starting.exit_code_of(text)
        self._never_began(made, code if code in (126, 127) else 126)
        await self._forget_in_keeper(made)
        return text, InvalidInputError(text) if code in (126, 127) else BarqueError(text)

    @staticmethod
    def _never_began(made: Exec, code: int) -> None:
        made.running = False
        made.exit_code = code
        made.done.set()

    async def run(
        self, container: Container, command: list[str], *, most: int, timeout_s: float
    ) -> tuple[int | None, bytes]:
        """Run a command to its end; return its exit code (None: it took too long) and what it printed first."""
        made = self.find((await self.create(container, _probe(command), container.id))["Id"])
        output = bytearray()
        try:
            async with asyncio.timeout(timeout_s):
                await self._run(made, output, most)
            return made.exit_code or 0, bytes(output)
        except TimeoutError:
            await self._kill(made)
            return None, bytes(output)
        except asyncio.CancelledError:
            if made.running:
                self._engine.spawn(self._kill(made))
            raise
        finally:
            if not made.running:
                self._forget(made)

    async def _run(self, made: Exec, output: bytearray, most: int) -> None:
        attachment = await self.start(made.id, detach=False, console_size=None)
        # Without a terminal there is something before its output: why it did not begin, where it did not.
        assert attachment is not None and attachment.prelude is not None
        try:
            text = b"".join([chunk[8:] async for chunk in attachment.prelude])
            if text:
                raise BarqueError(text.decode(errors="replace").rstrip())
            assert attachment.sock is not None
            await _read_frames(attachment.sock, output, most)
        finally:
            if attachment.sock is not None:
                attachment.sock.close()
        await made.done.wait()

    async def _kill(self, made: Exec) -> None:
        try:
            await self._engine.keeper.signal(made.container.id, made.id, 9)
            await asyncio.wait_for(made.done.wait(), _KILLED_S)
        except (BarqueError, TimeoutError):
            return

    def exited(self, event: Json) -> None:
        """Take note of an exec process's end."""
        made = self._execs.get(event["exec_id"])
        if made is None:
            return
        made.running = False
        made.exit_code = event["exit_code"]
        made.ended_s = time.monotonic()
        made.pid = 0
        made.done.set()
        self._publish(made, "exec_die", exitCode=str(event["exit_code"]))
        self._engine.spawn(self._forget_in_keeper(made))
        if len(self._execs) > _MOST:
            self._forget_old()

    async def _forget_in_keeper(self, made: Exec) -> None:
        try:
            await self._engine.keeper.forget(made.container.id, made.id)
        except BarqueError:
            return

    def container_ended(self, container: Container) -> None:
        """End all instances of a container whose first process has ended."""
        for exec_id in container.exec_ids:
            made = self._execs.get(exec_id)
            if made is not None and made.running:
                made.running = False
                made.exit_code = 137
                made.ended_s = time.monotonic()
                made.done.set()

    def drop_container(self, container: Container) -> None:
        """Forget all instances of a removed container."""
        for exec_id in container.exec_ids:
            self._execs.pop(exec_id, None)

    def _forget(self, made: Exec) -> None:
        self._execs.pop(made.id, None)
        if made.id in made.container.exec_ids:
            made.container.exec_ids.remove(made.id)

    def _forget_old(self) -> None:
        """Forget the oldest half of those that have ended, or else of those that nobody started."""
        idle = [e for e in self._execs.values() if not e.running]
        for made in ([e for e in idle if e.started] or idle)[: _MOST // 2]:
            self._forget(made)

    async def resize(self, exec_id: str, height: int, width: int) -> None:
        """Set the terminal's size.

        Raises:
            ConflictError: it does not run.
        """
        made = self.find(exec_id)
        try:
            await self._engine.keeper.resize(made.container.id, made.id, height, width)
        except KeeperError as error:
            raise ConflictError(f"cannot resize exec {exec_id}: {error}") from error

    async def inspect(self, exec_id: str) -> Json:
        """Return an instance as the API shows it.

        Who saw the end of the output asks for the exit code at once: a process that is ending is waited for.
        """
        made = self.find(exec_id)
        if made.running and made.attached:
            try:
                await asyncio.wait_for(made.done.wait(), 2 if _is_gone(made.pid) else 0.02)
            except TimeoutError:
                pass
        config = made.config
        command = config["Cmd"]
        return {
            "ID": made.id, "Running": made.running, "ExitCode": made.exit_code,
            "ProcessConfig": {
                "tty": bool(config.get("Tty")), "entrypoint": command[0], "arguments": command[1:],
                "privileged": bool(config.get("Privileged")),
                **({"user": config["User"]} if config.get("User") else {}),
            },
            "OpenStdin": bool(config.get("AttachStdin")), "OpenStderr": bool(config.get("AttachStderr")),
            "OpenStdout": bool(config.get("AttachStdout")), "CanRemove": False,
            "ContainerID": made.container.id,
            "DetachKeys": config.get("DetachKeys") or "", "Pid": made.pid,
        }  # fmt: skip


def _is_gone(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] in (b"Z", b"X")
    except OSError:
        return True


async def _told(outcome: asyncio.Task[str]) -> AsyncIterator[bytes]:
    """Yield why a start failed, nothing where it did not; who listens no more does not end the start."""
    text = await asyncio.shield(outcome)
    if text:
        async for chunk in _said(text, tty=False):
            yield chunk


async def _said(text: str, *, tty: bool) -> AsyncIterator[bytes]:
    data = (text.replace("\n", " ") + "\r\n").encode()
    yield data if tty else struct.pack(">BxxxI", 1, len(data)) + data


def _probe(command: list[str]) -> Json:
    return {"Cmd": command, "AttachStdout": True, "AttachStderr": True}


async def _read_frames(sock: socket.socket, output: bytearray, most: int) -> None:
    """Read a framed stream to its end, keeping the first bytes and one more."""
    loop = asyncio.get_running_loop()
    buffer = b""
    while data := await loop.sock_recv(sock, 65536):
        buffer += data
        while len(buffer) >= 8:
            size = int.from_bytes(buffer[4:8], "big")
            if len(buffer) < 8 + size:
                break
            output += buffer[8 : 8 + size][: most + 1 - len(output)]
            buffer = buffer[8 + size :]
