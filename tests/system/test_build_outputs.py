"""What buildx writes out of a build: images in the form that was asked for, archives, folders."""

import contextlib
import hashlib
import json
import socket
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from plugins import Run, docker_in
from registries import RegistryUnderTest
from under_test import EngineUnderTest

OCI, DOCKER = "application/vnd.oci.image.", "application/vnd.docker."

pytestmark = pytest.mark.system


@pytest.fixture
def docker(engine: EngineUnderTest, tmp_path: Path) -> Run:
    """Give the docker command with buildx, in the folder `tmp_path`, where a Dockerfile lies."""
    (tmp_path / "Dockerfile").write_text(
        f"FROM scratch\nARG TARGETARCH\nCOPY $TARGETARCH /which\nCOPY own /own\nLABEL of={tmp_path.name}\n"
    )
    for name in ("amd64", "arm64"):
        (tmp_path / name).write_text(name)
    # What another test built must not be known in another form.
    (tmp_path / "own").write_text(str(tmp_path) * 100)

    return docker_in(engine, tmp_path)


@pytest.fixture
def builder(docker: Run, engine: EngineUnderTest, tmp_path: Path) -> Iterator[list[str]]:
    """Give the words that let buildx take the engine for a BuildKit of its own: with options that Docker does not have."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "buildkit.sock"))
    listener.listen()

    def pump(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                inner = socket.socket(socket.AF_UNIX)
                inner.connect(str(engine.socket))
                inner.sendall(b"POST /grpc HTTP/1.1\r\nHost: engine\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")
                head = b""
                while not head.endswith(b"\r\n\r\n"):
                    head += inner.recv(1)
                for pair in ((client, inner), (inner, client)):
                    threading.Thread(target=pump, args=pair, daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    docker("buildx", "create", "--name", "relay", "--driver", "remote", f"unix://{tmp_path}/buildkit.sock")
    yield ["--builder", "relay"]
    docker("buildx", "rm", "relay")
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


def raw(docker: Run, name: str) -> Any:
    return json.loads(docker("buildx", "imagetools", "inspect", "--raw", name).stdout)


@pytest.mark.parametrize(
    ("options", "kind", "layer"),
    [
        ("", DOCKER + "distribution.manifest.v2+json", DOCKER + "image.rootfs.diff.tar.gzip"),
        ("oci-mediatypes=true,", OCI + "manifest.v1+json", OCI + "layer.v1.tar+gzip"),
        ("compression=zstd,compression-level=12,", OCI + "manifest.v1+json", OCI + "layer.v1.tar+zstd"),
        ("compression=uncompressed,", DOCKER + "distribution.manifest.v2+json", DOCKER + "image.rootfs.diff.tar"),
        ("compression=gzip,compression-level=9,force-compression=true,", DOCKER + "distribution.manifest.v2+json",
         DOCKER + "image.rootfs.diff.tar.gzip"),
    ],
)  # fmt: skip
def test_an_image_is_pushed_in_the_form_that_was_asked_for(
    options: str, kind: str, layer: str, docker: Run, tmp_path: Path, registry: RegistryUnderTest
) -> None:
    name = f"{registry.host}/formed:{len(options)}"
    docker("buildx", "build", "--metadata-file", "meta.json", "-o", f"type=image,name={name},{options}push=true", ".")
    text = docker("buildx", "imagetools", "inspect", "--raw", name).stdout
    found = json.loads(text)
    assert found["mediaType"] == kind
    assert {one["mediaType"] for one in found["layers"]} == {layer}
    metadata = json.loads((tmp_path / "meta.json").read_text())
    assert metadata["containerimage.digest"] == f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"
    assert metadata["containerimage.config.digest"] == found["config"]["digest"]
    assert metadata["containerimage.descriptor"]["digest"] == metadata["containerimage.digest"]
    assert metadata["image.name"] == name
    docker("rmi", name)
    docker("buildx", "prune", "-af")
    docker("pull", "-q", name)
    docker("create", "--name", "formed", name, "x")
    docker("cp", "formed:/which", "out")
    docker("rm", "formed")
    assert (tmp_path / "out").read_text() in ("amd64", "arm64")
    docker("rmi", name)


def test_annotations_are_where_they_were_asked_for(docker: Run, tmp_path: Path, registry: RegistryUnderTest) -> None:
    name = f"{registry.host}/annotated:1"
    docker("buildx", "build", "--platform", "linux/amd64,linux/arm64", "-t", name, "--push",
           "--annotation", "all=1", "--annotation", "manifest[linux/arm64]:arm=2", "--annotation", "index:top=3",
           "--annotation", "manifest-descriptor:about=4", ".")  # fmt: skip
    index = raw(docker, name)
    assert index["mediaType"] == OCI + "index.v1+json"
    assert index["annotations"] == {"top": "3"}
    assert [one["annotations"] for one in index["manifests"]] == [{"about": "4"}] * 2
    repository = name.rpartition(":")[0]
    found = [raw(docker, f"{repository}@{one['digest']}")["annotations"] for one in index["manifests"]]
    assert found == [{"all": "1"}, {"all": "1", "arm": "2"}]
    said = docker("buildx", "build", "-t", name, "--push", "--annotation", "index:top=3", ".", code=1).stderr
    assert "index annotations not supported for single platform export" in said


@pytest.mark.parametrize("several", [False, True])
def test_annotations_stay_when_an_image_is_pushed_later(
    several: bool, docker: Run, tmp_path: Path, registry: RegistryUnderTest
) -> None:
    name = f"{registry.host}/later:{several}"
    words = ["--platform", "linux/amd64,linux/arm64", "--annotation", "index:top=2"] if several else []
    docker("buildx", "build", "-o", f"type=image,name={name}", "--annotation", "a=1", *words, ".")
    docker("push", "-q", name)
    found = raw(docker, name)
    if several:
        assert found["annotations"] == {"top": "2"}
        found = raw(docker, f"{name.rpartition(':')[0]}@{found['manifests'][0]['digest']}")
    assert found["annotations"] == {"a": "1"}
    docker("rmi", name)


def test_an_image_is_pushed_by_its_digest_alone(
    docker: Run, builder: list[str], tmp_path: Path, registry: RegistryUnderTest
) -> None:
    name = f"{registry.host}/digested"
    docker("buildx", "build", *builder, "--metadata-file", "meta.json", "-o", f"type=image,name={name},push=true,push-by-digest=true", ".")
    digest = json.loads((tmp_path / "meta.json").read_text())["containerimage.digest"]
    assert raw(docker, f"{name}@{digest}")["layers"]
    docker("buildx", "imagetools", "inspect", f"{name}:latest", code=1)
    docker("image", "inspect", f"{name}@{digest}")
    said = docker("buildx", "build", *builder, "-o", f"type=image,name={name}:1,push=true,push-by-digest=true", ".", code=1).stderr
    assert "can't push tagged ref" in said


def test_names_besides_and_without_a_name(docker: Run, tmp_path: Path, registry: RegistryUnderTest) -> None:
    name = f"{registry.host}/canonical:1"
    docker("buildx", "build", "--metadata-file", "meta.json", "-o", f"type=image,name={name},push=true,name-canonical=true", ".")
    digest = json.loads((tmp_path / "meta.json").read_text())["containerimage.digest"]
    shown = json.loads(docker("image", "inspect", name).stdout)[0]
    assert shown["RepoTags"] == [name]
    assert shown["RepoDigests"] == [f"{registry.host}/canonical@{digest}"]
    docker("rmi", "-f", shown["Id"])
    docker("buildx", "build", "--metadata-file", "meta.json", "-o", "type=image,dangling-name-prefix=dangles", ".")
    digest = json.loads((tmp_path / "meta.json").read_text())["containerimage.digest"]
    assert json.loads(docker("image", "inspect", f"dangles@{digest}").stdout)[0]["RepoTags"] == []
    docker("rmi", f"dangles@{digest}")


def test_an_image_that_is_only_pushed_is_not_kept(docker: Run, builder: list[str], registry: RegistryUnderTest) -> None:
    name = f"{registry.host}/unkept:1"
    before = docker("images", "-aq").stdout
    docker("buildx", "build", *builder, "-o", f"type=image,name={name},push=true,store=false", ".")
    assert raw(docker, name)["layers"]
    assert docker("images", "-aq").stdout == before
    assert "means something only with push=true" in docker("buildx", "build", "-o", "type=image,name=x,store=false", ".", code=1).stderr
    assert "compression= needs push=true" in docker("buildx", "build", "-o", "type=image,name=x,compression=zstd", ".", code=1).stderr


@pytest.mark.parametrize("kind", ["oci", "docker"])
@pytest.mark.parametrize("form", ["gzip", "zstd", "uncompressed"])
def test_archives_hold_layers_in_the_form_that_was_asked_for(kind: str, form: str, docker: Run, tmp_path: Path) -> None:
    docker("buildx", "build", "-t", "archived:1", "--metadata-file", "meta.json", "--annotation", "a=b",
           "-o", f"type={kind},dest=out.tar,compression={form}", ".")  # fmt: skip
    with tarfile.open(tmp_path / "out.tar") as tar:
        def blob(digest: str) -> bytes:
            return tar.extractfile(f"blobs/sha256/{digest[7:]}").read()  # type: ignore[union-attr]

        entry = json.loads(tar.extractfile("index.json").read())["manifests"][0]  # type: ignore[union-attr]
        found = json.loads(blob(entry["digest"]))
        assert ("manifest.json" in tar.getnames()) == (kind == "docker")
        for layer in found["layers"]:
            assert layer["digest"] == f"sha256:{hashlib.sha256(blob(layer['digest'])).hexdigest()}"
    suffix = "" if form == "uncompressed" else f"+{form}"
    assert {one["mediaType"] for one in found["layers"]} == {f"{OCI}layer.v1.tar{suffix}"}
    assert found["annotations"] == {"a": "b"}
    assert json.loads((tmp_path / "meta.json").read_text())["containerimage.digest"] == entry["digest"]
    assert "Loaded image: archived:1" in docker("load", "-i", "out.tar").stdout
    docker("rmi", "archived:1")


def test_a_layout_is_written_into_a_folder(docker: Run, tmp_path: Path) -> None:
    docker("buildx", "build", "--platform", "linux/amd64,linux/arm64", "-t", "laid:1", "-o", "type=oci,dest=folder,tar=false", ".")
    folder = tmp_path / "folder"
    listed = json.loads((folder / "index.json").read_text())["manifests"]
    found = json.loads((folder / "blobs/sha256" / listed[0]["digest"][7:]).read_text())
    assert {one["platform"]["architecture"] for one in found["manifests"]} == {"amd64", "arm64"}
    manifests = [json.loads((folder / "blobs/sha256" / one["digest"][7:]).read_text()) for one in found["manifests"]]
    for one in manifests:
        for part in (one["config"], *one["layers"]):
            data = (folder / "blobs/sha256" / part["digest"][7:]).read_bytes()
            assert f"sha256:{hashlib.sha256(data).hexdigest()}" == part["digest"]


def test_folders_and_archives_of_platforms(docker: Run, tmp_path: Path) -> None:
    both = ["--platform", "linux/amd64,linux/arm64"]
    docker("buildx", "build", *both, "-o", "split", ".")
    assert (tmp_path / "split/linux_arm64/which").read_text() == "arm64"
    docker("buildx", "build", "--platform", "linux/arm64", "-o", "type=local,dest=single,platform-split=true,mode=copy", ".")
    assert (tmp_path / "single/linux_arm64/which").read_text() == "arm64"
    (tmp_path / "Dockerfile").write_text("FROM scratch\nARG TARGETARCH\nCOPY $TARGETARCH /$TARGETARCH\n")
    docker("buildx", "build", *both, "-o", "type=local,dest=joined,platform-split=false", ".")
    assert sorted(path.name for path in (tmp_path / "joined").iterdir()) == ["amd64", "arm64"]
    (tmp_path / "Dockerfile").write_text("FROM scratch\nARG TARGETARCH\nCOPY $TARGETARCH /same\n")
    said = docker("buildx", "build", *both, "-o", "type=local,dest=none,platform-split=false", ".", code=1).stderr
    assert "cannot overwrite same from linux/amd64 with linux/arm64 when split option is disabled" in said
    (tmp_path / "Dockerfile").write_text("FROM scratch\nARG TARGETARCH\nCOPY $TARGETARCH /$TARGETARCH\n")
    docker("buildx", "build", *both, "-o", "type=tar,dest=joined.tar,platform-split=false", ".")
    with tarfile.open(tmp_path / "joined.tar") as tar:
        assert {"amd64", "arm64"} <= set(tar.getnames())


def test_one_build_has_several_outputs(docker: Run, tmp_path: Path, registry: RegistryUnderTest) -> None:
    name = f"{registry.host}/several:outputs"
    docker("buildx", "build", "-o", "one", "-o", "type=tar,dest=two.tar", "-o", f"type=image,name={name},push=true",
           "-o", "type=oci,dest=three.tar", ".")  # fmt: skip
    assert (tmp_path / "one/which").exists()
    for archive, inner in (("two.tar", "which"), ("three.tar", "index.json")):
        with tarfile.open(tmp_path / archive) as tar:
            assert inner in tar.getnames()
    assert raw(docker, name)["layers"]


def test_times_are_cut_off_so_that_builds_are_equal(docker: Run, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(
        "FROM busybox\nRUN mkdir /made && echo x > /made/x && ln -s x /made/y && touch -d '2001-01-01 00:00:00' /made/old\n"
    )
    digests = []
    for number in (1, 2):
        docker("buildx", "build", "--no-cache", "--build-arg", "SOURCE_DATE_EPOCH=1500000000", "-t", "equal",
               "-o", f"type=oci,dest={number}.tar,rewrite-timestamp=true", ".")  # fmt: skip
        docker("load", "-i", f"{number}.tar")
        digests.append(docker("image", "inspect", "-f", "{{.Id}} {{.Created}}", "equal").stdout)
    assert digests[0] == digests[1]
    assert "2017-07-14T02:40:00Z" in digests[0]
    times = docker("run", "--rm", "equal", "stat", "-c", "%Y", "/made", "/made/x", "/made/y", "/made/old").stdout.split()
    assert times[:3] == ["1500000000"] * 3
    assert times[3] == "978307200"
    docker("rmi", "equal")
