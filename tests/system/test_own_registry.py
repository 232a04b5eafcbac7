"""The engine and the registry server of our own, with TLS and users: pushed, pulled, searched, broken off and gone on."""

import json
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest

from fake_registry import FakeRegistry, digest_of, serving
from registry_process import PASSWORD, USER, certificate, htpasswd, registry
from under_test import EngineUnderTest, until

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def server(engine: EngineUnderTest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Give a registry of our own with TLS and users, with the engine's client logged in."""
    folder = tmp_path_factory.mktemp("own")
    cert, key = certificate(folder / "certs")
    flags = ["--tls-cert", str(cert), "--tls-key", str(key), "--htpasswd", str(htpasswd(folder / "users"))]
    with registry(folder, *flags) as made:
        engine.docker("login", "-u", USER, "--password-stdin", made.address, input=PASSWORD)
        yield made
        engine.docker("logout", made.address)


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
