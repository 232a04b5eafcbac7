"""From lines to instructions and stages."""

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from barque.dockerfile import instructions as of
from barque.dockerfile.directives import extended
from barque.dockerfile.errors import DockerfileError, InstructionError, StageError
from barque.dockerfile.flags import TEXT, TEXTS, TRUTH, Flags
from barque.dockerfile.forms import INSTRUCTIONS
from barque.dockerfile.line import Heredoc, Line, Source
from barque.dockerfile.lines import heredoc_of, parse as parse_lines
from barque.dockerfile.mounts import parse_device, parse_mount
from barque.dockerfile.text import SPACE, quoted, suggestion

_STAGE_NAME = re.compile(r"[a-z][a-z0-9\-_.]*")
_DURATION = re.compile(r"(\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h)")
_UNITS = {"ns": 1.0, "us": 1e3, "µs": 1e3, "μs": 1e3, "ms": 1e6, "s": 1e9, "m": 60e9, "h": 3600e9}
_MS = 1_000_000


class Dockerfile(NamedTuple):
    """A whole Dockerfile: the ARGs before the first FROM, the stages, the text as lines."""

    global_args: list[of.Arg]
    stages: list[of.Stage]
    source: Source


def parse(text: str) -> Dockerfile:
    """Return the stages of a Dockerfile.

    Raises:
        DockerfileError: the text is no Dockerfile.
        InstructionError: an instruction is unknown or malformed.
    """
    return assemble(parse_lines(text), more=extended(text))


def assemble(source: Source, *, more: bool) -> Dockerfile:
    """Return the stages that lines make; `more`: our extensions are switched on.

    Raises:
        DockerfileError: an instruction is where it may not be.
        InstructionError: an instruction is unknown or malformed.
    """
    global_args: list[of.Arg] = []
    stages: list[of.Stage] = []
    for line in source.lines:
        try:
            made = instruction(line, more=more)
        except DockerfileError as error:
            raise InstructionError(str(error), line.start, line.end).within(line.file) from None
        if isinstance(made, of.Stage):
            stages.append(made)
        elif stages:
            stages[-1].instructions.append(made)
        elif isinstance(made, of.Arg):
            global_args.append(made)
        else:
            raise StageError("no build stage in current context", line.start, line.end).within(line.file)
    return Dockerfile(global_args, stages, source)


def parse_trigger(text: str) -> of.Instruction:
    """Return the instruction of an ONBUILD trigger.

    Raises:
        DockerfileError: it is not one instruction, or one that may not be a trigger.
    """
    source = parse_lines(text)
    if len(source.lines) != 1:
        raise DockerfileError("onbuild trigger should be a single expression")
    made = instruction(source.lines[0])
    if isinstance(made, of.Stage):
        raise DockerfileError("FROM isn't allowed as an ONBUILD trigger")
    return made


def stage_index(stages: Sequence[of.Stage], name: str) -> int:
    """Return the index of the stage of that name, whatever its case; -1 without one."""
    lower = name.lower()
    return next((i for i, stage in enumerate(stages) if stage.name.lower() == lower), -1)


def instruction(line: Line, *, more: bool = False) -> of.Instruction | of.Stage:
    """Return what a line says; `more`: our extensions are switched on.

    Raises:
        DockerfileError: the instruction is unknown or malformed.
    """
    read = _READERS.get(line.name.lower())
    if read is None:
        near = suggestion(line.name, INSTRUCTIONS, same_case=False)
        raise DockerfileError(f"unknown instruction: {line.name}{near}", line.start, line.end)
    try:
        return _MORE[read](line, more=more) if read in _MORE else read(line)
    except DockerfileError as error:
        raise error.at(line.start, line.end) from None


def _place(line: Line) -> dict[str, Any]:
    return {"name": line.name, "code": line.original.strip(SPACE), "line": line.start, "end": line.end,
            "comments": line.comments, "file": line.file}  # fmt: skip


def _at_least_one(line: Line, name: str) -> None:
    if not line.args:
        raise DockerfileError(f"{name} requires at least one argument")


def _exactly_one(line: Line, name: str) -> str:
    if len(line.args) != 1:
        raise DockerfileError(f"{name} requires exactly one argument")
    return line.args[0]


def _none(line: Line) -> Flags:
    return Flags(line.flags, {})


def _pairs(line: Line, name: str) -> tuple[of.Pair, ...]:
    _none(line)
    _at_least_one(line, name)
    triples = list(zip(line.args[::3], line.args[1::3], line.args[2::3], strict=True))
    if not all(key for key, _, _ in triples):
        raise DockerfileError(f"{name} names can not be blank")
    return tuple(of.Pair(key, value, not delimiter) for key, value, delimiter in triples)


def _env(line: Line) -> of.Env:
    return of.Env(pairs=_pairs(line, "ENV"), **_place(line))


def _label(line: Line) -> of.Label:
    return of.Label(pairs=_pairs(line, "LABEL"), **_place(line))


def _maintainer(line: Line) -> of.Maintainer:
    text = _exactly_one(line, "MAINTAINER")
    _none(line)
    return of.Maintainer(text=text, **_place(line))


