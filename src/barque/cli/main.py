"""The entry of the `barque` command: global flags, choice of the verb, errors and exit codes."""

from __future__ import annotations

import gc
import os
import sys

from barque.base.errors import BarqueError
from barque.cli.catalog import ALIASES, COMMANDS, GROUPS, LOCAL, NESTED_GROUPS, OFFLINE, Command, find
from barque.cli.flags import Flag, Options, UsageError, parse, read_table

TYPE_CHECKING = False  # the module typing costs every start of the command milliseconds
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

    from barque.cli.flags import Validators

GLOBALS = """
- config string Folder of the client's configuration files
c context string Name of the context to connect by (overrides DOCKER_HOST)
D debug bool Enable debug mode: requests to the engine are shown on standard error
H host list Daemon socket to connect to
- help bool Print usage
l log-level string=info Set the logging level ("debug", "info", "warn", "error", "fatal")
- tls bool Use TLS; implied by --tlsverify
- tlscacert string Trust certs signed only by this CA
- tlscert string Path to the TLS certificate file
- tlskey string Path to the TLS key file
- tlsverify bool Use TLS and verify the remote
v version bool Print version information and quit
"""
DETACHED_FLAGS = ("container run", "container create", "container exec", "container top")
_COLLECTED_FROM = 50_000
LEVELS = ("debug", "info", "warn", "error", "fatal", "panic", "trace")


