"""buildx, bake and Compose, unmodified, on a real engine."""

import hashlib
import json
import re
import socket
import subprocess
import tarfile
from pathlib import Path

import pytest

from plugins import Run, docker_in
from registries import RegistryUnderTest
from under_test import EngineUnderTest

pytestmark = pytest.mark.system


@pytest.fixture
def docker(engine: EngineUnderTest, tmp_path: Path) -> Run:
    """Give the docker command with the plugins, in the folder `tmp_path`."""

    return docker_in(engine, tmp_path)


def write(folder: Path, **files: str) -> None:
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


STAGES = """\
FROM busybox AS base
ENV COLOUR=red
RUN echo base > /base
FROM base AS side
RUN echo side > /side
FROM base AS unused
RUN exit 9
FROM base
WORKDIR /w
COPY a.txt ./
COPY --from=side --chown=33:33 --chmod=640 /side /side
RUN cat a.txt /side
CMD ["cat", "/w/a.txt"]
"""


def test_stages_are_built_as_needed_and_the_second_time_from_the_cache(docker: Run, tmp_path: Path) -> None:
    write(tmp_path, Dockerfile=STAGES, a_dot_txt="hello\n")
    first = docker("buildx", "build", "-t", "staged", ".").stderr
    assert "RUN exit 9" not in first
    assert re.search(r"#\d+ [\d.]+ hello", first)
    assert docker("run", "--rm", "staged").stdout == "hello\n"
    assert docker("run", "--rm", "staged", "stat", "-c", "%u:%g %a", "/side").stdout == "33:33 640\n"
    inspected = json.loads(docker("image", "inspect", "staged").stdout)[0]
    assert inspected["Config"]["WorkingDir"] == "/w"
    assert "COLOUR=red" in inspected["Config"]["Env"]
    second = docker("buildx", "build", "-t", "staged", ".").stderr
    steps = dict(re.findall(r"^#(\d+) (\[.*\] (?:RUN|COPY|WORKDIR) .*)$", second, re.MULTILINE))
    assert len(steps) == 6
    assert all(f"#{number} CACHED" in second for number in steps), second
    assert json.loads(docker("image", "inspect", "staged").stdout)[0]["Id"] == inspected["Id"]


def test_a_step_that_changes_nothing_has_a_layer_for_buildkit_and_none_for_the_classic_builder(
    docker: Run, tmp_path: Path, engine: EngineUnderTest
) -> None:
    (tmp_path / "Dockerfile").write_text("FROM busybox\nRUN true\nWORKDIR /tmp\nRUN echo changed > /f\nRUN true\n")
    empty = "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"
    classic = {**engine.environment, "DOCKER_BUILDKIT": "0"}
    for first in (True, False):
        if not first:
            docker("buildx", "prune", "-af")
        # Each takes what the other has left in the cache.
        for kind in ("buildx", "classic") if first else ("classic", "buildx"):
            if kind == "buildx":
                docker("buildx", "build", "-t", "idle", ".")
            else:
                subprocess.run(["docker", "build", "-t", "idle", "."], cwd=tmp_path, env=classic, check=True, capture_output=True)
            layers = json.loads(docker("inspect", "-f", "{{json .RootFS.Layers}}", "idle").stdout)
            sizes = docker("history", "--format", "{{.CreatedBy}} {{.Size}}", "idle").stdout
            assert layers.count(empty) == (3 if kind == "buildx" else 0)
            assert len(layers) == (5 if kind == "buildx" else 2)
            assert "RUN /bin/sh -c true" in sizes or "/bin/sh -c true 0B" in sizes
            assert docker("run", "--rm", "idle", "cat", "/f").stdout == "changed\n"
            docker("rmi", "idle")


def test_a_changed_file_is_all_that_is_sent_again(docker: Run, tmp_path: Path) -> None:
    write(tmp_path, Dockerfile="FROM busybox\nCOPY . /c/\n", big="x" * 3_000_000, small="1", _dot_dockerignore="ignored\n.docker\n",
          ignored="y" * 5_000_000)  # fmt: skip
    first = docker("buildx", "build", "-t", "sent", ".").stderr
    assert re.search(r"transferring context: 3\.\d+MB", first), first
    (tmp_path / "small").write_text("22")
    second = docker("buildx", "build", "-t", "sent", ".").stderr
    assert re.search(r"transferring context: \d+B", second), second
    assert docker("run", "--rm", "sent", "sh", "-c", "cat /c/small; ls /c").stdout.split() == ["22Dockerfile", "big", "small"]


