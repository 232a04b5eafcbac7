"""Between requests and what starts processes: the answer, the refusal, and what a starter must do."""

from typing import TYPE_CHECKING, Any, Protocol

from barque.keeper.connection import Connection

if TYPE_CHECKING:
    from barque.keeper.server import Server
    from barque.keeper.task import CgroupLike, Task

Key = tuple[str, str | None]


class RequestError(Exception):
    """A request cannot be done: the step, an errno or 0, and words for the user."""

    def __init__(self, step: str, errno: int, message: str) -> None:
        super().__init__(message)
        self.step = step
        self.errno = errno


class Reply:
    """The answer to one request, given once, maybe later."""

    __slots__ = ("_connection", "_number")

    def __init__(self, connection: Connection, number: Any) -> None:
        self._connection = connection
        self._number = number

    def ok(self, result: dict[str, Any], fds: tuple[int, ...] = ()) -> None:
        """Answer with a result."""
        self._connection.send({"id": self._number, "ok": result}, fds)

    def error(self, step: str, errno: int, message: str) -> None:
        """Answer with a failure."""
        error = {"step": step, "errno": errno, "message": message}
        self._connection.send({"id": self._number, "error": error})


class Starter(Protocol):
    """How processes come to be; see `starting` for the real one."""

    def start(self, server: "Server", task: "Task", request: dict[str, Any], fds: list[int], reply: Reply) -> None:
        """Begin a container's first process; answers through the server once it runs or failed."""

    def exec(self, server: "Server", task: "Task", main: "Task", request: dict[str, Any], reply: Reply) -> None:
        """Begin another process in main's container."""

    def cgroup(self, path: str) -> "CgroupLike":
        """Return the control group at path."""

    def removed(self, server: "Server", task: "Task") -> None:
        """Undo, off the exit's path, what `start` made besides the process."""
