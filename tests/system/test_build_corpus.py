"""Many Dockerfiles, each built by `docker build`, by buildx and by `barque build`: the images must be the same."""

import os
import sys
from pathlib import Path

import pytest

from dockerfiles import build_all, cases, differences, images_of, write_context
from plugins import plugin_config
from under_test import EngineUnderTest

SOURCE = Path(__file__).parents[2] / "src"
# `barque build` takes the same way through the engine as buildx does: a part shows that its words are understood, and
# BARQUE_ALL_DOCKERFILES=1 builds all.
EVERY = 1 if os.environ.get("BARQUE_ALL_DOCKERFILES") else 6

pytestmark = pytest.mark.system


@pytest.mark.timeout(900)
def test_each_dockerfile_gives_one_image_whoever_builds_it(engine: EngineUnderTest, tmp_path: Path) -> None:
    config = plugin_config(tmp_path / ".docker")
    everything = cases()
    assert sum(not case.buildkit for case in everything) > 150
    folders = {case.name: write_context(tmp_path, case) for case in everything}
    environment = {**engine.environment, "DOCKER_CONFIG": str(config)}
    ways = {
        "classic": (lambda case, tag: ["docker", "build", "-qt", tag],
                    [case for case in everything if not case.buildkit], {"DOCKER_BUILDKIT": "0"}),
        "buildx": (lambda case, tag: ["docker", "buildx", "build", "-qt", tag], everything, {}),
        "barque": (lambda case, tag: [sys.executable, "-m", "barque", "build", "-qt", tag], everything[::EVERY],
                   {"PYTHONPATH": str(SOURCE)}),
    }  # fmt: skip
    made = {}
    wrong: dict[str, object] = {}
    for kind, (command, chosen, more) in ways.items():
        failed = build_all(chosen, folders, command, kind, {**environment, **more})
        wrong |= {f"{kind}: {name}": error for name, error in failed.items()}
        names = [case.name for case in chosen if case.name not in failed]
        made[kind] = images_of(kind, names, environment, tmp_path)
        engine.docker("rmi", *(f"case-{kind}:{name}" for name in names))
    for image in (*made["classic"].values(), *made["buildx"].values(), *made["barque"].values()):
        # BuildKit's images of scratch name the root as their working directory, the classic builder's do not.
        if image.config["run"].get("WorkingDir") == "/":
            del image.config["run"]["WorkingDir"]
    for kind in ("classic", "barque"):
        for name, image in made[kind].items():
            if name in made["buildx"] and (found := differences(image, made["buildx"][name])):
                wrong[f"{kind} | buildx: {name}"] = found
    assert not wrong, "\n".join(f"{title}: {text}" for title, text in wrong.items())
