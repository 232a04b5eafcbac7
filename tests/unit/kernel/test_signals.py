import os
import select
import signal
import subprocess
import sys
import threading

import pytest

from barque.kernel import signals

NUMBERS = (signal.SIGHUP, signal.SIGUSR2)


@pytest.fixture
def held():
    before = signal.pthread_sigmask(signal.SIG_BLOCK, NUMBERS)
    fd = signals.descriptor(NUMBERS)
    yield fd
    signals.take(fd)
    os.close(fd)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def test_a_signal_stays_until_it_is_taken_whatever_threads_there_are(held):
    end = threading.Event()
    threads = [threading.Thread(target=end.wait) for _ in range(8)]
    for thread in threads:
        thread.start()
    try:
        assert signals.take(held) == []
        os.kill(os.getpid(), signal.SIGUSR2)
        os.kill(os.getpid(), signal.SIGHUP)
        assert select.select([held], [], [], 10)[0]
        assert sorted(signals.take(held)) == sorted(NUMBERS)
        assert signals.take(held) == []
    finally:
        end.set()
        for thread in threads:
            thread.join()


def test_a_signal_that_nobody_took_is_there_after_an_exec(held):
    # It is sent to the process before its exec, and seen by the program after it.
    after = (
        "import os, sys; sys.path[:0] = eval(sys.argv[1]); from barque.kernel import signals; "
        "print(signals.take(signals.descriptor([1, 12])))"
    )
    before = (
        "import os, signal, sys; signal.pthread_sigmask(signal.SIG_BLOCK, [1, 12]); os.kill(os.getpid(), 1); "
        f"os.execv(sys.executable, [sys.executable, '-c', {after!r}, {str(sys.path)!r}])"
    )
    found = subprocess.run([sys.executable, "-c", before], capture_output=True, text=True, check=True, timeout=60)
    assert found.stdout == "[1]\n"
