"""What the classic API says of a COPY or ADD that cannot be."""

import posixpath

from barque.base.errors import BarqueError, InvalidInputError, NotFoundError
from barque.builder import graph
from barque.builder.sources import is_url
from barque.dockerfile import instructions as of
from barque.oci import platform as platforms


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


def images_of(instruction: of.Instruction, vertex: graph.Vertex) -> list[graph.Source]:
    """Return the images that a COPY takes files of, which the error names where there is none."""
    if not isinstance(instruction, of.Copy) or not instruction.source:
        return []
    sources = [need for need in vertex.inputs if isinstance(need, graph.Source)]
    return [source for source in sources if source.identifier.startswith("docker-image://")]


def platform_of(text: str) -> platforms.Platform:
    """Return the platform that a FROM names.

    Raises:
        InvalidInputError: it is none.
    """
    try:
        return platforms.parse(text)
    except InvalidInputError as error:
        raise InvalidInputError(f"failed to parse platform {text}: {error}") from None


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
