"""The keeper's process: it starts and minds all containers of one exec-root."""

import gc
import os
import signal
import socket
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from barque.keeper.ports import Starter


def main(argv: list[str]) -> int:
    """Serve until shutdown.

    Args:
        argv: the exec-root; the number of the listening socket's descriptor.

    Returns:
        0 after a shutdown, 1 where another keeper serves the exec-root.
    """
    from barque.keeper.starting import RuntimeStarter

    return serve(argv[0], int(argv[1]), RuntimeStarter())


def serve(exec_root: str, listen_fd: int, starter: "Starter") -> int:
    """Serve with processes made by starter; see `main`."""
    from barque.keeper.children import IGNORED
    from barque.keeper.server import Server, lock
    from barque.kernel.limits import raise_open_files
    from barque.kernel.process import set_child_subreaper

    listener = socket.socket(fileno=listen_fd)
    os.set_inheritable(listen_fd, False)
    lock_fd = lock(exec_root)
    if lock_fd < 0:
        return 1
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)
    set_child_subreaper()
    server = Server(exec_root, listener, starter)
    server.nofile = raise_open_files()
    gc.collect()
    gc.freeze()
    # Objects here die by their counts; a collection now and then catches what does not.
    gc.set_threshold(50_000, 20, 1000)
    try:
        server.poller.run()
    finally:
        sys.stderr.flush()
        os.close(lock_fd)
    return 0
