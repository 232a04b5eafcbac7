"""Control groups of a name of one's own: which there are, and their end whatever became of a test."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

from under_test import until

_TOP = Path("/sys/fs/cgroup")


def folders(parent: str) -> Iterator[Path]:
    """Yield the folders below a control group of the top, deepest first and itself last, in each hierarchy."""
    name = parent.strip("/")
    # Two names may lead to one hierarchy.
    tops = {path.resolve() for path in (_TOP / name, *_TOP.glob(f"*/{name}")) if path.is_dir()}
    for top in sorted(tops):
        for folder, _, _ in os.walk(top, topdown=False):
            yield Path(folder)


def remove(parent: str) -> None:
    """End what runs in a control group of the top and remove it with all below."""
    until(lambda: all(_removed(folder) for folder in folders(parent)), f"{parent} is gone")


def _removed(folder: Path) -> bool:
    try:
        for pid in (folder / "cgroup.procs").read_text().split():
            os.kill(int(pid), signal.SIGKILL)
        folder.rmdir()
    except (FileNotFoundError, ProcessLookupError):
        pass
    except OSError:
        # What was killed is there for a moment more.
        return False
    return not folder.exists()
