"""The engine's progress messages of pulling, loading and importing."""

import sys
from collections.abc import Iterator
from typing import Any

from barque.client.http import ApiError


def show_progress(messages: Iterator[Any], *, quiet: bool = False, to_stdout: bool = False) -> None:
    """Print a stream of progress messages.

    Raises:
        ApiError: a message says that the engine failed.
    """
    out = sys.stdout if to_stdout else sys.stderr
    for message in messages:
        if message.get("error") or message.get("errorDetail"):
            detail = message.get("errorDetail") or {}
            error = ApiError(500, detail.get("message") or message.get("error", ""))
            error.args = (error.message,)
            raise error
        if quiet:
            continue
        if "stream" in message:
            out.write(message["stream"])
        elif message.get("progressDetail") and not out.isatty():
            continue
        elif "status" in message:
            prefix = f"{message['id']}: " if message.get("id") else ""
            bar = f" {message['progress']}" if message.get("progress") else ""
            out.write(f"{prefix}{message['status']}{bar}\n")
        out.flush()
