"""`exec`."""

import sys

from barque.cli.session import Ends, Session, resize
from barque.cli.terminal import check_tty, size
from barque.cli.verb import Invocation
from barque.client.api import quote


def execute(call: Invocation) -> int:
    """Run a command in a running container and return its exit code."""
    options = call.options
    detach, tty = options["detach"], options["tty"]
    ends = Ends(options["interactive"] and not detach, not detach, not detach, tty)
    if not detach:
        check_tty(ends.stdin, tty)
    environment: list[str] = []
    for path in options["env-file"]:
        from barque.cli.env_files import read_file

        environment += read_file(path, from_environment=True)
    rows, columns = size() if tty and not detach else (0, 0)
    body = {
        "User": options["user"],
        "Privileged": options["privileged"],
        "Tty": tty,
        "AttachStdin": ends.stdin,
        "AttachStderr": ends.stderr,
        "AttachStdout": ends.stdout,
        "DetachKeys": options["detach-keys"],
        "Env": (environment + options["env"]) or None,
        "WorkingDir": options["workdir"],
        "Cmd": call.words[1:],
    }
    if rows:
        body["ConsoleSize"] = [rows, columns]
    identity = call.api.post(f"/containers/{quote(call.words[0])}/exec", body).get("Id")
    if not identity:
        print("exec ID empty", file=sys.stderr)
        return 1
    start = {"Detach": detach, "Tty": tty}
    if detach:
        call.api.post(f"/exec/{identity}/start", start)
        return 0
    if rows:
        start["ConsoleSize"] = [rows, columns]
    return _interactive(call, identity, start, ends)


def _interactive(call: Invocation, identity: str, start: dict[str, object], ends: Ends) -> int:
    path = f"/exec/{identity}"
    connection = call.api.hijack(f"{path}/start", json_body=start)
    session = Session(connection, ends, call.options["detach-keys"])
    if ends.tty:
        from barque.cli.signals import SignalPipe

        side = call.api.beside()
        with SignalPipe(lambda: resize(side, path), None) as signals:
            resize(side, path)
            session.run(signals)
    else:
        session.run()
    if session.detached:
        return 0
    return int(call.api.get(f"{path}/json").get("ExitCode") or 0)
