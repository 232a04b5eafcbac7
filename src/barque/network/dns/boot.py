"""First file of the name server's process: python -I -S boot.py PATH LISTEN_FD."""

import os
import signal
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))))

# The daemon, whose child this is, blocks the signals that it takes from a descriptor.
signal.pthread_sigmask(signal.SIG_SETMASK, ())

from barque.network.dns.main import main  # noqa: E402

sys.exit(main(sys.argv[1:]))
