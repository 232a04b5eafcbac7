"""What is wrong with a Dockerfile, and where."""

from barque.base.errors import InvalidInputError


class DockerfileError(InvalidInputError):
    """The text is no Dockerfile; `line` and `end` are 1-based, 0 where unknown."""

    def __init__(self, message: str, line: int = 0, end: int = 0) -> None:
        super().__init__(message)
        self.line = line
        self.end = max(end, line)

    def at(self, line: int, end: int = 0) -> "DockerfileError":
        """Return the error with its place, where it has none yet."""
        return self if self.line else type(self)(str(self), line, end)


class InstructionError(DockerfileError):
    """An instruction is unknown or malformed; the message says on which line."""

    def __init__(self, message: str, line: int = 0, end: int = 0) -> None:
        text = f"dockerfile parse error on line {line}: {message}" if line else message
        super().__init__(text, line, end)
        self.reason = message

    def at(self, line: int, end: int = 0) -> "DockerfileError":
        """Return the error with its place, where it has none yet."""
        return self if self.line else InstructionError(self.reason, line, end)
