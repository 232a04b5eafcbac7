"""A keeper whose processes are plain children: python standin.py EXEC_ROOT LISTEN_FD."""

import json
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../../src"))

from barque.keeper.attachments import StdinPipe  # noqa: F401
from barque.keeper.logfile import LogSettings
from barque.keeper.main import serve
from barque.keeper.stdio import open_stdio


class PlainStarter:
    def start(self, server, task, request, fds, reply):
        with open(f"{request['bundle']}/config.json") as file:
            process = json.load(file)["process"]
        self._run(server, task, request, process, reply)

    def exec(self, server, task, main, request, reply):
        task.stdin_once = True
        self._run(server, task, request, request["process"], reply)

    def _run(self, server, task, request, process, reply):
        task.tty = request["tty"]
        task.open_stdin = request["open_stdin"]
        task.stdin_once = task.stdin_once or request.get("stdin_once", False)
        log = request.get("log")
        settings = LogSettings(log) if log else None
        stdio = open_stdio(task.open_stdin, task.tty)
        console = -1
        inner = stdio.child
        if task.tty:
            console, slave = os.openpty()
            if request["console_size"]:
                task.console = console
                task.resize(*request["console_size"])
            inner = (slave, slave, slave)
        copies = [os.dup(fd) for fd in inner]
        actions = [(os.POSIX_SPAWN_DUP2, fd, n) for n, fd in enumerate(copies)]
        try:
            task.pid = os.posix_spawnp(
                process["args"][0],
                process["args"],
                os.environ,
                file_actions=actions,
                setsid=True,
                setsigdef=[13, 17, 1, 2, 15],
            )
        except OSError:
            stdio.close()
            raise
        finally:
            for fd in copies:
                os.close(fd)
        if task.tty:
            os.close(slave)
        stdio.close_child()
        task.pidfd = os.pidfd_open(task.pid)
        server.children.expect(task.pid, lambda status: server.ended(task, status))
        from barque.keeper.starting import connect

        connect(task, stdio, console, settings, request["console_size"])
        server.started(task, reply, {"warnings": []})

    def cgroup(self, path):
        return None

    def removed(self, server, task):
        return


sys.exit(serve(sys.argv[1], int(sys.argv[2]), PlainStarter()))
