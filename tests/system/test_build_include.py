"""INCLUDE, asked for by buildx, the classic builder and `barque build`."""

import json
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from plugins import Run, barque_in, docker_in, write
from under_test import EngineUnderTest

HEAD = "# syntax=barque/dockerfile:1\n"
pytestmark = pytest.mark.system


@pytest.fixture
def docker(engine: EngineUnderTest, tmp_path: Path) -> Run:
    """Give the docker command with the plugins, in the folder `tmp_path`."""
    return docker_in(engine, tmp_path)


@pytest.fixture
def barque(engine: EngineUnderTest, tmp_path: Path) -> Run:
    """Give our command in the folder `tmp_path`."""
    return barque_in(engine, tmp_path, tmp_path / "none")


def classic(engine: EngineUnderTest, folder: Path, *words: str, code: int = 0) -> str:
    """Build the folder `w` by the classic builder; return its errors."""
    environment = {**engine.environment, "DOCKER_BUILDKIT": "0", "DOCKER_CONFIG": str(folder / "none")}
    done = subprocess.run(["docker", "build", *words, "w"], cwd=folder, env=environment, capture_output=True, text=True, timeout=90)
    assert done.returncode == code, (words, done.stdout, done.stderr)
    return done.stderr


FILES = {
    "w/Dockerfile": f"{HEAD}ARG KIND=plain\nINCLUDE parts/args\nFROM $BASE\nINCLUDE parts/$KIND.inc\nCOPY . /all\n",
    "w/parts/args": "ARG BASE=busybox\n",
    "w/parts/plain.inc": "# escape=`\nARG WORD=`\nword\nENV A=$WORD\nRUN <<E\ncat > /made <<F\nINCLUDE $WORD\nF\nE\nINCLUDE parts/more\n",
    "w/parts/more": "LABEL more=yes\n",
    "w/parts/big.inc": "RUN echo big > /made\n",
    "w/.dockerignore": "parts/more\n",
}


def test_buildx_and_barque_build_what_is_included(docker: Run, barque: Run, tmp_path: Path) -> None:
    write(tmp_path, FILES)
    look = ("--entrypoint", "sh", "inc", "-c", "cat /made; echo $A; ls /all /all/parts")
    docker("buildx", "build", "-t", "inc", "w")
    # What the ignore file names can be included, and is not copied.
    expected = "INCLUDE word\nword\n/all:\nDockerfile\nparts\n\n/all/parts:\nargs\nbig.inc\nplain.inc\n"
    assert docker("run", "--rm", *look).stdout == expected
    assert docker("image", "inspect", "-f", "{{.Config.Labels.more}}", "inc").stdout == "yes\n"
    said = barque("build", "-t", "inc", "--build-arg", "WORD=other", "--explain", "w").stderr
    assert "load included parts/more" in said
    assert "explain: not in the cache: the variable or argument WORD changed (parts/plain.inc:5)" in said, said
    assert docker("run", "--rm", *look).stdout.startswith("INCLUDE other\nother\n")
    barque("build", "-t", "inc", "--build-arg", "KIND=big", "w")
    assert docker("run", "--rm", *look).stdout.startswith("big\n\n")


def test_the_classic_builder_includes_what_its_client_sent(engine: EngineUnderTest, tmp_path: Path) -> None:
    write(tmp_path, {**FILES, "w/.dockerignore": "none\n"})
    classic(engine, tmp_path, "-t", "classic-inc")
    shown = engine.docker("run", "--rm", "classic-inc", "sh", "-c", "cat /made; echo $A")
    assert shown.split() == ["INCLUDE", "word", "word"]
    write(tmp_path, {"w/.dockerignore": "parts/more\n"})
    failed = classic(engine, tmp_path, code=1)
    assert "line 10 of parts/plain.inc (included at Dockerfile:5): INCLUDE parts/more: no such file" in failed
    write(tmp_path, {"w/Dockerfile": f"{HEAD}FROM scratch\nINCLUDE --from=lib x\n"})
    assert "contexts with names need BuildKit" in classic(engine, tmp_path, code=1)


