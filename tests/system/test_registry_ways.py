"""Ways to registries with the real docker command: client certificates, proxies, indexes put together by buildx."""

import gzip
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from fake_registry import FakeRegistry, serving, tar_of
from plugins import plugin_config
from registries import RegistryUnderTest
from registry_process import certificate, registry as served
from under_test import EngineUnderTest, running_engine

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def proxy() -> Iterator[FakeRegistry]:
    """Give a proxy that is itself all registries behind it."""
    with serving(FakeRegistry()) as made:
        answer = made.answer

        def passed_on(handler, method):
            handler.path = handler.path.removeprefix("http://registry.test")
            answer(handler, method)

        made.answer = passed_on
        yield made


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the folder of registries' certificates."""
    return tmp_path_factory.mktemp("certs.d")


@pytest.fixture(scope="module")
def engine(proxy: FakeRegistry, certificates: Path) -> Iterator[EngineUnderTest]:
    """Give an engine that reaches other machines through the proxy."""
    yield from running_engine(
        "--registry-certs", str(certificates), "--insecure-registry", "registry.test",
        "--http-proxy", f"http://me:secret@{proxy.host}", "--no-proxy", "127.0.0.1,localhost",
    )  # fmt: skip


def test_a_client_certificate_is_shown_to_the_registry_whose_folder_has_it(
    engine: EngineUnderTest, certificates: Path, tmp_path: Path
) -> None:
    cert, key = certificate(tmp_path / "tls")
    flags = ["--tls-cert", str(cert), "--tls-key", str(key), "--tls-client-ca", str(cert)]
    with served(tmp_path, *flags) as server:
        name = f"{server.address}/known/box:1"
        engine.docker("tag", "busybox", name)
        assert engine.docker_result("push", name).returncode == 1
        folder = certificates / server.address
        folder.mkdir()
        for source, target in ((cert, "ca.crt"), (cert, "client.cert"), (key, "client.key")):
            shutil.copy(source, folder / target)
        digest = engine.docker("push", name).splitlines()[-1].split()[2]
        engine.docker("rmi", name)
        assert f"Digest: {digest}" in engine.docker("pull", name)
        engine.docker("rmi", name)


def test_a_registry_behind_a_proxy_is_pulled_from_and_pushed_to(engine: EngineUnderTest, proxy: FakeRegistry) -> None:
    digest = proxy.add_image("1", gzip.compress(tar_of({"file": b"x" * 5000}), 9, mtime=3))
    assert f"Digest: {digest}" in engine.docker("pull", "registry.test/behind/it:1")
    engine.docker("tag", "registry.test/behind/it:1", "registry.test/behind/it:2")
    # Its digest stays, although the registry has forgotten the layer.
    proxy.blobs.clear()
    assert f"digest: {digest}" in engine.docker("push", "registry.test/behind/it:2")
    assert all(headers["Proxy-Authorization"] == "Basic bWU6c2VjcmV0" for headers in proxy.asked("GET", "/manifests/1"))
    told = engine.docker("info", "-f", "{{.HTTPProxy}} {{.NoProxy}}")
    assert told == f"http://xxxxx:xxxxx@{proxy.host} 127.0.0.1,localhost"
    engine.docker("rmi", "registry.test/behind/it:1", "registry.test/behind/it:2")


def test_buildx_puts_pushed_images_together_to_an_index(
    engine: EngineUnderTest, registry: RegistryUnderTest, tmp_path: Path
) -> None:
    plugin_config(tmp_path)
    (tmp_path / "root.tar").write_bytes(tar_of({"which": b"arm64"}))
    own, other, both = (f"{registry.host}/tools/{name}:1" for name in ("own", "other", "both"))
    engine.docker("tag", "busybox", own)
    engine.docker("import", "--platform", "linux/arm64", str(tmp_path / "root.tar"), other)
    ids = [engine.docker("inspect", "-f", "{{.Id}}", name) for name in (own, other)]
    digests = [engine.docker("push", name).splitlines()[-1].split()[2] for name in (own, other)]
    environment = {**engine.environment, "DOCKER_CONFIG": str(tmp_path)}

    def tools(*words: str) -> str:
        done = subprocess.run(["docker", "buildx", "imagetools", *words], env=environment, capture_output=True,
                              text=True, timeout=60)  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    tools("create", "-t", both, own, other)
    assert [m["digest"] for m in json.loads(tools("inspect", "--raw", both))["manifests"]] == digests
    listed = tools("inspect", both)
    assert "linux/arm64" in listed
    engine.docker("rmi", own, other)
    for wanted, identity in zip(("linux/amd64", "linux/arm64"), ids, strict=True):
        engine.docker("pull", "--platform", wanted, both)
        assert engine.docker("inspect", "-f", "{{.Id}}", both) == identity
        engine.docker("rmi", both)


def test_the_memory_of_the_daemon_does_not_grow_with_a_layer(engine: EngineUnderTest, proxy: FakeRegistry) -> None:
    size = 200 << 20
    plain = tar_of({"big": bytes(size)})
    proxy.add_image("big", gzip.compress(plain, 1), plain=[plain])
    name = "registry.test/behind/it:big"
    status = Path(f"/proc/{engine.pid}/status")

    def kilobytes(field: str) -> int:
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith(field))

    def grown(*words: str) -> int:
        """Run a command and return by how many bytes the daemon's memory was bigger meanwhile, at most."""
        before = kilobytes("VmRSS")
        # From here on the peak counts anew.
        Path(f"/proc/{engine.pid}/clear_refs").write_text("5")
        engine.docker(*words)
        return (kilobytes("VmHWM") - before) << 10

    archive = str(engine.root / "big.tar")
    try:
        assert grown("pull", name) < size // 2
        assert grown("save", "-o", archive, name) < size // 2
        engine.docker("tag", name, "registry.test/behind/other:big")
        proxy.blobs.clear()
        assert grown("push", "registry.test/behind/other:big") < size // 2
        assert any(len(blob) > 100_000 for blob in proxy.blobs.values())
        engine.docker("rmi", name, "registry.test/behind/other:big")
        assert grown("load", "-i", archive) < size // 2
    finally:
        Path(archive).unlink(missing_ok=True)
        engine.docker_result("rmi", name)
