"""Archives and layouts go through docker's, podman's and skopeo's hands and come back as the same image."""

import json
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from under_test import EngineUnderTest

pytestmark = pytest.mark.conformance


def run(*words: str) -> str:
    """Run a tool of others."""
    if shutil.which(words[0]) is None:
        pytest.skip(f"{words[0]} is not installed")
    done = subprocess.run(words, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, (words, done.stderr)
    return done.stdout.strip()


class Podman:
    """Podman on roots of its own."""

    def __init__(self, folder: Path) -> None:
        self.roots = ["--root", f"{folder}/root", "--runroot", f"{folder}/run", "--storage-driver", "vfs"]

    def __call__(self, *words: str) -> str:
        return run("podman", *self.roots, *words)


@pytest.fixture
def podman() -> Iterator[Podman]:
    """Give a podman that knows no image."""
    folder = Path(tempfile.mkdtemp(prefix="pm", dir="/var/tmp"))
    made = Podman(folder)
    try:
        yield made
        made("rmi", "-af")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def image(engine: EngineUnderTest) -> Iterator[str]:
    """Give an image of three layers, one of them empty, with everything in its configuration."""
    name = "archived:1"
    container = engine.docker("run", "-d", "busybox", "sh", "-c", "mkdir /new && echo x >/new/file; rm /etc/group")
    engine.docker("wait", container)
    changes = ["CMD [\"sh\", \"-c\", \"echo it works\"]", "ENV A=b", "LABEL l=m", "EXPOSE 80", "VOLUME /v",
               "USER www", "WORKDIR /new", "STOPSIGNAL SIGINT"]  # fmt: skip
    words = [word for change in changes for word in ("-c", change)]
    engine.docker("commit", *words, container, "middle:1")
    engine.barque("build", "-q", "-t", name, "-", input="FROM middle:1\nRUN true\n")
    engine.docker("rm", "-f", container)
    yield name
    engine.docker("rmi", "-f", name, "middle:1")


def identity(engine: EngineUnderTest, name: str) -> str:
    return engine.docker("inspect", "-f", "{{.Id}}", name)


def saved(engine: EngineUnderTest, path: Path, *names: str) -> Path:
    engine.docker("save", "-o", str(path), *names)
    return path


def loaded(engine: EngineUnderTest, path: Path, name: str) -> str:
    """Load an archive into an engine that has forgotten the image; return its id."""
    engine.docker("rmi", "-f", name, check=False)
    assert "Loaded image" in engine.docker("load", "-i", str(path))
    return identity(engine, name)


def test_podman_loads_ours_and_we_load_podmans(
    engine: EngineUnderTest, image: str, podman: Podman, tmp_path: Path
) -> None:
    before = identity(engine, image)
    archive = saved(engine, tmp_path / "ours.tar", image)
    podman("load", "-q", "-i", str(archive))
    assert podman("inspect", "-f", "{{.Id}}", f"docker.io/library/{image}") == before.removeprefix("sha256:")
    for form in ("docker-archive", "oci-archive"):
        back = tmp_path / f"{form}.tar"
        podman("save", "-q", "--format", form, "-o", str(back), f"docker.io/library/{image}")
        assert loaded(engine, back, image) == before
    assert engine.docker("run", "--rm", image) == "it works"


@pytest.mark.parametrize("form", ["docker-archive", "oci-archive", "oci"])
def test_skopeo_copies_ours_and_we_load_its_copies(
    engine: EngineUnderTest, image: str, tmp_path: Path, form: str
) -> None:
    before = identity(engine, image)
    archive = saved(engine, tmp_path / "ours.tar", image)
    copy = tmp_path / "copy"
    source = "docker-archive" if form == "docker-archive" else "oci-archive"
    run("skopeo", "copy", "-q", f"{source}:{archive}", f"{form}:{copy}:{image}")
    if form == "oci":
        run("tar", "-C", str(copy), "-cf", f"{copy}.tar", ".")
        copy = Path(f"{copy}.tar")
    config = json.loads(run("skopeo", "inspect", "--config", f"docker-archive:{archive}"))
    assert loaded(engine, copy, image) == before
    assert config == json.loads(run("skopeo", "inspect", "--config", f"docker-archive:{saved(engine, tmp_path / 'b', image)}"))


def test_an_archive_goes_round_all_engines_and_comes_back(
    engine: EngineUnderTest, image: str, podman: Podman, dockerd: Any, tmp_path: Path
) -> None:
    before = identity(engine, image)
    config = engine.docker("inspect", "-f", "{{json .Config}}", image)
    full = f"docker.io/library/{image}"
    archive = saved(engine, tmp_path / "ours.tar", image)
    assert f"Loaded image: {image}" in dockerd.docker("load", "-i", str(archive))
    try:
        assert dockerd.docker("inspect", "-f", "{{.Id}}", image) == before
        dockers = tmp_path / "docker.tar"
        dockerd.docker("save", "-o", str(dockers), image)
        assert loaded(engine, dockers, image) == before
        podman("load", "-q", "-i", str(dockers))
        # Podman takes a bare name for one of its own.
        podman("tag", before.removeprefix("sha256:"), full)
        podmans, skopeos = tmp_path / "podman.tar", tmp_path / "skopeo.tar"
        podman("save", "-q", "-o", str(podmans), full)
        run("skopeo", "copy", "-q", f"docker-archive:{podmans}", f"docker-archive:{skopeos}:{image}")
        dockerd.docker("rmi", image)
        for path in (podmans, skopeos):
            assert loaded(engine, path, image) == before
            dockerd.docker("load", "-i", str(path))
            assert dockerd.docker("inspect", "-f", "{{.Id}}", image) == before
    finally:
        dockerd.docker("rmi", image)
    assert engine.docker("inspect", "-f", "{{json .Config}}", image) == config
    assert engine.docker("run", "--rm", image) == "it works"


def test_several_images_of_one_archive_are_the_same_to_docker(
    engine: EngineUnderTest, image: str, dockerd: Any, tmp_path: Path
) -> None:
    names = (image, "middle:1")
    before = [identity(engine, name) for name in names]
    dockerd.docker("load", "-i", str(saved(engine, tmp_path / "ours.tar", *names)))
    try:
        assert [dockerd.docker("inspect", "-f", "{{.Id}}", name) for name in names] == before
        dockerd.docker("save", "-o", f"{tmp_path}/docker.tar", *names)
    finally:
        dockerd.docker("rmi", *names)
    engine.docker("rmi", "-f", *names)
    assert engine.docker("load", "-i", f"{tmp_path}/docker.tar").count("Loaded image: ") == 2
    assert [identity(engine, name) for name in names] == before


def test_the_archive_is_an_oci_layout_too(engine: EngineUnderTest, image: str, tmp_path: Path) -> None:
    before = identity(engine, image)
    archive = saved(engine, tmp_path / "ours.tar", image)
    layout = tmp_path / "layout"
    layout.mkdir()
    run("tar", "-C", str(layout), "-xf", str(archive))
    described = json.loads(run("skopeo", "inspect", "--raw", f"oci:{layout}"))
    assert described["config"]["digest"] == before
    (layout / "manifest.json").unlink()
    run("tar", "-C", str(layout), "-cf", f"{layout}.tar", ".")
    assert loaded(engine, Path(f"{layout}.tar"), image) == before


@pytest.mark.parametrize("packer", ["gzip", "bzip2", "xz", "zstd"])
def test_a_compressed_archive_is_loaded(engine: EngineUnderTest, image: str, tmp_path: Path, packer: str) -> None:
    before = identity(engine, image)
    archive = saved(engine, tmp_path / "ours.tar", image)
    run(packer, "-1", str(archive))
    (packed,) = tmp_path.glob("ours.tar.*")
    assert loaded(engine, packed, image) == before


def test_images_in_one_archive_share_their_layers(engine: EngineUnderTest, image: str, tmp_path: Path) -> None:
    archive = saved(engine, tmp_path / "both.tar", image, "middle:1", "busybox:latest")
    with tarfile.open(archive) as tar:
        names = [member.name for member in tar]
        entries = json.loads(tar.extractfile("manifest.json").read())  # type: ignore[union-attr]
    assert len(names) == len(set(names))
    layers = [set(entry["Layers"]) for entry in entries]
    assert layers[2] < layers[1] < layers[0]
    before = [identity(engine, name) for name in (image, "middle:1")]
    engine.docker("rmi", "-f", image, "middle:1")
    assert engine.docker("load", "-i", str(archive)).splitlines() == [
        f"Loaded image: {image}", "Loaded image: middle:1", "Loaded image: busybox:latest",
    ]  # fmt: skip
    assert [identity(engine, name) for name in (image, "middle:1")] == before


def test_an_archive_of_folders_and_links_as_old_dockers_wrote_it_is_loaded(
    engine: EngineUnderTest, image: str, tmp_path: Path
) -> None:
    before = identity(engine, image)
    archive = saved(engine, tmp_path / "ours.tar", image)
    layout, old = tmp_path / "layout", tmp_path / "old"
    layout.mkdir()
    old.mkdir()
    run("tar", "-C", str(layout), "-xf", str(archive))
    (entry,) = json.loads((layout / "manifest.json").read_text())
    layers = []
    for number, layer in enumerate(entry["Layers"]):
        folder = old / f"{number:064x}"
        folder.mkdir()
        (folder / "VERSION").write_text("1.0")
        (folder / "json").write_text("{}")
        if number == 1:
            (old / "elsewhere.tar").write_bytes((layout / layer).read_bytes())
            (folder / "layer.tar").symlink_to("../elsewhere.tar")
        else:
            (folder / "layer.tar").write_bytes((layout / layer).read_bytes())
        layers.append(f"{folder.name}/layer.tar")
    config = before.removeprefix("sha256:") + ".json"
    (old / config).write_bytes((layout / entry["Config"]).read_bytes())
    (old / "manifest.json").write_text(json.dumps([{**entry, "Config": config, "Layers": layers}]))
    (old / "repositories").write_text(json.dumps({"archived": {"1": layers[-1].partition("/")[0]}}))
    run("tar", "-C", str(old), "-cf", f"{old}.tar", *sorted(p.name for p in old.iterdir()))
    assert loaded(engine, Path(f"{old}.tar"), image) == before


def test_one_platform_of_a_nested_index_is_loaded_and_saved(
    engine: EngineUnderTest, image: str, tmp_path: Path
) -> None:
    from system.test_registries import two_platforms

    layout = two_platforms(engine, tmp_path)
    run("tar", "-C", str(layout), "-cf", f"{layout}.tar", ".")
    out = engine.docker("load", "--platform", "linux/s390x", "-i", f"{layout}.tar")
    there = out.rpartition("Loaded image ID: ")[2].strip()
    assert engine.docker("inspect", "-f", "{{.Architecture}}", there) == "s390x"
    refused = engine.docker_result("load", "--platform", "linux/riscv64", "-i", f"{layout}.tar")
    assert "no image for the requested platform" in refused.stderr
    wrong = engine.docker_result("save", "--platform", "linux/riscv64", "-o", f"{layout}.2", there)
    assert wrong.returncode == 1
    engine.docker("save", "--platform", "linux/s390x", "-o", f"{layout}.3", there)
    engine.docker("rmi", there)
