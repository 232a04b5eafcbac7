"""`logs`."""

from barque.cli.session import Demultiplexer, write_all
from barque.cli.timestamps import api_time
from barque.cli.verb import Invocation
from barque.client.api import quote


def logs(call: Invocation) -> int:
    """Print a container's log, or forget it."""
    options = call.options
    if options["clear"]:
        call.api.post(f"/containers/{quote(call.words[0])}/logs/clear")
        return 0
    details = call.api.get(f"/containers/{quote(call.words[0])}/json")
    response = call.api.send(
        "GET",
        f"/containers/{details['Id']}/logs",
        parameters={
            "stdout": True,
            "stderr": True,
            "since": api_time(options["since"]),
            "until": api_time(options["until"]),
            "timestamps": options["timestamps"],
            "follow": options["follow"],
            "tail": options["tail"],
            "details": options["details"],
        },
    )
    if details["Config"].get("Tty"):
        for piece in response.chunks():
            write_all(1, piece)
    else:
        demultiplexer = Demultiplexer(write_all)
        for piece in response.chunks():
            demultiplexer.feed(piece)
    response.close()
    return 0
