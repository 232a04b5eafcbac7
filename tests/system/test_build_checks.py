"""Build checks and what else clients ask of a Dockerfile, by real buildx on a real engine."""

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from plugins import plugin_config
from under_test import EngineUnderTest

RULE = "https://docs.docker.com/go/dockerfile/rule"
Run = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = pytest.mark.system


@pytest.fixture
def docker(engine: EngineUnderTest, tmp_path: Path) -> Run:
    """Give the docker command with buildx, in the folder `tmp_path`."""
    config = plugin_config(tmp_path / ".docker")

    def run(*words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        environment = {**engine.environment, "DOCKER_CONFIG": str(config), "BUILDKIT_PROGRESS": "plain"}
        if any(word.startswith("--print") for word in words):
            environment["BUILDX_EXPERIMENTAL"] = "1"
        result = subprocess.run(
            ["docker", *words], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=100
        )
        assert result.returncode == code, (words, result.stdout, result.stderr)
        return result

    return run


def test_findings_are_warnings_of_a_build(docker: Run, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM busybox AS Base\nENV a b\nCMD echo $nothing\n")
    said = docker("buildx", "build", ".").stderr
    assert re.search(r"#(\d+) \[internal\] load build definition from Dockerfile\n(?:#\1 .*\n)*#\1 WARN: StageNameCasing: ", said)
    # buildx colours its last words whatever they go to.
    end = re.sub(r"\x1b\[\d*m", "", said[said.index("warnings found") - 20 :])
    assert [line[3:] for line in end.splitlines() if line.startswith(" - ")] == [
        "StageNameCasing: Stage name 'Base' should be lowercase (line 1)",
        'LegacyKeyValueFormat: "ENV key=value" should be used instead of legacy "ENV key value" format (line 2)',
        ("JSONArgsRecommended: JSON arguments recommended for CMD to prevent unintended behavior related to OS signals "
         "(line 3)"),
    ], end
    assert "\n 3 warnings found (use" in end
    whole = docker("--debug", "buildx", "build", ".").stderr
    assert f"More info: {RULE}/legacy-key-value-format/" in whole
    assert "   2 | >>> ENV a b" in whole


def test_checks_are_chosen_by_a_directive_or_an_argument(docker: Run, tmp_path: Path) -> None:
    text = "FROM busybox\nENV a b\n"
    (tmp_path / "Dockerfile").write_text("# check=skip=LegacyKeyValueFormat\n" + text)
    assert "warning" not in docker("buildx", "build", ".").stderr
    (tmp_path / "Dockerfile").write_text("# check=error=true\n" + text)
    failed = docker("buildx", "build", ".", code=1).stderr
    assert "lint violation found for rules: LegacyKeyValueFormat" in failed
    docker("buildx", "build", "--build-arg", "BUILDKIT_DOCKERFILE_CHECK=skip=all", ".")
    (tmp_path / "Dockerfile").write_text("# check=nonsense\n" + text)
    assert "invalid check option" in docker("buildx", "build", ".", code=1).stderr


def test_undefined_variables_are_found_with_the_base_image_and_ignored_files_with_the_ignore_file(
    docker: Run, tmp_path: Path
) -> None:
    (tmp_path / ".dockerignore").write_text("hidden*\n")
    (tmp_path / "hidden.txt").write_text("")
    (tmp_path / "Dockerfile").write_text("FROM busybox\nENV P=$PAHT:/x Q=$PATH\nCOPY hidden.txt /\n")
    said = docker("buildx", "build", "--print=lint", ".").stdout
    assert "\nUsage of undefined variable '$PAHT' (did you mean $PATH?)\nDockerfile:2\n" in said
    assert '\nAttempting to Copy file "hidden.txt" that is excluded by .dockerignore\nDockerfile:3\n' in said
    assert "'$PATH'" not in said


def test_a_check_alone_looks_at_all_stages_and_builds_nothing(docker: Run, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM busybox AS one\nENV a b\nFROM busybox\nRUN exit 1\n")
    answer = docker("buildx", "build", "--print=lint", ".").stdout
    assert answer.strip() == (
        f"WARNING: LegacyKeyValueFormat - {RULE}/legacy-key-value-format/\n"
        '"ENV key=value" should be used instead of legacy "ENV key value" format\nDockerfile:2\n'
        "--------------------\n   1 |     FROM busybox AS one\n   2 | >>> ENV a b\n   3 |     FROM busybox\n"
        "   4 |     RUN exit 1\n--------------------"
    )


OUTLINE = """\
# TAG chooses the base
ARG TAG=latest
ARG UNUSED=1
FROM busybox:${TAG} AS base
# VERSION is what is built
ARG VERSION=2
RUN --mount=type=secret,id=token,required=true --mount=type=ssh true
# app is the product
FROM base AS app
ARG MODE
FROM scratch AS other
ARG NOT_OF_IT
"""


def test_a_target_tells_its_arguments_secrets_and_agents(docker: Run, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(OUTLINE)
    answer = docker("buildx", "build", "--print=outline", "--target=app", "--build-arg", "MODE=fast", ".").stdout
    assert answer == (
        "TARGET:      app\nDESCRIPTION: is the product\n\n"
        "BUILD ARG   VALUE    DESCRIPTION\nTAG         latest   chooses the base\nVERSION     2        is what is built\n"
        "MODE        fast     \n\nSECRET   REQUIRED\ntoken    true\n\nSSH       REQUIRED\ndefault   \n\n"
    )
    found = json.loads(docker("buildx", "build", "--print=outline,format=json", "--target=app", ".").stdout)
    assert [row["name"] for row in found["args"]] == ["TAG", "VERSION", "MODE"]
    assert found["secrets"][0]["location"] == {"ranges": [{"start": {"line": 7}, "end": {"line": 7}}]}


def test_targets_and_requests_are_listed(docker: Run, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(OUTLINE)
    assert docker("buildx", "build", "--print=targets", ".").stdout.splitlines() == [
        "TARGET          DESCRIPTION", "base            ", "app             is the product", "other (default) ",
    ]  # fmt: skip
    listed = docker("buildx", "build", "--print=subrequests.describe", ".").stdout
    assert listed.splitlines()[1:] == [
        "outline              1.0.0   List all parameters current build target supports",
        "targets              1.0.0   List all targets current build supports",
        "subrequests.describe 1.0.0   List available subrequest types",
    ]
    assert "unsupported request frontend.nonsense" in docker("buildx", "build", "--print=nonsense", ".", code=1).stderr


def test_progress_has_names_and_order_of_buildkit(docker: Run, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(
        "FROM busybox AS base\nENV A=1\nRUN echo $A > /a\nFROM base\nCOPY --link Dockerfile /d\nWORKDIR /w\n"
    )
    image = "docker.io/library/busybox:latest"
    said = docker("buildx", "build", "--no-cache", ".").stderr
    steps = re.findall(r"^#(\d+) (\[.*\].*)$", said, re.MULTILINE)
    assert [name for _, name in steps[:3]] == [
        "[internal] load build definition from Dockerfile", f"[internal] load metadata for {image}",
        "[internal] load .dockerignore",
    ]  # fmt: skip
    # A step whose output comes between others' is named again.
    assert sorted({name for _, name in steps[3:]}) == [
        f"[base 1/2] FROM {image}", "[base 2/2] RUN echo 1 > /a", "[internal] load build context",
        "[stage-1 1/2] COPY --link Dockerfile /d", "[stage-1 2/2] WORKDIR /w",
    ]  # fmt: skip


def test_a_frontend_is_named_by_a_line_or_an_argument(docker: Run, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("# syntax=docker/dockerfile:1.20-labs\nFROM busybox\nCOPY --parents Dockerfile /p/\n")
    docker("buildx", "build", ".")
    wrong = docker("buildx", "build", "--build-arg", "BUILDKIT_SYNTAX=127.0.0.1:1/other:1", ".", code=1).stderr
    assert "127.0.0.1:1/other" in wrong
    (tmp_path / "Dockerfile").write_text("# syntax=127.0.0.1:1/other:1\nFROM busybox\n")
    assert "127.0.0.1:1/other" in docker("buildx", "build", ".", code=1).stderr
    (tmp_path / "Dockerfile").write_text("# syntax=Not/An/Image\nFROM busybox\n")
    wrong = docker("buildx", "build", ".", code=1).stderr
    assert "   1 | >>> # syntax=Not/An/Image\n" in wrong
    docker("buildx", "build", "--build-arg", "BUILDKIT_SYNTAX=docker/dockerfile:1", ".")
    (tmp_path / "Dockerfile").write_text("FROM busybox\nFROBNICATE\n")
    assert "   2 | >>> FROBNICATE\n" in docker("buildx", "build", ".", code=1).stderr
