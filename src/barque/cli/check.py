"""`barque system check`: is the store what its rows say?"""

from barque.cli.flags import UsageError
from barque.cli.units import human_size
from barque.cli.verb import Invocation

_SHOWN = (("Blobs", "blobs"), ("Images", "images"), ("Names", "names"), ("Layers", "layers"),
          ("Containers", "containers"), ("Volumes", "volumes"))  # fmt: skip


def check(call: Invocation) -> int:
    """Ask the engine to check its store; exit code 1 where something stays wrong."""
    if call.options["format"] not in ("", "json"):
        raise UsageError(f'invalid format "{call.options["format"]}": this command prints text or json')
    repair, quick = call.options["repair"], call.options["quick"]
    found = call.api.post("/system/check", repair=repair or None, quick=quick or None)
    if call.options["format"] == "json":
        import json

        print(json.dumps(found))
        return 0 if found["Consistent"] else 1
    counts = found["Checked"]
    print("Checked " + ", ".join(f"{counts[key]} {word}" for key, word in _SHOWN), end="")
    print("" if quick else f" ({human_size(counts['BytesRead'])} read)")
    for problem in found["Problems"]:
        end = " (repaired)" if problem["Repaired"] else ""
        print(f"{problem['Kind']} {problem['Subject']}: {problem['Problem']}{end}")
    if found["Consistent"]:
        print("The store is consistent.")
        return 0
    print("The store is damaged." if repair else "The store is damaged; barque system check --repair mends what it can.")
    return 1
