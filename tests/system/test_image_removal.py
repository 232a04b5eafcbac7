"""Removing images by the docker command: what goes, what only loses its name, and what is said."""

from collections.abc import Iterator

import pytest

from under_test import EngineUnderTest

pytestmark = pytest.mark.system


def identity(engine: EngineUnderTest, name: str) -> str:
    return engine.docker("inspect", "--type", "image", "-f", "{{.Id}}", name)


def made(engine: EngineUnderTest, source: str, name: str, command: str) -> str:
    """Make an image of what a command leaves in a container; return its id."""
    container = engine.docker("create", source, "sh", "-c", command)
    engine.docker("start", "-a", container)
    engine.docker("commit", container, name)
    engine.docker("rm", container)
    return identity(engine, name)


def dangling(engine: EngineUnderTest) -> list[str]:
    return engine.docker("images", "-f", "dangling=true", "--no-trunc", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}").splitlines()


def refused(engine: EngineUnderTest, *words: str) -> str:
    result = engine.docker_result("rmi", *words)
    assert result.returncode == 1
    return result.stderr.strip().removeprefix("Error response from daemon: ")


@pytest.fixture
def parent(engine: EngineUnderTest) -> Iterator[str]:
    """Give the id of an image that has a child."""
    found = made(engine, "busybox", "parent:1", "echo 1 >/one")
    made(engine, "parent:1", "child:1", "echo 2 >/two")
    yield found
    engine.docker("rmi", "-f", "child:1", "parent:1", "rescued:1", check=False)
    engine.docker("image", "prune", "-f")


def test_a_child_has_its_parents_layers_and_one_more(engine: EngineUnderTest, parent: str) -> None:
    layers = [engine.docker("inspect", "-f", "{{json .RootFS.Layers}}", name) for name in ("parent:1", "child:1")]
    assert layers[1].startswith(layers[0].removesuffix("]") + ",")
    assert layers[1].count("sha256:") == layers[0].count("sha256:") + 1
    assert engine.docker("inspect", "-f", "{{.Parent}}", "child:1") == parent
    shown = engine.docker("history", "--no-trunc", "--format", "{{.ID}} {{.Size}}", "child:1").splitlines()
    assert shown[0] == f"{identity(engine, 'child:1')} 2B"
    assert shown[1] == f"{parent} 2B"
    usage = [line.split() for line in engine.docker("system", "df", "-v").splitlines()]
    assert next(row[-2:] for row in usage if row[:2] == ["child", "1"]) == ["2B", "0"]


def test_a_parent_is_only_untagged_and_goes_with_its_last_child(engine: EngineUnderTest, parent: str) -> None:
    child = identity(engine, "child:1")
    assert engine.docker("rmi", "parent:1") == "Untagged: parent:1"
    assert dangling(engine) == []
    assert parent not in engine.docker("images", "-q", "--no-trunc")
    assert f"<none>:<none> {parent}" in engine.docker("images", "-a", "--no-trunc", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}")
    assert refused(engine, "-f", parent) == (
        f"conflict: unable to delete {parent[7:19]} (cannot be forced) - image has dependent child images"
    )
    assert engine.docker("image", "prune", "-f") == "Total reclaimed space: 0B"
    assert engine.docker("run", "--rm", "child:1", "cat", "/one", "/two") == "1\n2"
    rows = engine.docker("rmi", "child:1").splitlines()
    assert rows[:2] == ["Untagged: child:1", f"Deleted: {child}"]
    assert f"Deleted: {parent}" in rows[2:]
    assert parent not in engine.docker("images", "-aq", "--no-trunc")


def test_a_parent_that_gets_a_name_again_stays(engine: EngineUnderTest, parent: str) -> None:
    engine.docker("rmi", "parent:1")
    engine.docker("tag", parent, "rescued:1")
    assert f"Deleted: {parent}" not in engine.docker("rmi", "child:1")
    assert engine.docker("run", "--rm", "rescued:1", "cat", "/one") == "1"


def test_an_untagged_parent_stays_on_request_and_is_dangling_then(engine: EngineUnderTest, parent: str) -> None:
    engine.docker("rmi", "parent:1")
    assert f"Deleted: {parent}" not in engine.docker("rmi", "--no-prune", "child:1")
    assert dangling(engine) == [f"<none>:<none> {parent}"]
    assert f"deleted: {parent}" in engine.docker("image", "prune", "-f")


@pytest.mark.parametrize("state", ["running", "stopped"])
def test_an_image_of_a_container_is_at_most_untagged(engine: EngineUnderTest, state: str) -> None:
    image = made(engine, "busybox", "used:1", "echo 1 >/one")
    user = engine.docker("run", "-d", "used:1", "sleep", "1000")
    if state == "stopped":
        engine.docker("stop", "-t", "0", user)
    try:
        assert refused(engine, "used:1") == (
            f"conflict: unable to delete used:1 (must be forced) - container {user[:12]} is using its referenced image {image[7:19]}"
        )
        engine.docker("tag", "used:1", "used:2")
        assert engine.docker("rmi", "used:2") == "Untagged: used:2"
        engine.docker("tag", "used:1", "other:1")
        why = (
            f"(cannot be forced) - image is being used by running container {user[:12]}"
            if state == "running"
            else "(must be forced) - image is referenced in multiple repositories"
        )
        assert refused(engine, image) == f"conflict: unable to delete {image[7:19]} {why}"
        engine.docker("rmi", "other:1")
        if state == "stopped":
            assert refused(engine, image[7:]) == (
                f"conflict: unable to delete {image[7:19]} (must be forced) - image is being used by stopped container {user[:12]}"
            )
        assert engine.docker("rmi", "-f", "used:1") == "Untagged: used:1"
        assert dangling(engine) == [f"<none>:<none> {image}"]
        assert engine.docker("image", "prune", "-f") == "Total reclaimed space: 0B"
        engine.docker("restart", "-t", "0", user)
        assert engine.docker("exec", user, "cat", "/one") == "1"
    finally:
        engine.docker("rm", "-f", user)
    assert f"deleted: {image}" in engine.docker("image", "prune", "-f")
    assert dangling(engine) == []


def test_an_image_that_is_mounted_is_in_use(engine: EngineUnderTest) -> None:
    image = made(engine, "busybox", "mounted:1", "echo 1 >/one")
    user = engine.docker("run", "-d", "--mount", "type=image,source=mounted:1,target=/m", "busybox", "sleep", "1000")
    try:
        assert f"container {user[:12]} is using its referenced image {image[7:19]}" in refused(engine, "mounted:1")
    finally:
        engine.docker("rm", "-f", user)
    assert f"Deleted: {image}" in engine.docker("rmi", "mounted:1")


def test_a_moved_tag_leaves_its_image_dangling(engine: EngineUnderTest) -> None:
    first, second = (made(engine, "busybox", "moved:1", f"echo {n} >/n") for n in (1, 2))
    assert dangling(engine) == [f"<none>:<none> {first}"]
    assert engine.docker("images", "--no-trunc", "--format", "{{.Tag}} {{.ID}}", "moved") == f"1 {second}"
    pruned = engine.docker("image", "prune", "-f")
    assert f"deleted: {first}" in pruned
    assert second not in pruned
    engine.docker("rmi", "moved:1")
