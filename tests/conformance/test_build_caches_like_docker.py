"""Caches of builds between Barque and Docker's BuildKit: each reads what the other wrote."""

import base64
import json
import re
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

from plugins import plugin_config
from under_test import EngineUnderTest

STAGES = """\
FROM busybox AS side
RUN echo side > /side
FROM busybox
RUN echo own > /own
COPY --from=side /side /side
RUN echo last > /last
"""

pytestmark = pytest.mark.conformance


def build(environment: dict[str, str], folder: Path, *words: str) -> str:
    """Build the Dockerfile in a folder by buildx; return what was shown."""
    config = plugin_config(folder / ".docker")
    (folder / ".dockerignore").write_text("*\n")
    result = subprocess.run(
        ["docker", "buildx", "build", *words, "."], cwd=folder, capture_output=True, text=True, timeout=100,
        env={**environment, "DOCKER_CONFIG": str(config), "BUILDKIT_PROGRESS": "plain"},
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    return result.stderr


def imported(said: str) -> bool:
    """Tell whether a cache was read without complaint."""
    number = re.search(r"^#(\d+) importing cache manifest from", said, re.MULTILINE)
    assert number is not None, said
    return f"#{number[1]} DONE" in said and f"#{number[1]} ERROR" not in said


@pytest.mark.parametrize("form", ["mode=min", "mode=max", "mode=max,image-manifest=false", "mode=max,compression=zstd"])
def test_docker_reads_a_cache_that_we_wrote(form: str, engine: EngineUnderTest, dockerd: Any, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(STAGES)
    build(engine.environment, tmp_path, "--cache-to", f"type=local,dest=folder,{form}")
    assert imported(build(dockerd.environment, tmp_path, "--cache-from", "type=local,src=folder"))


def test_docker_reads_an_image_that_holds_our_cache(engine: EngineUnderTest, dockerd: Any, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(STAGES)
    build(engine.environment, tmp_path, "-t", "ours:1", "--cache-to", "type=inline")
    engine.docker("save", "-o", str(tmp_path / "ours.tar"), "ours:1")
    dockerd.docker("load", "-i", str(tmp_path / "ours.tar"))
    assert imported(build(dockerd.environment, tmp_path, "--cache-from", "ours:1"))


def test_we_read_an_image_that_holds_docker_s_cache(engine: EngineUnderTest, dockerd: Any, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(STAGES)
    build(dockerd.environment, tmp_path, "-t", "theirs:1", "--cache-to", "type=inline")
    dockerd.docker("save", "-o", str(tmp_path / "theirs.tar"), "theirs:1")
    with tarfile.open(tmp_path / "theirs.tar") as tar:
        listed = json.loads(tar.extractfile("manifest.json").read())  # type: ignore[union-attr]
        config = json.loads(tar.extractfile(listed[0]["Config"]).read())  # type: ignore[union-attr]
    records = json.loads(base64.b64decode(config["moby.buildkit.cache.v0"]))
    assert any("layers" in record for record in records)
    engine.docker("load", "-i", str(tmp_path / "theirs.tar"))
    assert imported(build(engine.environment, tmp_path, "--cache-from", "theirs:1"))
    engine.docker("rmi", "theirs:1")