def test_outputs_go_to_folders_and_archives(docker: Run, tmp_path: Path) -> None:
    write(tmp_path, Dockerfile="FROM busybox AS b\nRUN echo x > /x && ln -s x /y\nFROM scratch\nCOPY --from=b /x /y /out/\n")
    docker("buildx", "build", "-o", "type=local,dest=folder", ".")
    assert (tmp_path / "folder/out/x").read_text() == "x\n"
    docker("buildx", "build", "-o", "type=tar,dest=plain.tar", ".")
    with tarfile.open(tmp_path / "plain.tar") as tar:
        assert {"out/x"} <= set(tar.getnames())
    docker("buildx", "build", "-o", "type=oci,dest=oci.tar", "-t", "example/oci:1", ".")
    with tarfile.open(tmp_path / "oci.tar") as tar:
        index = json.loads(tar.extractfile("index.json").read())  # type: ignore[union-attr]
    assert index["manifests"][0]["annotations"]["io.containerd.image.name"] == "docker.io/example/oci:1"
    assert docker("images", "-q", "example/oci").stdout == ""
    docker("buildx", "build", "-o", "type=docker,dest=docker.tar", "-t", "example/loaded:1", ".")
    assert "Loaded image: example/loaded:1" in docker("load", "-i", "docker.tar").stdout


def test_secrets_and_agents_reach_their_step_and_nothing_else(docker: Run, tmp_path: Path, engine: EngineUnderTest) -> None:
    digest = hashlib.md5(b"swordfish-7261").hexdigest()
    write(tmp_path, secret="swordfish-7261", Dockerfile="FROM busybox\n"
          f"RUN --mount=type=secret,id=s md5sum /run/secrets/s | grep {digest} && ls -l /run/secrets/s > /seen\n"
          f"RUN --mount=type=secret,id=s,env=S printf %s $S | md5sum | grep {digest}\n"
          "RUN --mount=type=ssh test -S $SSH_AUTH_SOCK\n")  # fmt: skip
    with socket.socket(socket.AF_UNIX) as agent:
        agent.bind(str(tmp_path / "agent"))
        agent.listen()
        docker("buildx", "build", "--secret", "id=s,src=secret", "--ssh", f"default={tmp_path}/agent", "-t", "secretive", ".")
    assert "r--------" in docker("run", "--rm", "secretive", "cat", "/seen").stdout
    docker("save", "-o", "saved.tar", "secretive")
    assert b"swordfish-7261" not in (tmp_path / "saved.tar").read_bytes()
    # Nothing of it stays on the engine's disk either, where what its step says does.
    on_disk = {text: subprocess.run(["grep", "-rl", text, str(engine.root)], capture_output=True, text=True).stdout
               for text in (digest, "swordfish-7261")}  # fmt: skip
    assert "/builder/cache.db" in on_disk[digest] and "/builder/history/" in on_disk[digest]
    assert on_disk["swordfish-7261"] == ""


def test_a_command_that_fails_is_named_with_its_code(docker: Run, tmp_path: Path) -> None:
    write(tmp_path, Dockerfile="FROM busybox\nRUN echo before && exit 3\n")
    said = docker("buildx", "build", ".", code=1).stderr
    assert 'process "/bin/sh -c echo before && exit 3" did not complete successfully: exit code: 3' in said
    assert re.search(r"#\d+ [\d.]+ before", said)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("FROM busybox\nFROBNICATE\n", "unknown instruction: FROBNICATE"),
        ("FROM busybox\nCOPY missing /\n", "missing"),
        ("", "file with no instructions"),
        ("# syntax=127.0.0.1:1/other/frontend:1\nFROM busybox\n", "connection refused"),
    ],
)
def test_wrong_dockerfiles_end_in_a_plain_error(text: str, message: str, docker: Run, tmp_path: Path) -> None:
    write(tmp_path, Dockerfile=text)
    assert message in docker("buildx", "build", ".", code=1).stderr


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--attest", "type=sbom,generator=busybox,other=1"], "the parameter other is not supported"),
        *((["--cache-to", f"type={kind}"], f"exporting the cache (type={kind.partition(',')[0]}) is not supported; use inline, registry, local, gha or s3")
          for kind in ("nonsense", "azblob,account_url=u")),
        (["--cache-to", "type=registry,ref=127.0.0.1:1/x,nonsense=1"], "option nonsense is not supported"),
        (["--cache-from", "type=nonsense"], "importing the cache (type=nonsense) is not supported"),
        (["-o", "type=local,dest=o,mode=delete"], "exporter local: option mode is not supported"),
        (["-o", "type=image,compression=zstd"], "compression= needs push=true"),
        (["-o", "type=image,annotation-nonsense.a=b"], "unrecognized annotation type nonsense"),
        (["-o", "type=image,compression=estargz"], "unsupported layer compression type estargz"),
        (["-o", "type=nonsense"], 'exporter "nonsense" could not be found'),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_is_not_supported_is_refused(flags: list[str], message: str, docker: Run, tmp_path: Path) -> None:
    write(tmp_path, Dockerfile="FROM busybox\n")
    assert message in docker("buildx", "build", *flags, ".", code=1).stderr