def _files(line: Line, name: str) -> dict[str, Any]:
    *sources, target = line.args
    if _heredoc(target) is not None:
        raise DockerfileError(f"{name} cannot accept a heredoc as a destination")
    contents = {doc.name: doc for doc in line.heredocs}
    paths: list[str] = []
    inline: list[of.InlineFile] = []
    for source in sources:
        doc = _heredoc(source)
        if doc is None:
            paths.append(source)
        else:
            filled = contents.get(doc.name, doc)
            inline.append(of.InlineFile(doc.name, doc._replace(content=filled.content).text, doc.expands))
    return {"sources": tuple(paths), "inline": tuple(inline), "target": target, **_place(line)}


def _heredoc(word: str) -> Heredoc | None:
    try:
        return heredoc_of(word)
    except DockerfileError:
        return None


def _two(line: Line, name: str) -> None:
    if len(line.args) < 2:
        raise DockerfileError(
            f"{name} requires at least two arguments, but only one was provided. Destination could not be determined"
        )


_COMMON = {"chown": TEXT, "chmod": TEXT, "link": TRUTH, "exclude": TEXTS}


def _add(line: Line) -> of.Add:
    _two(line, "ADD")
    flags = Flags(line.flags, {**_COMMON, "keep-git-dir": TRUTH, "checksum": TEXT, "unpack": TRUTH})
    return of.Add(
        chown=flags.text("chown"), chmod=flags.text("chmod"), link=flags.truth("link"),
        excludes=flags.texts("exclude"), keep_git=flags.choice("keep-git-dir"), checksum=flags.text("checksum"),
        unpack=flags.choice("unpack"), **_files(line, "ADD"),
    )  # fmt: skip


def _copy(line: Line, *, more: bool = False) -> of.Copy:
    _two(line, "COPY")
    flags = Flags(line.flags, {**_COMMON, "from": TEXT, "parents": TRUTH, **({"optional": TRUTH} if more else {})})
    return of.Copy(
        chown=flags.text("chown"), chmod=flags.text("chmod"), link=flags.truth("link"),
        excludes=flags.texts("exclude"), source=flags.text("from"), parents=flags.truth("parents"),
        optional=more and flags.truth("optional"),
        **_files(line, "COPY"),
    )  # fmt: skip


def _from(line: Line) -> of.Stage:
    args = line.args
    name = ""
    if len(args) == 3 and args[1].lower() == "as":
        name = args[2].lower()
        if not _STAGE_NAME.fullmatch(name):
            raise DockerfileError(
                f"invalid name for build stage: {quoted(args[2])}, name can't start with a number or contain symbols"
            )
    elif len(args) != 1:
        raise DockerfileError("FROM requires either one or three arguments")
    flags = Flags(line.flags, {"platform": TEXT})
    return of.Stage(
        base=args[0], name=name, platform=flags.text("platform"), command=line.name, code=line.original.strip(SPACE),
        line=line.start, end=line.end, comments=line.comments, file=line.file,
    )  # fmt: skip


def _onbuild(line: Line, *, more: bool = False) -> of.Onbuild:
    _at_least_one(line, "ONBUILD")
    _none(line)
    word = line.args[0].strip(SPACE).upper()
    if word == "ONBUILD":
        raise DockerfileError("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")
    if word in ("MAINTAINER", "FROM", *(("INCLUDE",) if more else ())):
        raise DockerfileError(f"{word} isn't allowed as an ONBUILD trigger")
    expression = re.sub(r"(?i)\A\s*ONBUILD\s*", "", line.original)
    for doc in line.heredocs:
        expression += f"\n{doc.content}{doc.name}"
    return of.Onbuild(expression=expression, **_place(line))


def _workdir(line: Line) -> of.Workdir:
    path = _exactly_one(line, "WORKDIR")
    _none(line)
    return of.Workdir(path=path, **_place(line))


def _command(line: Line) -> dict[str, Any]:
    files = tuple(of.InlineFile(doc.name, doc.text, doc.expands, doc.content) for doc in line.heredocs)
    return {"words": line.args if line.json else ((" ".join(line.args),) if line.args else ()),
            "shell": not line.json, "files": files, **_place(line)}  # fmt: skip


def _run(line: Line) -> of.Run:
    flags = Flags(line.flags, {"mount": TEXTS, "network": TEXT, "security": TEXT, "device": TEXTS})
    network, security = flags.text("network", "default"), flags.text("security", "sandbox")
    mounts = flags.texts("mount")
    devices = tuple(parse_device(text) for text in flags.texts("device"))
    seen = tuple(parse_mount(text, None) for text in mounts)
    if network not in ("default", "none", "host"):
        raise DockerfileError(f"invalid network mode {quoted(network)}")
    if security not in ("sandbox", "insecure"):
        raise DockerfileError(f"security {quoted(security)} is not valid")
    return of.Run(mount_texts=mounts, mounts=seen, devices=devices, network=network, security=security,
                  flags=tuple(flags.given), **_command(line))  # fmt: skip


def _cmd(line: Line) -> of.Cmd:
    _none(line)
    return of.Cmd(**_command(line))


