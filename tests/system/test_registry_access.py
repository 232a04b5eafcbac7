"""Logging in, TLS with certificates of one's own, mirrors, search and questions, with the real docker command."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from registries import PASSWORD, USER, RegistryUnderTest
from under_test import EngineUnderTest, needs_root, running_engine

pytestmark = pytest.mark.system
ADDRESS = "10.77.77.1"


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryUnderTest]:
    """Give a registry with TLS and passwords on an address that is not loopback."""
    needs_root()
    subprocess.run(["ip", "address", "add", f"{ADDRESS}/32", "dev", "lo"], check=True, capture_output=True)
    made = RegistryUnderTest(tmp_path_factory.mktemp("secured"), passwords=True, tls=True, address=ADDRESS)
    made.start()
    yield made
    made.stop()
    subprocess.run(["ip", "address", "del", f"{ADDRESS}/32", "dev", "lo"], check=True, capture_output=True)


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryUnderTest]:
    """Give a registry that stands in for others."""
    made = RegistryUnderTest(tmp_path_factory.mktemp("mirror"))
    made.start()
    yield made
    made.stop()


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the folder of registries' certificates, empty at first."""
    return tmp_path_factory.mktemp("certs.d")


@pytest.fixture(scope="module")
def own(certificates: Path, mirror: RegistryUnderTest) -> Iterator[EngineUnderTest]:
    """Give an engine that looks for certificates in our folder and knows mirrors."""
    yield from running_engine(
        "--registry-certs", str(certificates),
        "--registry-mirror", "http://127.0.0.1:1", "--registry-mirror", f"http://{mirror.host}",
        "--registry-mirror", f"registry.invalid=http://{mirror.host}",
    )  # fmt: skip


def test_a_certificate_of_an_unknown_authority_is_refused_until_it_is_in_its_folder(
    own: EngineUnderTest, secured: RegistryUnderTest, certificates: Path
) -> None:
    refused = own.docker_result("pull", f"{secured.host}/x")
    assert refused.stderr.strip().splitlines()[-1] == (
        f'Error response from daemon: Get "https://{secured.host}/v2/": tls: failed to verify certificate: '
        "x509: certificate signed by unknown authority"
    )
    folder = certificates / secured.host
    folder.mkdir()
    (folder / "client.cert").write_text("")
    assert "missing key client.key" in own.docker_result("pull", f"{secured.host}/x").stderr
    (folder / "client.cert").unlink()
    (folder / "ca.crt").write_bytes((secured.root / "ca.crt").read_bytes())
    assert "no basic auth credentials" in own.docker_result("pull", f"{secured.host}/x").stderr


def test_login_is_proven_kept_used_and_forgotten(own: EngineUnderTest, secured: RegistryUnderTest) -> None:
    wrong = own.docker_result("login", "-u", USER, "--password-stdin", secured.host, input="wrong")
    assert wrong.returncode == 1
    assert wrong.stderr.strip().splitlines()[-1] == (
        f"Error response from daemon: login attempt to https://{secured.host}/v2/ failed with status: 401 Unauthorized"
    )
    image = f"{secured.host}/team/box:1"
    own.docker("tag", "busybox", image)
    denied = own.docker_result("push", image)
    assert (denied.returncode, denied.stderr.strip()) == (1, "no basic auth credentials")
    assert own.docker("login", "-u", USER, "--password-stdin", secured.host, input=PASSWORD).endswith("Login Succeeded")
    assert "1: digest: sha256:" in own.docker("push", image)
    own.docker("rmi", image)
    assert f"Downloaded newer image for {image}" in own.docker("pull", image)
    own.docker("logout", secured.host)
    assert "no basic auth credentials" in own.docker_result("pull", image).stderr


def test_what_a_name_means_is_asked_without_pulling_it(own: EngineUnderTest, mirror: RegistryUnderTest) -> None:
    image = f"{mirror.host}/asked:1"
    own.docker("tag", "busybox", image)
    digest = own.docker("push", image).split()[-3]
    answer = get(own, f"/v1.51/distribution/{image}/json")
    assert answer["Descriptor"]["digest"] == digest
    assert answer["Platforms"] == [{"architecture": "amd64", "os": "linux"}]
    assert "manifest unknown" in get(own, f"/v1.51/distribution/{image}0/json")["message"]


def test_mirrors_are_asked_first_and_in_order(own: EngineUnderTest, mirror: RegistryUnderTest) -> None:
    for path in ("library/mirrored", "deep/er"):
        own.docker("tag", "busybox", f"{mirror.host}/{path}:1")
        own.docker("push", f"{mirror.host}/{path}:1")
    assert "Downloaded newer image for mirrored:1" in own.docker("pull", "mirrored:1")
    assert "for registry.invalid/deep/er:1" in own.docker("pull", "registry.invalid/deep/er:1")
    missing = own.docker_result("pull", "registry.invalid/nosuch:1").stderr
    assert "registry.invalid" in missing


def test_a_registry_without_search_is_searched_by_its_catalogue(own: EngineUnderTest, mirror: RegistryUnderTest) -> None:
    own.docker("tag", "busybox", f"{mirror.host}/find/me:1")
    own.docker("push", f"{mirror.host}/find/me:1")
    assert own.docker("search", "--format", "{{.Name}}", f"{mirror.host}/find") == "find/me"
    assert "outside the range of [1, 100]" in own.docker_result("search", "--limit", "101", "x").stderr


def test_a_root_file_system_is_imported_from_a_web_server(own: EngineUnderTest, tmp_path: Path) -> None:
    import http.server
    import threading
    from functools import partial

    from under_test import busybox_tar

    (tmp_path / "root.tar").write_bytes(busybox_tar())
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        out = own.docker("import", f"{url}/root.tar", "fetched:1")
        assert out.splitlines()[0] == f"Downloading from {url}/root.tar"
        assert own.docker("run", "--rm", "fetched:1", "/bin/echo", "hi") == "hi"
        assert f"Imported from {url}/root.tar" in own.docker("history", "--no-trunc", "fetched:1")
        assert "with status 404" in own.docker_result("import", f"{url}/nosuch").stderr
        server.shutdown()


def get(engine: EngineUnderTest, path: str) -> dict[str, object]:
    """Ask the API."""
    done = engine.run(["curl", "-s", "--unix-socket", str(engine.socket), f"http://x{path}"])
    return json.loads(done.stdout)  # type: ignore[no-any-return]
