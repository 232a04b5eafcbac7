"""First file of the keeper's process: python -I -S boot.py EXEC_ROOT LISTEN_FD."""

import os
import signal
import sys

sys.dont_write_bytecode = False
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

# The daemon, whose child this is, blocks the signals that it takes from a descriptor.
signal.pthread_sigmask(signal.SIG_SETMASK, ())

from barque.kernel.process import protect_interpreter  # noqa: E402

try:
    # What a container sees as /proc/<pid>/exe of a process on its way in must not be writable.
    protect_interpreter()
except OSError as error:
    sys.stderr.write(f"barque keeper: the interpreter stays writable: {error}\n")

from barque.keeper.main import main  # noqa: E402

sys.exit(main(sys.argv[1:]))
