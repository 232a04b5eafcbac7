"""The Dockerfiles of the corpus on Docker's own builders and on ours: the same configs, the same files.

A part of them is built; all with BARQUE_ALL_DOCKERFILES=1.
"""

import os
from pathlib import Path
from typing import NamedTuple

import pytest

from dockerfiles import Case, build_all, cases, differences, images_of, write_context
from plugins import plugin_config
from under_test import EngineUnderTest, busybox_tar

pytestmark = pytest.mark.conformance


class Explained(NamedTuple):
    """A difference that is meant: what differs, as `differences` names it, and why ours is right."""

    what: tuple[str, ...]
    why: str


_UNPACKED = ("x/in", "x/in/file", "x/in/hard", "x/in/soft")
_STUB = "Docker's defect: the place of a mount stays in the image; mended in BuildKit 0.11 (moby/buildkit#3307, #3314)"
_CHMOD = ("Docker's defect: folders that COPY makes had 0755 whatever --chmod says; mended in BuildKit 0.20 and Docker 28.1 "
          "(moby/buildkit#4945, tonistiigi/fsutil#228)")  # fmt: skip
# None of these is a defect of ours. Where Docker's two builders differ, ours make the image that BuildKit makes, whoever
# asks; where BuildKit has changed since the release that is beside us, the one that later releases make.
EXPLAINED = {
    ("classic", "add-tar-chown"): Explained(("x", *_UNPACKED), "the classic builder never heeded --chown for archives (moby/moby#35525); BuildKit does since 0.23"),
    ("classic", "volume-then-write"): Explained(("v/file",), "the classic builder commits a container, whose volumes are not part of it; BuildKit has no volumes while it builds"),
    ("classic", "workdir-made-by-user"): Explained(("made", "made/by", "made/by/user"), "the classic builder makes WORKDIR's folders as root, BuildKit as USER"),
    ("classic", "workdir-trailing-and-spaces"): Explained(("config WorkingDir",), "the classic builder keeps a slash at the end, BuildKit cleans the path"),
    ("classic", "real-java-layers"): Explained((), "a COPY of empty folders: the classic builder's layer holds the target folder alone, whose time it sets"),
    ("buildkit", "add-tar-chown"): Explained(_UNPACKED, "Docker's defect: --chown said nothing of what is unpacked; mended in BuildKit 0.23 (moby/buildkit#5987)"),
    ("buildkit", "workdir-trailing-and-spaces"): Explained(("config WorkingDir",), "Docker's defect: the path was not cleaned; later releases of BuildKit do so"),
    ("buildkit", "mount-bind"): Explained(("ctx",), _STUB),
    ("buildkit", "mount-bind-rw"): Explained(("ctx",), _STUB),
    ("buildkit", "mount-cache"): Explained(("cache",), _STUB),
    ("buildkit", "mount-tmpfs"): Explained(("t",), _STUB),
    ("buildkit", "copy-chmod"): Explained(("x",), _CHMOD),
    ("buildkit", "copy-chmod-chown"): Explained(("x",), _CHMOD),
}
# The daemon beside us is of version 20.10, whose language is older.
_UNKNOWN = ("parse error", "unknown flag", "unknown instruction", "unsupported modifier", "failed to process",
            "docker.io/docker/dockerfile", "failed to compute cache key", "failed to do request")  # fmt: skip


@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", ["classic", "buildkit"])
def test_docker_makes_the_same_images(engine: EngineUnderTest, dockerd, tmp_path: Path, kind: str) -> None:  # type: ignore[no-untyped-def]
    config = plugin_config(tmp_path / ".docker")
    base = ["import", "-c", 'CMD ["sh"]', "-c", "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]
    dockerd.docker_result(*base, "-", "busybox", input=busybox_tar(), text=False)
    chosen = [case for case in cases() if kind == "buildkit" or not case.buildkit]
    explained = [case for case in chosen if (kind, case.name) in EXPLAINED]
    chosen = [case for case in chosen if case not in explained]
    if not os.environ.get("BARQUE_ALL_DOCKERFILES"):
        chosen = chosen[::5]
    chosen += explained
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
        found = differences(made[0][case], made[1][case])
        meant = EXPLAINED.get((kind, case))
        if meant is None and made[0][case].filled != made[1][case].filled:
            found.append(f"layers: {made[0][case].filled} | {made[1][case].filled}")
        # What is explained must differ so, and in nothing else.
        if found if meant is None else tuple(sorted(line.partition(": ")[0] for line in found)) != meant.what:
            wrong[f"ours | Docker: {case}"] = "\n    ".join([*found, *([f"expected: {meant}"] if meant else [])])
    assert not wrong, "\n".join(f"{title}: {text}" for title, text in sorted(wrong.items()))
