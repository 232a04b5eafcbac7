"""The conformance suite of the distribution specification, where its program is installed."""

import os
import re
import shutil
import subprocess

import pytest

from registry_process import registry

pytestmark = pytest.mark.conformance


def test_every_case_of_the_suite_passes(tmp_path):
    suite = shutil.which("oci-conformance")
    if suite is None:
        pytest.skip("oci-conformance (go build of distribution-spec's conformance/) is not installed")
    with registry(tmp_path, "--sparse-manifests") as server:
        environment = {
            **os.environ,
            "OCI_REGISTRY": server.address,
            "OCI_TLS": "disabled",
            "OCI_VERSION": "1.1",
            "OCI_RESULTS_DIR": str(tmp_path / "results"),
            "OCI_API_BLOBS_UPLOAD_CANCEL": "true",
            "OCI_API_BLOBS_DIGEST_HEADER": "true",
            "OCI_API_MANIFESTS_DIGEST_HEADER": "true",
            "OCI_API_MANIFESTS_TAG_PARAM": "true",
            "OCI_DATA_SPARSE": "true",
        }
        result = subprocess.run([suite], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=100)
    counts = {name: int(count) for name, count in re.findall(r"^  (\w+)\.+: +(\d+)$", result.stdout, re.M)}
    assert counts["FAIL"] == counts["Error"] == 0, result.stdout
    assert counts["Pass"] == counts["Total"] >= 1032
    assert result.returncode == 0
