"""Clients that go away in the middle of each phase of a build: within five seconds all that it began is gone."""

import contextlib
import gzip
import os
import select
import signal
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import control_groups
from fake_registry import FakeRegistry, Handler, serving, tar_of
from plugins import SOURCE, plugin_config, write
from under_test import EngineUnderTest, running, running_engine, traces, until

pytestmark = pytest.mark.system
SOON_S = 5
PARENT = f"/barque-phases-{os.getpid()}"
CLIENTS = {
    "buildx": ["docker", "buildx", "build"],
    "barque": [sys.executable, "-m", "barque", "build"],
    "classic": ["docker", "build"],
}
BUILDKIT = ["buildx", "barque"]


@pytest.fixture(scope="module")
def engine() -> Iterator[EngineUnderTest]:
    """Give an engine whose control groups have a parent of their own."""
    try:
        yield from running_engine("--cgroup-parent", PARENT)
    finally:
        control_groups.remove(PARENT)


class Silence:
    """What a server does that gives or takes a little and then nothing more; `left` is set when its client hangs up."""

    def __init__(self, gives: bytes = b"") -> None:
        self._gives = gives
        self.reached, self.left = threading.Event(), threading.Event()

    def __call__(self, handler: Handler, data: bytes) -> None:
        if self._gives:
            handler.send_response(200)
            handler.send_header("Content-Length", str(len(data) or 1 << 30))
            handler.end_headers()
            handler.wfile.write(self._gives)
            handler.wfile.flush()
        self.reached.set()
        hung_up = select.poll()
        hung_up.register(handler.connection, select.POLLRDHUP)
        hung_up.poll()
        self.left.set()
        handler.close_connection = True


@pytest.fixture
def server() -> Iterator[FakeRegistry]:
    """Give a registry, and server of files, that falls silent where a test says."""
    with serving(FakeRegistry()) as made:
        yield made


class Cut:
    """Builds of one client in one folder that are cut short."""

    def __init__(self, engine: EngineUnderTest, client: str, folder: Path) -> None:
        self._engine, self._folder = engine, folder
        config = plugin_config(folder / ".docker") if client != "barque" else folder / ".docker"
        self._words, self._told = CLIENTS[client], folder / "told"
        self._environment = {**engine.environment, "DOCKER_CONFIG": str(config), "PYTHONPATH": str(SOURCE),
                             "DOCKER_BUILDKIT": "0" if client == "classic" else "1"}  # fmt: skip

    def has_told(self, text: bytes) -> bool:
        """Tell whether the client has shown something."""
        return text in self._told.read_bytes()

    def whole(self, *words: str) -> None:
        """Build to the end, so that what comes before the phase is there already."""
        done = subprocess.run([*self._words, *words], cwd=self._folder, env=self._environment, capture_output=True, text=True, timeout=100)
        assert done.returncode == 0, done.stderr

    def __call__(self, *words: str, when: Callable[[], object], what: str) -> None:
        """Kill the client of a build at a moment; all that the engine had of the build goes soon, and it builds on."""
        before = footprint(self._engine)
        with self._told.open("wb") as told:
            process = subprocess.Popen([*self._words, *words], cwd=self._folder, env=self._environment, start_new_session=True,
                                       stdout=told, stderr=told)  # fmt: skip
        try:
            until(lambda: when() or process.poll() is not None, what, 60)
            # The docker command and its plugin are both in the group.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        finally:
            process.kill()
            process.wait()
        assert process.returncode == -signal.SIGKILL, f"the build ended before {what}"
        left: dict[str, set[str]] = {}

        def is_gone() -> bool:
            left.clear()
            left.update({key: more for key, value in footprint(self._engine).items() if (more := value - before[key])})
            return not left

        with contextlib.suppress(AssertionError):
            until(is_gone, timeout_s=SOON_S)
        assert not left, f"left after {SOON_S} s"
        self.whole("-t", "after", "-f", "Dockerfile.after", "after")


