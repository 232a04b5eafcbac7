"""The tree of errors that cross a room's border.

A class per reaction, not per place; each carries the HTTP status the API answers with.

    BarqueError                500
    ├── InvalidInputError      400
    ├── UnauthorizedError      401
    ├── ForbiddenError         403
    ├── NotFoundError          404
    ├── ConflictError          409
    ├── NotModifiedError       304   the wanted state already holds
    ├── UnsupportedError       501
    └── UnavailableError       503

`KernelError` is an OSError that names the failed call and its target.
"""

import os


class BarqueError(Exception):
    """Something went wrong that the user is told about; str() is the message.

    `details` are for clients of gRPC: names of types, and bytes.
    """

    http_status = 500
    details: "list[tuple[str, bytes]] | tuple[()]" = ()


class InvalidInputError(BarqueError):
    """The request itself is wrong; sending it again cannot help."""

    http_status = 400


class UnauthorizedError(BarqueError):
    """Credentials are missing or refused."""

    http_status = 401


class ForbiddenError(BarqueError):
    """The action is not allowed on this object."""

    http_status = 403


class NotFoundError(BarqueError):
    """The named object does not exist."""

    http_status = 404


class ConflictError(BarqueError):
    """The object's state or another object forbids the action now."""

    http_status = 409


class NotModifiedError(BarqueError):
    """The object is already in the wanted state."""

    http_status = 304


class UnsupportedError(BarqueError):
    """The engine or this kernel has no such feature."""

    http_status = 501


class UnavailableError(BarqueError):
    """A part of the engine is not reachable now; trying again may help."""

    http_status = 503


def told(error: OSError) -> str:
    """Return what went wrong in the kernel's words alone, without the file: clients need not know where it lies."""
    if isinstance(error, KernelError) or not error.strerror:
        return str(error)
    return error.strerror.lower()


class KernelError(OSError):
    """A system call failed: errno, the call's name, what it acted on."""

    def __init__(self, err: int, call: str, target: str = "") -> None:
        """Keep the call's name besides what OSError keeps.

        Args:
            err: the errno.
            call: the system call's name as in its man page.
            target: path or object the call acted on, empty where there is none.
        """
        super().__init__(err, os.strerror(err), target or None)
        self.call = call

    def __str__(self) -> str:
        where = f" {self.filename}" if self.filename else ""
        return f"{self.call}{where}: {self.strerror}"