def _entrypoint(line: Line) -> of.Entrypoint:
    _none(line)
    return of.Entrypoint(**_command(line))


def _expose(line: Line) -> of.Expose:
    _at_least_one(line, "EXPOSE")
    _none(line)
    return of.Expose(ports=tuple(sorted(line.args)), **_place(line))


def _user(line: Line) -> of.User:
    user = _exactly_one(line, "USER")
    _none(line)
    return of.User(user=user, **_place(line))


def _volume(line: Line) -> of.Volume:
    _at_least_one(line, "VOLUME")
    _none(line)
    paths = tuple(path.strip(SPACE) for path in line.args)
    if not all(paths):
        raise DockerfileError("VOLUME specified can not be an empty string")
    return of.Volume(paths=paths, **_place(line))


def _stopsignal(line: Line) -> of.StopSignal:
    return of.StopSignal(signal=_exactly_one(line, "STOPSIGNAL"), **_place(line))


def _arg(line: Line) -> of.Arg:
    _at_least_one(line, "ARG")
    args: list[tuple[str, str | None]] = []
    for word in line.args:
        key, equals, value = word.partition("=")
        if equals and not key:
            raise DockerfileError("ARG names can not be blank")
        args.append((key, value if equals else None))
    return of.Arg(args=tuple(args), **_place(line))


def _shell(line: Line) -> of.Shell:
    _none(line)
    _at_least_one(line, "SHELL")
    if not line.json:
        raise DockerfileError("SHELL requires the arguments to be in JSON form")
    return of.Shell(words=line.args, **_place(line))


def _healthcheck(line: Line) -> of.Healthcheck:
    _at_least_one(line, "HEALTHCHECK")
    kind, args = line.args[0].upper(), line.args[1:]
    if kind == "NONE":
        if args:
            raise DockerfileError("HEALTHCHECK NONE takes no arguments")
        return of.Healthcheck(health={"Test": ["NONE"]}, **_place(line))
    flags = Flags(line.flags, dict.fromkeys((*_TIMES, "retries"), TEXT))
    if kind != "CMD":
        raise DockerfileError(f"Unknown type {quoted(kind)} in HEALTHCHECK (try CMD)")
    if not args:
        raise DockerfileError("Missing command after HEALTHCHECK CMD")
    test = ["CMD", *args] if line.json else ["CMD-SHELL", " ".join(args)]
    health: dict[str, Any] = {"Test": test}
    for flag, key in _TIMES.items():
        if value := _interval(flag, flags.text(flag)):
            health[key] = value
    if (text := flags.text("retries")) and (retries := _retries(text)):
        health["Retries"] = retries
    return of.Healthcheck(health=health, **_place(line))


_TIMES = {"interval": "Interval", "timeout": "Timeout", "start-period": "StartPeriod",
          "start-interval": "StartInterval"}  # fmt: skip


def duration_ns(text: str) -> int:
    """Return a duration such as 1h2m3.5s in nanoseconds.

    Raises:
        DockerfileError: it is none; the text is Go's.
    """
    sign, rest = (-1 if text.startswith("-") else 1), text.lstrip("+-")
    if rest == "0":
        return 0
    parts = _DURATION.findall(rest)
    if not parts or "".join(number + unit for number, unit in parts) != rest or len(text) - len(rest) > 1:
        if rest and re.fullmatch(r"\d+\.?\d*|\.\d+", rest):
            raise DockerfileError(f"time: missing unit in duration {quoted(text)}")
        raise DockerfileError(f"time: invalid duration {quoted(text)}")
    return sign * round(sum(float(number) * _UNITS[unit] for number, unit in parts))


def _interval(flag: str, text: str) -> int:
    if not text:
        return 0
    value = duration_ns(text)
    if value and value < _MS:
        raise DockerfileError(f"Interval {quoted(flag)} cannot be less than 1ms")
    return value


def _retries(text: str) -> int:
    if not re.fullmatch(r"[+-]?[0-9]+", text):
        raise DockerfileError(f"strconv.ParseInt: parsing {quoted(text)}: invalid syntax")
    value = int(text)
    if not -(1 << 31) <= value < 1 << 31:
        raise DockerfileError(f"strconv.ParseInt: parsing {quoted(text)}: value out of range")
    if value < 0:
        raise DockerfileError(f"--retries cannot be negative ({value})")
    return value


_READERS: dict[str, Callable[[Line], of.Instruction | of.Stage]] = {
    "add": _add, "arg": _arg, "cmd": _cmd, "copy": _copy, "entrypoint": _entrypoint, "env": _env, "expose": _expose,
    "from": _from, "healthcheck": _healthcheck, "label": _label, "maintainer": _maintainer, "onbuild": _onbuild,
    "run": _run, "shell": _shell, "stopsignal": _stopsignal, "user": _user, "volume": _volume, "workdir": _workdir,
}  # fmt: skip
_MORE: dict[Callable[[Line], of.Instruction | of.Stage], Callable[..., of.Instruction]] = {_copy: _copy, _onbuild: _onbuild}
"""Those that our extensions change."""
