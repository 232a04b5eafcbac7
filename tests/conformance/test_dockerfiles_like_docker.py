"""The Dockerfiles of the corpus on Docker's own builders and on ours: the same configs, the same files.

A part of them is built; all with BARQUE_ALL_DOCKERFILES=1.
"""

import json
import os
from pathlib import Path

import pytest

from dockerfiles import Case, build_all, cases, differences, images_of, write_context
from under_test import EngineUnderTest, busybox_tar

PLUGINS = Path("/var/cache/barque-tests/cli-plugins")

pytestmark = pytest.mark.conformance
# Where Docker's two builders differ, ours make the image that BuildKit makes, whoever asks.
EXPLAINED = {
    ("classic", "add-tar-chown"): "--chown says nothing of what is unpacked",
    ("classic", "volume-then-write"): "what a RUN writes into a volume is lost",
    ("classic", "workdir-made-by-user"): "WORKDIR makes folders of root",
    ("classic", "workdir-trailing-and-spaces"): "a slash stays at the end",
    # Later versions of BuildKit do otherwise than the one beside us.
    ("buildkit", "add-tar-chown"): "--chown says nothing of what is unpacked",
    ("buildkit", "workdir-trailing-and-spaces"): "a slash stays at the end",
    **{("buildkit", f"mount-{kind}"): "the place of a mount stays in the image" for kind in ("bind", "bind-rw", "cache", "tmpfs")},
    ("buildkit", "copy-chmod"): "--chmod leaves the target folder as it is",
    ("buildkit", "copy-chmod-chown"): "--chmod leaves the target folder as it is",
}
# The daemon beside us is of version 20.10, whose language is older.
_UNKNOWN = ("parse error", "unknown flag", "unknown instruction", "unsupported modifier", "failed to process",
            "docker.io/docker/dockerfile", "failed to compute cache key", "failed to do request")  # fmt: skip


@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", ["classic", "buildkit"])
def test_docker_makes_the_same_images(engine: EngineUnderTest, dockerd, tmp_path: Path, kind: str) -> None:  # type: ignore[no-untyped-def]
    if kind == "buildkit" and not (PLUGINS / "docker-buildx").exists():
        pytest.skip("buildx is not installed")
    config = tmp_path / ".docker"
    config.mkdir()
    (config / "config.json").write_text(json.dumps({"cliPluginsExtraDirs": [str(PLUGINS)]}))
    base = ["import", "-c", 'CMD ["sh"]', "-c", "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]
    dockerd.docker_result(*base, "-", "busybox", input=busybox_tar(), text=False)
    chosen = [case for case in cases() if kind == "buildkit" or not case.buildkit]
    chosen = [case for case in chosen if (kind, case.name) not in EXPLAINED]
    if not os.environ.get("BARQUE_ALL_DOCKERFILES"):
        chosen = chosen[::5]
    folders = {case.name: write_context(tmp_path, case) for case in chosen}

    def command(case: Case, tag: str) -> list[str]:
        return ["docker", "build", *(["--load"] if kind == "buildkit" else []), "-qt", tag]

    made, wrong = [], {}
    for name, side in (("ours", engine), ("docker", dockerd)):
        environment = {**side.environment, "DOCKER_CONFIG": str(config), "DOCKER_BUILDKIT": "0" if kind == "classic" else "1"}
        failed = build_all(chosen, folders, command, kind, environment)
        wrong |= {
            f"{name}: {case}": error for case, error in failed.items()
            if name == "ours" or not any(word in error for word in _UNKNOWN)
        }  # fmt: skip
        names = [case.name for case in chosen if case.name not in failed]
        made.append(images_of(kind, names, side.environment, tmp_path))
        side.docker("rmi", *(f"case-{kind}:{case}" for case in names))
    both = made[0].keys() & made[1].keys()
    assert len(both) > len(chosen) * 0.6, f"too few are known to Docker: {sorted(both)}"
    for case in both:
        if found := differences(made[0][case], made[1][case]):
            wrong[f"ours | Docker: {case}"] = "\n    ".join(found)
    assert not wrong, "\n".join(f"{title}: {text}" for title, text in sorted(wrong.items()))
