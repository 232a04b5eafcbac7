"""Starting a container that the user stays with."""

from __future__ import annotations

from barque.base.errors import BarqueError
from barque.cli.run import report_start_failure
from barque.cli.running import attach_streams, begin_wait, wait_result, wait_with_signals, watch_signals
from barque.cli.session import Ends, Session, resize
from barque.cli.verb import Invocation
from barque.client.http import ApiError

TYPE_CHECKING = False  # the module typing costs every start of the command milliseconds
if TYPE_CHECKING:
    from typing import Any


def start_attached(call: Invocation, identity: str, body: dict[str, Any]) -> int:
    """Join the streams, start the container, carry bytes until it ends.

    Returns:
        Its exit code; 0 where the user detached.
    """
    ends = Ends(body["AttachStdin"], body["AttachStdout"], body["AttachStderr"], body["Tty"])
    api, options = call.api, call.options
    session = None
    if ends.stdin or ends.stdout or ends.stderr:
        connection = attach_streams(api, identity, ends, options["detach-keys"])
        session = Session(connection, ends, options["detach-keys"])
    removed = body["HostConfig"]["AutoRemove"]
    waiting = begin_wait(api, identity, "removed" if removed else "next-exit")
    with watch_signals(api, identity, tty=ends.tty, proxy=options["sig-proxy"]) as signals:
        try:
            api.post(f"/containers/{identity}/start")
        except ApiError as error:
            if session:
                session.sock.close()
            code = report_start_failure(call, error)
            if removed:
                _swallow_wait(waiting)
            return code
        if session:
            if ends.tty:
                resize(api, f"/containers/{identity}")
            session.run(signals)
            if session.detached:
                return 0
        return wait_with_signals(waiting, signals)


def _swallow_wait(waiting: Any) -> None:
    try:
        wait_result(waiting)
    except BarqueError:
        return
