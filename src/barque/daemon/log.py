"""The daemon's own log on standard error."""

import json
import logging
import sys
import time

_LEVELS = {
    "debug": logging.DEBUG, "info": logging.INFO, "warn": logging.WARNING, "error": logging.ERROR,
    "fatal": logging.CRITICAL,
}  # fmt: skip
_NAMES = {"WARNING": "warn", "CRITICAL": "fatal"}


class _Formatter(logging.Formatter):
    """Lines of time, level, message; as text or as JSON."""

    def __init__(self, *, as_json: bool) -> None:
        super().__init__()
        self._as_json = as_json

    def format(self, record: logging.LogRecord) -> str:
        when = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"
        level = _NAMES.get(record.levelname, record.levelname.lower())
        message = record.getMessage()
        if record.exc_info:
            message += "\n" + self.formatException(record.exc_info)
        if self._as_json:
            return json.dumps({"time": when, "level": level, "room": record.name, "msg": message})
        return f"{when} {level:<5} {message}"


def set_up(level: str, *, as_json: bool, debug: bool) -> None:
    """Send the log to standard error; called again to change the level."""
    root = logging.getLogger()
    if not root.handlers:
        root.addHandler(logging.StreamHandler(sys.stderr))
    for handler in root.handlers:
        handler.setFormatter(_Formatter(as_json=as_json))
    root.setLevel(logging.DEBUG if debug else _LEVELS[level])
    # The event loop's own debugging lines say nothing about containers.
    for name in ("asyncio", "hpack", "h2", "grpclib"):
        logging.getLogger(name).setLevel(logging.WARNING)
