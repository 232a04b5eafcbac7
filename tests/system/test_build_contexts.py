"""Named contexts of buildx, and steps that builds share, by the real client."""

import base64
import contextlib
import functools
import hashlib
import http.server
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote, unquote

import pytest

from plugins import plugin_config
from registries import RegistryUnderTest
from under_test import EngineUnderTest, until

Start = Callable[..., "subprocess.Popen[str]"]
Run = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = pytest.mark.system


@pytest.fixture
def start(engine: EngineUnderTest, tmp_path: Path) -> Start:
    """Give what starts the docker command with buildx in the folder `tmp_path`."""
    config = plugin_config(tmp_path / ".docker")
    (tmp_path / ".dockerignore").write_text("*\n!a*\n")

    def run(*words: str, log: Path | None = None) -> "subprocess.Popen[str]":
        environment = {**engine.environment, "DOCKER_CONFIG": str(config), "BUILDKIT_PROGRESS": "plain"}
        out = log.open("w") if log is not None else subprocess.PIPE
        return subprocess.Popen(
            ["docker", *words], cwd=tmp_path, env=environment, stdout=out, stderr=subprocess.STDOUT, text=True
        )

    return run


@pytest.fixture
def docker(start: Start) -> Run:
    """Give the docker command with buildx, in the folder `tmp_path`."""

    def run(*words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        process = start(*words)
        out, _ = process.communicate(timeout=100)
        assert process.returncode == code, (words, out)
        return subprocess.CompletedProcess(words, process.returncode, out, "")

    return run


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    """Give the URL of a web server that shows the folder `web`; what lies in a folder `for-WORD` needs that authorization."""
    (tmp_path / "web").mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = re.match(r"/for-([^/]+)/", self.path)
            if wanted and self.headers["Authorization"] != unquote(wanted[1]):
                self.send_error(401)
            else:
                super().do_GET()

        def log_message(self, format: str, *args: object) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(tmp_path / "web"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_context_is_an_image_by_another_name(docker: Run, tmp_path: Path, registry: RegistryUnderTest) -> None:
    (tmp_path / "Dockerfile").write_text("FROM busybox\nRUN echo other > /other\nENV OTHER=1\n")
    docker("buildx", "build", "-t", f"{registry.host}/other:1", "--push", ".")
    docker("rmi", f"{registry.host}/other:1")
    (tmp_path / "Dockerfile").write_text("FROM alpine\nRUN cat /other && test $OTHER = 1\nCOPY --from=more /other /more\n")
    other = f"docker-image://{registry.host}/other:1"
    docker("buildx", "build", "--build-context", f"alpine={other}", "--build-context", f"more={other}", "-t", "contexts", ".")
    assert docker("run", "--rm", "contexts", "cat", "/other", "/more").stdout == "other\nother\n"


def test_a_context_is_a_layout_of_an_image(docker: Run, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM busybox\nRUN echo laid > /laid\nENV LAID=1\n")
    docker("buildx", "build", "-t", "laid:1", "-o", "type=oci,dest=layout,tar=false,compression=zstd", ".")
    docker("buildx", "prune", "-af")
    (tmp_path / "Dockerfile").write_text("FROM laid\nRUN cat /laid && test $LAID = 1\nCOPY --from=laid /laid /again\n")
    digest = json.loads((tmp_path / "layout/index.json").read_text())["manifests"][0]["digest"]
    docker("buildx", "build", "--build-context", f"laid=oci-layout://layout@{digest}", "-t", "contexts", ".")
    assert docker("run", "--rm", "contexts", "cat", "/again").stdout == "laid\n"
    said = docker("buildx", "build", "--build-context", f"laid=oci-layout://layout@sha256:{'0' * 64}", ".", code=1).stdout
    assert "not found" in said


def test_a_context_is_a_folder_with_an_ignore_file_of_its_own(docker: Run, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in ("kept", "ignored", "Dockerfile"):
        (folder / name).write_text(f"{name}\n")
    (folder / "kept").chmod(0o640)
    (folder / ".dockerignore").write_text("ignored\n")
    # Files are a root to start from, too.
    (tmp_path / "Dockerfile").write_text("FROM named AS files\nCOPY a /a\nFROM busybox\nCOPY --from=named . /n\nCOPY --from=files / /f\n")
    (tmp_path / "a").write_text("a\n")
    docker("buildx", "build", "--build-context", "named=folder", "-t", "contexts", ".")
    assert docker("run", "--rm", "contexts", "sh", "-c", "ls -A /n /f; stat -c %a /f/kept").stdout.split() == [
        "/f:", ".dockerignore", "Dockerfile", "a", "kept", "/n:", ".dockerignore", "Dockerfile", "kept", "640"
    ]  # fmt: skip


def test_a_context_is_an_archive_or_a_file_on_the_web(docker: Run, web: str, tmp_path: Path) -> None:
    (tmp_path / "inside").write_text("of the archive\n")
    with tarfile.open(tmp_path / "web/files.tar.gz", "w:gz") as tar:
        tar.add(tmp_path / "inside", "deep/inside")
    (tmp_path / "web/plain").write_text("plain\n")
    (tmp_path / "Dockerfile").write_text(
        "FROM archive AS files\nFROM busybox\nCOPY --from=archive deep/inside /one\nCOPY --from=files / /two\nCOPY --from=plain plain /three\n"
    )
    docker("buildx", "build", "--build-context", f"archive={web}/files.tar.gz", "--build-context", f"plain={web}/plain", "-t", "contexts", ".")
    assert docker("run", "--rm", "contexts", "cat", "/one", "/two/deep/inside", "/three").stdout == "of the archive\n" * 2 + "plain\n"


def test_a_context_is_a_repository(docker: Run, tmp_path: Path) -> None:
    if subprocess.run(["git", "daemon", "--help"], capture_output=True).returncode not in (0, 129):
        pytest.skip("git daemon is not installed")
    source = tmp_path / "repository"
    (source / "sub").mkdir(parents=True)
    (source / "sub/file").write_text("of git\n")
    (source / "Dockerfile").write_text("FROM busybox\nCOPY sub/file /main\nCOPY --from=named file /named\n")
    (source / "Copied").write_text("FROM busybox\nCOPY . /c\n")
    git = ["git", "-C", str(source), "-c", "user.name=n", "-c", "user.email=e@e"]
    for words in (["init", "-q", "-b", "main"], ["add", "."], ["commit", "-qm", "one"]):
        subprocess.run([*git, *words], check=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        ["git", "daemon", "--export-all", "--reuseaddr", f"--port={port}", "--listen=127.0.0.1", f"--base-path={tmp_path}"],
        stderr=subprocess.PIPE,
    )  # fmt: skip
    try:

        def answers() -> bool:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                return True
            return False

        until(answers, "git serves")
        url = f"git://127.0.0.1:{port}/repository"
        docker("buildx", "build", "--build-context", f"named={url}#main:sub", "-t", "contexts", f"{url}#main")
        assert docker("run", "--rm", "contexts", "cat", "/main", "/named").stdout == "of git\nof git\n"
        commit = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
        (tmp_path / "Dockerfile").write_text(
            f"FROM busybox\nADD --keep-git-dir=true {url}#main /kept/\nADD --checksum={commit[:8]} --chmod=0700 {url}#:sub /checked/\n"
        )
        docker("buildx", "build", "-t", "contexts", ".")
        assert docker("run", "--rm", "contexts", "sh", "-c", "ls -A /kept; stat -c '%a %n' /checked/*").stdout.split("\n")[:-1] == [
            ".git", "Copied", "Dockerfile", "sub", "700 /checked/file"
        ]  # fmt: skip
        for keep, found in (("1", [".git"]), ("0", [])):
            docker("buildx", "build", "--build-arg", f"BUILDKIT_CONTEXT_KEEP_GIT_DIR={keep}", "-t", "contexts", "-f", "Copied", f"{url}#main")
            assert docker("run", "--rm", "contexts", "ls", "-A", "/c").stdout.split() == [*found, "Copied", "Dockerfile", "sub"]
        (tmp_path / "Dockerfile").write_text(f"FROM busybox\nADD --checksum=0123abc {url} /checked/\n")
        assert f"expected checksum to match 0123abc, got {commit}" in docker("buildx", "build", ".", code=1).stdout
    finally:
        server.terminate()
        server.wait()


def test_files_of_the_web_are_checked_unpacked_and_dated(docker: Run, web: str, tmp_path: Path) -> None:
    (tmp_path / "inner").write_text("inner\n")
    # Extended records come before the first entry.
    with tarfile.open(tmp_path / "web/a.tar.gz", "w:gz", format=tarfile.PAX_FORMAT, pax_headers={"comment": "x" * 2000}) as tar:
        tar.add(tmp_path / "inner", "inner")
    shutil.copy(tmp_path / "web/a.tar.gz", tmp_path / "local.tar.gz")
    os.utime(tmp_path / "web/a.tar.gz", (1_500_000_000, 1_500_000_000))
    digest = hashlib.sha256((tmp_path / "web/a.tar.gz").read_bytes()).hexdigest()
    (tmp_path / "Dockerfile").write_text(
        f"FROM busybox\nADD --checksum=sha256:{digest} --chown=33 {web}/a.tar.gz /plain/\nADD --unpack=true {web}/a.tar.gz /unpacked/\n"
        f"ADD {web}/a.tar.gz /named\nADD local.tar.gz /local/\nADD --unpack=false local.tar.gz /packed/\n"
    )
    (tmp_path / ".dockerignore").unlink()
    docker("buildx", "build", "-t", "contexts", ".")
    said = docker("run", "--rm", "contexts", "sh", "-c", "stat -c '%a %u %Y' /plain/a.tar.gz /named; cat /unpacked/inner /local/inner; ls /packed").stdout
    assert said == "600 33 1500000000\n600 0 1500000000\ninner\ninner\nlocal.tar.gz\n"
    (tmp_path / "Dockerfile").write_text(f"FROM busybox\nADD --checksum=sha256:{'0' * 64} {web}/a.tar.gz /\n")
    assert f"digest mismatch sha256:{digest}: sha256:000" in docker("buildx", "build", ".", code=1).stdout


def test_what_a_server_gives_to_some_alone_is_had_by_secrets(docker: Run, web: str, tmp_path: Path) -> None:
    basic = "basic " + base64.b64encode(b"x-access-token:of-git").decode()
    for folder in ("for-Bearer of-web", "for-Own words"):
        (tmp_path / "web" / folder).mkdir()
        (tmp_path / "web" / folder / "file").write_text(f"{folder}\n")
    work = tmp_path / "work"
    work.mkdir()
    git = ["git", "-C", str(work), "-c", "user.name=n", "-c", "user.email=e@e"]
    served = tmp_path / "web" / f"for-{basic}" / "r.git"
    environment = {**os.environ, "GIT_COMMITTER_DATE": "2020-01-02T03:04:05Z"}
    (work / "sub").mkdir()
    (work / "sub/file").write_text("of git\n")
    for words in (["init", "-q", "-b", "main"], ["add", "."], ["commit", "-qm", "one"], ["tag", "v1"], ["rm", "-q", "sub/file"],
                  ["commit", "-qm", "two"], ["clone", "-q", "--bare", str(work), str(served)]):  # fmt: skip
        subprocess.run([*git, *words], check=True, env=environment)
    # A server of plain files can be cloned from.
    subprocess.run(["git", "-C", str(served), "update-server-info"], check=True)
    host = web.removeprefix("http://")
    token, own = quote("for-Bearer of-web"), quote("for-Own words")
    (tmp_path / "Dockerfile").write_text(
        f"FROM busybox\nADD {web}/{token}/file /by-token\nADD {web}/{quote(f'for-{basic}')}/r.git?tag=v1&subdir=sub&mtime=commit /git/\n"
    )
    assert "401" in docker("buildx", "build", ".", code=1).stdout
    secrets = {"s-web": "of-web", "s-git": "of-git", "s-own": "Own words\n"}
    for name, text in secrets.items():
        (tmp_path / name).write_text(text)
    given = ["--secret=id=HTTP_AUTH_TOKEN_127.0.0.1,src=s-web", f"--secret=id=GIT_AUTH_TOKEN.{host},src=s-git"]
    docker("buildx", "build", "-t", "private", *given, ".")
    said = docker("run", "--rm", "private", "sh", "-c", "cat /by-token /git/file; stat -c %Y /git/file; ls -A /git").stdout
    assert said == "for-Bearer of-web\nof git\n1577934245\nfile\n"
    (tmp_path / "Dockerfile").write_text(f"FROM busybox\nADD {web}/{own}/file /by-header\n")
    docker("buildx", "build", "--secret=id=HTTP_AUTH_HEADER_127.0.0.1,src=s-own", ".")
    # For another host it is not given.
    assert "401" in docker("buildx", "build", "--no-cache", "--secret=id=HTTP_AUTH_HEADER_localhost,src=s-own", ".", code=1).stdout


def test_a_copy_looks_at_what_it_takes_and_not_at_times(docker: Run, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM busybox\nCOPY a1 a2 /x/\n")
    for name in ("a1", "a2", "a3"):
        (tmp_path / name).write_text(name)

    def cached() -> bool:
        said = docker("buildx", "build", ".").stdout
        number = said.partition(" [2/2] COPY")[0].rpartition("#")[2]
        return f"#{number} CACHED" in said

    cached()
    assert cached()
    (tmp_path / "a3").write_text("changed")
    (tmp_path / "a1").touch()
    assert cached()
    (tmp_path / "a1").chmod(0o600)
    assert not cached()
    (tmp_path / "a2").write_text("changed")
    assert not cached()
    (tmp_path / "a1").chmod(0o644)
    (tmp_path / "a2").write_text("a2")
    assert cached()


def test_a_step_that_two_builds_want_runs_once_even_if_the_first_build_goes_away(
    start: Start, docker: Run, engine: EngineUnderTest, tmp_path: Path
) -> None:
    identity = f"shared-{tmp_path.name}"
    wait = "echo run >> /c/runs; until test -e /c/go; do usleep 20000; done; cat /proc/sys/kernel/random/uuid > /made"
    for name in ("one", "two"):
        (tmp_path / name).write_text(f"FROM busybox\nRUN --mount=type=cache,id={identity},target=/c {wait}\nENV of={name}\n")
    folder = engine.root / "data/builder/mounts" / hashlib.sha256(f"/{identity}".encode()).hexdigest()
    builds = {}
    for name in ("one", "two", "three"):
        # The last one begins as the first one, which is ended before it is over.
        text = "one" if name == "three" else name
        builds[name] = start("buildx", "build", "-f", text, "-t", f"shared-{name}", ".", log=tmp_path / f"a.{name}")
        until(lambda name=name: " [2/2] RUN" in (tmp_path / f"a.{name}").read_text(), f"{name} runs", 60)  # type: ignore[misc]
        until((folder / "runs").exists, "the step runs", 60)
    try:
        builds["one"].send_signal(signal.SIGINT)
        builds["one"].wait(timeout=60)
        (folder / "go").touch()
        for name in ("two", "three"):
            assert builds[name].wait(timeout=60) == 0, (tmp_path / f"a.{name}").read_text()
    finally:
        (folder / "go").touch()
        for build in builds.values():
            build.kill()
            build.wait()
    assert (folder / "runs").read_text() == "run\n"
    made = {docker("run", "--rm", f"shared-{name}", "cat", "/made").stdout for name in ("two", "three")}
    assert len(made) == 1
