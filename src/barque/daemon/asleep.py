"""What is left of a daemon that has nothing to do: it waits, and becomes the daemon again.

    python -I -S asleep.py daemon WAKING COMMAND...

WAKING are descriptors with commas between them. As soon as one can be read (a client, news of the keeper or its end, a
signal), COMMAND is executed in this very process. All descriptors are kept open for it. Signals are blocked all the time,
before, here and after, and are only looked at through a descriptor: the kernel keeps them until the daemon takes them.
Imports next to nothing: what it imports is its memory.
"""

import os
import select
import sys


def main(argv: list[str]) -> None:
    """Wait, then execute the command.

    Raises:
        OSError: it cannot be executed.
    """
    waiting = select.poll()
    for fd in argv[1].split(","):
        waiting.register(int(fd), select.POLLIN)
    waiting.poll()
    os.execv(argv[2], argv[2:])


if __name__ == "__main__":
    main(sys.argv[1:])