def test_the_name_of_the_machine_is_an_argument(docker: Run, tmp_path: Path) -> None:
    write(tmp_path, Dockerfile="FROM busybox\nRUN test nodename = $(hostname)\n")
    docker("buildx", "build", "--build-arg", "BUILDKIT_SANDBOX_HOSTNAME=nodename", ".")


def test_targets_of_bake_build_on_each_other(docker: Run, tmp_path: Path) -> None:
    (tmp_path / "docker-bake.hcl").write_text(
        'group "default" { targets = ["low", "high"] }\n'
        'target "low" {\n dockerfile-inline = "FROM busybox\\nENV LOW=1\\nRUN echo low > /low\\n"\n tags = ["baked:low"]\n}\n'
        'target "high" {\n contexts = { base = "target:low" }\n matrix = { n = ["1", "2"] }\n name = "high-${n}"\n'
        ' dockerfile-inline = "FROM base\\nRUN cat /low && echo ${n} > /high\\n"\n tags = ["baked:high-${n}"]\n}\n'
    )
    docker("buildx", "bake")
    assert docker("run", "--rm", "baked:high-2", "sh", "-c", "cat /low /high; echo $LOW").stdout.split() == ["low", "2", "1"]


def test_images_of_several_platforms_are_pushed_as_one_name(
    docker: Run, tmp_path: Path, registry: RegistryUnderTest
) -> None:
    write(tmp_path, Dockerfile="FROM scratch\nARG TARGETARCH\nCOPY $TARGETARCH /which\nCMD [\"/which\"]\n", amd64="amd", arm64="arm")
    name = f"{registry.host}/several:1"
    docker("buildx", "build", "--platform", "linux/amd64,linux/arm64", "--push", "-t", name, "--metadata-file", "meta.json", ".")
    listed = docker("buildx", "imagetools", "inspect", "--raw", name).stdout
    found = {row["platform"]["architecture"]: row["digest"] for row in json.loads(listed)["manifests"]}
    assert set(found) == {"amd64", "arm64"}
    metadata = json.loads((tmp_path / "meta.json").read_text())
    assert metadata["containerimage.digest"] == f"sha256:{hashlib.sha256(listed.encode()).hexdigest()}"
    docker("rmi", name)
    docker("pull", "-q", "--platform", "linux/arm64", name)
    docker("create", "--name", "foreign", "--platform", "linux/arm64", name)
    docker("cp", "foreign:/which", "which")
    docker("rm", "foreign")
    assert (tmp_path / "which").read_text() == "arm"


def test_base_images_are_pulled_for_a_build(docker: Run, tmp_path: Path, registry: RegistryUnderTest) -> None:
    base = f"{registry.host}/base:1"
    docker("tag", "busybox", base)
    docker("push", "-q", base)
    docker("rmi", base)
    write(tmp_path, Dockerfile=f"# syntax=docker/dockerfile:1\nFROM {base}\nCOPY --from={base} /bin/busybox /busybox\nRUN /busybox true\n")
    docker("buildx", "build", "-t", "pulled", ".")
    docker("rmi", "pulled")


def test_compose_builds_starts_joins_and_removes(docker: Run, tmp_path: Path) -> None:
    write(tmp_path, web__Dockerfile='FROM busybox\nRUN mkdir /www && echo composed > /www/index.html\nCMD ["httpd", "-f", "-h", "/www"]\n')
    (tmp_path / "compose.yaml").write_text(
        "name: joined\nservices:\n"
        "  store:\n    image: busybox\n    command: sleep 1000\n    stop_signal: SIGKILL\n"
        "    healthcheck: {test: [CMD, 'true'], interval: 1s}\n    volumes: ['data:/data']\n"
        "  web:\n    build: web\n    stop_signal: SIGKILL\n    depends_on: {store: {condition: service_healthy}}\nvolumes: {data: {}}\n"
    )
    try:
        docker("compose", "up", "-d", "--build", "--wait")
        assert docker("compose", "exec", "-T", "store", "wget", "-qO-", "http://web/").stdout == "composed\n"
    finally:
        docker("compose", "down", "-v", "--rmi", "local")
    assert docker("ps", "-aq", "--filter", "label=com.docker.compose.project=joined").stdout == ""
    assert "joined" not in docker("network", "ls").stdout + docker("volume", "ls").stdout


def test_workers_and_usage_are_listed(docker: Run) -> None:
    assert "running" in docker("buildx", "ls").stdout
    assert "Total:" in docker("buildx", "du").stdout
    assert "Total:" in docker("buildx", "prune", "-f").stdout
