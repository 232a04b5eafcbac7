"""Entry of `barque runtime`: global options, the verb, errors to stderr or to the log."""

import os
import sys
from typing import Any

import barque
from barque.base.errors import BarqueError, InvalidInputError
from barque.kernel import process
from barque.runtime.channel import StepError
from barque.runtime.command.context import Log, RuntimeContext
from barque.runtime.command.options import GLOBAL, VERBS, Parsed, parse

DEFAULT_ROOT = "/run/barque-runtime"
_ENTER_CONTAINERS = ("create", "run", "exec")
_NO_ID = ("list", "features", "spec")


def main(argv: list[str] | None = None) -> int:
    """Run a verb and return the exit status: 1 for an error of ours, else the verb's own."""
    arguments = sys.argv[1:] if argv is None else argv
    options: dict[str, Any] = {}
    try:
        options, words = parse(GLOBAL, arguments)
        if options.get("version"):
            print(f"barque runtime version {barque.__version__}\nspec: 1.2.0")
            return 0
        if options.get("help") or not words:
            from barque.runtime.command.queries import print_usage

            print_usage()
            return 0 if options.get("help") else 1
        context = _context(options)
        if words[0] in _ENTER_CONTAINERS:
            _protect(arguments)
        return _dispatch(context, words[0], words[1:])
    except (BarqueError, StepError, OSError) as error:
        log = Log(options.get("log") or "", options.get("log_format") or "")
        log.write("error", str(error))
        return 1


def _protect(arguments: list[str]) -> None:
    """Go on in an interpreter that a container cannot overwrite through /proc/<pid>/exe."""
    if process.interpreter_is_protected():
        return
    try:
        process.restart_protected("barque.runtime.command.main", arguments)
    except OSError:
        # Who may not make a mount may not write to the interpreter either.
        return


def _context(options: dict[str, Any]) -> RuntimeContext:
    manager = options.get("cgroup_manager") or ("systemd" if options.get("systemd_cgroup") else "cgroupfs")
    if manager not in ("cgroupfs", "disabled"):
        raise InvalidInputError(f"cgroup manager {manager!r} is not supported: use cgroupfs or disabled")
    form = options.get("log_format") or "text"
    if form not in ("text", "json"):
        raise InvalidInputError(f"unknown log-format {form!r}: use text or json")
    log = Log(options.get("log") or "", form)
    log.check()
    root = options.get("root")
    if not root:
        runtime_dir = os.environ.get("XDG_RUNTIME_DIR")
        root = f"{runtime_dir}/barque-runtime" if os.geteuid() and runtime_dir else DEFAULT_ROOT
    return RuntimeContext(os.path.abspath(root), with_cgroups=manager != "disabled", log=log)


def _dispatch(context: RuntimeContext, verb: str, arguments: list[str]) -> int:
    table = VERBS.get(verb)
    if table is None:
        raise InvalidInputError(f"unknown command {verb!r}")
    parsed = parse(table, arguments)
    if parsed.options.get("help"):
        from barque.runtime.command.queries import print_verb_usage

        print_verb_usage(verb)
        return 0
    if verb in _NO_ID:
        if parsed.words:
            raise InvalidInputError(f"{verb} takes no arguments")
        return _without_container(context, verb, parsed)
    if not parsed.words:
        raise InvalidInputError(f"{verb} needs a container's id")
    if verb in ("ps", "exec"):
        return _with_words(context, verb, parsed)
    container_id, rest = parsed.words[0], parsed.words[1:]
    if rest and verb not in ("kill",):
        # Options after the id, as crun and runc take them too.
        parsed = Parsed({**parsed.options, **parse(table, rest).options}, [container_id])
        rest = []
    return _on_container(context, verb, container_id, rest, parsed)


def _without_container(context: RuntimeContext, verb: str, parsed: Parsed) -> int:
    from barque.runtime.command import queries

    if verb == "list":
        return queries.show_list(context, parsed.options)
    return queries.show_features() if verb == "features" else queries.write_spec(parsed.options)


def _with_words(context: RuntimeContext, verb: str, parsed: Parsed) -> int:
    container_id, rest = parsed.words[0], parsed.words[1:]
    if verb == "ps":
        from barque.runtime.command import queries

        return queries.show_processes(context, container_id, rest, parsed.options)
    from barque.runtime.command.execute import execute

    return execute(context, container_id, rest[1:] if rest[:1] == ["--"] else rest, parsed.options)


def _on_container(context: RuntimeContext, verb: str, container_id: str, rest: list[str], parsed: Parsed) -> int:
    if verb in ("state", "events"):
        from barque.runtime.command import queries

        if verb == "state":
            return queries.show_state(context, container_id)
        return queries.show_events(context, container_id, parsed.options)
    options = parsed.options
    if verb in ("create", "run"):
        from barque.runtime.command import making

        make = making.create if verb == "create" else making.run
        return make(context, container_id, options)
    if verb == "update":
        from barque.runtime.command import updating

        return updating.update(context, container_id, options)
    from barque.runtime.command import lifecycle

    match verb:
        case "start":
            return lifecycle.start(context, container_id)
        case "kill":
            return lifecycle.kill(context, container_id, rest[0] if rest else "SIGTERM", options)
        case "delete":
            return lifecycle.delete(context, container_id, options)
        case "pause":
            return lifecycle.pause(context, container_id)
        case _:
            return lifecycle.resume(context, container_id)


if __name__ == "__main__":
    raise SystemExit(main())
