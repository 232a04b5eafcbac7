"""Files that a build keeps on this machine while it lasts."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import FrameType, TracebackType

_ENDING = (signal.SIGTERM, signal.SIGHUP)


class Temporary:
    """Makes folders, and removes them at the end: of the context, or of the command by a signal."""

    def __init__(self) -> None:
        self._made: list[str] = []

    def __enter__(self) -> Temporary:
        for number in _ENDING:
            # Who has it ignored, as nohup has, means it.
            if signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, self._end)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._remove()

    def folder(self) -> str:
        """Return a new folder."""
        self._made.append(tempfile.mkdtemp(prefix="barque-build-"))
        return self._made[-1]

    def _remove(self) -> None:
        for folder in self._made:
            shutil.rmtree(folder, ignore_errors=True)
        self._made.clear()

    def _end(self, number: int, frame: FrameType | None) -> None:
        """End as if there were no handler, but for the folders."""
        self._remove()
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
