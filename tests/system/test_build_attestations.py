"""What clients want to be said of images, beside them in registries and archives, and in folders: by real buildx."""

import base64
import hashlib
import json
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from plugins import Run, docker_in
from registries import RegistryUnderTest
from under_test import EngineUnderTest

V02, V1 = "https://slsa.dev/provenance/v0.2", "https://slsa.dev/provenance/v1"

pytestmark = pytest.mark.system


@pytest.fixture
def docker(engine: EngineUnderTest, tmp_path: Path) -> Run:
    """Give the docker command with buildx, in the folder `tmp_path`, where a Dockerfile lies."""
    (tmp_path / "Dockerfile").write_text(
        f"FROM busybox AS b\nARG WORD=w\nRUN --mount=type=secret,id=s echo $WORD > /x\nFROM scratch\n"
        f"COPY --from=b /x /x\nLABEL of={tmp_path.name}\n"
    )

    return docker_in(engine, tmp_path)


def index_of(archive: Path) -> tuple[Callable[[str], bytes], list[Any]]:
    """Return what reads an archive's blobs by digest, and the manifests that its one image's index names."""
    blobs: dict[str, bytes] = {}
    with tarfile.open(archive) as tar:
        for member in tar.getmembers():
            if member.isfile():
                blobs[member.name] = tar.extractfile(member).read()  # type: ignore[union-attr]
    read = lambda digest: blobs[f"blobs/sha256/{digest[7:]}"]  # noqa: E731
    top = json.loads(blobs["index.json"])["manifests"][0]
    return read, json.loads(read(top["digest"]))["manifests"]


def statement_of(read: Callable[[str], bytes], entry: Any) -> Any:
    (layer,) = json.loads(read(entry["digest"]))["layers"]
    assert layer["mediaType"] == "application/vnd.in-toto+json"
    made = json.loads(read(layer["digest"]))
    assert layer["annotations"]["in-toto.io/predicate-type"] == made["predicateType"]
    return made


def test_provenance_lies_beside_an_image_in_an_archive(docker: Run, tmp_path: Path) -> None:
    docker("buildx", "build", "--provenance=mode=min", "--build-arg", "WORD=hidden-word", "-t", "example/said:1",
           "-o", "type=oci,dest=o.tar", ".")  # fmt: skip
    read, (image, beside) = index_of(tmp_path / "o.tar")
    assert beside["platform"] == {"architecture": "unknown", "os": "unknown"}
    assert beside["annotations"] == {
        "vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": image["digest"],
    }  # fmt: skip
    made = statement_of(read, beside)
    assert made["_type"] == "https://in-toto.io/Statement/v0.1"
    assert made["predicateType"] == V02
    (subject,) = made["subject"]
    assert subject["name"].startswith("pkg:docker/example/said@1?platform=linux%2F")
    assert subject["digest"] == {"sha256": image["digest"][7:]}
    said = made["predicate"]
    assert said["buildType"] == "https://mobyproject.org/buildkit@v1"
    assert said["materials"][0]["uri"].startswith("pkg:docker/busybox@latest?platform=")
    assert said["invocation"]["parameters"]["frontend"] == "dockerfile.v0"
    assert [one["name"] for one in said["invocation"]["parameters"]["locals"]] == ["context", "dockerfile"]
    assert said["metadata"]["completeness"] == {"parameters": False, "environment": True, "materials": False}
    assert "hidden-word" not in json.dumps(made)


def test_all_provenance_holds_arguments_secrets_steps_and_the_dockerfile(docker: Run, tmp_path: Path) -> None:
    docker("buildx", "build", "--provenance=mode=max,version=v1,builder-id=here", "--build-arg", "WORD=seen",
           "-o", "type=oci,dest=o.tar", ".")  # fmt: skip
    read, (_, beside) = index_of(tmp_path / "o.tar")
    made = statement_of(read, beside)
    assert (made["_type"], made["predicateType"]) == ("https://in-toto.io/Statement/v1", V1)
    definition, run = made["predicate"]["buildDefinition"], made["predicate"]["runDetails"]
    assert definition["externalParameters"]["request"]["args"]["build-arg:WORD"] == "seen"
    assert definition["externalParameters"]["request"]["secrets"] == [{"id": "s", "optional": True}]
    assert definition["externalParameters"]["configSource"] == {"path": "Dockerfile"}
    steps = definition["internalParameters"]["buildConfig"]["llbDefinition"]
    assert ["/bin/sh", "-c", "echo $WORD > /x"] in [s["op"]["Op"].get("exec", {}).get("meta", {}).get("args") for s in steps]
    assert run["builder"] == {"id": "here"}
    about = run["metadata"]["buildkit_metadata"]
    assert base64.b64decode(about["source"]["infos"][0]["data"]).decode() == (tmp_path / "Dockerfile").read_text()
    assert about["layers"]


