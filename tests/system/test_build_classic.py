"""`docker build` of the classic builder, by the real client."""

import json
import os
import re
import subprocess
import textwrap
from pathlib import Path

import pytest

from plugins import docker_in
from under_test import until

pytestmark = pytest.mark.system


class Project:
    """A folder with a Dockerfile that the real client builds."""

    def __init__(self, engine, root: Path) -> None:
        self.engine = engine
        self.root = root

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(textwrap.dedent(text))
        target.chmod(mode)

    def result(self, *flags: str, dockerfile: str = "", **options) -> subprocess.CompletedProcess[str]:
        if dockerfile:
            self.write("Dockerfile", dockerfile)
        environment = {**self.engine.environment, "DOCKER_BUILDKIT": "0"}
        docker = ["docker", "build", *flags, str(self.root)]
        return subprocess.run(docker, env=environment, capture_output=True, text=True, timeout=120, **options)

    def build(self, *flags: str, dockerfile: str = "", **options) -> str:
        result = self.result(*flags, dockerfile=dockerfile, **options)
        assert result.returncode == 0, (result.stdout, result.stderr)
        return result.stdout

    def run(self, *command: str) -> str:
        return self.engine.docker("run", "--rm", *command)


@pytest.fixture
def project(engine, tmp_path):
    engine.docker("version")
    return Project(engine, tmp_path)


def test_a_dockerfile_of_many_instructions_is_built_and_the_second_build_comes_from_the_cache(project):
    project.write("a.txt", "hello\n")
    project.write("d/e/f", "x\n")
    os.symlink("e/f", project.root / "d/l")
    text = """
        ARG BASE=busybox
        FROM $BASE AS base
        ENV A=1 B="two words"
        RUN echo hi $A && touch /made
        WORKDIR /w
        COPY a.txt d/ ./
        FROM base
        ARG X=y
        RUN echo $X $B > /x
        COPY --from=base /made /made2
        LABEL z=1
        EXPOSE 80 90-91/udp
        HEALTHCHECK --interval=5s CMD true
        USER www
        VOLUME /v /u
        STOPSIGNAL SIGUSR1
        CMD ["cat", "/x"]
    """
    others = project.engine.docker("ps", "-aq")
    out = project.build("-t", "many", dockerfile=text)
    lines = out.splitlines()
    assert "Step 1/17 : ARG BASE=busybox" in lines
    assert "Step 17/17 : CMD [\"cat\", \"/x\"]" in lines
    assert "hi 1" in lines
    assert re.search(r"^ ---> Running in [0-9a-f]{12}$", out, re.MULTILINE)
    assert re.search(r"^ ---> Removed intermediate container [0-9a-f]{12}$", out, re.MULTILINE)
    assert re.fullmatch(r"Successfully built [0-9a-f]{12}", lines[-2])
    assert lines[-1] == "Successfully tagged many:latest"
    assert project.run("many") == "y two words"
    again = project.build("-t", "many", dockerfile=text).splitlines()
    assert again.count(" ---> Using cache") == 14
    assert again[-2:] == lines[-2:]
    inspect = project.engine.docker("inspect", "-f", "{{json .Config}}", "many")
    for part in ('"80/tcp":{}', '"90/udp":{}', '"91/udp":{}', '"User":"www"', '"StopSignal":"SIGUSR1"', '"/u":{}',
                 '"WorkingDir":"/w"', '"Interval":5000000000'):  # fmt: skip
        assert part in inspect
    assert project.engine.docker("ps", "-aq") == others


def test_copied_files_have_the_modes_owners_and_places_that_docker_gives_them(project):
    project.write("script", "#!/bin/sh\n", 0o755)
    project.write("dir/sub/file", "1")
    project.write("dir/.hidden", "2")
    out = project.build("-t", "copied", dockerfile="""
        FROM busybox
        COPY script /usr/bin/
        COPY script /renamed
        COPY --chown=www:audio dir /fresh
        COPY --chown=33 dir/sub /number/
        COPY --chmod=u=rwX,go= dir /private
        COPY dir/s*b /wild/
        COPY ["script", "/a b/"]
        WORKDIR /deep/work
        COPY script .
        COPY dir/sub relative/
        RUN cd / && find usr/bin/script renamed fresh number private wild "a b" deep | sort | xargs -I{} stat -c '%n %A %U:%G' {}
    """)  # fmt: skip
    for line in (
        "usr/bin/script -rwxr-xr-x root:root", "renamed -rwxr-xr-x root:root", "fresh drwxr-xr-x www:audio",
        "fresh/.hidden -rw-r--r-- www:audio", "fresh/sub/file -rw-r--r-- www:audio", "number/file -rw-r--r-- www:www",
        "private/sub drwx------ root:root", "private/sub/file -rw------- root:root", "wild/file -rw-r--r-- root:root",
        "a b/script -rwxr-xr-x root:root", "deep/work/script -rwxr-xr-x root:root",
        "deep/work/relative/file -rw-r--r-- root:root",
    ):  # fmt: skip
        assert line in out.splitlines()


