"""What is wrong with a Dockerfile, and where."""

from typing import Self

from barque.base.errors import InvalidInputError
from barque.dockerfile.line import Fragment


class DockerfileError(InvalidInputError):
    """The text is no Dockerfile; `line` and `end` are 1-based, 0 where unknown, `file` is None in the Dockerfile itself."""

    def __init__(self, message: str, line: int = 0, end: int = 0) -> None:
        super().__init__(message)
        self.line = line
        self.end = max(end, line)
        self.file: Fragment | None = None

    def at(self, line: int, end: int = 0, file: Fragment | None = None) -> "DockerfileError":
        """Return the error with its place, where it has none yet."""
        return self if self.line else type(self)(str(self), line, end).within(file)

    def within(self, file: Fragment | None) -> Self:
        """Return the error as one of a text that was included, which its message then names; None changes nothing."""
        if file is not None and self.file is None:
            self.file = file
            self.args = (self._told(file),)
        return self

    def _told(self, file: Fragment) -> str:
        place = f"{file.name}:{self.line}" if self.line else file.name
        return f"{place} (included at {file.asked_at}): {self}"


class StageError(DockerfileError):
    """An instruction stands before the first FROM."""


class InstructionError(DockerfileError):
    """An instruction is unknown or malformed; the message says on which line."""

    def __init__(self, message: str, line: int = 0, end: int = 0) -> None:
        text = f"dockerfile parse error on line {line}: {message}" if line else message
        super().__init__(text, line, end)
        self.reason = message

    def at(self, line: int, end: int = 0, file: Fragment | None = None) -> "DockerfileError":
        """Return the error with its place, where it has none yet."""
        return self if self.line else InstructionError(self.reason, line, end).within(file)

    def _told(self, file: Fragment) -> str:
        place = f"line {self.line} of {file.name}" if self.line else file.name
        return f"dockerfile parse error on {place} (included at {file.asked_at}): {self.reason}"
