"""The name server's process."""

import gc
import os
import resource
import signal
import socket
import sys


def main(argv: list[str]) -> int:
    """Serve until told to end.

    Args:
        argv: the path of the socket for daemons; the number of its listening descriptor.
    """
    from barque.network.dns.server import NameServer

    listen_fd = int(argv[1])
    os.set_inheritable(listen_fd, False)
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    server = NameServer(socket.socket(fileno=listen_fd), argv[0])
    gc.collect()
    gc.freeze()
    server.poller.run()
    sys.stderr.flush()
    return 0
