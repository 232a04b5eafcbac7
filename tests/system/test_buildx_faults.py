"""Builds by buildx that are cut short, crowded or out of disk: all of it stops, nothing leaks, the next build works."""

import contextlib
import os
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from fake_registry import FakeRegistry, Handler, serving
from plugins import Run, docker_in
from under_test import EngineUnderTest, needs_root, running, traces, until

pytestmark = pytest.mark.system


@pytest.fixture
def docker(engine: EngineUnderTest, tmp_path: Path) -> Run:
    """Give the docker command with buildx, in the folder `tmp_path`."""
    return docker_in(engine, tmp_path)


def begun(engine: EngineUnderTest, folder: Path, *words: str, **options: Any) -> subprocess.Popen[bytes]:
    """Start a build that will be cut short, in a process group of its own."""
    environment = {**engine.environment, "DOCKER_CONFIG": str(folder / ".docker"), "BUILDKIT_PROGRESS": "plain"}
    # What runs in a shell's background does not hear of SIGINT, nor do its children.
    command = ["env", "--default-signal=INT", "docker", "buildx", "build", *words]
    settings = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, **options}
    return subprocess.Popen(command, cwd=folder, env=environment, start_new_session=True, **settings)


def cut(process: subprocess.Popen[bytes], how: signal.Signals = signal.SIGKILL) -> None:
    os.killpg(process.pid, how)
    process.wait(60)


def held(engine: EngineUnderTest) -> tuple[int, list[str]]:
    """Return how many sockets the daemon has, and what it has open of the builder's folders."""
    links = []
    for fd in os.listdir(f"/proc/{engine.pid}/fd"):
        try:
            links.append(os.readlink(f"/proc/{engine.pid}/fd/{fd}"))
        except FileNotFoundError:
            continue
    inside = f"{engine.root}/data/builder/"
    return sum(link.startswith("socket:") for link in links), sorted(x for x in links if x.startswith(inside) and ".db" not in x)


def wait_closed(engine: EngineUnderTest, sockets: int) -> None:
    """Wait until the daemon has no more sockets than so many, and nothing open of the builder's folders."""
    until(lambda: held(engine)[0] <= sockets and not held(engine)[1], "all that was open is closed", 20)


def settled(engine: EngineUnderTest) -> dict[str, object]:
    """Return the traces of an engine without containers, once those of finished steps are gone."""
    until(lambda: not traces(engine)["run"] and not traces(engine)["folders"], "finished steps are gone", 20)
    return traces(engine)


def test_a_client_that_is_interrupted_while_it_sends_its_context_stops_the_build(
    docker: Run, engine: EngineUnderTest, tmp_path: Path
) -> None:
    (tmp_path / "Dockerfile").write_text("FROM busybox\nCOPY . /c\n")
    (tmp_path / ".dockerignore").write_text(".docker\n")
    docker("buildx", "build", "-t", "sent", ".")
    kept, (sockets, _) = settled(engine), held(engine)
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(1 << 40)
    process = begun(engine, tmp_path, "-t", "cut-in-context", ".")
    contexts = engine.root / "data/builder/contexts"
    try:
        until(lambda: any(one.stat().st_size for one in contexts.glob("*/huge")), "the context comes", 60)
    finally:
        cut(process, signal.SIGINT)
    wait_closed(engine, sockets)
    until(lambda: not [*contexts.glob("*/huge")], "what came of the file is gone", 20)
    until(lambda: traces(engine) == kept, "nothing is left", 20)
    (tmp_path / "huge").unlink()
    docker("buildx", "build", "-t", "sent", ".")


