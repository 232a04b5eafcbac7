"""The docker command with buildx and Compose, which lie outside of its own folder of plugins."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from under_test import EngineUnderTest

SOURCE = Path(__file__).parents[1] / "src"
PLUGINS = Path("/var/cache/barque-tests/cli-plugins")
Run = Callable[..., subprocess.CompletedProcess[str]]


def plugin_config(folder: Path) -> Path:
    """Make a folder the docker command's configuration, in which it finds its plugins; skip where one is missing."""
    if shutil.which("docker") is None or not (PLUGINS / "docker-buildx").exists():
        pytest.skip("docker, buildx or Compose is not installed")
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"cliPluginsExtraDirs": [str(PLUGINS)]}))
    return folder


def docker_in(engine: EngineUnderTest, folder: Path) -> Run:
    """Return what runs the docker command in a folder and expects an exit code; skip where a plugin is missing."""
    config = plugin_config(folder / ".docker")

    def run(*words: str, code: int = 0, text_in: str | None = None) -> subprocess.CompletedProcess[str]:
        environment = {**engine.environment, "DOCKER_CONFIG": str(config), "BUILDKIT_PROGRESS": "plain"}
        result = subprocess.run(["docker", *words], cwd=folder, env=environment, capture_output=True, text=True, timeout=100, input=text_in)
        assert result.returncode == code, (words, result.stdout, result.stderr)
        return result

    return run


def barque_in(engine: EngineUnderTest, folder: Path, config: Path) -> Run:
    """Return what runs our command in a folder, with a folder of configuration, and expects an exit code."""
    environment = {**engine.environment, "PYTHONPATH": str(SOURCE), "DOCKER_CONFIG": str(config)}

    def run(*words: str, code: int = 0, **options: object) -> subprocess.CompletedProcess[str]:
        settings = {"cwd": folder, "capture_output": True, "text": True, "timeout": 90, "env": environment, **options}
        settings["env"] = {**environment, **settings["env"]}  # type: ignore[dict-item]
        done = subprocess.run([sys.executable, "-m", "barque", *words], **settings)  # type: ignore[call-overload]
        assert done.returncode == code, (words, done.stdout, done.stderr)
        return done  # type: ignore[no-any-return]

    return run


def write(folder: Path, files: dict[str, str]) -> None:
    """Write files below a folder by their names."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
