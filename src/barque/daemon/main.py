"""`barque daemon`: reads its options, takes its locks, opens the engine, serves the API, ends cleanly."""

import asyncio
import faulthandler
import gc
import logging
import os
import sys
from typing import TYPE_CHECKING

import barque
from barque.base.errors import BarqueError
from barque.daemon import dozing, flags, http_library, listeners, log as daemon_log, ownership
from barque.daemon.flags import DaemonError
from barque.daemon.options import Options, command
from barque.kernel import signals
from barque.kernel.limits import raise_open_files

if TYPE_CHECKING:
    from barque.daemon.service import Service
    from barque.engine.engine import Slept

log = logging.getLogger("barque.daemon")


def main(argv: list[str]) -> int:
    """Run the daemon until it is told to end; return the exit code."""
    try:
        left = dozing.awakened()
        options = Options(argv, left.options if left else None)
        if _answered(options):
            return 0
        if os.geteuid() != 0:
            raise DaemonError("the daemon needs to be started with root privileges")
        return _run(options, left)
    except (DaemonError, BarqueError) as error:
        sys.stderr.write(f"{error}\n")
        return 1


def _answered(options: Options) -> bool:
    if options["help"]:
        sys.stdout.write(flags.usage() + "\n")
    elif options["version"]:
        sys.stdout.write(f"Barque version {barque.__version__}\n")
    elif options["print-unit"]:
        from importlib import resources

        for name in ("barque.service", "barque.socket"):
            text = resources.files("barque.daemon").joinpath("units", name).read_text(encoding="utf-8")
            sys.stdout.write(f"# {name}\n{text}\n")
    elif options["validate"]:
        listeners.tls_context(options)
        sys.stdout.write("configuration OK\n")
    else:
        return False
    return True


def _run(options: Options, left: dozing.Handover | None) -> int:
    # Before there is a thread: no thread may take them past the descriptor from which they are read.
    signals.hold(dozing.SIGNALS)
    daemon_log.set_up(options["log-level"], as_json=options["log-format"] == "json", debug=options["debug"])
    faulthandler.register(dozing.TRACES, all_threads=True)
    signals.let_in([dozing.TRACES])
    raise_open_files()
    lock = left.lock if left else ownership.lock_data_root(os.path.abspath(options["data-root"]))
    try:
        ownership.write_pidfile(options["pidfile"])
        try:
            opened = left.listeners if left else listeners.open_all(options)
            try:
                slept = _serve(options, opened, left.slept if left else None)
                if slept is not None:
                    dozing.sleep(dozing.Handover(lock, opened, slept, options.kept()), command(options))
                return 0
            finally:
                listeners.close_all(opened)
        finally:
            ownership.remove_pidfile(options["pidfile"])
    finally:
        os.close(lock)


def _import_service() -> "type[Service]":
    """Import all that serves, without what would only cost time: nothing that is imported becomes garbage."""
    try:
        http_library.import_server()
        from barque.daemon.service import Service
    finally:
        gc.freeze()
        gc.enable()
    return Service


def _serve(options: Options, opened: list[listeners.Listener], slept: "Slept | None") -> "Slept | None":
    import uvloop

    # Threads that pull are out of the interpreter nearly always, but for one that indexes a layer; and so is the loop.
    # Whoever comes back waits for so long: of Python's own 5 ms their work would be a third less while a layer is indexed.
    sys.setswitchinterval(0.0005)
    Service = _import_service()  # noqa: N806 - a class
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        service = Service(options, opened)
        return runner.run(service.run(slept))
