"""What a build was told in confidence is nowhere afterwards: every file is searched, and what is compressed is unpacked first."""

import base64
import io
import os
import secrets
import sqlite3
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from barque.base.errors import InvalidInputError
from barque.storage.compression import plain
from fake_registry import FakeRegistry, Handler, send, serving
from plugins import barque_in, docker_in
from registries import PASSWORD, USER, RegistryUnderTest
from under_test import EngineUnderTest, running, until

pytestmark = pytest.mark.system
_CHUNK = 1 << 20
_PACKED = (b"\x1f\x8b", b"\x28\xb5\x2f\xfd")


def forms(secret: str) -> list[bytes]:
    """Return how a text may be written: as it is, in hexadecimal digits, in base64 wherever it begins in what was encoded."""
    raw = secret.encode()
    # Of what stands at an edge the neighbours decide, too.
    shifted = [base64.b64encode(b"\0" * before + raw)[4 if before else 0 : -4] for before in range(3)]
    return [raw, raw.hex().encode(), raw.hex().upper().encode(), *shifted]


def contents(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield all bytes that a file holds: its own, those it is a compressed form of, those of an archive's members, a table's cells."""
    data = path.read_bytes()
    yield str(path), data
    if data.startswith(_PACKED):
        try:
            data = b"".join(plain([data]))
        except InvalidInputError:
            return
        yield f"{path} unpacked", data
    if data[257:262] == b"ustar":
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            for member in tar:
                file = tar.extractfile(member) if member.isfile() else None
                inner = file.read() if file is not None else b""
                if inner.startswith(_PACKED):
                    yield f"{path} member {member.name} unpacked", b"".join(plain([inner]))
    if data.startswith(b"SQLite format 3"):
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as database:
            for (table,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
                for row in database.execute(f'SELECT * FROM "{table}"'):
                    for cell in row:
                        raw = cell if isinstance(cell, bytes) else str(cell).encode()
                        yield f"{path} table {table}", b"".join(plain([raw])) if raw.startswith(_PACKED) else raw


def search(roots: list[Path], texts: dict[str, list[bytes]]) -> dict[str, set[str]]:
    """Return in which files each text is found; links are not followed."""
    found: dict[str, set[str]] = {name: set() for name in texts}
    for root in roots:
        for folder, _, names in os.walk(root):
            for name in names:
                path = Path(folder) / name
                if path.is_symlink() or not path.is_file():
                    continue
                for where, data in contents(path):
                    for text, spellings in texts.items():
                        if any(one in data for one in spellings):
                            found[text].add(where)
    return found


DOCKERFILE = """FROM busybox AS first
COPY visible /visible
RUN --mount=type=secret,id=file,required cp /run/secrets/file /dev/shm/x; md5sum /dev/shm/x
RUN --mount=type=secret,id=file,target=/etc/deep/secret,uid=33,mode=0444 wc -c < /etc/deep/secret > /count
RUN --mount=type=secret,id=variable,env=WORD test ${#WORD} -gt 20; echo told-in-the-log
ADD %s /of-the-web
FROM first
COPY --from=named guarded /named
RUN --mount=type=secret,id=file,env=WORD,target=/both cat /both | tr a-z A-Z | wc -c
RUN --mount=type=cache,target=/kept --mount=type=secret,id=variable cat /run/secrets/variable | md5sum > /kept/sum
"""


@pytest.fixture
def confidential(tmp_path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Give the URL of a file that is had by a token, and the secrets, which lie in the folder."""
    made = {name: f"{name}-{secrets.token_hex(16)}" for name in ("file", "variable", "token", "url")}
    for name, text in made.items():
        (tmp_path / f"s-{name}").write_text(text)

    basic = base64.b64encode(f"user:{made['url']}".encode()).decode()

    def guarded(handler: Handler, data: bytes) -> None:
        is_known = handler.headers["Authorization"] in (f"Bearer {made['token']}", f"Basic {basic}")
        send(handler, 200 if is_known else 401, b"of the web")

    with serving(FakeRegistry()) as server:
        server.behaviours["/guarded"] = guarded
        yield f"http://{server.host}/guarded", made


@pytest.fixture
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryUnderTest]:
    """Give a registry that wants a password."""
    made = RegistryUnderTest(tmp_path_factory.mktemp("guarded"), passwords=True)
    made.start()
    yield made
    made.stop()


def given(*more: str) -> list[str]:
    named = {"file": "file", "variable": "variable", "HTTP_AUTH_TOKEN_127.0.0.1": "token"}
    return [*(f"--secret=id={name},src=s-{file}" for name, file in named.items()), *more]


@pytest.mark.parametrize("client", ["buildx", "barque"])
def test_secrets_are_in_no_layer_cache_record_log_or_history(
    client: str, engine: EngineUnderTest, guarded: RegistryUnderTest, confidential: tuple[str, dict[str, str]], tmp_path: Path
) -> None:
    url, told = confidential
    docker = docker_in(engine, tmp_path)
    docker("login", "-u", USER, "--password-stdin", guarded.host, text_in=PASSWORD)
    barque = barque_in(engine, tmp_path, tmp_path / ".docker")

    def build(*words: str, code: int = 0) -> str:
        done = docker("buildx", "build", *words, code=code) if client == "buildx" else barque("build", "--progress=plain", *words, code=code)
        return done.stdout + done.stderr

    visible = f"visible-{secrets.token_hex(16)}"
    (tmp_path / "out").mkdir()
    (tmp_path / "visible").write_text(visible)
    (tmp_path / "Dockerfile").write_text(DOCKERFILE % url)
    (tmp_path / ".dockerignore").write_text("*\n!visible\n")
    proxied = f"proxy-{secrets.token_hex(16)}"
    named = "named=" + url.replace("127.0.0.1", f"user:{told['url']}@localhost")
    shown = [build(*given(
        "--build-arg", f"FTP_PROXY=http://user:{proxied}@127.0.0.1:1", "--build-context", named, "--cache-to", f"type={place}", "-o", output, "--provenance", "mode=max", "."))
        for place, output in (
            ("local,mode=max,dest=out/local", "type=oci,dest=out/gzip.tar,compression=gzip,force-compression=true"),
            ("local,mode=max,compression=zstd,force-compression=true,dest=out/zstd", "type=oci,dest=out/zstd.tar,compression=zstd,force-compression=true"),
            (f"registry,mode=max,ref={guarded.host}/cache", f"type=image,name={guarded.host}/pushed,push=true"),
        )]  # fmt: skip
    shown.append(build(*given("--build-context", named, "--cache-to", "type=inline", "-o", f"type=registry,name={guarded.host}/inline", "--provenance=false", ".")))
    shown.append(build(*given("--build-context", named, "--load", "--provenance=false", "-t", "confidential", ".")))
    (tmp_path / "Dockerfile").write_text("FROM busybox\nRUN --mount=type=secret,id=file test -s /run/secrets/file && exit 3\n")
    shown.append(build(*given("."), code=1))
    assert "told-in-the-log" in shown[0]
    (tmp_path / "out/shown").write_text("\n".join(shown))
    (tmp_path / "out/history").write_text(docker("history", "--no-trunc", "confidential").stdout + docker("inspect", "confidential").stdout)
    docker("save", "-o", "out/saved.tar", "confidential")
    roots = [engine.root, tmp_path / "out", guarded.root / "data"]
    texts = {name: forms(text) for name, text in {**told, "visible": visible, "password": PASSWORD, "log": "told-in-the-log"}.items()}
    # Somebody who builds by a proxy with a password gives it to every command; the record of the build is without it.
    texts["proxy"] = forms(proxied)
    found = search(roots, texts)
    seen, logged = found.pop("visible"), found.pop("log")
    # The search finds what is there: in compressed layers and caches, in the engine's layers, in its records.
    for part in ("out/local/blobs", "out/zstd/blobs", "out/gzip.tar member", "out/zstd.tar member", f"{guarded.root}/data", f"{engine.root}/data"):
        assert any(part in where for where in seen), (part, seen)
    assert any("/builder/history/" in where for where in logged) and any("cache.db" in where for where in logged)
    assert found == {name: set() for name in found}


def test_a_daemon_killed_while_a_command_has_secrets_leaves_none(own_engine: EngineUnderTest, tmp_path: Path) -> None:
    docker_in(own_engine, tmp_path)
    told = {name: f"{name}-{secrets.token_hex(16)}" for name in ("file", "variable")}
    for name, text in told.items():
        (tmp_path / f"s-{name}").write_text(text)
    number = 5_000_000 + os.getpid()
    (tmp_path / "Dockerfile").write_text(
        f"FROM busybox\nRUN --mount=type=secret,id=file --mount=type=secret,id=variable,env=WORD cat /run/secrets/file >/dev/null; sleep {number}; true\n"
    )
    environment = {**own_engine.environment, "DOCKER_CONFIG": str(tmp_path / ".docker")}
    client = subprocess.Popen(["docker", "buildx", "build", "--secret=id=file,src=s-file", "--secret=id=variable,src=s-variable", "."],
                              cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
    try:
        until(lambda: running(f"sleep {number}"), "the command runs", 60)
        texts = {name: forms(text) for name, text in told.items()}
        # While it runs they are where the engine keeps what does not outlive the machine.
        found = search([own_engine.root], texts)
        assert found["file"] and all(place.startswith(f"{own_engine.root}/exec/") for places in found.values() for place in places)
        own_engine.kill_daemon(60)
    finally:
        client.kill()
        client.wait()
    until(lambda: not running(f"sleep {number}"), "the command has ended")
    until(lambda: not any(search([own_engine.root], texts).values()), "nothing of the secrets is left")