def test_a_client_that_goes_away_while_a_layer_is_made_stops_it(docker: Run, engine: EngineUnderTest, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM busybox\nRUN echo small > /f\n")
    docker("buildx", "build", "-t", "small", ".")
    kept, (sockets, _) = settled(engine), held(engine)
    size = 3 << 30
    (tmp_path / "Dockerfile").write_text(f"FROM busybox\nRUN truncate -s {size} /huge\n")
    process = begun(engine, tmp_path, "-t", "cut-in-layer", ".")
    content = engine.root / "data/content"

    def is_written() -> bool:
        with os.scandir(content / "ingest") as found, contextlib.suppress(FileNotFoundError):
            return any(entry.stat().st_size >= 1 << 20 for entry in found)
        return False

    try:
        until(is_written, "the layer is written", 60)
    finally:
        cut(process)
    wait_closed(engine, sockets)
    until(lambda: traces(engine) == kept, "nothing is left", 20)
    assert not [one for one in content.rglob("*") if one.is_file() and one.stat().st_size >= size]


def test_a_daemon_killed_during_a_command_leaves_nothing_of_it_and_builds_again(
    own_engine: EngineUnderTest, tmp_path: Path
) -> None:
    docker = docker_in(own_engine, tmp_path)
    number = 8_000_000 + os.getpid()
    (tmp_path / "Dockerfile").write_text(f"FROM busybox\nRUN echo kept > /kept\nRUN echo lost > /lost; sleep {number}; true\n")
    docker("buildx", "build", "-t", "before", "-", text_in="FROM busybox\nRUN echo kept > /kept\n")
    kept = settled(own_engine)
    process = begun(own_engine, tmp_path, "-t", "killed", ".")
    try:
        until(lambda: running(f"sleep {number}"), "the command runs", 60)
        own_engine.kill_daemon(60)
        assert process.wait(60) != 0
    finally:
        cut(process) if process.poll() is None else None
    until(lambda: not running(f"sleep {number}"), "the command has ended", 20)
    until(lambda: traces(own_engine) == kept, "nothing is left", 20)
    assert own_engine.docker("images", "-q", "killed") == ""
    (tmp_path / "Dockerfile").write_text("FROM busybox\nRUN echo kept > /kept\nRUN cat /kept; test ! -e /lost\n")
    assert "CACHED" in docker("buildx", "build", "-t", "after", ".").stderr


def test_a_command_that_leaves_processes_behind_ends_and_takes_them_along(docker: Run, tmp_path: Path) -> None:
    number = 9_000_000 + os.getpid()
    (tmp_path / "Dockerfile").write_text(
        f"FROM busybox\nRUN sleep {number} & setsid sleep {number} > /dev/null 2>&1 & (setsid sleep {number} &); echo left\n"
        f"RUN echo went on; ! ps | grep 'sleep {number}' | grep -v grep\n"
    )
    said = docker("buildx", "build", "-t", "left", ".").stderr
    assert "left" in said
    assert "went on" in said
    assert not running(f"sleep {number}")


def test_a_command_that_fills_its_pipes_does_not_block(docker: Run, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(
        "FROM busybox\nRUN yes out | head -c 3000000; yes err | head -c 3000000 >&2; echo filled > /filled\nRUN cat /filled\n"
    )
    said = docker("buildx", "build", "-t", "filled", ".").stderr
    assert "[output clipped, log limit 2MiB reached]" in said
    assert "filled" in said


def _at_once(work: Callable[[int], str], count: int = 20) -> list[str]:
    with ThreadPoolExecutor(count) as pool:
        return [*pool.map(work, range(count))]


def test_twenty_builds_of_the_same_dockerfile_at_once_run_each_step_once(docker: Run, tmp_path: Path) -> None:
    log = f"--mount=type=cache,id={tmp_path.name},target=/log"
    (tmp_path / "f").write_text("copied\n")
    (tmp_path / "Dockerfile").write_text(
        f"FROM busybox AS other\nRUN {log} echo other >> /log/l; sleep 0.2; echo o > /o\n"
        f"FROM busybox\nRUN {log} echo first >> /log/l; sleep 0.3; cat /proc/sys/kernel/random/uuid > /once\n"
        f"COPY f /\nCOPY --from=other /o /\nRUN {log} echo last >> /log/l; cat /once /f /o > /all\n"
    )
    made = _at_once(lambda number: docker("buildx", "build", "-q", "-t", f"same:{number}", ".").stdout)
    assert len(set(made)) == 1
    ran = docker("buildx", "build", "--no-cache", "--progress=plain", "-f", "-", ".", text_in=f"FROM busybox\nRUN {log} sort /log/l; rm /log/l\n")
    lines = [line.split()[-1] for line in ran.stderr.splitlines() if line.endswith((" first", " last", " other"))]
    assert lines == ["first", "last", "other"]


def test_twenty_different_builds_at_once_all_come_to_their_end(docker: Run, tmp_path: Path) -> None:
    for number in range(20):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "f").write_text(f"file {number}\n")
        (folder / "Dockerfile").write_text(f"FROM busybox\nCOPY f /\nRUN echo built {number} > /b\n")

    def build(number: int) -> str:
        docker("buildx", "build", "-q", "-t", f"different:{number}", str(number))
        return docker("run", "--rm", f"different:{number}", "cat", "/f", "/b").stdout

    assert _at_once(build) == [f"file {number}\nbuilt {number}\n" for number in range(20)]


@pytest.fixture
def on_small_disk() -> Iterator[EngineUnderTest]:
    """Give an engine whose roots lie on a disk of 64 MB."""
    needs_root()
    folder = Path(tempfile.mkdtemp(prefix="bqsmall", dir="/var/tmp"))
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m,mode=755", "tmpfs", str(folder)], check=True)
    engine = EngineUnderTest(folder)
    try:
        engine.start()
        engine.load_busybox()
        yield engine
    finally:
        engine.stop()
        subprocess.run(["umount", "-l", str(folder)], check=False)
        folder.rmdir()


def _fill(engine: EngineUnderTest, leave: int) -> Path:
    """Fill the engine's disk but for so many bytes; return the file that does."""
    path = engine.root / "filler"
    # What is still being removed would make room again.
    until(lambda: not os.listdir(engine.root / "data/snapshots/trash"), "the trash is empty", 40)
    free = os.statvfs(engine.root)
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, free.f_bavail * free.f_frsize - leave)
    return path


