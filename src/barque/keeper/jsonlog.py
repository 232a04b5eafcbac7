"""Docker's json-file lines from raw output: whole chunks of bytes, never line by line.

A line is {"log":"text\\n","stream":"stdout","attrs":{...},"time":"..."}; a line longer than
PIECE_SIZE is cut into pieces of which only the last carries the \\n.
"""

import codecs
import json
import time

PIECE_SIZE = 16 * 1024
# Lines are formatted so many bytes at once: what that takes of memory stays in the processor's cache, and with the
# allocator, where larger buffers would go back to the kernel and cost a page fault for each page the next time.
BATCH_SIZE = 128 * 1024
_HEAD = b'{"log":"'
# What the clock is corrected by; a larger step means that it was wrong before.
_CORRECTION_NS = 1_000_000_000

# What Docker writes otherwise than as itself, the backslash first because the others bring new ones.
_ESCAPES = (
    (b"\\", b"\\\\"),
    (b'"', b'\\"'),
    (b"\r", b"\\r"),
    *((bytes([c]), b"\\u%04x" % c) for c in (*range(32), *b"<>&") if c not in b"\n\r"),
)
_ESCAPED = b"".join(raw for raw, _ in _ESCAPES)
_PLAIN = bytes(c for c in range(128) if c not in _ESCAPED)
_SEPARATORS = ((b"\xe2\x80\xa8", b"\\u2028"), (b"\xe2\x80\xa9", b"\\u2029"))


def _one_by_one(error: UnicodeError) -> tuple[str, int]:
    """Stand in for one invalid byte as Go does, where Python would take several together."""
    assert isinstance(error, UnicodeDecodeError)
    return "\\ufffd", error.start + 1


codecs.register_error("barque-json-log", _one_by_one)


def escape(text: bytes) -> bytes:
    """Return text as the inside of a JSON string, but for newlines, which stay."""
    special = text.translate(None, _PLAIN)
    if not special:
        return text
    for raw, escaped in _ESCAPES:
        if raw in special:
            text = text.replace(raw, escaped)
    if special.isascii():
        return text
    try:
        text.decode()
    except UnicodeDecodeError:
        text = text.decode("utf-8", "barque-json-log").encode()
    for raw, escaped in _SEPARATORS:
        if raw in text:
            text = text.replace(raw, escaped)
    return text


class Clock:
    """Time stamps of chunks: each later than the one before, unless the clock is set back by more than a second."""

    __slots__ = ("_last_ns", "_second", "_text")

    def __init__(self) -> None:
        self._last_ns = 0
        self._second = -1
        self._text = ""

    def stamp(self) -> bytes:
        """Return the present time as RFC 3339 with nanoseconds."""
        now_ns = time.time_ns()
        if self._last_ns - _CORRECTION_NS < now_ns <= self._last_ns:
            now_ns = self._last_ns + 1
        self._last_ns = now_ns
        second, fraction = divmod(now_ns, 1_000_000_000)
        if second != self._second:
            self._second = second
            self._text = time.strftime("%Y-%m-%dT%H:%M:%S.", time.gmtime(second))
        text = f"{fraction:09d}".rstrip("0")
        return f"{self._text}{text}Z".encode() if text else f"{self._text[:-1]}Z".encode()


_MIDDLES: dict[bytes, bytes] = {}


class LineFormat:
    """Lines of one stream of one container."""

    __slots__ = ("_middle",)

    def __init__(self, stream: str, attrs: dict[str, str] | None) -> None:
        """Prepare what all lines share.

        Args:
            stream: "stdout" or "stderr".
            attrs: labels and environment that the log options ask for.
        """
        tail = f'","stream":"{stream}"'
        if attrs:
            tail += ',"attrs":' + json.dumps(attrs, sort_keys=True, separators=(",", ":"))
        # Most containers have the same: one copy serves the keeper of them all.
        middle = (tail + ',"time":"').encode()
        self._middle = _MIDDLES.setdefault(middle, middle) if not attrs else middle

    def lines(self, text: bytes, stamp: bytes) -> tuple[bytes, memoryview]:
        """Return the log lines of text, which ends with a newline, as two parts to be written one after the other."""
        # Each line's end brings the next one's head, and the last head is left out: nothing is copied to put one in front.
        made = escape(text).replace(b"\n", b"\\n" + self._middle + stamp + b'"}\n' + _HEAD)
        return _HEAD, memoryview(made)[: -len(_HEAD)]

    def piece(self, text: bytes, stamp: bytes) -> bytes:
        """Return the log line of a piece without its newline."""
        return _HEAD + escape(text) + self._middle + stamp + b'"}\n'


def whole_part(text: bytes, start: int = 0) -> int:
    """Return up to where lines reach in text, from start on, which need no cutting; about BATCH_SIZE bytes at most.

    start itself means that there is a line that is longer than PIECE_SIZE or not complete.
    """
    end = text.rfind(b"\n", start, start + BATCH_SIZE) + 1
    position = start
    while end - position > PIECE_SIZE:
        newline = text.rfind(b"\n", position, position + PIECE_SIZE + 1)
        if newline < 0:
            return position
        position = newline + 1
    return max(end, start)


def piece_length(text: bytes) -> int:
    """Return the length of the next piece of a line too long: PIECE_SIZE, less to keep characters whole."""
    for back in range(4):
        # A continuation byte after the cut means that the cut is within a character.
        if len(text) <= PIECE_SIZE - back or text[PIECE_SIZE - back] & 0xC0 != 0x80:
            return PIECE_SIZE - back
    return PIECE_SIZE
