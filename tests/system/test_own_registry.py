"""The engine and registries with TLS and users, ours and Debian's: pushed, pulled, searched, broken off and gone on."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import registries
from fake_registry import FakeRegistry, digest_of, serving
from registry_process import PASSWORD, USER, certificate, htpasswd, registry
from under_test import EngineUnderTest, until

pytestmark = pytest.mark.system
CLIENT = Path(__file__).resolve().parent.parent / "registry_client.py"


@pytest.fixture(scope="module", params=["own", "debian"])
def server(engine: EngineUnderTest, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Give a registry with TLS and users, ours and Debian's, with the engine's client logged in."""
    folder = tmp_path_factory.mktemp("registry")
    with ExitStack() as stack:
        if request.param == "own":
            cert, key = certificate(folder / "certs")
            flags = ["--tls-cert", str(cert), "--tls-key", str(key), "--htpasswd", str(htpasswd(folder / "users"))]
            made: Any = stack.enter_context(registry(folder, *flags))
            address, user, password = made.address, USER, PASSWORD
        else:
            made = registries.RegistryUnderTest(folder, passwords=True, tls=True)
            made.start()
            stack.callback(made.stop)
            address, user, password = made.host, registries.USER, registries.PASSWORD
        engine.docker("login", "-u", user, "--password-stdin", address, input=password)
        stack.callback(engine.docker, "logout", address)
        yield SimpleNamespace(address=address, ca=cert if request.param == "own" else folder / "ca.crt",
                              user=f"{user}:{password}")  # fmt: skip


def client(server: Any, verb: str, *names: str) -> str:
    """Run the client of the bare specification."""
    words = [sys.executable, str(CLIENT), "--ca", str(server.ca), "--user", server.user, verb]
    done = subprocess.run([*words, *(n if n[0] == "/" else f"{server.address}/{n}" for n in names)],
                          capture_output=True, text=True, timeout=60)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_another_client_has_the_same_digests_and_copies_lists_and_deletes(
    engine: EngineUnderTest, server: Any, tmp_path: Path
) -> None:
    name = f"{server.address}/agreed/one:1"
    engine.docker("tag", "busybox", name)
    digest = engine.docker("push", name).splitlines()[-1].split()[2]
    assert client(server, "digest", "agreed/one:1") == digest
    assert client(server, "copy", "agreed/one:1", "agreed/copy:2") == digest
    assert client(server, "pull", "agreed/copy:2", f"{tmp_path}/layout") == digest
    assert client(server, "push", "agreed/back:3", f"{tmp_path}/layout") == digest
    engine.docker("rmi", name)
    back = f"{server.address}/agreed/back:3"
    assert f"Digest: {digest}" in engine.docker("pull", back)
    assert digest in engine.docker("inspect", "-f", "{{.RepoDigests}}", back)
    assert client(server, "ls", "agreed/back") == "3"
    assert client(server, "delete", "agreed/back:3") == digest
    assert "manifest unknown" in engine.docker_result("pull", back).stderr
    engine.docker("rmi", back)


def test_an_image_goes_there_and_comes_back(engine: EngineUnderTest, server: Any) -> None:
    name = f"{server.address}/own/box:1"
    engine.docker("tag", "busybox", name)
    pushed = engine.docker("push", name).splitlines()
    assert pushed[-1].startswith("1: digest: sha256:")
    digest = pushed[-1].split()[2]
    engine.docker("rmi", name)
    assert f"Digest: {digest}" in engine.docker("pull", name)
    assert engine.docker("run", "--rm", name, "echo", "hi") == "hi"
    other = f"{server.address}/other/box:1"
    engine.docker("tag", name, other)
    assert "Mounted from own/box" in engine.docker("push", other)
    assert sorted(engine.docker("search", "--format", "{{.Name}}", f"{server.address}/box").split()) == [
        "other/box", "own/box",
    ]  # fmt: skip
    engine.docker("rmi", name, other)


def test_a_pull_whose_client_goes_is_gone_on_with_by_the_next(engine: EngineUnderTest) -> None:
    with serving(FakeRegistry()) as fake:
        import gzip
        import os

        from fake_registry import tar_of

        layer = gzip.compress(tar_of({"file": os.urandom(2_000_000)}), 1)
        fake.add_image("1", layer)
        ended = []

        def hang(handler: Any, data: bytes) -> None:
            handler.send_response(200)
            handler.send_header("Content-Length", str(len(data)))
            handler.end_headers()
            handler.wfile.write(data[:1_000_000])
            handler.wfile.flush()
            handler.connection.settimeout(20)
            ended.append(handler.rfile.read(1))

        fake.behaviours[f"/blobs/{digest_of(layer)}"] = hang
        name = f"{fake.host}/x:1"
        client = subprocess.Popen(["docker", "pull", name], env=engine.environment, stdout=subprocess.DEVNULL)
        kept = engine.root / "data/content/ingest" / f"keep-pull-{digest_of(layer)[7:]}"
        until(lambda: kept.exists() and kept.stat().st_size >= 900_000, "the beginning of the layer is kept")
        client.kill()
        client.wait()
        until(lambda: ended, "the daemon does not go on when nobody waits for it")
        fake.behaviours.clear()
        engine.docker("pull", name)
        (again,) = [h["Range"] for h in fake.asked("GET", digest_of(layer)) if "Range" in h]
        assert int(again.removeprefix("bytes=").rstrip("-")) >= 900_000
        assert not kept.exists()
        engine.docker("rmi", name)


def test_transfers_are_told_to_who_listens(engine: EngineUnderTest, server: Any) -> None:
    name = f"{server.address}/own/told:1"
    since = engine.docker("run", "--rm", "busybox", "date", "+%s")
    engine.docker("tag", "busybox", name)
    engine.docker("push", name)
    engine.docker("rmi", name)
    engine.docker("pull", name)
    lines = engine.docker("events", "--since", since, "--until", str(time.time()), "--filter", "type=image", "--format", "{{json .}}")
    found = [json.loads(line) for line in lines.splitlines()]
    about = [e for e in found if e["Actor"]["Attributes"]["name"] == name.rpartition(":")[0]]
    assert [e["Action"] for e in about if e["Actor"]["ID"] == name] == ["push", "pull"]
    engine.docker("rmi", name)
