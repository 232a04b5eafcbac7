"""Instructions that `import --change` and `commit --change` apply to a run configuration."""

import copy
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from barque.base.errors import InvalidInputError
from barque.dockerfile import instructions as of
from barque.dockerfile.lines import parse
from barque.dockerfile.run_config import configure, environment_of
from barque.dockerfile.stages import instruction
from barque.dockerfile.words import Rules, expand

Json = dict[str, Any]
_ALLOWED = frozenset(
    ["cmd", "entrypoint", "env", "expose", "healthcheck", "label", "onbuild", "stopsignal", "user", "volume", "workdir"]
)


def apply_changes(config: Json, changes: Iterable[str]) -> Json:
    """Return a copy of the run configuration with the instructions applied in order.

    An entrypoint that they leave empty is the one of before, and so is a command beside it.

    Raises:
        InvalidInputError: an instruction is unknown, malformed, or cannot be carried out.
    """
    made: Json = copy.deepcopy(config)
    text = "\n".join(changes)
    if not text:
        return made
    source = parse(text)
    for line in source.lines:
        if line.name.lower() not in _ALLOWED:
            raise InvalidInputError(f"{line.name} is not a valid change command")
    has_command = False
    for parsed in [instruction(line) for line in source.lines]:
        assert isinstance(parsed, of.Instruction)
        configure(made, _expanded(parsed, made, Rules(source.escape)))
        if isinstance(parsed, of.Cmd):
            has_command = has_command or bool(parsed.words)
        elif isinstance(parsed, of.Entrypoint) and not has_command:
            made.pop("Cmd", None)
    if not made.get("Entrypoint"):
        kept = ("Entrypoint",) if made.get("Cmd") else ("Entrypoint", "Cmd")
        made |= {key: config[key] for key in kept if key in config}
    return made


def _expanded(made: of.Instruction, config: Json, rules: Rules) -> of.Instruction:
    values = environment_of(config)
    if isinstance(made, of.Expose):
        return replace(made, ports=tuple(word for port in made.ports for word in expand(port, values, rules).words))
    return made.expanded(lambda word: expand(word, values, rules).text)
