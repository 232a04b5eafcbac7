"""Builds that are cut short, crowded or fed with what is hostile: nothing leaks, nothing is half made."""

import io
import json
import os
import subprocess
import tarfile
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from under_test import EngineUnderTest, needs_root, running, until

pytestmark = pytest.mark.system
MINE = os.getpid()
"""Tells our commands from those of tests that run beside us."""


def archive(*entries: tuple[str, bytes] | tarfile.TarInfo) -> bytes:
    """Return a tar of (name, content) pairs and ready-made members."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for entry in entries:
            if isinstance(entry, tarfile.TarInfo):
                tar.addfile(entry)
                continue
            info = tarfile.TarInfo(entry[0])
            info.size = len(entry[1])
            tar.addfile(info, io.BytesIO(entry[1]))
    return out.getvalue()


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


class Post:
    """POST /build with a body of our own making, as no well-behaved client sends it."""

    def __init__(self, engine) -> None:
        self.engine = engine

    def __call__(self, body: bytes, query: str = "") -> tuple[int, str]:
        command = ["curl", "-s", "-g", "-w", "\n%{http_code}", "--unix-socket", str(self.engine.socket), "-X", "POST",
                   "--data-binary", "@-", "-H", "Content-Type: application/x-tar", f"http://localhost/build?{query}"]  # fmt: skip
        done = subprocess.run(command, input=body, capture_output=True, timeout=110, check=True)
        text, _, code = done.stdout.decode(errors="replace").rpartition("\n")
        return int(code), text

    def output(self, body: bytes, query: str = "") -> str:
        _, text = self(body, query)
        rows = [json.loads(line) for line in text.splitlines() if line.strip()]
        return "".join(row.get("stream", "") + row.get("error", "") + row.get("message", "") for row in rows)


@pytest.fixture
def post(engine):
    return Post(engine)


def test_links_out_of_a_context_lead_into_it_and_never_onto_the_host(post):
    body = archive(
        ("Dockerfile", b"FROM busybox\nCOPY out /out\nCOPY up /up\nRUN cat /out /up\n"),
        ("etc/hostname", b"inside-the-context\n"), link("out", "/etc/hostname"), link("up", "../../../etc/hostname"),
    )  # fmt: skip
    assert post.output(body).count("inside-the-context") == 2


def test_a_link_to_what_the_context_has_not_is_not_found_though_the_host_has_it(post):
    body = archive(("Dockerfile", b"FROM busybox\nCOPY passwd /p\n"), link("passwd", "/etc/passwd"))
    assert "COPY failed: file not found in build context" in post.output(body)


@pytest.mark.parametrize(
    "entry",
    [("../outside", b"x"), ("a/../../outside", b"x"), link("l", "nothere", tarfile.LNKTYPE),
     link("l", "../../etc/passwd", tarfile.LNKTYPE)],
    ids=["parent", "hidden parent", "dangling hard link", "hard link out"],
)  # fmt: skip
def test_archives_that_try_to_leave_their_root_are_refused(post, entry):
    code, text = post(archive(("Dockerfile", b"FROM busybox\nCOPY . /c\n"), entry))
    assert code == 400, text


def test_a_chain_of_links_that_bites_its_tail_ends(post):
    body = archive(("Dockerfile", b"FROM busybox\nCOPY a /a\n"), link("a", "b"), link("b", "a"))
    assert "too many links" in post.output(body)


def test_device_nodes_of_a_context_are_not_copied(post):
    node = tarfile.TarInfo("sda")
    node.type, node.devmajor, node.devminor = tarfile.BLKTYPE, 8, 0
    text = post.output(archive(("Dockerfile", b"FROM busybox\nCOPY sda /sda\n"), node))
    assert "device nodes cannot be copied out of a build context" in text


def test_a_copy_follows_links_of_the_image_inside_the_image_only(post):
    body = archive(
        ("Dockerfile", (b"FROM busybox\nRUN ln -s ../../../../../var/tmp /evil && ln -s /etc /e\n"
                       b"COPY f /evil/f\nCOPY f /e/f\nRUN cat /var/tmp/f /etc/f\n")),
        ("f", b"stayed inside\n"),
    )  # fmt: skip
    assert post.output(body).count("stayed inside") == 2
    assert not Path("/var/tmp/f").exists()
    assert not Path("/etc/f").exists()


@pytest.mark.parametrize("body", [b"", b"not a tar at all" * 100, b"\x1f\x8b broken gzip", bytes(1024)])
def test_a_body_that_is_no_archive_is_refused(post, body):
    code, text = post(body)
    assert code in (400, 500)
    assert json.loads(text)["message"]


def test_a_truncated_archive_is_refused(post):
    whole = archive(("Dockerfile", b"FROM busybox\n"), ("big", b"x" * 10000))
    code, text = post(whole[:5000])
    assert code == 400
    assert "unexpected EOF" in text


def test_a_dockerfile_of_100_megabytes_is_refused(post):
    code, text = post(archive(("Dockerfile", b"#" + b"x" * (100 << 20))))
    assert code == 400
    assert "larger than" in text


def test_a_dockerfile_with_very_many_instructions_is_built(post):
    text = b"FROM busybox\n" + b"".join(b"LABEL l%d=%d\n" % (i, i) for i in range(300))
    assert "Successfully built" in post.output(archive(("Dockerfile", text)))


def test_ten_thousand_stages_do_not_hang_the_engine(post, engine):
    text = b"".join(b"FROM scratch AS s%d\n" % i for i in range(10_000)) + b"FROM nosuchstage:$\n"
    started = time.monotonic()
    assert post.output(archive(("Dockerfile", text)))
    assert time.monotonic() - started < 60
    assert engine.docker("version", "-f", "{{.Server.Version}}")


def test_a_deeply_nested_context_is_no_recursion(post):
    deep = "/".join(["d"] * 1500)
    body = archive(("Dockerfile", b"FROM busybox\nCOPY d /x\n"), (f"{deep}/f", b"x"))
    assert "errorDetail" in post(body)[1] or "Successfully built" in post.output(body)


def test_parameters_that_are_wrong_are_refused(post):
    body = archive(("Dockerfile", b"FROM scratch\nLABEL a=b\n"))
    for query, message in (
        ("buildargs=nonsense", "error reading build args"), ("labels=[1]", "error reading labels"),
        ("cachefrom={}", "error reading cache-from"), ("ulimits=x", "error reading ulimit settings"),
        ("memory=lots", "invalid syntax"), ("version=3", "invalid version"), ("t=UPPER", "must be lowercase"),
        ("squash=1", "experimental"), ("securityopt=x", "security options"), ("outputs=[]", "outputs"),
        ("remote=nonsense", "could not be recognized as URL"), ("platform=nonsense/x/y/z", ""),
    ):  # fmt: skip
        code, text = post(body, query)
        assert code >= 400, query
        assert message in text, (query, text)


def test_a_command_that_leaves_processes_behind_ends_and_takes_them_along(post):
    body = archive(("Dockerfile", b"FROM busybox\nRUN sleep 4242%d & sleep 4242%d & echo left\nRUN echo went on\n" % (MINE, MINE)))
    text = post.output(body)
    assert "went on" in text
    assert not running(f"sleep 4242{MINE}")


def test_a_command_that_fills_its_pipes_does_not_block(post):
    body = archive(("Dockerfile", b"FROM busybox\nRUN yes out | head -c 3000000; yes err | head -c 3000000 >&2; echo done-filling\n"))
    text = post.output(body)
    assert "done-filling" in text
    assert len(text) > 6_000_000


def test_output_that_is_no_text_is_passed_on(post):
    body = archive(("Dockerfile", b"FROM busybox\nRUN printf 'a\\377\\376b\\000c\\n'\n"))
    assert "Successfully built" in post.output(body)


def test_twenty_builds_of_the_same_dockerfile_at_once_run_its_steps_once(post, engine):
    others = engine.docker("ps", "-aq")
    text = b"FROM busybox\nRUN cat /proc/sys/kernel/random/uuid > /once; sleep 0.3\nRUN cat /once\n"
    found: list[str] = []

    def one() -> None:
        found.append(post.output(archive(("Dockerfile", text))))

    threads = [threading.Thread(target=one) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    built = {line for text in found for line in text.splitlines() if line.startswith("Successfully built")}
    assert len(found) == 20
    assert len(built) == 1
    assert engine.docker("ps", "-aq") == others


def test_twenty_different_builds_at_once_all_come_to_their_end(post):
    results: dict[int, str] = {}

    def one(number: int) -> None:
        body = archive(("Dockerfile", b"FROM busybox\nRUN echo build-%d\nCOPY f /f\n" % number), ("f", b"%d" % number))
        results[number] = post.output(body)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(f"build-{n}" in text and "Successfully built" in text for n, text in results.items())


def test_a_build_that_is_shared_goes_on_when_the_client_that_began_it_goes_away(post, engine):
    text = b"FROM busybox\nRUN sleep 2.%d && echo shared-until-the-end\n" % MINE
    body = archive(("Dockerfile", text))
    command = ["curl", "-s", "-N", "--unix-socket", str(engine.socket), "-X", "POST", "--data-binary", "@-",
               "-H", "Content-Type: application/x-tar", "http://localhost/build"]  # fmt: skip
    first = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    first.stdin.write(body)
    first.stdin.close()
    for line in first.stdout:
        if b"Running in" in line:
            break
    second: list[str] = []
    thread = threading.Thread(target=lambda: second.append(post.output(body)))
    thread.start()
    until(lambda: len(running(f"sleep 2.{MINE}")) == 1, timeout_s=40)
    first.kill()
    first.wait()
    first.stdout.close()
    thread.join()
    assert "shared-until-the-end" in second[0]
    assert "Successfully built" in second[0]


def test_a_build_is_cancelled_by_its_id(post, engine):
    body = archive(("Dockerfile", b"FROM busybox\nRUN sleep 777%d\n" % MINE))
    thread = threading.Thread(target=lambda: post(body, "buildid=cancelme"))
    thread.start()
    until(lambda: bool(running(f"sleep 777{MINE}")), timeout_s=40)
    done = engine.run(["curl", "-s", "-w", "%{http_code}", "--unix-socket", str(engine.socket), "-X", "POST",
                       "http://localhost/build/cancel?id=cancelme"])  # fmt: skip
    assert done.stdout.endswith("200")
    thread.join()
    until(lambda: not running(f"sleep 777{MINE}"), timeout_s=40)
    code = engine.run(["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "--unix-socket", str(engine.socket), "-X",
                       "POST", "http://localhost/build/cancel?id=cancelme"])  # fmt: skip
    assert code.stdout == "404"


def test_a_client_that_goes_away_while_it_sends_its_context_leaves_nothing(own_engine):
    body = archive(("Dockerfile", b"FROM busybox\nCOPY big /b\n"), ("big", os.urandom(4 << 20)))
    command = ["curl", "-s", "--unix-socket", str(own_engine.socket), "-X", "POST", "-T", "-", "-H",
               "Transfer-Encoding: chunked", "http://localhost/build"]  # fmt: skip
    client = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    client.stdin.write(body[: 2 << 20])
    client.stdin.flush()
    client.kill()
    client.wait()
    client.stdin.close()
    until(lambda: not list((own_engine.root / "data/content/ingest").iterdir()), timeout_s=40)
    assert own_engine.docker("images", "-q", "--filter", "dangling=true") == ""


def test_a_daemon_killed_during_a_command_leaves_nothing_of_it_and_builds_again(own_engine):
    text = b"FROM busybox\nRUN sleep 888%d\n" % MINE
    thread = threading.Thread(target=_ignore, args=(Post(own_engine), archive(("Dockerfile", text))))
    thread.start()
    until(lambda: bool(running(f"sleep 888{MINE}")), timeout_s=40)
    own_engine.kill_daemon()
    thread.join()
    until(lambda: not running(f"sleep 888{MINE}"), timeout_s=40)
    folders = [p.name for p in (own_engine.root / "data/containers").iterdir()]
    assert folders == []
    post = Post(own_engine)
    assert "Successfully built" in post.output(archive(("Dockerfile", b"FROM busybox\nRUN echo again\n")))


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """Give a folder on a disk of 40 MB."""
    needs_root()
    folder = Path(tempfile.mkdtemp(prefix="bqsmall", dir="/var/tmp"))
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40m,mode=755", "tmpfs", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=False)
    folder.rmdir()


def test_a_full_disk_fails_the_copy_and_leaves_no_half_layer(small_disk):
    engine = EngineUnderTest(small_disk)
    engine.start()
    try:
        engine.load_busybox()
        post = Post(engine)
        files = [(f"f{number}", os.urandom(1 << 20)) for number in range(14)]
        text = post(archive(("Dockerfile", b"FROM busybox\nCOPY . /big\n"), *files))[1]
        assert "no space left on device" in text.lower()
        assert "Successfully built" not in text
        # What was half made is gone: there is room again, and the engine goes on.
        assert "still works" in post.output(archive(("Dockerfile", b"FROM busybox\nRUN echo still works\n")))
        images = engine.docker("images", "-aq", "--no-trunc").split()
        assert all(engine.docker("inspect", "-f", "{{.Id}}", image) == image for image in images)
    finally:
        engine.stop()


def test_a_daemon_that_is_stopped_ends_its_builds(own_engine):
    body = archive(("Dockerfile", b"FROM busybox\nRUN sleep 999%d\n" % MINE))
    thread = threading.Thread(target=_ignore, args=(Post(own_engine), body))
    thread.start()
    until(lambda: bool(running(f"sleep 999{MINE}")), timeout_s=40)
    own_engine.stop()
    thread.join()
    assert not running(f"sleep 999{MINE}")
    own_engine.start()


def _ignore(post: Post, body: bytes) -> None:
    try:
        post(body)
    except subprocess.CalledProcessError:
        return
