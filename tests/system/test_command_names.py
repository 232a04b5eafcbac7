"""A command's short and its long name do the same: what both say of one engine."""

import subprocess
import sys
import uuid
from collections.abc import Iterator

import pytest

from barque.cli.catalog import ALIASES
from under_test import EngineUnderTest

pytestmark = pytest.mark.system

# What each wants to say something of one container or image, and change nothing; how long ago a thing was made is left out.
_ASK = {
    "container ls": ["-a", "--no-trunc", "--format", "{{json .ID}} {{.Names}} {{.State}}"], "container logs": ["{name}"],
    "container port": ["{name}"], "container diff": ["{name}"], "container top": ["{name}", "-o", "pid,args"],
    "container exec": ["{name}", "echo", "done"], "container update": ["--pids-limit", "50", "{name}"],
    "container start": ["{name}"], "container run": ["--rm", "busybox", "sh", "-c", "echo ran; exit 7"],
    "container stats": ["--no-stream", "--format", "{{.Name}}", "{name}"], "container cp": ["{name}:/etc/group", "-"],
    "image ls": ["--no-trunc", "--format", "{{.Repository}} {{.ID}} {{.Size}}"],
    "image history": ["--no-trunc", "--format", "{{.ID}} {{.CreatedBy}} {{.Size}}", "busybox"], "image tag": ["busybox", "busybox:again"],
    "image save": ["busybox"], "network ls": ["--no-trunc"], "volume ls": [], "system info": ["--format", "{{json .DockerRootDir}}"],
    "system events": ["--since", "1", "--until", "2"],
}  # fmt: skip
_SHOWN = sorted(alias for alias, path in ALIASES.items() if path in _ASK)


@pytest.fixture(scope="module")
def name(engine: EngineUnderTest) -> Iterator[str]:
    """Give a running container's name."""
    made = f"c-{uuid.uuid4().hex[:8]}"
    engine.docker("run", "-d", "--name", made, "-p", "127.0.0.1::80", "busybox", "sh", "-c", "echo hello; touch /new; exec sleep 1000")
    yield made
    engine.docker("rm", "-f", made)


def said(engine: EngineUnderTest, command: str, words: list[str]) -> tuple[int, bytes, bytes]:
    done = subprocess.run([sys.executable, "-m", "barque", *command.split(), *words], env=engine.environment,
                          capture_output=True, stdin=subprocess.DEVNULL, timeout=60)  # fmt: skip
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("alias", _SHOWN)
def test_both_names_say_the_same(engine: EngineUnderTest, name: str, alias: str) -> None:
    words = [word.format(name=name) if word == word.replace("{{", "") else word for word in _ASK[ALIASES[alias]]]
    found = said(engine, alias, words)
    assert found == said(engine, ALIASES[alias], words)
    assert found[0] == (7 if ALIASES[alias] == "container run" else 0), found
