"""What is a container's own, and what the engine laid under it for its mounts."""

import io
import json
import os
import tarfile

import pytest

from under_test import EngineUnderTest, until

pytestmark = pytest.mark.system


def _top_layer(engine: EngineUnderTest, image: str) -> list[str]:
    saved = engine.root / "saved.tar"
    engine.docker("save", "-o", str(saved), image)
    with tarfile.open(saved) as archive:
        manifest = json.load(archive.extractfile("manifest.json"))  # type: ignore[arg-type]
        layer = archive.extractfile(manifest[0]["Layers"][-1])
        assert layer is not None
        with tarfile.open(fileobj=io.BytesIO(layer.read())) as files:
            return sorted(files.getnames())


def test_a_container_that_wrote_nothing_has_changed_nothing(engine: EngineUnderTest) -> None:
    engine.docker("run", "--name", "idle", "busybox", "true")
    assert engine.docker("diff", "idle") == ""
    engine.docker("start", "idle")
    assert engine.docker("diff", "idle") == ""
    engine.docker("rm", "-f", "idle")


def test_a_commit_holds_what_the_container_wrote_and_nothing_that_was_mounted(engine: EngineUnderTest) -> None:
    engine.docker("run", "--name", "writer", "busybox", "sh", "-c", "echo a >/etc/new; echo b >/root/file; rm /etc/group")
    engine.docker("commit", "-m", "why", "-a", "who", "writer", "written")
    try:
        assert _top_layer(engine, "written") == ["etc", "etc/.wh.group", "etc/new", "root", "root/file"]
        shown = json.loads(engine.docker("inspect", "written"))[0]
        assert (shown["Comment"], shown["Author"]) == ("why", "who")
        newest = engine.docker("history", "--no-trunc", "--format", "{{.CreatedBy}}|{{.Comment}}", "written").splitlines()[0]
        assert newest == "sh -c echo a >/etc/new; echo b >/root/file; rm /etc/group|why"
        assert engine.docker("run", "--rm", "written", "cat", "/etc/new") == "a"
    finally:
        engine.docker("rm", "-f", "writer")
        engine.docker("rmi", "written")


def test_a_commit_of_nothing_new_has_its_parents_layers(engine: EngineUnderTest) -> None:
    container = engine.docker("create", "busybox")
    engine.docker("commit", "-m", "same", container, "same")
    try:
        layers = [engine.docker("inspect", "-f", "{{.RootFS.Layers}}", name) for name in ("busybox", "same")]
        assert layers[0] == layers[1]
        assert engine.docker("history", "--format", "{{.Size}}|{{.Comment}}", "same").splitlines()[0] == "0B|same"
    finally:
        engine.docker("rm", container)
        engine.docker("rmi", "same")


def test_a_container_has_dockers_mark_and_table_of_mounts(engine: EngineUnderTest) -> None:
    assert engine.docker("run", "--rm", "busybox", "sh", "-c", "ls -A / | grep docker; readlink /etc/mtab") == ".dockerenv\n/proc/mounts"


def test_a_root_whose_folders_are_links_is_not_left(engine: EngineUnderTest) -> None:
    """The image's /etc and /dev point out of the root: what is made for the mounts lands inside it all the same."""
    outside = engine.root / "outside"
    outside.mkdir()
    archive = engine.root / "links.tar"
    with tarfile.open(archive, "w") as tar:
        tar.add("/bin/busybox", "bin/busybox")
        for name, target in (("etc", f"../../../../{outside}"), ("proc", str(outside)), ("bin/sh", "busybox")):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            tar.addfile(info)
    engine.docker("import", str(archive), "links")
    try:
        engine.docker_result("run", "--rm", "links", "/bin/busybox", "true")
        assert list(outside.iterdir()) == []
    finally:
        until(lambda: engine.docker("ps", "-aq", "--filter", "ancestor=links") == "", "the container goes by itself")
        engine.docker("rmi", "links")


def test_the_layer_under_containers_goes_with_its_image(engine: EngineUnderTest) -> None:
    def layers() -> set[str]:
        folder = engine.root / "data" / "snapshots"
        links = [folder / name / "m" for name in os.listdir(folder) if name not in ("empty", "trash")]
        return {json.loads(os.readlink(link))[0] for link in links}

    before = layers()
    engine.docker("run", "--name", "first", "busybox", "touch", "/new")
    engine.docker("commit", "first", "passing")
    engine.docker("create", "--name", "second", "passing")
    made = {name for name in layers() - before if name.startswith("init-")}
    assert made
    engine.docker("rm", "first", "second")
    engine.docker("rmi", "passing")
    assert not made & layers()
