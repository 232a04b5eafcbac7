"""Repositories that are had by SSH: a real server gives them to the key in the client's agent, and to nobody else."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from plugins import Run, barque_in, docker_in
from registries import free_port
from under_test import EngineUnderTest, needs_root, until

pytestmark = pytest.mark.system
SSHD = Path("/usr/sbin/sshd")


def _made(*words: str, **more: object) -> str:
    return subprocess.run(words, check=True, capture_output=True, text=True, **more).stdout  # type: ignore[call-overload,no-any-return]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """Give the URL of a repository that a server of SSH has, and the key that it is given to."""
    needs_root()
    for name in (str(SSHD), "ssh-keygen", "ssh-agent", "git"):
        if shutil.which(name) is None:
            pytest.skip(f"{name} is not installed: nothing is had by SSH")
    folder = tmp_path_factory.mktemp("ssh")
    for name in ("host", "key"):
        _made("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name))
    source = folder / "repository"
    (source / "sub").mkdir(parents=True)
    (source / "sub/file").write_text("by SSH\n")
    (source / "Dockerfile").write_text("FROM busybox\nCOPY sub/file /main\nCOPY --from=named file /named\n")
    for words in (["init", "-q", "-b", "main"], ["add", "."], ["commit", "-qm", "one"]):
        _made("git", "-C", str(source), "-c", "user.name=n", "-c", "user.email=e@e", *words)
    port, user = free_port(), pwd.getpwuid(os.geteuid()).pw_name
    (folder / "config").write_text(
        f"ListenAddress 127.0.0.1:{port}\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/key.pub\nStrictModes no\nUsePAM no\n"
        f"PidFile none\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\n"
    )
    # The folder that the server confines its unauthorized half to is made by the service's start, which there is none of.
    Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([str(SSHD), "-D", "-e", "-f", str(folder / "config")], stderr=log, stdin=subprocess.DEVNULL)
    try:

        def answers() -> bool:
            assert process.poll() is None, (folder / "log").read_text()
            with socket.socket() as tried:
                return tried.connect_ex(("127.0.0.1", port)) == 0

        until(answers, "the server of SSH answers")
        yield f"ssh://{user}@127.0.0.1:{port}{source}", folder / "key"
    finally:
        process.terminate()
        process.wait()


@pytest.fixture
def agent(server: tuple[str, Path], tmp_path: Path) -> Iterator[str]:
    """Give the socket of an agent that has the key."""
    path = tmp_path / "a"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", str(path)], stdout=subprocess.DEVNULL)
    try:
        until(path.exists, "the agent is there")
        _made("ssh-add", "-q", str(server[1]), env={**os.environ, "SSH_AUTH_SOCK": str(path)})
        yield str(path)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


@pytest.fixture
def build(request: pytest.FixtureRequest, engine: EngineUnderTest, tmp_path: Path) -> Run:
    """Give what builds with a client."""
    if request.param == "buildx":
        docker = docker_in(engine, tmp_path)
        return lambda *words, **more: docker("buildx", "build", *words, **more)
    barque = barque_in(engine, tmp_path, tmp_path / ".docker")
    return lambda *words, **more: barque("build", "--progress=plain", *words, **more)


@pytest.mark.parametrize("build", ["buildx", "barque"], indirect=True)
def test_contexts_and_files_come_by_the_clients_agent(
    build: Run, engine: EngineUnderTest, server: tuple[str, Path], agent: str, tmp_path: Path
) -> None:
    url, ssh = server[0], ("--ssh", f"default={agent}")
    build(*ssh, "--build-context", f"named={url}#main:sub", "-t", "by-ssh", f"{url}#main")
    assert engine.docker("run", "--rm", "by-ssh", "cat", "/main", "/named") == "by SSH\nby SSH"
    (tmp_path / "Dockerfile").write_text(f"FROM busybox\nADD --keep-git-dir=true {url}#main /kept/\n")
    build(*ssh, "-t", "by-ssh", ".")
    assert engine.docker("run", "--rm", "by-ssh", "sh", "-c", "cat /kept/sub/file; ls -A /kept").split() == [
        "by", "SSH", ".git", "Dockerfile", "sub"
    ]  # fmt: skip


@pytest.mark.parametrize("build", ["buildx", "barque"], indirect=True)
def test_without_an_agent_nothing_comes(build: Run, engine: EngineUnderTest, server: tuple[str, Path], tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(f"FROM busybox\nADD {server[0]} /kept/\n")
    assert "is had by SSH, build with --ssh default" in build(".", code=1).stderr
    empty = tmp_path / "e"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", str(empty)], stdout=subprocess.DEVNULL)
    try:
        until(empty.exists, "the agent is there")
        said = build("--ssh", f"default={empty}", ".", code=1).stderr
        assert "Permission denied (publickey" in said
    finally:
        process.terminate()
        process.wait()
    assert not [*(engine.root / "exec/builder").glob("*/agent")]
