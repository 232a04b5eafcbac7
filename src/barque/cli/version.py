"""`version`."""

import os
import sys
from typing import Any

from barque import __version__
from barque.base.errors import UnavailableError
from barque.cli.verb import Invocation

API_VERSION = "1.51"


def version(call: Invocation) -> int:
    """Show the versions of the command and of the engine."""
    problem = None
    server: dict[str, Any] | None = None
    try:
        server = call.api.get("/version")
    except UnavailableError as error:
        problem = error
    client = _client(server)
    form = call.options["format"]
    if form:
        _formatted(form, client, server)
    else:
        _plain(client, server)
    if problem:
        sys.stdout.flush()
        print(problem, file=sys.stderr)
        return 1
    return 0


def _client(server: dict[str, Any] | None) -> dict[str, Any]:
    machine = os.uname()
    architecture = {"x86_64": "amd64", "aarch64": "arm64"}.get(machine.machine, machine.machine)
    shared = API_VERSION
    if server and _number(server.get("ApiVersion", API_VERSION)) < _number(API_VERSION):
        shared = server["ApiVersion"]
    return {
        "Version": __version__,
        "ApiVersion": shared,
        "DefaultAPIVersion": API_VERSION,
        "PythonVersion": sys.version.split()[0],
        "Os": machine.sysname.lower(),
        "Arch": architecture,
        "Context": "default",
    }


def _number(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".") if part.isdigit())


def _formatted(form: str, client: dict[str, Any], server: dict[str, Any] | None) -> None:
    data = {"Client": client, "Server": server}
    if form == "json":
        from barque.base.go_functions import to_json

        print(to_json(data))
        return
    from barque.cli.tables import parse_template, render

    print(render(parse_template(form), data))


def _plain(client: dict[str, Any], server: dict[str, Any] | None) -> None:
    api = client["ApiVersion"]
    if api != API_VERSION:
        api += f" (downgraded from {API_VERSION})"
    rows = [
        ("Version", client["Version"]),
        ("API version", api),
        ("Python version", client["PythonVersion"]),
        ("OS/Arch", f"{client['Os']}/{client['Arch']}"),
        ("Context", client["Context"]),
    ]
    print("Client:")
    for name, value in rows:
        print(f" {name + ':':<18} {value}")
    if server is None:
        return
    platform = (server.get("Platform") or {}).get("Name", "")
    print("\nServer:" + (f" {platform}" if platform else ""))
    for component in server.get("Components") or [{"Name": "Engine", "Version": server["Version"], "Details": {}}]:
        _component(component)


def _component(component: dict[str, Any]) -> None:
    details = component.get("Details") or {}
    print(f" {component['Name']}:")
    print(f"  {'Version:':<17} {component.get('Version', '')}")
    if "ApiVersion" in details:
        least = details.get("MinAPIVersion")
        print(f"  {'API version:':<17} {details['ApiVersion']}" + (f" (minimum version {least})" if least else ""))
    known = (("GoVersion", "Go version"), ("PythonVersion", "Python version"), ("GitCommit", "Git commit"))
    for key, label in known:
        if key in details:
            label = label if "ApiVersion" in details else key
            print(f"  {label + ':':<17} {details[key]}")
    if details.get("BuildTime") and "ApiVersion" in details:
        print(f"  {'Built:':<17} {_build_time(details['BuildTime'])}")
    if "Os" in details and "Arch" in details:
        print(f"  {'OS/Arch:':<17} {details['Os']}/{details['Arch']}")
    if "Experimental" in details:
        print(f"  {'Experimental:':<17} {details['Experimental']}")


def _build_time(text: str) -> str:
    import time

    from barque.cli.timestamps import parse_rfc3339

    seconds = parse_rfc3339(text)
    if not seconds:
        return text
    moment = time.gmtime(seconds)
    return time.strftime("%a %b ", moment) + f"{moment.tm_mday:2d}" + time.strftime(" %H:%M:%S %Y", moment)
