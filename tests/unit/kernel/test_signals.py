import subprocess
import sys

# In processes of their own: in this one any thread that another test left would take what is sent.
_WITH_THREADS = """
import os, select, signal, sys, threading
sys.path[:0] = eval(sys.argv[1])
from barque.kernel import signals
NUMBERS = (signal.SIGHUP, signal.SIGUSR2)
signal.pthread_sigmask(signal.SIG_BLOCK, NUMBERS)
held = signals.descriptor(NUMBERS)
end = threading.Event()
threads = [threading.Thread(target=end.wait) for _ in range(8)]
for thread in threads:
    thread.start()
print(signals.take(held))
os.kill(os.getpid(), signal.SIGUSR2)
os.kill(os.getpid(), signal.SIGHUP)
print(select.select([held], [], [], 10)[0] == [held])
print(sorted(map(int, signals.take(held))))
print(signals.take(held))
end.set()
"""


def said(program: str) -> list[str]:
    found = subprocess.run(
        [sys.executable, "-c", program, str(sys.path)], capture_output=True, text=True, check=True, timeout=60
    )
    return found.stdout.splitlines()


def test_a_signal_stays_until_it_is_taken_whatever_threads_there_are():
    assert said(_WITH_THREADS) == ["[]", "True", "[1, 12]", "[]"]


def test_a_signal_that_nobody_took_is_there_after_an_exec():
    # It is sent to the process before its exec, and seen by the program after it.
    after = (
        "import os, sys; sys.path[:0] = eval(sys.argv[1]); from barque.kernel import signals; "
        "print(signals.take(signals.descriptor([1, 12])))"
    )
    before = (
        "import os, signal, sys; signal.pthread_sigmask(signal.SIG_BLOCK, [1, 12]); os.kill(os.getpid(), 1); "
        f"os.execv(sys.executable, [sys.executable, '-c', {after!r}, sys.argv[1]])"
    )
    assert said(before) == ["[1]"]