def test_provenance_is_pushed_and_read_by_imagetools(docker: Run, tmp_path: Path, registry: RegistryUnderTest) -> None:
    name = f"{registry.host}/said:1"
    docker("buildx", "build", "--provenance=true", "--push", "-t", name, "--metadata-file", "meta.json", ".")
    raw = docker("buildx", "imagetools", "inspect", "--raw", name).stdout
    metadata = json.loads((tmp_path / "meta.json").read_text())
    assert metadata["containerimage.digest"] == f"sha256:{hashlib.sha256(raw.encode()).hexdigest()}"
    image, _ = json.loads(raw)["manifests"]
    listed = docker("buildx", "imagetools", "inspect", name).stdout
    assert "attestation-manifest" in listed
    assert image["digest"] in listed
    found = json.loads(docker("buildx", "imagetools", "inspect", name, "--format", "{{json .Provenance}}").stdout)
    assert found["SLSA"]["metadata"]["buildFinishedOn"]
    # The engine keeps the image without it, and pulls it so.
    docker("rmi", name)
    docker("pull", "-q", name)
    docker("rmi", name)


def test_statements_are_files_where_there_is_no_image(docker: Run, tmp_path: Path) -> None:
    docker("buildx", "build", "--provenance=true", "-o", "type=local,dest=folder", ".")
    made = json.loads((tmp_path / "folder/provenance.json").read_text())
    digest = hashlib.sha256((tmp_path / "folder/x").read_bytes()).hexdigest()
    assert made["subject"] == [{"name": "x", "digest": {"sha256": digest}}]
    docker("buildx", "build", "--provenance=mode=max,filename=how.json", "-o", "type=tar,dest=t.tar", ".")
    with tarfile.open(tmp_path / "t.tar") as tar:
        assert json.loads(tar.extractfile("how.json").read())["predicateType"] == V02  # type: ignore[union-attr]


