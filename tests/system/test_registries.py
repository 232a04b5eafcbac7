"""Pull and push with the real docker command against Debian's docker-registry; skopeo on the other side."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from registries import RegistryUnderTest
from under_test import EngineUnderTest

pytestmark = pytest.mark.system


@pytest.fixture
def name(engine: EngineUnderTest, registry: RegistryUnderTest, request: pytest.FixtureRequest) -> Iterator[str]:
    """Give a repository of the test's own; its images go away afterwards."""
    repository = f"{registry.host}/t/{abs(hash(request.node.name)) % 10**8}"
    yield repository
    for row in engine.docker("images", "--format", "{{.Repository}}:{{.Tag}}").split():
        if row.startswith(registry.host):
            engine.docker("rmi", "-f", row, check=False)


def skopeo(*arguments: str) -> str:
    """Run skopeo against a registry without TLS."""
    if shutil.which("skopeo") is None:
        pytest.skip("skopeo is not installed")
    done = subprocess.run(["skopeo", *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_an_image_is_pushed_removed_and_pulled_again_with_the_same_id(engine: EngineUnderTest, name: str) -> None:
    container = engine.docker("create", "busybox", "touch", "/new")
    engine.docker("start", "-a", container)
    engine.docker("commit", container, f"{name}:1")
    identity = engine.docker("inspect", "-f", "{{.Id}}", f"{name}:1")
    pushed = engine.docker("push", f"{name}:1").splitlines()
    assert pushed[0] == f"The push refers to repository [{name}]"
    assert sorted(line.partition(": ")[2] for line in pushed[1:-1]) == ["Preparing"] * 2 + ["Pushed"] * 2
    digest = pushed[-1].split()[2]
    assert pushed[-1].startswith("1: digest: sha256:")
    assert engine.docker("inspect", "-f", "{{json .RepoDigests}}", f"{name}:1") == json.dumps([f"{name}@{digest}"])
    engine.docker("rmi", f"{name}:1")
    pulled = engine.docker("pull", f"{name}:1").splitlines()
    assert pulled[0] == f"1: Pulling from {name.partition('/')[2]}"
    assert pulled[-3:] == [f"Digest: {digest}", f"Status: Downloaded newer image for {name}:1", f"{name}:1"]
    assert sum(line.endswith(": Already exists") for line in pulled) == 1
    assert sum(line.endswith(": Pull complete") for line in pulled) == 1
    assert engine.docker("inspect", "-f", "{{.Id}}", f"{name}:1") == identity
    assert engine.docker("run", "--rm", f"{name}:1", "echo", "hi") == "hi"
    assert engine.docker("pull", f"{name}:1").splitlines()[-2] == f"Status: Image is up to date for {name}:1"


def test_a_pull_by_digest_has_no_tag(engine: EngineUnderTest, name: str) -> None:
    engine.docker("tag", "busybox", f"{name}:1")
    digest = engine.docker("push", "-q", f"{name}:1") and engine.docker(
        "inspect", "-f", "{{range .RepoDigests}}{{println .}}{{end}}", f"{name}:1"
    )
    pinned = next(line for line in digest.split() if line.startswith(f"{name}@"))
    engine.docker("rmi", f"{name}:1")
    assert pinned not in engine.docker("inspect", "-f", "{{.RepoDigests}}", "busybox")
    assert engine.docker("pull", pinned).splitlines()[-1] == pinned
    assert engine.docker("images", "--digests", "--format", "{{.Repository}} {{.Tag}}", name) == f"{name} <none>"
    engine.docker("rmi", pinned)


def test_layers_that_are_there_are_not_sent_again(engine: EngineUnderTest, name: str) -> None:
    engine.docker("tag", "busybox", f"{name}:1")
    engine.docker("push", f"{name}:1")
    again = engine.docker("push", f"{name}:1")
    assert again.count(": Layer already exists") == 1
    neighbour = f"{name}-neighbour"
    engine.docker("tag", "busybox", f"{neighbour}:1")
    mounted = engine.docker("push", f"{neighbour}:1")
    assert ": Mounted from t/" in mounted
    assert again.splitlines()[-1] == mounted.splitlines()[-1]


def test_all_tags_are_pushed_and_pulled(engine: EngineUnderTest, name: str) -> None:
    for tag in ("1", "2"):
        engine.docker("tag", "busybox", f"{name}:{tag}")
    pushed = engine.docker("push", "-a", name)
    assert [line[:10] for line in pushed.splitlines() if "digest:" in line] == ["1: digest:", "2: digest:"]
    engine.docker("rmi", f"{name}:1", f"{name}:2")
    pulled = engine.docker("pull", "-a", name).splitlines()
    assert pulled[-2:] == [f"Status: Downloaded newer image for {name}", name]
    assert sorted(engine.docker("images", "--format", "{{.Tag}}", name).split()) == ["1", "2"]


def test_what_cannot_be_pulled_or_pushed_is_said_as_by_docker(engine: EngineUnderTest, name: str) -> None:
    engine.docker("tag", "busybox", f"{name}:1")
    for words, said in (
        (("pull", f"{name}:nosuch"),
         f"Error response from daemon: manifest for {name}:nosuch not found: manifest unknown: manifest unknown"),
        (("pull", "scratch"), "Error response from daemon: 'scratch' is a reserved name"),
        (("pull", "127.0.0.1:1/x"), ('Error response from daemon: Get "http://127.0.0.1:1/v2/": '
                                     "dial tcp 127.0.0.1:1: connect: connection refused")),
        (("push", f"{name}:nosuch"), f"tag does not exist: {name}:nosuch"),
        (("push", f"{name}-nosuch:1"), f"An image does not exist locally with the tag: {name}-nosuch"),
    ):  # fmt: skip
        result = engine.docker_result(*words)
        assert result.returncode == 1
        assert result.stderr.strip().splitlines()[-1] == said


def test_an_oci_image_keeps_its_digest_through_pull_and_push(engine: EngineUnderTest, name: str) -> None:
    engine.docker("tag", "busybox", f"{name}:1")
    engine.docker("push", f"{name}:1")
    skopeo("copy", "--src-tls-verify=false", "--dest-tls-verify=false", "--format", "oci",
           f"docker://{name}:1", f"docker://{name}:oci")  # fmt: skip
    digest = json.loads(skopeo("inspect", "--tls-verify=false", f"docker://{name}:oci"))["Digest"]
    assert f"Digest: {digest}" in engine.docker("pull", f"{name}:oci")
    engine.docker("tag", f"{name}:oci", f"{name}:again")
    assert engine.docker("push", f"{name}:again").split()[-3] == digest


def test_of_an_index_the_wanted_platform_is_pulled(engine: EngineUnderTest, name: str, tmp_path: Path) -> None:
    layout = two_platforms(engine, tmp_path)
    skopeo("copy", "--all", "--dest-tls-verify=false", f"oci:{layout}", f"docker://{name}:both")
    index = json.loads(skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{name}:both"))
    assert len(index["manifests"]) == 2
    engine.docker("pull", f"{name}:both")
    here = engine.docker("inspect", "-f", "{{.Architecture}} {{.Id}}", f"{name}:both")
    engine.docker("pull", "--platform", "linux/s390x", f"{name}:both")
    there = engine.docker("inspect", "-f", "{{.Architecture}} {{.Id}}", f"{name}:both")
    assert (here.split()[0], there.split()[0]) == ("amd64", "s390x")
    assert here.split()[1] != there.split()[1]
    refused = engine.docker_result("pull", "--platform", "linux/riscv64", f"{name}:both").stderr
    assert "no matching manifest for linux/riscv64 in the manifest list entries" in refused
    engine.docker("rmi", f"{name}:both")
    listed = engine.docker("images", "-a", "--no-trunc", "--format", "{{.ID}}").split()
    assert here.split()[1] not in listed
    assert there.split()[1] not in listed


def test_an_image_of_two_platforms_is_pushed_as_the_index_it_came_by(
    engine: EngineUnderTest, name: str, tmp_path: Path
) -> None:
    layout = two_platforms(engine, tmp_path)
    skopeo("copy", "--all", "--dest-tls-verify=false", f"oci:{layout}", f"docker://{name}:both")
    for platform in ("linux/amd64", "linux/s390x"):
        engine.docker("pull", "--platform", platform, f"{name}:both")
    (row,) = json.loads(engine.run(["curl", "-s", "--unix-socket", str(engine.socket), "-G", "--data-urlencode",
        f'filters={{"reference":["{name}"]}}', "http://x/v1.51/images/json?manifests=1"]).stdout)  # fmt: skip
    assert [m["Available"] for m in row["Manifests"]] == [True, True]
    foreign = engine.docker("create", "--platform", "linux/s390x", f"{name}:both")
    own = engine.docker("create", "--platform", "linux/amd64", f"{name}:both")
    images = [engine.docker("inspect", "-f", "{{.Image}}", container) for container in (foreign, own)]
    assert images[0] != images[1]
    assert "does not match the detected host platform" in engine.docker_result("create", f"{name}:both").stderr
    engine.docker("rm", *engine.docker("ps", "-aq", "--filter", f"ancestor={name}:both").split(), foreign, own, check=False)
    other = f"{name}-other"
    engine.docker("tag", f"{name}:both", f"{other}:both")
    one = json.loads(skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{name}:both"))
    engine.docker("push", "--platform", "linux/amd64", f"{name}:both")
    assert "manifests" not in skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{name}:both")
    for repository in (name, other):
        engine.docker("push", f"{repository}:both")
        assert json.loads(skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{repository}:both")) == one
    engine.docker("rmi", f"{other}:both")
    engine.docker("rmi", "--platform", "linux/s390x", f"{name}:both")
    assert engine.docker("inspect", "-f", "{{.Architecture}}", f"{name}:both") == "amd64"
    gone = engine.docker_result("image", "inspect", "--platform", "linux/s390x", f"{name}:both")
    assert gone.returncode == 1


def two_platforms(engine: EngineUnderTest, folder: Path) -> Path:
    """Make an OCI layout whose one image has two platforms."""
    archive, layout = folder / "busybox.tar", folder / "layout"
    layout.mkdir()
    engine.docker("save", "-o", str(archive), "busybox")
    subprocess.run(["tar", "-C", str(layout), "-xf", str(archive)], check=True)
    (layout / "manifest.json").unlink()
    blobs = layout / "blobs" / "sha256"
    top = json.loads((layout / "index.json").read_text())["manifests"][0]
    manifest = json.loads((blobs / top["digest"][7:]).read_text())
    config = json.loads((blobs / manifest["config"]["digest"][7:]).read_text())
    entries = []
    for architecture in ("amd64", "s390x"):
        data = store_json(blobs, {**config, "architecture": architecture, "author": "two"})
        made = store_json(blobs, {**manifest, "config": {**manifest["config"], **data}})
        platform = {"os": "linux", "architecture": architecture}
        entries.append({"mediaType": manifest["mediaType"], **made, "platform": platform})
    kind = "application/vnd.oci.image.index.v1+json"
    index = {"schemaVersion": 2, "mediaType": kind, "manifests": entries}
    stored = {"mediaType": kind, **store_json(blobs, index)}
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [stored]}))
    return layout


def store_json(blobs: Path, value: object) -> dict[str, object]:
    """Store a value as a blob and return its digest and size."""
    import hashlib

    data = json.dumps(value).encode()
    digest = hashlib.sha256(data).hexdigest()
    (blobs / digest).write_bytes(data)
    return {"digest": f"sha256:{digest}", "size": len(data)}
