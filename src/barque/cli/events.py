"""`events`."""

from typing import Any

from barque.cli.timestamps import api_time, local_rfc3339
from barque.cli.verb import Invocation, filters_json


def events(call: Invocation) -> int:
    """Print what happens in the engine, as it happens."""
    options = call.options
    form = options["format"]
    template: Any = None
    if form and form != "json":
        from barque.cli.tables import parse_template

        template = parse_template(form)
    stream = call.api.stream(
        "/events",
        since=api_time(options["since"]),
        until=api_time(options["until"]),
        filters=filters_json(options["filter"]),
    )
    for event in stream:
        print(_line(event, form, template), flush=True)
    return 0


def _line(event: dict[str, Any], form: str, template: Any) -> str:
    if template is not None:
        from barque.cli.tables import render

        known = {"Status": event.get("status", event.get("Action")), "ID": event.get("Actor", {}).get("ID", "")}
        return render(template, {**known, **event})
    if form == "json":
        import json

        return json.dumps(event, separators=(",", ":"), ensure_ascii=False)
    actor = event.get("Actor") or {}
    moment = event.get("timeNano") or event.get("time", 0) * 10**9
    text = f"{local_rfc3339(moment)} {event.get('Type', '')} {event.get('Action', '')} {actor.get('ID', '')}"
    attributes = actor.get("Attributes") or {}
    if attributes:
        text += " (" + ", ".join(f"{key}={attributes[key]}" for key in sorted(attributes)) + ")"
    return text