def test_contexts_with_names_of_every_kind(docker: Run, engine: EngineUnderTest, tmp_path: Path) -> None:
    write(tmp_path, {
        "w/Dockerfile": f"{HEAD}FROM busybox\nINCLUDE --from=lib top\nINCLUDE --from=image part\n", "w/part": "RUN exit 9\n",
        "lib/top": "INCLUDE part\n", "lib/part": "RUN echo of the folder > /folder\n", "image/Dockerfile": "FROM scratch\nCOPY part /\n",
        "image/part": "RUN echo of the image > /image\n",
    })  # fmt: skip
    docker("buildx", "build", "-t", "inc-parts", "image")
    docker("buildx", "build", "-t", "inc-named", "--build-context", "lib=lib", "--build-context", "image=docker-image://inc-parts", "w")
    assert docker("run", "--rm", "inc-named", "cat", "/folder", "/image").stdout == "of the folder\nof the image\n"
    failed = docker("buildx", "build", "--build-context", "lib=lib", "w", code=1).stderr
    assert "no context has the name image; give one (--build-context image=...)" in failed
    # An archive on standard input is a context as good as a folder.
    with tarfile.open(tmp_path / "c.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
        tar.add(tmp_path / "lib", "lib")
        (tmp_path / "D").write_text(f"{HEAD}FROM busybox\nINCLUDE lib/part\n")
        tar.add(tmp_path / "D", "Dockerfile")
    environment = {**engine.environment, "DOCKER_CONFIG": str(tmp_path / ".docker"), "BUILDKIT_PROGRESS": "plain"}
    with (tmp_path / "c.tar").open("rb") as archive:
        done = subprocess.run(["docker", "buildx", "build", "-"], stdin=archive, env=environment, capture_output=True, text=True,
                              timeout=100)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "RUN echo of the folder" in done.stderr


def test_errors_show_the_line_of_the_fragment(docker: Run, barque: Run, tmp_path: Path) -> None:
    write(tmp_path, {"w/Dockerfile": f"{HEAD}FROM busybox\nINCLUDE parts/a\n", "w/parts/a": "\nRUN echo fine\nRUN exit 7\n"})
    failed = docker("buildx", "build", "w", code=1).stderr
    assert "parts/a:3\n" in failed
    assert "   3 | >>> RUN exit 7" in failed, failed
    write(tmp_path, {"w/parts/a": "\nRUN echo fine\nCOPY --from=a\n"})
    failed = docker("buildx", "build", "w", code=1).stderr
    assert "   3 | >>> COPY --from=a" in failed, failed
    assert "dockerfile parse error on line 3 of parts/a (included at Dockerfile:3): COPY requires" in failed
    write(tmp_path, {"w/parts/a": "\nENV a b\nRUN true\n"})
    checked = barque("build", "--call=check,format=json", "w", code=1)
    found = json.loads(checked.stdout)
    assert [(one["ruleName"], one["location"]["sourceIndex"]) for one in found["warnings"]] == [("LegacyKeyValueFormat", 1)]
    assert [one["filename"] for one in found["sources"]] == ["Dockerfile", "parts/a"]
    checked = barque("build", "--call=check", "w", code=1)
    assert "parts/a:2\n" in checked.stdout
    assert "   2 | >>> ENV a b" in checked.stdout, checked.stdout


def test_no_link_leads_out_of_the_context(docker: Run, engine: EngineUnderTest, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("RUN echo stolen\n")
    write(tmp_path, {"w/Dockerfile": f"{HEAD}FROM busybox\nINCLUDE link\n", "w/real/part": "RUN echo inside > /got\n"})
    link = tmp_path / "w/link"
    for target in (str(secret), "../secret", "fifo", "real", "link"):
        link.unlink(missing_ok=True)
        link.symlink_to(target)
        if target == "fifo":
            os.mkfifo(tmp_path / "w/fifo")
        for failed in (docker("buildx", "build", "w", code=1).stderr, classic(engine, tmp_path, code=1)):
            assert "link" in failed, (target, failed)
            assert "stolen" not in failed, target
    link.unlink()
    # A link inside is followed, by clients too.
    link.symlink_to("/folder/part")
    (tmp_path / "w/folder").symlink_to("real")
    docker("buildx", "build", "-t", "inc-linked", "w")
    assert docker("run", "--rm", "inc-linked", "cat", "/got").stdout == "inside\n"


def test_provenance_holds_the_texts(docker: Run, tmp_path: Path) -> None:
    write(tmp_path, {"w/Dockerfile": f"{HEAD}FROM scratch\nINCLUDE parts/a\n", "w/parts/a": "COPY Dockerfile /\n"})
    docker("buildx", "build", "--provenance=mode=max", "-o", "out", "w")
    statement = json.loads((tmp_path / "out/provenance.json").read_text())["predicate"]
    whole = json.dumps(statement)
    assert '"filename": "parts/a"' in whole, whole
