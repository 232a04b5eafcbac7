"""The build cache as `buildx du`, `system df`, `prune` and the daemon's own policies see it."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from plugins import plugin_config
from under_test import EngineUnderTest, running_engine, until

Run = Callable[..., str]

pytestmark = pytest.mark.system

THREE = """\
FROM busybox
RUN dd if=/dev/zero of=/one bs=1M count=3
RUN --mount=type=cache,target=/kept,id=mine dd if=/dev/zero of=/kept/file bs=1M count=2
COPY file /file
RUN dd if=/dev/zero of=/two bs=1M count=1
"""


@pytest.fixture(scope="module")
def cached() -> Iterator[EngineUnderTest]:
    """Give an engine whose cache is these tests' own."""
    yield from running_engine()


def runner(engine: EngineUnderTest, folder: Path) -> Run:
    config = plugin_config(folder / ".docker")
    (folder / "file").write_text("x" * 1000)
    (folder / ".dockerignore").write_text("*\n!file\n")
    (folder / "Dockerfile").write_text(THREE)

    def run(*words: str, code: int = 0) -> str:
        environment = {**engine.environment, "DOCKER_CONFIG": str(config), "BUILDKIT_PROGRESS": "plain"}
        result = subprocess.run(["docker", *words], cwd=folder, env=environment, capture_output=True, text=True, timeout=100)
        assert result.returncode == code, (words, result.stdout, result.stderr)
        return result.stdout + result.stderr

    return run


@pytest.fixture
def docker(cached: EngineUnderTest, tmp_path: Path) -> Iterator[Run]:
    """Give the docker command with buildx, in a folder with a Dockerfile, and an empty cache."""
    run = runner(cached, tmp_path)
    yield run
    for image in run("images", "-q", "--filter", "reference=pruned").split():
        run("rmi", "-f", image)
    run("buildx", "prune", "-af")


def listed(docker: Run, *words: str) -> dict[str, dict[str, str]]:
    """Return the records of `buildx du --verbose` by their descriptions."""
    found = {}
    for block in docker("buildx", "du", "--verbose", *words).split("\n\n"):
        fields = dict(re.findall(r"^(\w[\w ]*):\s+(.*)$", block, re.MULTILINE))
        if "ID" in fields:
            found[fields["Description"]] = fields
    return found


def of(rows: dict[str, Any], text: str) -> Any:
    return next(row for name, row in rows.items() if text in name)


def test_what_the_cache_has_is_told_alike_everywhere(docker: Run) -> None:
    docker("buildx", "build", "-t", "pruned", ".")
    rows = listed(docker)
    assert of(rows, "/one")["Type"] == "regular"
    assert of(rows, "/one")["Size"] == "3.146MB"
    assert of(rows, "/one")["Usage count"] == "1"
    assert of(rows, "/one")["Shared"] == "true"
    assert of(rows, "cached mount /kept")["Type"] == "exec.cachemount"
    assert of(rows, "cached mount /kept")["Size"] == "2.097MB"
    assert 'with id "/mine"' in next(name for name in rows if "cached mount" in name)
    assert of(rows, "local source for context")["Type"] == "source.local"
    # Each layer stands on the one before.
    assert of(rows, "/two")["Parent"] == of(rows, "COPY file")["ID"]
    assert of(rows, "COPY file")["Parent"] == of(rows, "[3/5]")["ID"]
    assert of(rows, "[3/5]")["Parent"] == of(rows, "/one")["ID"]
    docker("buildx", "build", "-t", "pruned", ".")
    again = of(listed(docker), "/one")
    assert int(again["Usage count"]) == 2
    assert again["Last used"]
    shown = json.loads(docker("system", "df", "-v", "--format", "{{json .BuildCache}}"))
    assert {row["ID"] for row in shown} == set(re.findall(r"^ID:\s+(\S+)$", docker("buildx", "du", "--verbose"), re.MULTILINE))
    assert f"Build Cache     {len(shown)}" in docker("system", "df")


