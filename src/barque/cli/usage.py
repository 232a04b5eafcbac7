"""Help texts and usage errors in Docker's layout."""

import os

from barque.cli.flags import Flag

SLOP = 5


def flag_usages(flags: list[Flag], width: int = 79) -> str:
    """Return the aligned and wrapped list of flags.

    Args:
        flags: the table; hidden ones are left out, the rest is sorted by name.
        width: columns of the terminal, less one.
    """
    heads = []
    for flag in sorted(flags, key=lambda one: one.name):
        if flag.hidden:
            continue
        head = f"  -{flag.short}, --{flag.name}" if flag.short else f"      --{flag.name}"
        if flag.kind not in ("bool", "optional"):
            head += " " + flag.kind
        heads.append((head, flag.text + _default_note(flag)))
    column = max((len(head) for head, _ in heads), default=0) + 3
    return "".join(f"{head:<{column}}{_wrap(column, width, text)}\n" for head, text in heads)


def _default_note(flag: Flag) -> str:
    if flag.default in ("", "0", "false") and flag.kind not in ("duration",):
        return ""
    if flag.kind == "duration":
        return f" (default {flag.default or '0s'})"
    if flag.kind == "string":
        return f' (default "{flag.default}")'
    return f" (default {flag.default})"


def _wrap(indent: int, width: int, text: str) -> str:
    room = width - indent
    start = ""
    if room < 24:
        indent, room = 16, width - 16
        start = "\n" + " " * indent
    if room < 24:
        return text.replace("\n", "\n" + " " * indent)
    margin = "\n" + " " * indent
    lines = []
    while True:
        line, text = _cut(room - SLOP, text)
        lines.append(line.replace("\n", margin))
        if not text:
            return start + margin.join(lines)


def _cut(length: int, text: str) -> tuple[str, str]:
    if length + SLOP > len(text):
        return text, ""
    head = text[:length]
    blank = max(head.rfind(" "), head.rfind("\t"), head.rfind("\n"))
    if blank <= 0:
        return text, ""
    newline = head.rfind("\n")
    if 0 < newline < blank:
        blank = newline
    return text[:blank], text[blank + 1 :]


def terminal_width() -> int:
    """Return the columns of the terminal on standard output, 80 where there is none."""
    try:
        return os.get_terminal_size(1).columns or 80
    except OSError:
        return 80


def command_help(path: str, usage: str, text: str, names: list[str], flags: list[Flag]) -> str:
    """Return the help text of one command.

    Args:
        path: the command as typed, such as "container ls".
        usage: what follows the path on the usage line; several lines are several forms.
        text: what the command does.
        names: all its names, shown when there are several.
        flags: its table of flags.
    """
    forms = [f"barque {path} {form}".rstrip() for form in usage.split("\n")]
    parts = ["Usage:  " + "\n\t".join(forms) + "\n\n" + text + "\n"]
    if len(names) > 1:
        parts.append("\nAliases:\n  " + ", ".join(f"barque {name}" for name in names) + "\n")
    shown = flag_usages(flags, terminal_width() - 1)
    if shown:
        parts.append("\nOptions:\n" + shown)
    return "".join(parts)