def test_a_full_disk_ends_the_context_the_copy_and_the_export_and_nothing_else(
    on_small_disk: EngineUnderTest, tmp_path: Path
) -> None:
    engine, full = on_small_disk, "no space left on device"
    docker = docker_in(engine, tmp_path)
    folder = tmp_path / "c"
    folder.mkdir()
    (folder / "Dockerfile").write_text("FROM busybox\nCOPY . /big\n")
    (folder / "big").write_bytes(os.urandom(12 << 20))
    kept = settled(engine)
    for leave in (6 << 20, 15 << 20, 18 << 20):
        # It is full when 6 MB of the context have come, then in the copy, then while the layer is written.
        filler = _fill(engine, leave)
        said = docker("buildx", "build", "-t", "big", "c", code=1).stderr
        assert full in said.lower()
        assert ("load build context" in said.rpartition("ERROR")[0].rpartition("------\n > ")[2]) == (leave == 6 << 20)
        filler.unlink()
        until(lambda: traces(engine) == kept, "nothing is left", 20)
        assert engine.docker("images", "-q", "big") == ""
    docker("buildx", "build", "-t", "big", "c")
    kept = settled(engine)
    words = ["buildx", "build", "--build-arg", "SOURCE_DATE_EPOCH=1", "-o"]
    filler = _fill(engine, 1 << 20)
    for output in ("type=oci,rewrite-timestamp=true,dest=o.tar", "type=image,rewrite-timestamp=true,name=rewritten"):
        assert full in docker(*words, output, "c", code=1).stderr.lower()
    filler.unlink()
    until(lambda: traces(engine) == kept, "nothing is left", 20)
    docker("buildx", "build", "--label", "l=1", "-t", "labelled", "c")
    assert docker("run", "--rm", "labelled", "ls", "/big").stdout == "Dockerfile\nbig\n"


@pytest.mark.parametrize(("leave", "message"), [(10 << 20, "failed to keep {}: no space left on device"), (0, "no space left on device: {} has more than ")])
def test_a_file_of_the_web_that_never_ends_is_given_up_before_the_disk_is_full(
    on_small_disk: EngineUnderTest, tmp_path: Path, leave: int, message: str
) -> None:
    ended = threading.Event()

    def endless(handler: Handler, data: bytes) -> None:
        handler.send_response(200)
        handler.end_headers()
        with contextlib.suppress(OSError):
            while True:
                handler.wfile.write(bytes(1 << 20))
        ended.set()
        handler.close_connection = True

    docker = docker_in(on_small_disk, tmp_path)
    kept = settled(on_small_disk)
    filler = _fill(on_small_disk, leave) if leave else None
    with serving(FakeRegistry()) as server:
        server.behaviours["/endless"] = endless
        url = f"http://{server.host}/endless"
        (tmp_path / "Dockerfile").write_text(f"FROM busybox\nADD {url} /e\n")
        assert message.format(url) in docker("buildx", "build", ".", code=1).stderr
        assert ended.wait(10)
    if filler is not None:
        filler.unlink()
    until(lambda: traces(on_small_disk) == kept and not os.listdir(on_small_disk.root / "data/builder/sources"), "nothing is left", 20)


class Counted:
    """A socket that passes connections on to an engine, and counts what its clients send."""

    def __init__(self, engine: EngineUnderTest, path: Path) -> None:
        self.sent = 0
        self.host = f"unix://{path}"
        self._target = str(engine.socket)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(64)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            server.connect(self._target)
            threading.Thread(target=self._carry, args=(client, server, True), daemon=True).start()
            threading.Thread(target=self._carry, args=(server, client, False), daemon=True).start()

    def _carry(self, source: socket.socket, target: socket.socket, counted: bool) -> None:
        try:
            while data := source.recv(1 << 20):
                self.sent += len(data) if counted else 0
                target.sendall(data)
        except OSError:
            pass
        finally:
            for one in (source, target):
                try:
                    one.shutdown(socket.SHUT_RDWR)
                except OSError:
                    continue

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


def test_of_a_large_context_only_the_file_that_changed_goes_over(engine: EngineUnderTest, tmp_path: Path) -> None:
    docker = docker_in(engine, tmp_path)
    folder = tmp_path / "c"
    folder.mkdir()
    (folder / "Dockerfile").write_text("FROM busybox\nRUN --mount=target=/c cat /c/small; cat /c/big* | wc -c\n")
    for number in range(8):
        with (folder / f"big{number}").open("wb") as file:
            file.truncate(25 << 20)
    counted = Counted(engine, tmp_path / "s")
    try:
        for text, least, most in (("one", 200 << 20, 230 << 20), ("two", 0, 256 << 10), ("three" * 100_000, 500_000, 1 << 20)):
            (folder / "small").write_text(text)
            before = counted.sent
            said = docker("-H", counted.host, "buildx", "build", "-t", "sent", "c").stderr
            assert f"{200 << 20}" in said or "CACHED" in said
            assert least <= counted.sent - before <= most
    finally:
        counted.close()
        docker("rmi", "sent")
        docker("buildx", "prune", "-af")