@pytest.mark.parametrize(
    ("words", "gone"),
    [
        (["--filter", "type=exec.cachemount"], {"cached mount"}),
        (["--filter", "type=source.local"], {"local source"}),
        (["--filter", "private=true"], {"cached mount", "local source"}),
        (["--all", "--filter", "type=regular"], {"/one", "/two", "COPY file", "[3/5]"}),
        # What changed no files is a layer of the image too, an empty one.
        ([], {"cached mount", "local source"}),
        (["--all"], {"/one", "/two", "COPY file", "[3/5]", "cached mount", "local source"}),
    ],
    ids=lambda words: " ".join(sorted(words)),
)
def test_what_was_chosen_goes_and_nothing_else(words: list[str], gone: set[str], docker: Run) -> None:
    docker("buildx", "build", "-t", "pruned", ".")
    before = listed(docker)
    docker("buildx", "prune", "-af", "--filter", "until=24h")
    docker("buildx", "prune", "-af", "--filter", "inuse=true")
    assert set(listed(docker)) == set(before)
    docker("buildx", "prune", "-f", *words)
    after = listed(docker)
    def is_gone(name: str) -> bool:
        kinds = [kind for kind in ("cached mount", "local source") if name.startswith(kind)]
        return kinds[0] in gone if kinds else any(one in name for one in gone)

    left = {name for name in before if not is_gone(name)}
    assert set(after) == left
    assert docker("run", "--rm", "pruned", "cat", "/file").strip() == "x" * 1000


def test_a_description_and_an_id_choose_one(docker: Run) -> None:
    docker("buildx", "build", "-t", "pruned", ".")
    docker("rmi", "pruned")
    rows = listed(docker)
    last = of(rows, "/two")
    # Others stand on this one, so it stays; the last one goes.
    docker("builder", "prune", "-f", "--filter", f"id={of(rows, '/one')['ID']}")
    assert set(listed(docker)) == set(rows)
    docker("builder", "prune", "-f", "--filter", f"id={last['ID']}")
    assert set(rows) - set(listed(docker)) == {last["Description"]}
    assert list(listed(docker, "--filter", "type=exec.cachemount")) == [name for name in rows if name.startswith("cached")]
    assert "unknown filter" in docker("buildx", "du", "--filter", "colour=red", code=1)


def test_sizes_say_how_much_may_stay(docker: Run, cached: EngineUnderTest) -> None:
    docker("buildx", "build", "-t", "pruned", ".")
    docker("rmi", "pruned")
    assert "Total:\t0B" in docker("buildx", "prune", "-f", "--keep-storage", "20MB")
    docker("buildx", "prune", "-f", "--keep-storage", "4MB")
    left = listed(docker)
    assert any("/one" in name for name in left)
    assert not any("/two" in name for name in left)
    # By the API alone: the longest unused goes until the cache is small enough.
    docker("buildx", "build", "-t", "pruned", ".")
    docker("rmi", "pruned")
    answer = subprocess.run(
        ["curl", "-s", "--unix-socket", str(cached.socket), "-XPOST", "http://x/v1.51/build/prune?max-used-space=1"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert json.loads(answer.stdout)["SpaceReclaimed"] > 3_000_000
    assert listed(docker) == {}


def test_the_daemon_keeps_the_cache_as_small_as_its_file_says(tmp_path: Path) -> None:
    (tmp_path / "daemon.json").write_text("{}")
    engines = running_engine()
    engine = next(engines)
    try:
        docker = runner(engine, tmp_path)
        docker("buildx", "build", "-t", "pruned", ".")
        docker("rmi", "pruned")
        assert any("/one" in name for name in listed(docker))
        policy = {"builder": {"gc": {"policy": [{"all": True, "maxUsedSpace": "1MB"}]}}}
        (engine.root / "daemon.json").write_text(json.dumps(policy))
        engine.stop()
        engine.start()
        docker("buildx", "build", "--build-arg", "x=y", ".")
        until(lambda: not any("/one" in name for name in listed(docker)), "the cache is collected", 60)
        (engine.root / "daemon.json").write_text(json.dumps({"builder": {"gc": {"colour": "red"}}}))
        engine.stop()
        result = subprocess.run([*engine.arguments(), "--validate"], capture_output=True, text=True, timeout=30)
        assert result.returncode != 0
        assert "builder.gc: colour is not supported by this engine" in result.stderr
    finally:
        (engine.root / "daemon.json").write_text("{}")
        if engine.process is None or engine.process.poll() is not None:
            engine.start()
        engines.close()


@pytest.mark.parametrize("by", ["buildx prune", "hand"])
def test_files_of_a_removed_folder_come_again(by: str, cached: EngineUnderTest, docker: Run, tmp_path: Path) -> None:
    words = ("buildx", "build", "--load", "-t", "pruned", ".")
    (tmp_path / "Dockerfile").write_text("FROM busybox\nCOPY file /file\n")
    docker(*words)
    docker(*words)
    if by == "hand":
        for folder in (cached.root / "data/builder/contexts").iterdir():
            shutil.rmtree(folder)
    else:
        docker("buildx", "prune", "-af")
    docker(*words, "--no-cache")
    assert docker("run", "--rm", "pruned", "wc", "-c", "/file").split()[0] == "1000"
