"""What run, start and attach share: joining a container's streams, waiting for it, passing signals on."""

from __future__ import annotations

from barque.base.errors import BarqueError
from barque.cli.session import Ends, Session, resize
from barque.cli.signals import SignalPipe
from barque.client.api import Api
from barque.client.http import Response

TYPE_CHECKING = False  # the module typing costs every start of the command milliseconds
if TYPE_CHECKING:
    from typing import Any


def attach_streams(api: Api, identity: str, ends: Ends, keys: str) -> tuple[Any, bytes, str]:
    """Return a hijacked connection to a container's streams."""
    parameters = {
        "stream": True,
        "stdin": ends.stdin,
        "stdout": ends.stdout,
        "stderr": ends.stderr,
        "detachKeys": keys or None,
    }
    return api.hijack(f"/containers/{identity}/attach", parameters=parameters)


def begin_wait(api: Api, identity: str, condition: str) -> Response:
    """Ask for the container's exit before it is started, so that no exit is missed."""
    return api.send("POST", f"/containers/{identity}/wait", parameters={"condition": condition})


def wait_result(response: Response) -> int:
    """Return the exit code that a wait told, 125 where the wait itself failed."""
    import sys

    answer = response.json() or {}
    response.close()
    problem = (answer.get("Error") or {}).get("Message", "")
    if problem:
        print(f"Error waiting for container: {problem}", file=sys.stderr)
        return 125
    return int(answer.get("StatusCode", 0))


def watch_signals(api: Api, identity: str, *, tty: bool, proxy: bool) -> SignalPipe:
    """Return the pipe that passes signals on to the container, or follows the size of our terminal."""
    side = api.beside()

    def forward(name: str) -> None:
        try:
            side.post(f"/containers/{identity}/kill", signal=name.removeprefix("SIG"))
        except BarqueError:
            return

    def follow_size() -> None:
        resize(side, f"/containers/{identity}")

    return SignalPipe(follow_size if tty else None, forward if proxy and not tty else None)


def carry(session: Session, signals: SignalPipe) -> None:
    """Carry a session's bytes with signals handled meanwhile."""
    session.run(signals)


def wait_with_signals(response: Response, signals: SignalPipe) -> int:
    """Wait for the exit while signals are still passed on."""
    import select

    poller = select.poll()
    poller.register(response.sock.fileno(), select.POLLIN)
    poller.register(signals.descriptor, select.POLLIN)
    while not response.buffer:
        ready = [descriptor for descriptor, _ in poller.poll()]
        if signals.descriptor in ready:
            signals.handle()
        if response.sock.fileno() in ready:
            break
    return wait_result(response)