@pytest.fixture
def cut(client: str, engine: EngineUnderTest, tmp_path: Path) -> Cut:
    """Give what cuts a client's builds short."""
    write(tmp_path, {"after/Dockerfile.after": "", "Dockerfile.after": "", ".dockerignore": ".docker\nafter\ntold\n"})
    for path in (tmp_path / "after/Dockerfile.after", tmp_path / "Dockerfile.after"):
        path.write_text("FROM busybox\nCOPY Dockerfile.after /\nRUN cat /Dockerfile.after\n")
    made = Cut(engine, client, tmp_path)
    made.whole("-t", "after", "-f", "after/Dockerfile.after", "after")
    return made


def footprint(engine: EngineUnderTest) -> dict[str, set[str]]:
    """Return all that a build may leave: what a container may, and temporary files, sockets, processes, control groups."""
    data, run = engine.root / "data", engine.root / "exec"
    links = []
    for fd in os.listdir(f"/proc/{engine.pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            links.append(os.readlink(f"/proc/{engine.pid}/fd/{fd}"))
    found = traces(engine)
    rows = found.pop("rows")
    assert isinstance(rows, dict)
    places = ["content/ingest", "builder/sources", "builder/mounts/tmp"]
    temporary = [path for place in places for path in (data / place).glob("*")] + [*(data / "builder/contexts").glob("*/huge")]
    keeper = int((run / "keeper.pid").read_text().split()[0])
    return {
        **{key: {str(one) for one in value} for key, value in found.items() if isinstance(value, list)},
        "rows": {f"{table} {number}" for table, count in rows.items() for number in range(count)},
        # Beginnings of layers are kept for the next pull.
        "temporary": {str(path) for path in temporary if not path.name.startswith("keep-")},
        "folders of the run": {str(path) for folder in ("builder", "network") for path in (run / folder).rglob("*")},
        "sockets": {f"socket {number}" for number, _ in enumerate(link for link in links if link.startswith("socket:"))},
        "open files": {link for link in links if link.startswith(f"{data}/") and not link.endswith(("/lock", ".db", ".db-wal", ".db-shm"))},
        "processes": below(engine.pid) | below(keeper),
        "control groups": set(map(str, control_groups.folders(PARENT))),
    }


def below(pid: int) -> set[str]:
    """Return the processes below one, the dead among them, with their names."""
    parents: dict[int, tuple[int, str]] = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            text = Path(f"/proc/{name}/stat").read_text()
            parents[int(name)] = int(text.rpartition(")")[2].split()[1]), text.partition("(")[2].rpartition(")")[0]
    found: set[str] = set()
    for one, (parent, name) in parents.items():
        at = parent
        while at in parents and at != pid:
            at = parents[at][0]
        if at == pid:
            found.add(f"{one} {name}")
    return found


def writes(engine: EngineUnderTest, size: int) -> bool:
    """Tell whether the daemon has a file of so many bytes open among its builds' or its layers'."""
    folder = f"/proc/{engine.pid}/fd"
    for fd in os.listdir(folder):
        with contextlib.suppress(FileNotFoundError):
            link = os.readlink(f"{folder}/{fd}")
            if link.startswith(f"{engine.root}/data/") and ".db" not in link and os.stat(f"{folder}/{fd}").st_size >= size:
                return True
    return False


@pytest.mark.parametrize("client", CLIENTS)
def test_while_a_context_is_sent(cut: Cut, engine: EngineUnderTest, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM busybox\nCOPY . /c\n")
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(1 << 40)
    cut(".", when=lambda: writes(engine, 64 << 20), what="the context comes")


@pytest.mark.parametrize("client", CLIENTS)
def test_while_a_base_image_is_pulled(cut: Cut, tmp_path: Path, server: FakeRegistry) -> None:
    layer = gzip.compress(tar_of({"f": os.urandom(100_000)}))
    server.add_image("1", layer)
    silence = Silence(layer[:50_000])
    server.behaviours[f"/blobs/{next(iter(server.blobs))}"] = silence
    (tmp_path / "Dockerfile").write_text(f"FROM {server.host}/base:1\nCOPY Dockerfile.after /\n")
    cut(".", when=silence.reached.is_set, what="the layer comes")
    until(silence.left.is_set, "the server is left", SOON_S)


@pytest.mark.parametrize("client", CLIENTS)
def test_while_a_command_runs(cut: Cut, tmp_path: Path) -> None:
    number = f"6{os.getpid()}"
    command = f"(setsid sleep {number} &) ; sleep {number}"
    (tmp_path / "Dockerfile").write_text(f"FROM busybox\nRUN --mount=type=tmpfs,target=/t {command}\n")
    cut(".", when=lambda: len(running(f"sleep {number}")) == 2, what="the command runs")
    assert not running(f"sleep {number}")


@pytest.mark.parametrize("client", CLIENTS)
def test_while_an_archive_is_unpacked(cut: Cut, engine: EngineUnderTest, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "huge.tar.gz", "w:gz", compresslevel=1) as tar:
        info = tarfile.TarInfo("huge")
        info.size = 1 << 30
        with open("/dev/zero", "rb") as file:
            tar.addfile(info, file)
    (tmp_path / "Dockerfile").write_text("FROM busybox\nADD huge.tar.gz /a\n")
    cut(".", when=lambda: writes(engine, 64 << 20), what="the archive is unpacked")


@pytest.mark.parametrize("client", CLIENTS)
def test_while_files_are_copied(cut: Cut, engine: EngineUnderTest, tmp_path: Path) -> None:
    with (tmp_path / "large").open("wb") as file:
        file.truncate(400 << 20)
    (tmp_path / "Dockerfile").write_text("FROM busybox\nRUN --mount=target=/c test -f /c/large\n")
    cut.whole(".")
    (tmp_path / "Dockerfile").write_text("FROM busybox\nCOPY large /copied\n")
    cut(".", when=lambda: cut.has_told(b"COPY large") and writes(engine, 1 << 20), what="the file is copied")


@pytest.mark.parametrize("client", BUILDKIT)
@pytest.mark.parametrize("words", [["-o", "type=image,push=true,name={}/pushed"], ["--cache-to", "type=registry,ref={}/cache,mode=max"]],
                         ids=["image", "cache"])  # fmt: skip
def test_while_layers_are_pushed(cut: Cut, tmp_path: Path, server: FakeRegistry, words: list[str]) -> None:
    (tmp_path / "Dockerfile").write_text("FROM busybox\nRUN dd if=/dev/urandom of=/f bs=1048576 count=32 2> /dev/null\n")
    cut.whole(".")
    silence = Silence()
    server.behaviours["/blobs/uploads/u"] = silence
    cut(*(word.format(server.host) for word in words), ".", when=silence.reached.is_set, what="a layer goes")


@pytest.mark.parametrize("client", BUILDKIT)
def test_while_a_cache_is_read(cut: Cut, tmp_path: Path, server: FakeRegistry) -> None:
    (tmp_path / "Dockerfile").write_text("FROM busybox\nRUN dd if=/dev/urandom of=/f bs=1048576 count=4 2> /dev/null\n")
    cut.whole("--cache-to", f"type=registry,ref={server.host}/cache:1,mode=max", ".")
    silence = server.behaviours["/manifests/1"] = Silence(b"{")
    cut("--cache-from", f"type=registry,ref={server.host}/cache:1", ".", when=silence.reached.is_set, what="the cache comes")
    until(silence.left.is_set, "the server is left", SOON_S)


@pytest.mark.parametrize("client", BUILDKIT)
@pytest.mark.parametrize("kind", ["tar", "oci", "oci,compression=zstd"])
def test_while_an_archive_is_received(cut: Cut, tmp_path: Path, kind: str) -> None:
    (tmp_path / "Dockerfile").write_text("FROM busybox\nRUN dd if=/dev/urandom of=/f bs=1048576 count=32 2> /dev/null\n")
    cut.whole(".")
    reader, writer = os.pipe()
    begun = select.poll()
    begun.register(reader, select.POLLIN)
    try:
        # Nobody reads: the client stays in the middle of it.
        cut("-o", f"type={kind},dest=/proc/{os.getpid()}/fd/{writer}", ".", when=lambda: begun.poll(0), what="the archive comes")
    finally:
        os.close(reader)
        os.close(writer)


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("source", ["file", "repository.git"])
def test_while_something_of_the_web_comes(cut: Cut, tmp_path: Path, server: FakeRegistry, source: str) -> None:
    silence = server.behaviours[f"/{source}"] = Silence(b"begins")
    (tmp_path / "Dockerfile").write_text(f"FROM busybox\nADD http://{server.host}/{source} /f\n")
    cut(".", when=silence.reached.is_set, what="the download begins")
    until(silence.left.is_set, "the server is left", SOON_S)
