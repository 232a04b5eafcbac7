"""`barque build` with caches and images in folders of this machine."""

import json
import re
from pathlib import Path

import pytest

from plugins import Run, barque_in, docker_in
from under_test import EngineUnderTest

STAGES = "FROM busybox AS one\nRUN echo one > /one\nFROM busybox\nCOPY --from=one /one /\nRUN echo two > /two\n"
ALL = {"RUN echo one > /one", "COPY --from=one /one /", "RUN echo two > /two"}
pytestmark = pytest.mark.system


@pytest.fixture
def docker(engine: EngineUnderTest, tmp_path: Path) -> Run:
    """Give the docker command with the plugins, in the folder `tmp_path`."""
    return docker_in(engine, tmp_path)


@pytest.fixture
def barque(engine: EngineUnderTest, tmp_path: Path) -> Run:
    """Give our command in the folder `tmp_path`."""
    return barque_in(engine, tmp_path, tmp_path / "none")


def cached(said: str) -> set[str]:
    """Return the steps that change files and came from the cache."""
    numbers = dict(re.findall(r"^#(\d+) \[[^\]]*\] ((?:RUN|COPY) .*)$", said, re.MULTILINE))
    return {text for number, text in numbers.items() if f"\n#{number} CACHED\n" in said}


@pytest.mark.parametrize("mode", ["min", "max"])
def test_a_cache_in_a_folder_is_written_and_read(barque: Run, engine: EngineUnderTest, tmp_path: Path, mode: str) -> None:
    (tmp_path / "Dockerfile").write_text(STAGES)
    said = barque("build", "--cache-from", "type=local,src=cache", "--cache-to", f"type=local,dest=cache,mode={mode}", "-t", "stored", ".")
    assert "the local cache is passed over" in said.stderr
    identity = engine.docker("image", "inspect", "-f", "{{.Id}}", "stored")
    for both in ("rmi", "stored"), ("builder", "prune", "-af"):
        engine.docker(*both)
    # Written to what it is read from: what is there stays.
    flags = ("--cache-from", "type=local,src=cache", "--cache-to", f"type=local,dest=cache,mode={mode},tag=again")
    said = barque("build", *flags, "-t", "stored", ".")
    expected = {"RUN echo two > /two", "COPY --from=one /one /"}
    assert cached(said.stderr) >= expected, said.stderr
    assert engine.docker("image", "inspect", "-f", "{{.Id}}", "stored") == identity
    rows = json.loads((tmp_path / "cache/index.json").read_text())["manifests"]
    assert [row["annotations"]["org.opencontainers.image.ref.name"] for row in rows] == ["latest", "again"]
    assert list((tmp_path / "cache/ingest").iterdir()) == []
    failed = barque("build", "--cache-to", "type=local", ".", code=1).stderr
    assert "requires dest" in failed


def test_buildx_and_barque_read_each_other(barque: Run, docker: Run, engine: EngineUnderTest, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(STAGES)
    barque("build", "--cache-to", "type=local,dest=ours,mode=max", ".")
    engine.docker("builder", "prune", "-af")
    said = docker("buildx", "build", "--cache-from", "type=local,src=ours", "--cache-to", "type=local,dest=theirs,mode=max", ".").stderr
    assert cached(said) == ALL, said
    engine.docker("builder", "prune", "-af")
    assert cached(barque("build", "--cache-from", "type=local,src=theirs", ".").stderr) == ALL


def test_a_baked_target_has_a_cache_in_a_folder(barque: Run, engine: EngineUnderTest, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(STAGES)
    (tmp_path / "docker-bake.hcl").write_text(
        'target "default" {\n  cache-to = ["type=local,dest=baked"]\n  cache-from = ["type=local,src=baked"]\n}\n'
    )
    barque("bake")
    engine.docker("builder", "prune", "-af")
    assert cached(barque("bake").stderr) >= ALL - {"RUN echo one > /one"}


def test_a_context_is_an_image_in_a_layout(barque: Run, docker: Run, engine: EngineUnderTest, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM busybox\nRUN echo laid > /laid\nENV LAID=1\n")
    docker("buildx", "build", "-t", "laid:1", "-o", "type=oci,dest=layout,tar=false", ".")
    engine.docker("builder", "prune", "-af")
    (tmp_path / "Dockerfile").write_text("FROM laid\nRUN cat /laid && test $LAID = 1\nCOPY --from=laid /laid /again\n")
    digest = json.loads((tmp_path / "layout/index.json").read_text())["manifests"][0]["digest"]
    for place in ("layout:1", "layout", f"layout@{digest}"):
        barque("build", "--build-context", f"laid=oci-layout://{place}", "-t", "laid-over", ".")
        assert engine.docker("run", "--rm", "laid-over", "cat", "/again") == "laid"
    failed = barque("build", "--build-context", "laid=oci-layout://layout:2", ".", code=1).stderr
    assert "failed to get build context laid" in failed
    assert "no manifest with the tag 2" in failed
    failed = barque("build", "--build-context", f"laid=oci-layout://layout@sha256:{'0' * 64}", ".", code=1).stderr
    assert "not found" in failed
    # What does not unpack to what its image says is not believed.
    manifest = json.loads((tmp_path / "layout/blobs/sha256" / digest[7:]).read_text())
    blob = tmp_path / "layout/blobs/sha256" / manifest["layers"][-1]["digest"][7:]
    blob.chmod(0o644)
    blob.write_bytes(blob.read_bytes()[:-9] + b"x" * 9)
    engine.docker("rmi", "laid-over")
    engine.docker("builder", "prune", "-af")
    barque("build", "--no-cache", "--build-context", "laid=oci-layout://layout:1", ".", code=1)
