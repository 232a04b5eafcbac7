"""The keeper's operations: what the daemon can ask."""

import os
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from barque.keeper import adopting, records
from barque.keeper.attachments import Attachment
from barque.keeper.connection import Connection
from barque.keeper.ports import Reply, RequestError

if TYPE_CHECKING:
    from barque.keeper.server import Server


def _hello(server: "Server", connection: Connection, message: dict[str, Any], fds: list[int], reply: Reply) -> None:
    hello = {name: message[name] for name in ("daemon_argv", "daemon_env", "restart")}
    if not isinstance(hello["daemon_argv"], list) or not isinstance(hello["daemon_env"], dict):
        raise RequestError("request", 22, "daemon_argv must be a list, daemon_env an object")
    connection.hello = hello
    if fds:
        connection.stderr = fds.pop(0)
    server.leaving = False
    server.reviver.connected()
    reply.ok({"pid": os.getpid(), "recovered": server.recovered})


def _adopt(server: "Server", _: Connection, message: dict[str, Any], fds: list[int], reply: Reply) -> None:
    server.adoptable[server.key(message)] = dict(zip(message["names"], fds, strict=True))
    fds.clear()
    reply.ok({})


def _recover(server: "Server", _: Connection, message: dict[str, Any], fds: list[int], reply: Reply) -> None:
    if not server.recovered:
        server.recovered = True
        adopting.recover(server)
    reply.ok({})


def _start(server: "Server", _: Connection, message: dict[str, Any], fds: list[int], reply: Reply) -> None:
    container, _exec = server.key({**message, "exec_id": None})
    task = server.new_task((container, None))
    server.begin(task, reply, lambda: server.starter.start(server, task, message, fds, reply))


def _exec(server: "Server", _: Connection, message: dict[str, Any], fds: list[int], reply: Reply) -> None:
    key = server.key(message)
    if key[1] is None:
        raise RequestError("request", 22, "exec_id is missing")
    main = server.running((key[0], None))
    task = server.new_task(key)
    server.begin(task, reply, lambda: server.starter.exec(server, task, main, message, reply))


def _attach(server: "Server", _: Connection, message: dict[str, Any], fds: list[int], reply: Reply) -> None:
    key = server.key(message)
    task = server.tasks.get(key)
    if task is not None and task.raw_status is not None and key not in server.starting:
        if key[1] is not None:
            raise RequestError("attach", 3, "the process has ended")
        task = None
    wants = tuple(n for n, name in ((1, "stdout"), (2, "stderr")) if message.get(name))
    client = Attachment(fds.pop(0), wants, bool(message.get("stdin")))
    if task is None:
        server.waiting.setdefault(key, []).append(client)
    else:
        client.begin(task)
    reply.ok({})


def _signal(server: "Server", _: Connection, message: dict[str, Any], fds: list[int], reply: Reply) -> None:
    task = server.running(server.key(message))
    signal.pidfd_send_signal(task.pidfd, message["signo"])
    reply.ok({})


def _resize(server: "Server", _: Connection, message: dict[str, Any], fds: list[int], reply: Reply) -> None:
    task = server.running(server.key(message))
    if task.console < 0:
        raise RequestError("resize", 25, "the process has no terminal")
    height, width = message["h"], message["w"]
    if not (0 <= height <= 0xFFFF and 0 <= width <= 0xFFFF):
        raise RequestError("resize", 22, "terminal size out of range")
    task.resize(height, width)
    reply.ok({})


def _close_stdin(server: "Server", _: Connection, message: dict[str, Any], fds: list[int], reply: Reply) -> None:
    task = server.running(server.key(message))
    if task.stdin is not None and task.stdin.close_after_queue():
        task.close_stdin()
    reply.ok({})


def _log_reopen(server: "Server", _: Connection, message: dict[str, Any], fds: list[int], reply: Reply) -> None:
    task = server.running(server.key(message))
    if task.log is not None:
        task.log.reopen()
    reply.ok({})


def _log_clear(server: "Server", _: Connection, message: dict[str, Any], fds: list[int], reply: Reply) -> None:
    task = server.running(server.key(message))
    if task.log is not None:
        task.log.clear()
    reply.ok({})


def _list(server: "Server", _: Connection, message: dict[str, Any], fds: list[int], reply: Reply) -> None:
    reply.ok({"tasks": [records.row(task) for task in server.tasks.values()]})


def _hold(server: "Server", _: Connection, message: dict[str, Any], fds: list[int], reply: Reply) -> None:
    names, copies = server.running(server.key(message)).held()
    reply.ok({"held": names}, copies)


def _exited(server: "Server", _: Connection, message: dict[str, Any], fds: list[int], reply: Reply) -> None:
    task = server.tasks.get(server.key(message))
    if task is not None and task.raw_status is None and type(message["status"]) is int:
        server.ended(task, message["status"])
    reply.ok({})


def _forget(server: "Server", _: Connection, message: dict[str, Any], fds: list[int], reply: Reply) -> None:
    container, exec_id = key = server.key(message)
    if key in server.tasks and server.tasks[key].raw_status is None:
        raise RequestError("forget", 16, f"process of container {container} is running")
    for other in tuple(server.waiting):
        if other == key or (exec_id is None and other[0] == container):
            for client in server.waiting.pop(other):
                client.drop()
    for other, task in tuple(server.tasks.items()):
        same = other == key or (exec_id is None and other[0] == container)
        if same and task.raw_status is not None:
            server.drop_records(task)
    reply.ok({})


def _ping(server: "Server", _: Connection, message: dict[str, Any], fds: list[int], reply: Reply) -> None:
    reply.ok({"pid": os.getpid()})


def _goodbye(server: "Server", connection: Connection, message: dict[str, Any], fds: list[int], reply: Reply) -> None:
    connection.said_goodbye = True
    reply.ok({})


def _shutdown(server: "Server", connection: Connection, message: dict[str, Any], fds: list[int], reply: Reply) -> None:
    connection.said_goodbye = True
    reply.ok({"stopping": not server.is_busy()})
    server.leaving = True
    server.stop_when_idle()


Operation = Callable[["Server", Connection, dict[str, Any], list[int], Reply], None]
OPERATIONS: dict[str, Operation] = {
    "hello": _hello, "adopt": _adopt, "recover": _recover, "start": _start, "exec": _exec, "attach": _attach,
    "signal": _signal, "resize": _resize, "close_stdin": _close_stdin, "log_reopen": _log_reopen,
    "log_clear": _log_clear, "list": _list, "hold": _hold, "exited": _exited, "forget": _forget, "ping": _ping,
    "goodbye": _goodbye, "shutdown": _shutdown,
}  # fmt: skip
