"""`secret` and `config`: values that containers are given, kept by the engine."""

import base64
import sys
import time
from typing import Any

from barque.base.durations import human_duration
from barque.base.errors import InvalidInputError
from barque.cli.env_files import pairs
from barque.cli.tables import show
from barque.cli.verb import Invocation, filters_json, for_each
from barque.client.api import quote


def _noun(call: Invocation) -> str:
    return call.typed.split()[0]


def _path(call: Invocation, name: str = "") -> str:
    return f"/barque/{_noun(call)}s" + (f"/{quote(name)}" if name else "")


def _value(source: str) -> str:
    if source == "-":
        data = sys.stdin.buffer.read()
    else:
        try:
            with open(source, "rb") as file:
                data = file.read()
        except OSError as error:
            raise InvalidInputError(f"open {source}: {(error.strerror or '').lower()}") from error
    return base64.b64encode(data).decode()


def create(call: Invocation) -> int:
    """Keep a value from a file or standard input, and print its id."""
    name, source = call.words[0], call.words[1] if len(call.words) > 1 else "-"
    body = {"Name": name, "Labels": pairs(call.options["label"]), "Data": _value(source)}
    print(call.api.post(_path(call), body)["ID"])
    return 0


def update(call: Invocation) -> int:
    """Give a kept value another content."""
    name, source = call.words[0], call.words[1] if len(call.words) > 1 else "-"
    call.api.post(_path(call, name) + "/update", {"Data": _value(source)})
    print(name)
    return 0


def ls(call: Invocation) -> int:
    """List what is kept."""
    rows = call.api.get(_path(call), filters=filters_json(call.options["filter"])) or []
    if call.options["quiet"]:
        for row in rows:
            print(row["ID"])
        return 0
    columns = {
        "ID": lambda r: r["ID"], "Name": lambda r: r["Spec"]["Name"],
        "CreatedAt": lambda r: _ago(r["CreatedAt"]), "UpdatedAt": lambda r: _ago(r["UpdatedAt"]),
        "Labels": lambda r: ",".join(f"{k}={v}" for k, v in sorted((r["Spec"].get("Labels") or {}).items())),
    }  # fmt: skip
    headers = {"CreatedAt": "CREATED", "UpdatedAt": "UPDATED"}
    show(rows, columns, headers, call.options["format"], "ID Name CreatedAt UpdatedAt")
    return 0


def _ago(text: str) -> str:
    from barque.base.times import parse_ns

    return f"{human_duration(time.time() - parse_ns(text) / 1e9)} ago"


def inspect(call: Invocation) -> int:
    """Print everything about what is kept, but a secret's value."""
    from barque.base.go_functions import to_json
    from barque.cli.tables import parse_template, render

    found: list[Any] = [call.api.get(_path(call, name)) for name in call.words]
    if call.options["format"]:
        template = parse_template(call.options["format"])
        for row in found:
            print(to_json(row) if call.options["format"] == "json" else render(template, row))
        return 0
    import json

    print(json.dumps(found, indent=4, ensure_ascii=False))
    return 0


def rm(call: Invocation) -> int:
    """Forget kept values."""

    def act(name: str) -> str:
        call.api.delete(_path(call, name))
        return name

    return for_each(call.words, act)


def parse_wish(text: str) -> dict[str, Any]:
    """Return what `--secret NAME` or `--secret source=NAME,target=…,uid=…,gid=…,mode=…` asks for.

    Raises:
        ValueError: a field is unknown or wrong.
    """
    wish: dict[str, Any] = {}
    for number, field in enumerate(text.split(",")):
        key, equals, value = field.partition("=")
        if not equals and not number:
            wish["Source"] = key
        elif key in ("source", "src"):
            wish["Source"] = value
        elif key in ("target", "dst", "destination"):
            wish["Target"] = value
        elif key in ("uid", "gid"):
            wish[key.upper()] = value
        elif key == "mode" and value and all(c in "01234567" for c in value):
            wish["Mode"] = int(value, 8)
        else:
            raise ValueError(f"invalid field '{field}'")
    if not wish.get("Source"):
        raise ValueError("a source is required")
    return wish
