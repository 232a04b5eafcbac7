"""What the global options said, and how a verb warns."""

import json
import sys
import time
from typing import Any

Options = dict[str, Any]


class RuntimeContext:
    """The root of all containers, and where messages go."""

    def __init__(self, root: str, *, with_cgroups: bool, log: "Log | None" = None) -> None:
        self.root = root
        self.with_cgroups = with_cgroups
        self.log = log or Log("", "")


class Log:
    """Messages to stderr, and to the file that another engine reads."""

    def __init__(self, path: str, form: str) -> None:
        self.path = path
        self.form = form

    def check(self) -> None:
        """Open the file once, so that a wrong path is told before anything is done.

        Raises:
            OSError: it cannot be written.
        """
        if self.path:
            with open(self.path, "a", encoding="utf-8"):
                pass

    def write(self, level: str, message: str) -> None:
        """Say what happened."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        if self.form == "json":
            line = json.dumps({"level": level, "msg": message, "time": stamp})
        else:
            line = f'time="{stamp}" level={level} msg={json.dumps(message)}'
        if self.path:
            try:
                with open(self.path, "a", encoding="utf-8") as log:
                    log.write(line + "\n")
            except OSError as error:
                print(f"cannot write {self.path}: {error.strerror}", file=sys.stderr)
        print(message if self.path else line, file=sys.stderr)