class ExitError(Exception):
    """Ends the command with an exit code; the message has been printed."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    words = sys.argv[1:] if argv is None else argv
    if words[:1] == ["daemon"]:
        # Nothing that is imported becomes garbage; the daemon has it collected again once it serves.
        gc.disable()
        from barque.daemon import later

        later.put_off()
        from barque.daemon.main import main as daemon_main

        return daemon_main(words[1:])
    if words[:1] == ["runtime"]:
        from barque.runtime.command.main import main as runtime_main

        return runtime_main(words[1:])
    # What a command imports lives to its end: nothing is to be found in it.
    gc.set_threshold(_COLLECTED_FROM)
    try:
        code = _dispatch(words)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader of our output has gone, as `head` does; what is still buffered cannot be told to anyone.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 141


def _dispatch(words: list[str]) -> int:
    try:
        options, rest = parse(read_table(GLOBALS), words, interspersed=False)
    except UsageError as error:
        _say(f"{error}\n\nUsage:  barque [OPTIONS] COMMAND [ARG...]\n\nRun 'barque --help' for more information")
        return 125
    if options["log-level"] not in LEVELS:
        _say(f"Unable to parse logging level: {options['log-level']}")
        return 1
    if options["version"]:
        from barque import __version__

        print(f"Barque version {__version__}")
        return 0
    if not rest or options.given("help") or rest[0] == "help":
        return _help(rest[1:] if rest[:1] == ["help"] else [])
    return _run_words(rest, options)


def _run_words(words: list[str], options: Options) -> int:
    found = find(words)
    if found is not None:
        return _run_command(*found, options)
    group = next((name for name in (" ".join(words[:2]), words[0]) if name in GROUPS or name in NESTED_GROUPS), "")
    if group:
        below = words[group.count(" ") + 1 :]
        if not below or below[0] in ("--help", "-h"):
            from barque.cli.overview import group_help

            print(group_help(group), end="", file=sys.stdout if below else sys.stderr)
            return 0
        if below[0].startswith("-"):
            _say(f"unknown {'flag' if below[0].startswith('--') else 'shorthand flag'}: {below[0]}")
            return 125
        _say(
            f"barque: unknown command: barque {group} {below[0]}\n\nUsage:  barque {group}\n\n"
            f"Run 'barque {group} --help' for more information"
        )
        return 1
    _say(f"barque: unknown command: barque {words[0]}\n\nRun 'barque --help' for more information")
    return 1


def _help(words: list[str]) -> int:
    from barque.cli.overview import group_help, overview

    if not words:
        print(overview(read_table(GLOBALS)), end="")
        return 0
    return _run_words([*words, "--help"], Options([])) if find(words) else _group_or_unknown(words, group_help)


def _group_or_unknown(words: list[str], group_help: object) -> int:
    if words[0] in GROUPS and callable(group_help):
        print(group_help(words[0]), end="")
        return 0
    _say(f"barque: unknown help topic: {' '.join(words)}")
    return 1


def flags_of(path: str) -> list[Flag]:
    """Return the table of flags of a command by its canonical path."""
    if path in ("container run", "container create"):
        from barque.cli import run_flags

        return read_table(run_flags.RUN if path == "container run" else run_flags.CREATE)
    if path.startswith(("build", "bake")):
        from barque.cli.building import flags as building

        return read_table(building.TABLES.get(path, ""))
    from barque.cli.flag_tables import TABLES

    return read_table(TABLES.get(path, ""))


def _run_command(path: str, typed: str, words: list[str], options: Options) -> int:
    command = COMMANDS[path]
    flags = flags_of(path)
    try:
        verb_options, rest = _parse_verb(path, flags, words)
    except UsageError as error:
        usage = command.usage.split("\n")[0]
        _say(
            f"{error}\n\nUsage:  barque {typed} {usage}".rstrip()
            + f"\n\nRun 'barque {typed} --help' for more information"
        )
        return 125
    if verb_options.values.get("help"):
        from barque.cli.catalog import names
        from barque.cli.usage import command_help

        print(command_help(typed, command.usage, command.text, names(path), flags), end="")
        return 0
    problem = _count_problem(command, typed, len(rest))
    if problem:
        _say(problem)
        return 1
    return _call(command, path, typed, verb_options, rest, options)


def _parse_verb(path: str, flags: list[Flag], words: list[str]) -> tuple[Options, list[str]]:
    validators: Validators | None = None
    if path in ("container run", "container create", "container exec"):
        validators = _validators
    elif path == "network create":
        validators = _label_validator
    if path == "container top":
        # Everything behind the container belongs to ps.
        return parse(flags, words, interspersed=False)
    return parse(flags, words, interspersed=path not in DETACHED_FLAGS, validators=validators)


def _validators() -> dict[str, Callable[[str], Any]]:
    from barque.cli.run_values import VALIDATORS

    return VALIDATORS


def _label_validator() -> dict[str, Callable[[str], Any]]:
    return {"label": _validators()["label"]}


def _count_problem(command: Command, typed: str, count: int) -> str:
    least, most = command.places
    if least <= count and (most < 0 or count <= most):
        return ""
    if most == 0:
        need = "accepts no arguments"
    elif most < 0:
        need = f"requires at least {least} {_arguments(least)}"
    elif least == most:
        need = f"requires {least} {_arguments(least)}"
    elif least > 0:
        need = f"requires at least {least} and at most {most} {_arguments(most)}"
    else:
        need = f"requires at most {most} {_arguments(most)}"
    usage = f"\n\tbarque {typed} ".join(command.usage.split("\n"))
    return (
        f"barque: 'barque {typed}' {need}\n\nUsage:  barque {typed} {usage}\n\n"
        f"{'See' if most < 0 or least == 0 < most else 'Run'} 'barque {typed} --help' for more information"
    )


def _arguments(count: int) -> str:
    return "argument" if count == 1 else "arguments"


def _call(command: Command, path: str, typed: str, options: Options, rest: list[str], global_options: Options) -> int:
    from barque.cli.connection import open_api
    from barque.cli.verb import Invocation

    module, _, function = command.code.partition(":")
    verb = getattr(__import__(f"barque.cli.{module}", fromlist=[function]), function)
    try:
        if path in LOCAL:
            return int(verb(options) or 0)
        if path in OFFLINE:
            return int(verb(rest, options, global_options) or 0)
        api = open_api(global_options)
        return int(verb(Invocation(api, typed, options, rest, global_options)) or 0)
    except ExitError as end:
        return end.code
    except UsageError as error:
        _say(f"{error}")
        return 125
    except BarqueError as error:
        if path in ("container run", "container create"):
            _say(f"barque: {error}\n\nRun 'barque {typed} --help' for more information")
            return 125
        _say(str(error))
        return 1
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            raise
        _say(os_error_text(error))
        return 1


def os_error_text(error: OSError) -> str:
    """Return an error of the system in Docker's style: `open /x: no such file or directory`."""
    reason = (error.strerror or str(error)).lower()
    return f"open {error.filename}: {reason}" if error.filename else reason


def _say(text: str) -> None:
    sys.stdout.flush()
    print(text, file=sys.stderr)


def run_and_exit() -> NoReturn:
    """Run the command and leave the process at once, without the interpreter's slow farewell."""
    code = main()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


__all__ = ["ALIASES", "ExitError", "flags_of", "main", "os_error_text", "run_and_exit"]
