"""Labels, environment and tags that log options ask for. Pure."""

import re
from collections.abc import Callable
from typing import Any

from barque.base.errors import InvalidInputError
from barque.base.go_lexer import TemplateError
from barque.base.go_template import Template
from barque.base.times import format_ns
from barque.logdrivers.entry import ContainerFacts

_SHORT = 12


def extra_attributes(facts: ContainerFacts, rename: Callable[[str], str] = lambda key: key) -> dict[str, str]:
    """Return the labels and variables that `labels`, `labels-regex`, `env` and `env-regex` choose.

    Raises:
        InvalidInputError: an expression is malformed.
    """
    options, found = facts.options, {}
    variables = dict(entry.split("=", 1) for entry in facts.env if "=" in entry)
    for kind, values in (("labels", facts.labels), ("env", variables)):
        for key in (options.get(kind) or "").split(","):
            if key in values:
                found[rename(key)] = values[key]
        if options.get(f"{kind}-regex"):
            pattern = compiled(options[f"{kind}-regex"])
            found.update({rename(key): value for key, value in values.items() if pattern.search(key)})
    return found


def compiled(text: str) -> re.Pattern[str]:
    """Return a regular expression.

    Raises:
        InvalidInputError: it is malformed.
    """
    try:
        return re.compile(text)
    except re.error as error:
        raise InvalidInputError(f"error parsing regexp: {error}: `{text}`") from None


def short_id(full: str) -> str:
    """Return the first digits of an id, without its algorithm."""
    return full.removeprefix("sha256:")[:_SHORT]


def tag(facts: ContainerFacts, default: str = "{{.ID}}") -> str:
    """Return the log's tag: the option `tag`, a Go template, over the container's facts.

    Raises:
        InvalidInputError: the template is malformed, or names what there is not.
    """
    source = facts.options.get("tag") or default
    try:
        return Template(source).render(_fields(facts)) if "{{" in source else source
    except TemplateError as error:
        raise InvalidInputError(str(error).replace("template: :", "template: log-tag:", 1)) from None


def _fields(facts: ContainerFacts) -> dict[str, Any]:
    return {
        "ID": short_id(facts.id), "FullID": facts.id, "Name": facts.name, "Command": facts.command_line,
        "ImageID": short_id(facts.image_id), "ImageFullID": facts.image_id, "ImageName": facts.image_name,
        "Hostname": facts.hostname, "DaemonName": facts.daemon, "Config": facts.options, "ContainerID": facts.id,
        "ContainerName": f"/{facts.name}", "ContainerEntrypoint": facts.command[0] if facts.command else "",
        "ContainerArgs": facts.command[1:], "ContainerImageID": facts.image_id,
        "ContainerImageName": facts.image_name, "ContainerCreated": format_ns(facts.created_ns),
        "ContainerEnv": facts.env, "ContainerLabels": facts.labels, "ExtraAttributes": extra_attributes(facts),
    }  # fmt: skip
