"""Build checks as BuildKit's clients see them: warnings beside a build, and the answer to `--call=check`."""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from barque.base.errors import InvalidInputError
from barque.builder.buildkit.builds import Outcome
from barque.builder.buildkit.pb import ops_pb2
from barque.builder.buildkit.progress import Report, Step
from barque.builder.dockerfile import Base, platform_values
from barque.dockerfile.errors import DockerfileError
from barque.dockerfile.line import Fragment
from barque.dockerfile.lint import Known, check, complaint
from barque.dockerfile.rules import Choice, Finding, choice_of
from barque.dockerfile.run_config import environment_of
from barque.dockerfile.stages import Dockerfile
from barque.oci import platform as platforms
from barque.oci.reference import parse

Json = dict[str, Any]
_LANGUAGE = "Dockerfile"
_LEVEL = 1


@dataclass(frozen=True, slots=True)
class Checked:
    """A Dockerfile that is checked: its name and text, what it says, and which checks it wants."""

    name: str
    text: str
    parsed: Dockerfile
    choice: Choice


def checked(name: str, text: str, parsed: Dockerfile, given: str) -> Checked:
    """Return a Dockerfile with the checks that its `# check=` line wants, or a build argument that goes before it.

    Raises:
        InvalidInputError: what says so is malformed.
    """
    try:
        return Checked(name, text, parsed, choice_of(text, given))
    except DockerfileError as error:
        raise InvalidInputError(f"failed to parse check options: {error}") from None


def findings(
    of: Checked, arguments: Mapping[str, str], platform: str, stages: Mapping[int, Base], ignored: list[str],
    target: str = "",
) -> list[Finding]:  # fmt: skip
    """Return what the checks find.

    Args:
        of: the Dockerfile.
        arguments: build arguments.
        platform: that is built for, empty for this machine's.
        stages: those that are built, and what each starts from.
        ignored: the patterns of the ignore file.
        target: the stage that is built, empty for the last.
    """
    wanted = platforms.usual(platforms.parse(platform) if platform else platforms.host())

    def env(number: int) -> Mapping[str, str] | None:
        base = stages.get(number)
        if base is None or base.image is None:
            return None
        return environment_of(base.image.run_config)

    def differs(number: int) -> tuple[str, str, str] | None:
        base = stages.get(number)
        if base is None or base.image is None or not base.name or of.parsed.stages[number].platform:
            return None
        actual = platforms.usual(platforms.of_config(base.image.config))
        return None if platforms.fits(actual, wanted) else (base.name, str(wanted), str(actual))

    known = Known(
        arguments=arguments, platform=platform_values(platform, target), stages=frozenset(stages), base_env=env,
        base_platform=differs, ignored=ignored, valid_image=_valid_image,
    )  # fmt: skip
    return check(of.parsed, of.choice, known)


def warn(of: Checked, found: list[Finding], report: Report, step: Step | None) -> None:
    """Show findings as warnings of the step that brought the Dockerfile.

    Raises:
        InvalidInputError: the Dockerfile wants them to be errors.
    """
    for one in found:
        name, text = (one.file.name, one.file.text) if one.file is not None else (of.name, of.text)
        info = ops_pb2.SourceInfo(filename=name, data=_bytes(text), language=_LANGUAGE)
        spans = [
            ops_pb2.Range(start=ops_pb2.Position(line=line), end=ops_pb2.Position(line=line)) for line in _lines(one)
        ]
        report.warn(
            step, str(one), level=_LEVEL, detail=[one.description.encode()], url=one.url, info=info, ranges=spans
        )
    if of.choice.as_error and found:
        raise InvalidInputError(complaint(found))


def answer(of: Checked, found: list[Finding], error: DockerfileError | InvalidInputError | None) -> Outcome:
    """Return the answer to a client that wants the findings alone."""
    ordered = sorted(found, key=lambda one: one.line)
    warnings = [
        {
            "ruleName": one.rule, "description": one.description, **({"url": one.url} if one.url else {}),
            "detail": one.message, "location": location(*_span(one), index_of(of.parsed, one.file)),
        }
        for one in found
    ]  # fmt: skip
    files = [(of.name, of.text), *((file.name, file.text) for file, _ in of.parsed.source.included)]
    sources = [
        {"filename": name, "language": _LANGUAGE, "data": base64.b64encode(_bytes(text)).decode()} for name, text in files
    ]
    value: Json = {"warnings": warnings or None, "sources": sources}
    if error is None and of.choice.as_error and found:
        error = InvalidInputError(complaint(found))
    if error is not None:
        where: Json = {}
        if isinstance(error, DockerfileError) and error.line:
            where = location(error.line, error.end, index_of(of.parsed, error.file))
        value["buildError"] = {"message": str(error), "location": where}
    told = "".join(_told(of, one) for one in ordered)
    failed = bool(found) or error is not None
    return answered(value, told, statuscode=str(int(failed)))


def answered(value: Any, text: str, **more: str) -> Outcome:
    """Return an answer without files: a value, and the text that shows it."""
    found = {"result.json": json.dumps(value, indent=2).encode(), "result.txt": text.encode("utf-8", "surrogateescape")}
    found |= {f"result.{name}": content.encode() for name, content in more.items()}
    return Outcome({}, {**found, "version": b"1.0.0"})


def location(start: int, end: int, index: int = 0) -> Json:
    """Return the place of an instruction in a file, 0 for the Dockerfile itself."""
    of_file = {"sourceIndex": index} if index else {}
    return {**of_file, "ranges": [{"start": {"line": line}, "end": {"line": line}} for line in range(start, max(start, end) + 1)]}


def index_of(parsed: Dockerfile, file: Fragment | None) -> int:
    """Return the number of a file among those that a Dockerfile includes, 0 for itself."""
    names = [one.name for one, _ in parsed.source.included]
    return names.index(file.name) + 1 if file is not None else 0


def _span(one: Finding) -> tuple[int, int]:
    return one.line, one.end


def _lines(one: Finding) -> range:
    return range(one.line, max(one.line, one.end) + 1)


def _told(of: Checked, one: Finding) -> str:
    title = f"\nWARNING: {one.rule}" + (f" - {one.url}" if one.url else "")
    name, text = (one.file.name, one.file.text) if one.file is not None else (of.name, of.text)
    return f"{title}\n{one.message}\n{excerpt(name, text, one.line, one.end)}"


def excerpt(name: str, text: str, start: int, end: int) -> str:
    """Return lines of a file with those around them, as BuildKit's clients print them; empty for lines it has not."""
    lines = text.split("\n")
    first, last = start, min(max(start, end), len(lines))
    if not 1 <= start <= len(lines):
        return ""
    room, padding = 0, 4 if last == start else 2
    while room < padding:
        if first > 1:
            first, room = first - 1, room + 1
        if last != len(lines):
            last, room = last + 1, room + 1
        room += 1
    marked = range(start, max(start, end) + 1)
    shown = [f" {n:3d} | {'>>>' if n in marked else '   '} {lines[n - 1]}" for n in range(first, last + 1)]
    rule = "-" * 20
    return "\n".join([f"{name}:{start}", rule, *shown, rule]) + "\n"


def _valid_image(name: str) -> bool:
    try:
        parse(name)
    except InvalidInputError:
        return False
    return True


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
