"""Processes of a container as the host's ps shows them."""

import asyncio
import re
from collections.abc import Collection
from typing import Any

from barque.base.errors import BarqueError, InvalidInputError

Json = dict[str, Any]


async def processes(pids: Collection[int], arguments: str) -> Json:
    """Return {"Titles", "Processes"} of the processes with these pids.

    Raises:
        InvalidInputError: arguments that are not allowed, or give no PID column.
        BarqueError: ps failed.
    """
    arguments = arguments or "-ef"
    for word in re.findall(r"\S+", arguments):
        if re.search(r"\s+-?[oO]?\s*pid=\S", f" {word}") and "pid=" in word.lower():
            raise InvalidInputError(f'specifying "{word}" is not allowed')
    try:
        child = await asyncio.create_subprocess_exec(
            "ps", *arguments.split(), stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
    except OSError as error:
        raise BarqueError(f"error running ps: {error.strerror}: install the package procps") from error
    out, err = await child.communicate()
    if child.returncode:
        text = err.decode(errors="replace").strip().splitlines()
        raise BarqueError(f"error running ps: exit status {child.returncode}: {text[0] if text else ''}")
    return parse(out.decode(errors="replace"), pids)


def parse(text: str, pids: Collection[int]) -> Json:
    """Return the table of ps for the pids alone.

    Raises:
        InvalidInputError: there is no PID column.
    """
    lines = text.splitlines()
    titles = lines[0].split() if lines else []
    if "PID" not in titles:
        raise InvalidInputError("Couldn't find PID field in ps output")
    column = titles.index("PID")
    wanted = set(pids)
    found = []
    for line in lines[1:]:
        # The last column may hold blanks.
        fields = line.split(None, len(titles) - 1)
        if len(fields) > column and fields[column].isdecimal() and int(fields[column]) in wanted:
            found.append(fields)
    return {"Titles": titles, "Processes": found}
