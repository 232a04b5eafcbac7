"""`barque registry serve` and `gc`: a registry server; needs no engine."""

import json
import sys
from typing import Any

from barque.base.errors import InvalidInputError
from barque.cli.flags import Flag, Options, parse, read_table

FILE_ONLY = """
- s3-access-key string Access key of the object store
- s3-secret-key string Secret key of the object store
- proxy-password string Password at the cached registry
"""
"""Secrets, which have no place on a command line: keys of the configuration file alone."""


def serve(options: Options) -> int:
    """Serve until a signal ends it."""
    import asyncio

    from barque.registry.config import from_values
    from barque.registry.serve import serve as run

    config = from_values(merged("registry serve", options))
    _log(config.log_level)
    asyncio.run(run(config, ready=_say))
    return 0


def gc(options: Options) -> int:
    """Collect garbage once; safe beside running servers."""
    import asyncio

    from barque.cli.units import human_size
    from barque.registry.config import from_values
    from barque.registry.serve import collect

    # The file is the server's, so it may hold all that the server takes.
    config = from_values(merged("registry serve", options))
    _log(config.log_level)
    report = asyncio.run(collect(config, dry_run=options["dry-run"]))
    for title, names in (("tag", report.tags), ("manifest", report.manifests), ("link", report.links), ("blob", report.contents)):
        for name in names:
            print(f"{title} {name}")
    for upload in report.uploads:
        print(f"upload {upload}")
    print(f"Total reclaimed space: {human_size(report.bytes)}")
    return 0


def _say(addresses: list[str]) -> None:
    print("Registry listens on " + ", ".join(addresses), flush=True)


def _log(level: str) -> None:
    import logging

    names = {"debug": logging.DEBUG, "info": logging.INFO, "warn": logging.WARNING, "error": logging.ERROR}
    if level not in names:
        raise InvalidInputError(f"invalid logging level: {level}: debug, info, warn or error")
    logging.basicConfig(level=names[level], stream=sys.stderr, format="%(asctime)s %(levelname)-7s %(message)s")
    logging.getLogger("asyncio").setLevel(logging.WARNING)


def merged(path: str, options: Options) -> dict[str, Any]:
    """Return the values of the configuration file and of the command line, which goes before.

    Raises:
        InvalidInputError: the file is malformed or has unknown keys.
    """
    from barque.cli.flag_tables import TABLES

    flags = [*read_table(TABLES[path]), *read_table(FILE_ONLY)]
    values = Options(flags).values
    if options["config"]:
        values |= _read_file(options["config"], flags)
    values |= {name: options[name] for name in options.changed if name in values}
    return values


def _read_file(path: str, flags: list[Flag]) -> dict[str, Any]:
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
    except (OSError, ValueError) as error:
        raise InvalidInputError(f"configuration file {path}: {error}") from None
    if not isinstance(content, dict):
        raise InvalidInputError(f"configuration file {path}: not an object")
    known = {flag.name for flag in flags} - {"config"}
    words = []
    for name, value in content.items():
        if name not in known:
            raise InvalidInputError(f"configuration file {path}: unknown key {name}")
        for one in value if isinstance(value, list) else [value]:
            if not isinstance(one, (str, int, bool)):
                raise InvalidInputError(f"configuration file {path}: {name} is no text, number or truth value")
            words.append(f"--{name}={str(one).lower() if isinstance(one, bool) else one}")
    read, _ = parse(flags, words)
    return {name: read[name] for name in read.changed}
