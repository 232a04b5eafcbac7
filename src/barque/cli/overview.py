"""The help text of `barque` itself and of its groups."""

from barque.cli.catalog import ALIASES, COMMANDS, COMMON, GROUPS, NESTED_GROUPS
from barque.cli.flags import Flag
from barque.cli.usage import flag_usages, terminal_width


def overview(flags: list[Flag]) -> str:
    """Return the help text of `barque`."""
    top = {name: path for name, path in ALIASES.items() if " " not in name}
    top.update({name: name for name in COMMANDS if " " not in name})
    rest = sorted(name for name in top if name not in COMMON)
    width = max(10, *map(len, [*top, *GROUPS]))
    lines = ["Usage:  barque [OPTIONS] COMMAND", "", "Containers, driven as Docker's are", "", "Common Commands:"]
    lines += [_line(name, COMMANDS[top[name]].text, width) for name in COMMON]
    lines += ["", "Management Commands:", *(_line(name, text, width) for name, text in GROUPS.items())]
    lines += ["", "Commands:", *(_line(name, COMMANDS[top[name]].text, width) for name in rest)]
    lines += [
        _line("daemon", "Run the engine (barque daemon --help)", width),
        _line("runtime", "Run containers from bundles as an OCI runtime (barque runtime --help)", width),
    ]
    shown = flag_usages([flag for flag in flags if flag.name != "help"], terminal_width() - 1)
    lines += ["", "Global Options:", shown, "Run 'barque COMMAND --help' for more information on a command."]
    return "\n".join(lines) + "\n"


def group_help(group: str) -> str:
    """Return the help text of a group such as `container`."""
    members = {path.removeprefix(f"{group} "): command for path, command in COMMANDS.items() if path.startswith(group + " ")}
    width = max(10, *map(len, members))
    lines = [f"Usage:  barque {group} COMMAND", "", {**GROUPS, **NESTED_GROUPS}[group], "", "Commands:"]
    lines += [_line(name, members[name].text, width) for name in sorted(members)]
    lines += ["", f"Run 'barque {group} COMMAND --help' for more information on a command."]
    return "\n".join(lines) + "\n"


def _line(name: str, text: str, width: int) -> str:
    return f"  {name:<{width}}  {text}"