def test_statements_of_several_platforms_have_files_of_their_own(docker: Run, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch\nARG TARGETARCH\nCOPY Dockerfile /of-$TARGETARCH\n")
    flags = ("--provenance=true", "--platform=linux/amd64,linux/arm64")
    docker("buildx", "build", *flags, "-o", "type=local,dest=split", ".")
    assert (tmp_path / "split/linux_arm64/provenance.json").exists()
    docker("buildx", "build", *flags, "-o", "type=local,dest=joined,platform-split=false", ".")
    made = json.loads((tmp_path / "joined/provenance.linux_arm64.json").read_text())
    assert [one["name"] for one in made["subject"]] == ["of-arm64"]
    docker("buildx", "build", *flags, "-o", "type=oci,dest=o.tar", ".")
    _, entries = index_of(tmp_path / "o.tar")
    assert [one["platform"]["architecture"] for one in entries] == ["amd64", "arm64", "unknown", "unknown"]


@contextmanager
def scanner_that_names(what: str, docker: Run, folder: Path) -> Iterator[str]:
    """Give the name of a scanner image whose bill is of the kind $KIND and names what a shell makes of a text."""
    name = f"scanner-{folder.name.lower().strip('_')}"
    bill = '{"_type": "https://in-toto.io/Statement/v0.1", "predicateType": "%s", "predicate": {"name": "%s"}}'
    (folder / "Scanner").write_text(
        f"FROM busybox\nCOPY <<'EOF' /scan\nset -e\ncd ${{BUILDKIT_SCAN_SOURCE_EXTRAS:-/none}}\n"
        f"printf '{bill}' $KIND \"{what}\" > $BUILDKIT_SCAN_DESTINATION/sbom.spdx.json\n"
        'EOF\nRUN mkdir /none\nENV KIND=https://spdx.dev/Document\nENTRYPOINT ["sh", "/scan"]\n'
    )
    docker("buildx", "build", "-t", name, "-f", "Scanner", ".")
    try:
        yield name
    finally:
        docker("rmi", "-f", name)


def test_a_scanner_sees_what_was_built_and_its_bill_lies_beside_the_image(docker: Run, tmp_path: Path) -> None:
    with scanner_that_names("$(cat $BUILDKIT_SCAN_SOURCE/x)", docker, tmp_path) as name:
        flags = ("--attest", f"type=sbom,generator={name}", "--provenance=mode=min")
        said = docker("buildx", "build", *flags, "--build-arg", "WORD=found", "-o", "type=oci,dest=o.tar", ".").stderr
        assert f"[sbom] generating sbom using {name}" in said
        read, (_, beside) = index_of(tmp_path / "o.tar")
        layers = json.loads(read(beside["digest"]))["layers"]
        kinds = [layer["annotations"]["in-toto.io/predicate-type"] for layer in layers]
        assert kinds == ["https://spdx.dev/Document", V02]
        made = json.loads(read(layers[0]["digest"]))
        assert made["predicate"] == {"name": "found"}
        docker("buildx", "build", *flags, "-o", "type=local,dest=folder", ".")
        assert json.loads((tmp_path / "folder/sbom.spdx.json").read_text())["subject"][0]["name"] == "x"
        (tmp_path / "Scanner").write_text(f"FROM {name}\nENV KIND=other\n")
        docker("buildx", "build", "-t", f"{name}:other", "-f", "Scanner", ".")
        wrong = docker("buildx", "build", "--attest", f"type=sbom,generator={name}:other", "-o", "type=oci,dest=w.tar", ".", code=1)
        assert "does not match required predicate type" in wrong.stderr
        missing = docker("buildx", "build", "--sbom=generator=127.0.0.1:1/none", "-o", "type=oci,dest=w.tar", ".", code=1)
        assert "sbom: the scanner 127.0.0.1:1/none cannot be had; name another" in missing.stderr
        docker("rmi", f"{name}:other")


def test_a_dockerfile_says_what_a_scanner_looks_at_besides(docker: Run, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("of-context\n")
    stages = (
        "FROM busybox AS one\nARG BUILDKIT_SBOM_SCAN_STAGE=true\nRUN echo ${BUILDKIT_SBOM_SCAN_STAGE:-hidden} > /f\n"
        "FROM busybox AS two\nRUN echo of-two > /f\nFROM scratch AS bare\nARG BUILDKIT_SBOM_SCAN_STAGE=bare\n"
        "FROM busybox AS unused\nARG BUILDKIT_SBOM_SCAN_STAGE=true\n"
        "FROM busybox\nARG BUILDKIT_SBOM_SCAN_CONTEXT\nCOPY --from=one /f /1\nCOPY --from=two /f /2\n"
        "RUN --mount=from=bare,target=/mnt true\n"
    )
    with scanner_that_names("$(ls | tr '\\n' ' ')$(cat sbom-*/f | tr '\\n' ' ')", docker, tmp_path) as name:
        for above, flags, expected in (
            ("", [], "sbom-bare sbom-one hidden"),
            ("ARG BUILDKIT_SBOM_SCAN_CONTEXT=true\n", [], "sbom-bare sbom-context sbom-one of-context hidden"),
            ("ARG BUILDKIT_SBOM_SCAN_CONTEXT\nARG BUILDKIT_SBOM_SCAN_STAGE=two,other\n", ["BUILDKIT_SBOM_SCAN_CONTEXT=1"],
             "sbom-bare sbom-context sbom-one sbom-two of-context hidden of-two"),
            ("ARG BUILDKIT_SBOM_SCAN_CONTEXT=true\n", ["BUILDKIT_SBOM_SCAN_CONTEXT=0", "BUILDKIT_SBOM_SCAN_STAGE=false"], ""),
        ):  # fmt: skip
            (tmp_path / "Dockerfile").write_text(above + stages)
            given = [word for flag in flags for word in ("--build-arg", flag)]
            docker("buildx", "build", "--sbom=generator=" + name, *given, "-o", "type=oci,dest=o.tar", ".")
            read, (_, beside) = index_of(tmp_path / "o.tar")
            made = json.loads(read(json.loads(read(beside["digest"]))["layers"][0]["digest"]))
            assert " ".join(made["predicate"]["name"].split()) == expected


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--provenance=true"], "attestations are kept by registries and archives of OCI only"),
        (["--provenance=true", "-o", "type=docker,dest=d.tar"], "docker exporter does not support exporting manifest lists"),
        (["--provenance=mode=middle", "-o", "type=oci,dest=o.tar"], 'invalid provenance mode "middle"'),
        (["--provenance=version=v9", "-o", "type=oci,dest=o.tar"], "invalid provenance SLSA version: v9"),
        (["--provenance=other=1", "-o", "type=oci,dest=o.tar"], "the parameter other is not supported"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_what_cannot_be_said_is_refused(flags: list[str], message: str, docker: Run) -> None:
    assert message in docker("buildx", "build", *flags, ".", code=1).stderr


def test_what_clients_ask_for_of_their_own_accord_changes_nothing(docker: Run, tmp_path: Path) -> None:
    docker("buildx", "build", "-o", "type=oci,dest=o.tar", ".")
    with tarfile.open(tmp_path / "o.tar") as tar:
        (entry,) = json.loads(tar.extractfile("index.json").read())["manifests"]  # type: ignore[union-attr]
    assert "index" not in entry["mediaType"]
