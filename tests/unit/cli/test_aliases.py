"""Every command by each of its names: one and the same help, one and the same flags; the names are Docker's."""

import re
import shutil
import subprocess

import pytest

from barque.cli.catalog import ALIASES, COMMANDS, names
from barque.cli.main import main

# Names that ours has besides.
OWN = {"volume backup", "volume restore", "buildx build", "buildx bake", "builder build", "image build"}


def told(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """Return what our command ends with and says."""
    code = main(list(words))
    out = capsys.readouterr()
    return code, out.out, out.err


@pytest.mark.parametrize("alias", sorted(ALIASES))
def test_an_alias_helps_as_its_command_does(alias: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = ALIASES[alias]
    code, text, errors = told(capsys, *alias.split(), "--help")
    assert (code, errors) == (0, "")
    assert f"barque {alias}" in text.splitlines()[0]
    usage, blank, rest = text.partition("\n\n")
    full = usage.replace(f"barque {alias}", f"barque {path}") + blank + rest
    assert full == told(capsys, *path.split(), "--help")[1]


@pytest.mark.parametrize("alias", sorted(ALIASES))
def test_an_alias_refuses_as_its_command_does(alias: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = ALIASES[alias]
    words = ["--no-such-flag"]
    refused = told(capsys, *alias.split(), *words)
    assert refused[0] != 0
    code, out, errors = told(capsys, *path.split(), *words)
    assert refused == (code, out, errors.replace(f"barque {path}", f"barque {alias}"))


@pytest.mark.skipif(shutil.which("docker") is None, reason="the docker command is not installed")
@pytest.mark.parametrize("path", sorted(path for path in COMMANDS if re.match(r"(container|image|network|volume|system) ", path)))
def test_a_command_has_dockers_names(path: str) -> None:
    done = subprocess.run(["docker", *path.split(), "--help"], capture_output=True, text=True, timeout=30)
    if done.returncode or f"docker {path}" not in done.stdout.partition("\n\n")[0]:
        assert len(names(path)) == 1 or set(names(path)[1:]) <= OWN
        return
    listed = re.search(r"^Aliases:\n +(.*)", done.stdout, re.MULTILINE)
    theirs = {name.strip().removeprefix("docker ") for name in (listed[1].split(",") if listed else [f"docker {path}"])}
    assert {name for name in names(path) if name not in OWN} == theirs
