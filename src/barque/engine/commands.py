"""Programs of the user's that the engine runs: given their input whole, ended with all they started when they take too long."""

import asyncio
import os
from collections.abc import Mapping, Sequence

from barque.base.files import write_all
from barque.engine import process_groups


async def run(words: Sequence[str], env: Mapping[str, str], data: bytes, *, program: str, longest_s: float) -> None:
    """Run a program with data as its standard input; what it writes is dropped.

    Args:
        words: its arguments, its name first.
        env: its whole environment.
        data: what it reads.
        program: its path.
        longest_s: after so many seconds it is killed, with its session.

    Raises:
        OSError: it cannot be run, or failed.
        TimeoutError: it took too long.
        ValueError: a word holds a NUL byte.
    """
    # A file, not a pipe: a program that does not read is no failure.
    source = os.memfd_create("input")
    try:
        write_all(source, data)
        os.lseek(source, 0, os.SEEK_SET)
        child = await asyncio.create_subprocess_exec(
            *words, executable=program, env=dict(env), stdin=source, stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
    finally:
        os.close(source)
    try:
        await asyncio.wait_for(child.wait(), longest_s)
    except BaseException:
        await process_groups.end(child)
        raise
    if child.returncode:
        raise OSError(f"exit status {child.returncode}")
