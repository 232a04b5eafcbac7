"""Two registry servers on one bucket of an object store."""

import json
import os
import shutil
import subprocess
import urllib.request

import pytest

from registry_process import Client, digest, push_blob, push_image, registry

pytest.importorskip("aiobotocore", reason="aiobotocore is not installed: no object store is tested")
moto = pytest.importorskip("moto.server", reason="moto is not installed: no object store is tested")


@pytest.fixture(scope="module")
def flags(tmp_path_factory):
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    urllib.request.urlopen(urllib.request.Request(f"{url}/images", method="PUT")).close()
    path = tmp_path_factory.mktemp("s3") / "config.json"
    path.write_text(json.dumps({
        "s3-bucket": "images", "s3-endpoint": url, "s3-prefix": "some/where",
        "s3-access-key": "key", "s3-secret-key": "secret", "log-level": "warn",
    }))  # fmt: skip
    yield ["--config", str(path)]
    server.stop()


def test_servers_that_share_a_bucket_are_one_registry(flags, tmp_path):
    data = os.urandom(11 << 20)
    with registry(tmp_path / "a", *flags) as one, registry(tmp_path / "b", *flags) as two:
        first, second = Client(one), Client(two)
        status, headers, _ = first("POST", "/v2/team/app/blobs/uploads/")
        assert (status, headers["OCI-Chunk-Min-Length"]) == (202, str(5 << 20))
        where = headers["Location"]
        assert first("PATCH", where, data[: 6 << 20], Content_Range=f"0-{(6 << 20) - 1}")[0] == 202
        assert second("GET", where)[1]["Range"] == f"0-{(6 << 20) - 1}"
        assert second("PATCH", where, data[6 << 20 :])[0] == 202
        assert first("PUT", f"{where}?digest={digest(data)}", b"")[0] == 201
        assert (
            second("GET", f"/v2/team/app/blobs/{digest(data)}", Range="bytes=9000000-9000009")[2]
            == data[9000000:9000010]
        )
        raw, _ = push_image(second, "team/app", "v1", data)
        assert first("GET", "/v2/team/app/manifests/v1")[2] == raw
        assert json.loads(first("GET", "/v2/_catalog")[2])["repositories"] == ["team/app"]
        push_blob(first, "team/app", b"lonely")
        result = subprocess.run(
            [*one_command(), "gc", *flags, "--gc-grace", "0s", "--dry-run"], capture_output=True, text=True, check=True
        )
        assert f"blob {digest(b'lonely')}" in result.stdout
        assert first("DELETE", f"/v2/team/app/manifests/{digest(raw)}")[0] == 202
        assert second("GET", "/v2/team/app/manifests/v1")[0] == 404


def one_command():
    import sys

    return [sys.executable, "-m", "barque", "registry"]


def test_the_specifications_uploads_pass_on_an_object_store(flags, tmp_path):
    suite = shutil.which("oci-conformance")
    if suite is None:
        pytest.skip("oci-conformance (go build of distribution-spec's conformance/) is not installed")
    with registry(tmp_path, *flags) as server:
        environment = {
            **os.environ, "OCI_REGISTRY": server.address, "OCI_TLS": "disabled", "OCI_VERSION": "1.1",
            "OCI_RESULTS_DIR": str(tmp_path / "results"), "OCI_FILTER_TEST": "OCI Conformance Test/sha256 blobs",
        }  # fmt: skip
        result = subprocess.run([suite], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=100)
    assert result.returncode == 0, result.stdout[-3000:]
