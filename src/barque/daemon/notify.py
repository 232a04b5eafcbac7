"""Tell systemd how the daemon fares."""

import os
import socket


def notify(state: str) -> None:
    """Send a state such as READY=1; nothing happens without a service manager that listens."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path:
        return
    address = "\0" + path[1:] if path.startswith("@") else path
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            sock.sendto(state.encode(), address)
    except OSError:
        # The service manager's time-out tells of it; the daemon serves all the same.
        return
