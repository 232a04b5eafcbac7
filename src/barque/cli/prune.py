"""Removing what is not used: `container|image|network|volume|system prune`."""

import sys
from typing import Any

from barque.base.errors import InvalidInputError
from barque.cli.disk import logs_of
from barque.cli.units import human_size
from barque.cli.verb import Invocation


def confirm(call: Invocation, warning: str) -> bool:
    """Ask the user unless -f was given."""
    if call.options["force"] or call.options["dry-run"]:
        return True
    print(f"{warning}\nAre you sure you want to continue? [y/N] ", end="", flush=True)
    answer = sys.stdin.readline().strip().lower()
    return answer in ("y", "yes")


def _filters(call: Invocation, extra: dict[str, str] | None = None) -> str | None:
    import json

    filters: dict[str, dict[str, bool]] = {}
    pairs = [(*pair.partition("=")[::2],) for pair in call.options["filter"]]
    for name, value in [*pairs, *(extra or {}).items()]:
        filters.setdefault(name.strip(), {})[value.strip()] = True
    return json.dumps(filters, separators=(",", ":")) if filters else None


def _asked(call: Invocation, extra: dict[str, str] | None = None) -> dict[str, Any]:
    asked: dict[str, Any] = {"filters": _filters(call, extra)}
    if call.options["dry-run"]:
        asked["dry-run"] = True
    return asked


def _report(heading: str, names: list[str], space: int | None) -> None:
    if names:
        print(heading)
        print("".join(f"{name}\n" for name in names))
    if space is not None:
        print(f"Total reclaimed space: {human_size(space)}")


def containers(call: Invocation) -> int:
    """Remove stopped containers."""
    if not confirm(call, "WARNING! This will remove all stopped containers."):
        return 0
    answer = call.api.post("/containers/prune", **_asked(call))
    _report("Deleted Containers:", answer.get("ContainersDeleted") or [], answer.get("SpaceReclaimed", 0))
    return 0


def images(call: Invocation) -> int:
    """Remove unused images."""
    everything = call.options["all"]
    what = "images without at least one container associated to them" if everything else "dangling images"
    if not confirm(call, f"WARNING! This will remove all {what}."):
        return 0
    answer = _prune_images(call, everything)
    _report("Deleted Images:", _image_lines(answer), answer.get("SpaceReclaimed", 0))
    return 0


def _prune_images(call: Invocation, everything: bool, filters: str | None = None) -> dict[str, Any]:
    filters = filters or _filters(call, {"dangling": "false" if everything else "true"})
    return dict(call.api.post("/images/prune", **{**_asked(call), "filters": filters}))


def _image_lines(answer: dict[str, Any]) -> list[str]:
    return [
        f"untagged: {item['Untagged']}" if item.get("Untagged") else f"deleted: {item.get('Deleted')}"
        for item in answer.get("ImagesDeleted") or []
    ]


def volumes(call: Invocation) -> int:
    """Remove unused volumes."""
    everything = call.options["all"]
    if everything and any(pair.startswith("all=") for pair in call.options["filter"]):
        raise InvalidInputError("conflicting options: cannot specify both --all and --filter all=1")
    what = "all" if everything else "anonymous"
    if not confirm(call, f"WARNING! This will remove {what} local volumes not used by at least one container."):
        return 0
    answer = call.api.post("/volumes/prune", **_asked(call, {"all": "true"} if everything else None))
    _report("Deleted Volumes:", answer.get("VolumesDeleted") or [], answer.get("SpaceReclaimed", 0))
    return 0


def networks(call: Invocation) -> int:
    """Remove unused networks."""
    if not confirm(call, "WARNING! This will remove all custom networks not used by at least one container."):
        return 0
    answer = call.api.post("/networks/prune", **_asked(call))
    _report("Deleted Networks:", answer.get("NetworksDeleted") or [], None)
    return 0


def system(call: Invocation) -> int:
    """Remove all that is not used."""
    options = call.options
    if options["volumes"] and any(pair.startswith("until=") for pair in options["filter"]):
        raise InvalidInputError('The "until" filter is not supported with "--volumes"')
    if options["logs"] and options["filter"]:
        raise InvalidInputError('"--filter" is not supported with "--logs": logs are emptied one by one by "logs --clear"')
    if not confirm(call, _system_warning(call)):
        return 0
    space = 0
    answer = call.api.post("/containers/prune", **_asked(call))
    _report("Deleted Containers:", answer.get("ContainersDeleted") or [], None)
    space += answer.get("SpaceReclaimed", 0)
    answer = call.api.post("/networks/prune", **_asked(call))
    _report("Deleted Networks:", answer.get("NetworksDeleted") or [], None)
    if options["volumes"]:
        answer = call.api.post("/volumes/prune", **_asked(call))
        _report("Deleted Volumes:", answer.get("VolumesDeleted") or [], None)
        space += answer.get("SpaceReclaimed", 0)
    answer = _prune_images(call, options["all"])
    _report("Deleted Images:", _image_lines(answer), None)
    space += answer.get("SpaceReclaimed", 0)
    answer = call.api.post("/build/prune", all=options["all"], **_asked(call))
    _report("Deleted build cache objects:", answer.get("CachesDeleted") or [], None)
    space += answer.get("SpaceReclaimed", 0)
    if options["logs"]:
        space += _clear_logs(call)
    print(f"Total reclaimed space: {human_size(space)}")
    return 0


def _clear_logs(call: Invocation) -> int:
    rows = [row for row in logs_of(call) if row["Size"]]
    if not call.options["dry-run"]:
        for row in rows:
            call.api.post(f"/containers/{row['Container']}/logs/clear")
    _report("Emptied Logs:", [row["Name"] for row in rows], None)
    return sum(row["Size"] for row in rows)


def _system_warning(call: Invocation) -> str:
    lines = ["WARNING! This will remove:", "  - all stopped containers"]
    lines.append("  - all networks not used by at least one container")
    if call.options["volumes"]:
        lines.append("  - all anonymous volumes not used by at least one container")
    lines.append(
        "  - all images without at least one container associated to them"
        if call.options["all"]
        else "  - all dangling images"
    )
    if call.options["logs"]:
        lines.append("  - what all containers have logged")
    lines.append("  - all build cache" if call.options["all"] else "  - unused build cache")
    if call.options["filter"]:
        lines += ["", "  Items to be pruned will be filtered with:"]
        lines += [f"  - {pair}" for pair in call.options["filter"]]
    return "\n".join(lines) + "\n"
