"""Slowing one side of a connection down to the other's pace."""

import asyncio


def set_reading(transport: asyncio.Transport | None, *, on: bool) -> None:
    """Read from a transport or not; one that is closing is let be."""
    if transport is None or transport.is_closing():
        return
    if on:
        transport.resume_reading()
    else:
        transport.pause_reading()
