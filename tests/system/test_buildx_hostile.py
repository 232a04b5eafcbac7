"""Dockerfiles and contexts by buildx that mean no good: nothing of the host is seen, and each ends in a plain word."""

import os
import stat
from pathlib import Path

import pytest

from plugins import Run, docker_in, write
from under_test import EngineUnderTest, needs_root

pytestmark = pytest.mark.system


@pytest.fixture
def docker(engine: EngineUnderTest, tmp_path: Path) -> Run:
    """Give the docker command with buildx, in the folder `tmp_path`."""
    return docker_in(engine, tmp_path)


def test_links_out_of_a_context_lead_into_it(docker: Run, tmp_path: Path) -> None:
    write(tmp_path, {"etc/hostname": "inside-the-context\n", "Dockerfile": "FROM busybox\nCOPY out /out\nCOPY up /up\nRUN cat /out /up\n"})
    (tmp_path / "out").symlink_to("/etc/hostname")
    (tmp_path / "up").symlink_to("../../../../../../etc/hostname")
    said = docker("buildx", "build", "--no-cache", ".").stderr
    assert len([line for line in said.splitlines() if line.endswith(" inside-the-context")]) == 2
    write(tmp_path, {"Dockerfile": "FROM busybox\nCOPY gone /gone\n"})
    (tmp_path / "gone").symlink_to("/etc/passwd")
    assert "not found" in docker("buildx", "build", ".", code=1).stderr


def test_what_is_above_a_context_is_not_reached(docker: Run, tmp_path: Path) -> None:
    (tmp_path / "above").write_text("above\n")
    write(tmp_path, {"c/Dockerfile": "FROM busybox\nCOPY ../above /above\n"})
    assert 'above": not found' in docker("buildx", "build", "c", code=1).stderr


def test_devices_of_a_context_are_refused(docker: Run, tmp_path: Path) -> None:
    needs_root()
    write(tmp_path, {"c/Dockerfile": "FROM busybox\nCOPY . /c\n"})
    os.mknod(tmp_path / "c/disk", stat.S_IFBLK | 0o600, os.makedev(8, 0))
    assert "disk: devices and sockets cannot be part of a build context" in docker("buildx", "build", "c", code=1).stderr


def test_a_dockerfile_of_more_than_100_megabytes_is_refused(docker: Run, tmp_path: Path) -> None:
    with (tmp_path / "Dockerfile").open("wb") as file:
        file.write(b"FROM busybox\n# ")
        file.truncate((100 << 20) + 1)
    assert "larger than" in docker("buildx", "build", ".", code=1).stderr


def test_ten_thousand_stages_end_soon(docker: Run, engine: EngineUnderTest, tmp_path: Path) -> None:
    stages = "".join(f"FROM s{number} AS s{number + 1}\nENV E={number}\n" for number in range(10_000))
    write(tmp_path, {"Dockerfile": f"FROM busybox AS s0\n{stages}"})
    docker("buildx", "build", "-t", "staged-deep", ".")
    assert "E=9999" in engine.docker("inspect", "-f", "{{.Config.Env}}", "staged-deep")


@pytest.mark.parametrize(
    "text",
    [
        "FROM busybox AS a\nCOPY --from=b /x /\nFROM busybox AS b\nCOPY --from=a /x /\n",
        "FROM busybox AS a\nCOPY --from=a /x /\n",
        "FROM busybox AS a\nRUN --mount=from=b,target=/m true\nFROM a AS b\n",
    ],
    ids=["two", "itself", "mount and base"],
)
def test_stages_that_need_each_other_are_refused(text: str, docker: Run, tmp_path: Path) -> None:
    write(tmp_path, {"Dockerfile": text})
    assert "circular dependency detected on stage" in docker("buildx", "build", ".", code=1).stderr
