"""`attach` and `start`."""

from __future__ import annotations

import sys

from barque.base.errors import InvalidInputError, UnsupportedError
from barque.cli.running import attach_streams, begin_wait, wait_result, wait_with_signals, watch_signals
from barque.cli.session import Ends, Session, resize
from barque.cli.terminal import check_tty
from barque.cli.verb import Invocation, for_each
from barque.client.api import quote
from barque.client.http import ApiError

TYPE_CHECKING = False  # the module typing costs every start of the command milliseconds
if TYPE_CHECKING:
    from typing import Any


def attach(call: Invocation) -> int:
    """Join a running container's streams and return its exit code."""
    name = call.words[0]
    details = call.api.get(f"/containers/{quote(name)}/json")
    state = details["State"]
    if not state.get("Running"):
        raise InvalidInputError("You cannot attach to a stopped container, start it first")
    if state.get("Paused"):
        raise InvalidInputError("You cannot attach to a paused container, unpause it first")
    if state.get("Restarting"):
        raise InvalidInputError("You cannot attach to a restarting container, wait until it is running")
    config = details["Config"]
    options = call.options
    ends = Ends(not options["no-stdin"] and bool(config.get("OpenStdin")), True, True, bool(config.get("Tty")))
    check_tty(ends.stdin, ends.tty)
    keys = options["detach-keys"]
    session = Session(attach_streams(call.api, details["Id"], ends, keys), ends, keys)
    waiting = begin_wait(call.api, details["Id"], "")
    with watch_signals(call.api, details["Id"], tty=ends.tty, proxy=options["sig-proxy"]) as signals:
        if ends.tty:
            resize(call.api, f"/containers/{details['Id']}")
        session.run(signals)
        if session.detached:
            return 0
        return wait_with_signals(waiting, signals)


def start(call: Invocation) -> int:
    """Start containers; with -a or -i join the streams of the only one."""
    options = call.options
    if options["checkpoint"] or options["checkpoint-dir"]:
        raise UnsupportedError("checkpoints are not supported")
    if options["attach"] or options["interactive"]:
        if len(call.words) > 1:
            raise InvalidInputError("you cannot start and attach multiple containers at once")
        return _start_attached(call, call.words[0])
    failed: list[str] = []

    def act(name: str) -> str | None:
        try:
            call.api.post(f"/containers/{quote(name)}/start")
        except ApiError as error:
            print(error, file=sys.stderr)
            failed.append(name)
            return None
        return name

    for_each(call.words, act)
    if failed:
        print(f"Error: failed to start containers: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def _start_attached(call: Invocation, name: str) -> int:
    details: dict[str, Any] = call.api.get(f"/containers/{quote(name)}/json")
    identity, config = details["Id"], details["Config"]
    options = call.options
    ends = Ends(options["interactive"] and bool(config.get("OpenStdin")), True, True, bool(config.get("Tty")))
    check_tty(ends.stdin, ends.tty)
    keys = options["detach-keys"]
    session = Session(attach_streams(call.api, identity, ends, keys), ends, keys)
    removed = bool(details["HostConfig"].get("AutoRemove"))
    waiting = begin_wait(call.api, identity, "removed" if removed else "next-exit")
    with watch_signals(call.api, identity, tty=ends.tty, proxy=True) as signals:
        try:
            call.api.post(f"/containers/{identity}/start")
        except ApiError:
            session.sock.close()
            if removed:
                wait_result(waiting)
            raise
        if ends.tty:
            resize(call.api, f"/containers/{identity}")
        session.run(signals)
        return 0 if session.detached else wait_with_signals(waiting, signals)
