import io
import re

import pytest

from barque.cli.progress import show_progress
from barque.client.http import ApiError


class Terminal(io.StringIO):
    def isatty(self):
        return True


def screen(text):
    """Return the lines that a terminal shows after the text."""
    lines, row, column = [""], 0, 0
    for part in re.findall(r"\x1b\[\d*[A-Z]|\r|\n|[^\x1b\r\n]+", text):
        if part == "\n":
            row, column = row + 1, 0
            lines += [""] * (row + 1 - len(lines))
        elif part == "\r":
            column = 0
        elif part.startswith("\x1b["):
            count = int(part[2:-1] or 1)
            if part[-1] == "A":
                row -= count
            elif part[-1] == "B":
                row += count
                lines += [""] * (row + 1 - len(lines))
            elif part[-1] == "K":
                lines[row] = ""
        else:
            line = lines[row].ljust(column)
            lines[row] = line[:column] + part + line[column + len(part) :]
            column += len(part)
    return [line.rstrip() for line in lines if line.strip()]


MESSAGES = [
    {"status": "Pulling from x", "id": "1"},
    {"status": "Pulling fs layer", "progressDetail": {}, "id": "a"},
    {"status": "Pulling fs layer", "progressDetail": {}, "id": "b"},
    {"status": "Downloading", "progressDetail": {"current": 5_000_000, "total": 10_000_000}, "id": "a"},
    {"status": "Pull complete", "progressDetail": {}, "id": "b"},
    {"status": "Digest: sha256:0"},
]


def test_on_a_terminal_each_part_changes_in_its_own_line(monkeypatch):
    out = Terminal()
    monkeypatch.setattr("sys.stdout", out)
    show_progress(iter(MESSAGES), to_stdout=True)
    assert screen(out.getvalue()) == [
        "1: Pulling from x", "a: Downloading      5MB/10MB", "b: Pull complete", "Digest: sha256:0",
    ]  # fmt: skip


def test_elsewhere_each_step_is_a_line_and_bars_are_left_out(monkeypatch):
    out = io.StringIO()
    monkeypatch.setattr("sys.stdout", out)
    show_progress(iter([*MESSAGES, {"stream": "Loaded\n"}, {"aux": {"Tag": "1"}, "progressDetail": {}}]), to_stdout=True)
    assert out.getvalue().splitlines() == [
        "1: Pulling from x", "a: Pulling fs layer", "b: Pulling fs layer", "b: Pull complete", "Digest: sha256:0",
        "Loaded",
    ]  # fmt: skip


def test_an_error_ends_the_stream_in_its_own_words(monkeypatch):
    monkeypatch.setattr("sys.stdout", io.StringIO())
    failing = iter([MESSAGES[0], {"errorDetail": {"message": "denied: no"}, "error": "denied: no"}])
    with pytest.raises(ApiError, match=r"^denied: no$"):
        show_progress(failing, to_stdout=True)