def test_a_changed_file_breaks_the_cache_only_of_the_copy_that_takes_it(project):
    project.write("one", "1")
    project.write("two", "2")
    text = "FROM busybox\nCOPY one /\nRUN true\nCOPY two /\nRUN cat /two"
    project.build(dockerfile=text)
    project.write("two", "changed")
    out = project.build(dockerfile=text)
    assert out.count("Using cache") == 2
    assert "changed" in out
    os.utime(project.root / "one", (1, 1))
    project.write("unrelated", "x")
    assert project.build(dockerfile=text).count("Using cache") == 4


def test_a_failing_command_is_told_with_its_code_and_its_container_stays(project):
    result = project.result(dockerfile="FROM busybox\nRUN echo before && exit 7\n")
    assert result.returncode == 7
    assert "The command '/bin/sh -c echo before && exit 7' returned a non-zero code: 7" in result.stderr
    name = project.engine.docker("ps", "-aq", "--filter", "exited=7")
    assert name
    assert name in result.stdout
    project.engine.docker("rm", name)
    project.result("--force-rm", dockerfile="FROM busybox\nRUN exit 8\n")
    assert project.engine.docker("ps", "-aq", "--filter", "exited=8") == ""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("FROM busybox\nFOO x", "dockerfile parse error on line 2: unknown instruction: FOO (did you mean FROM?)"),
        ("FROM 127.0.0.1:9/nosuchimage:1", "connection refused"),
        ("FROM busybox\nCOPY nothere /", ("COPY failed: file not found in build context or excluded by .dockerignore: "
                                         "stat nothere: file does not exist")),
        ("FROM busybox\nCOPY ../outside /", "COPY failed: forbidden path outside the build context: ../outside ()"),
        ("FROM busybox\nCOPY no*where /", "COPY failed: no source files were specified"),
        ("FROM busybox\nCOPY --from=5 / /", "invalid from flag value 5: index out of bounds"),
        ("FROM busybox\nCOPY --from=0 / /", "invalid from flag value 0: refers to current build stage"),
        ("FROM busybox AS a\nFROM busybox AS a", "a stage name already used"),
        ("FROM $X", "base name ($X) should not be blank"),
        ("FROM busybox\nCOPY --chown=nobodyknows Dockerfile /", "no such user: nobodyknows"),
        ("FROM busybox\nSTOPSIGNAL NOPE", "NOPE"),
        ("FROM busybox\nEXPOSE abc", "invalid containerPort: abc"),
        ("FROM busybox\nENV A=${B:-", "syntax error: missing"),
        ("FROM scratch", "No image was generated. Is your Dockerfile empty?"),
        ("# nothing\n", "file with no instructions"),
        ("FROM busybox\nRUN --network=host true", "network.host is not allowed"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_in_dockers_words(project, text, message):
    result = project.result(dockerfile=text)
    assert result.returncode == 1
    assert message in result.stderr


def test_a_target_stage_build_arguments_labels_and_a_dockerfile_elsewhere(project):
    project.write("sub/Other", """
        FROM busybox AS one
        ARG WHO=nobody
        RUN echo for $WHO > /who
        FROM busybox AS two
        RUN exit 1
    """)  # fmt: skip
    out = project.build("-f", str(project.root / "sub/Other"), "--target", "one", "--build-arg", "WHO=me", "--label",
                        "k=v", "--build-arg", "UNUSED=1", "-t", "target")  # fmt: skip
    assert "[Warning] One or more build-args [UNUSED] were not consumed" in out
    assert project.run("target", "cat", "/who") == "for me"
    assert project.engine.docker("inspect", "-f", "{{.Config.Labels.k}}", "target") == "v"
    result = project.result("--target", "nope", dockerfile="FROM busybox\n")
    assert 'target stage "nope" could not be found' in result.stderr


def test_ignored_files_are_not_copied_and_the_dockerfile_itself_may_be_ignored(project):
    project.write(".dockerignore", "*.log\n!keep.log\nDockerfile\n.dockerignore\n")
    for name in ("a.log", "keep.log", "b"):
        project.write(name, name)
    out = project.build(dockerfile="FROM busybox\nCOPY . /c/\nRUN ls -A /c\n")
    listing = out[out.index("Running in") :].splitlines()[1:3]
    assert listing == ["b", "keep.log"]


def test_onbuild_triggers_run_in_the_image_made_from_it(project):
    project.write("f", "content")
    project.build("-t", "trigger", dockerfile="FROM busybox\nONBUILD COPY f /f\nONBUILD RUN echo ran > /ran\n")
    out = project.build("-t", "triggered", dockerfile="FROM trigger\nRUN cat /f /ran\n")
    assert "# Executing 2 build triggers" in out
    assert "contentran" in out
    assert project.engine.docker("inspect", "-f", "{{len .Config.OnBuild}}", "triggered") == "0"


def test_local_archives_are_unpacked_by_add(project, tmp_path):
    subprocess.run(["tar", "czf", tmp_path / "a.tgz", "--owner=33", "-C", "/", "etc/hostname"], check=True)
    project.write("plain.gz", "not an archive")
    out = project.build(dockerfile="FROM busybox\nADD a.tgz /x/\nADD plain.gz /y/\nRUN find /x /y\n")
    assert "/x/etc/hostname" in out
    assert "/y/plain.gz" in out


def test_heredocs_mounts_and_networks_of_run(project):
    project.write("f", "of the context")
    text = """
        FROM busybox AS other
        RUN echo from other > /o
        FROM busybox
        RUN <<EOF
        echo one
        echo two > /two
        EOF
        COPY <<a.txt /in/
        inline $PATH
        a.txt
        RUN --mount=type=cache,target=/cache echo cached >> /cache/f; wc -l < /cache/f
        RUN --mount=type=bind,target=/ctx cat /ctx/f
        RUN --mount=type=bind,from=other,target=/ro cat /ro/o; touch /ro/x || echo read-only
        RUN --mount=type=bind,from=other,target=/rw,rw touch /rw/x && ls /rw/x
        RUN --mount=type=tmpfs,target=/tmp/t touch /tmp/t/x
        RUN --network=none ip link | wc -l
        RUN cat /two /in/a.txt; ls / | tr '\\n' ' '
    """
    out = project.build("-t", "mounted", dockerfile=text)
    assert "of the context" in out
    assert "from other" in out
    assert "read-only" in out
    assert "/rw/x" in out
    assert "inline /usr/local/sbin" in out
    names = project.run("mounted", "ls", "/").split()
    assert not {"cache", "ctx", "ro", "rw"} & set(names)


def test_a_device_is_not_read_for_a_mount_that_may_be_written(project):
    text = """
        FROM busybox AS other
        RUN mknod /device c 1 3
        FROM busybox
        RUN --mount=type=bind,from=other,source=/device,target=/device,rw true
    """
    result = project.result(dockerfile=text)
    assert result.returncode == 1
    assert "/device is neither a folder nor a regular file" in result.stderr


def test_what_is_written_is_in_the_image_and_nothing_else(project):
    project.build("-t", "clean", dockerfile="FROM busybox\nRUN touch /only\n")
    image = project.engine.run(["docker", "save", "clean"], text=False).stdout
    import io
    import tarfile

    with tarfile.open(fileobj=io.BytesIO(image)) as outer:
        import json

        layers = json.load(outer.extractfile("manifest.json"))[0]["Layers"]
        with tarfile.open(fileobj=outer.extractfile(layers[-1])) as layer:
            assert layer.getnames() == ["only"]


def test_the_build_cache_is_listed_and_pruned(own_engine, tmp_path):
    project = Project(own_engine, tmp_path)
    project.build("-t", "p", dockerfile="FROM busybox\nRUN dd if=/dev/zero of=/big bs=1M count=2\n")
    assert "Build Cache" in own_engine.docker("system", "df")
    own_engine.docker("rmi", "p")
    assert project.build(dockerfile="FROM busybox\nRUN dd if=/dev/zero of=/big bs=1M count=2\n").count("Using cache") == 1
    for image in own_engine.docker("images", "-q", "--filter", "dangling=true").split():
        own_engine.docker("rmi", image)
    assert "Total reclaimed space: 2.097MB" in own_engine.docker("builder", "prune", "-af")
    assert "Using cache" not in project.build(dockerfile="FROM busybox\nRUN dd if=/dev/zero of=/big bs=1M count=2\n")


def test_the_cache_outlives_the_daemon(own_engine, tmp_path):
    project = Project(own_engine, tmp_path)
    text = "FROM busybox\nRUN echo 1 > /1\nENV A=1\n"
    first = project.build(dockerfile=text)
    own_engine.stop()
    own_engine.start()
    again = project.build(dockerfile=text)
    assert again.count("Using cache") == 2
    assert again.splitlines()[-1] == first.splitlines()[-1]


def test_a_client_that_goes_away_stops_the_build(own_engine, tmp_path):
    project = Project(own_engine, tmp_path)
    project.write("Dockerfile", "FROM busybox\nRUN echo started; sleep 7654321\n")
    environment = {**own_engine.environment, "DOCKER_BUILDKIT": "0"}
    client = subprocess.Popen(["docker", "build", str(tmp_path)], env=environment, stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL, text=True)  # fmt: skip
    for line in client.stdout:
        if line.strip() == "started":
            break
    client.kill()
    client.wait()
    client.stdout.close()
    until(lambda: not _processes("sleep 7654321"), "the command has ended", timeout_s=5)
    assert own_engine.docker("ps", "-aq") == ""


def _processes(command: str) -> list[str]:
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                text = Path(f"/proc/{name}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
            except OSError:
                continue
            if text == command:
                found.append(name)
    return found


def test_images_taken_as_a_cache_are_all_the_cache_there_is(project):
    text = "FROM busybox\nENV CACHED=from\nRUN touch /cached-from\nCOPY f /f\n"
    project.write("f", "1")
    project.build("-t", "cachesource", dockerfile=text)
    assert project.build("--cache-from", "cachesource").count("Using cache") == 3
    assert project.build("--cache-from", "nosuchimage").count("Using cache") == 0


def test_a_step_out_of_an_image_s_history_is_the_same_to_buildkit(project, own_engine, tmp_path):
    """A step that changes nothing has a layer for BuildKit's clients alone, whoever found it first."""
    project.engine = own_engine
    docker = docker_in(own_engine, tmp_path)
    text = "FROM busybox\nRUN true\nWORKDIR /tmp\nRUN touch /made\n"

    def layers(name: str) -> int:
        return len(json.loads(own_engine.docker("inspect", "-f", "{{json .RootFS.Layers}}", name)))

    project.build("-t", "kept", dockerfile=text)
    docker("buildx", "prune", "-af")
    assert project.build("--cache-from", "kept", "-t", "again").count("Using cache") == 3
    assert "CACHED" in docker("buildx", "build", "-t", "by-buildkit", ".").stderr
    assert project.build("--cache-from", "kept", "-t", "again").count("Using cache") == 3
    assert (layers("kept"), layers("again"), layers("by-buildkit")) == (2, 2, 4)


def test_a_miss_explains_itself(project):
    """`explain` is an extension: the API's parameter, which the docker command does not send."""
    import io
    import tarfile

    def build(content: str) -> str:
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as tar:
            for name, data in (("Dockerfile", "FROM busybox\nCOPY d /explained\nRUN true explained\n"), ("d/a", "same"), ("d/b", content)):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data.encode()))
        request = ["curl", "-s", "--unix-socket", str(project.engine.socket), "-X", "POST", "--data-binary", "@-",
                   "-H", "Content-Type: application/x-tar", "http://localhost/build?explain=1"]  # fmt: skip
        done = subprocess.run(request, input=out.getvalue(), capture_output=True, timeout=60, check=True)
        return "".join(json.loads(line).get("stream", "") for line in done.stdout.splitlines())

    assert "Not cached: this step has not been run before" in build("1")
    again = build("2")
    assert "Not cached: file d/b changed" in again
    assert "d/a changed" not in again
    assert "Not cached: a step before it gave other files" in again
    assert "Not cached" not in build("2")
