"""What the classic API says of a COPY or ADD that cannot be."""

import posixpath

from barque.base.errors import BarqueError, NotFoundError
from barque.builder.sources import is_url
from barque.dockerfile import instructions as of


def refuse_climbing(instruction: of.Instruction) -> None:
    """Refuse a source that the words alone lead out of the context.

    Raises:
        BarqueError: there is one.
    """
    if not isinstance(instruction, of.Add | of.Copy) or (isinstance(instruction, of.Copy) and instruction.source):
        return
    for path in instruction.sources:
        if not is_url(path) and posixpath.normpath(path.lstrip("/")).split("/")[0] == "..":
            name = "ADD" if isinstance(instruction, of.Add) else "COPY"
            raise BarqueError(f"{name} failed: forbidden path outside the build context: {path} ()")


def copy_failed(instruction: of.Instruction, error: NotFoundError) -> BarqueError:
    """Return what is told where a COPY or ADD finds nothing."""
    name = "ADD" if isinstance(instruction, of.Add) else "COPY"
    if isinstance(instruction, of.Copy) and instruction.source:
        return BarqueError(f"{name} failed: stat {str(error).partition(':')[0].strip(chr(34))}: no such file or directory")
    path = str(error).partition(":")[0].strip('"').lstrip("/")
    if any(character in path for character in "*?["):
        return BarqueError(f"{name} failed: no source files were specified")
    return BarqueError(f"{name} failed: file not found in build context or excluded by .dockerignore: "
                       f"stat {path}: file does not exist")  # fmt: skip
