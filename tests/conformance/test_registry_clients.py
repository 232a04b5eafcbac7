"""docker, skopeo and podman push to our registry server, pull, copy, list and delete; TLS and users on."""

import hashlib
import json
import shutil
import subprocess
from pathlib import Path

import pytest

from registry_process import PASSWORD, USER, certificate, htpasswd, registry

pytestmark = pytest.mark.conformance


class Tools:
    """Commands run where the registry is."""

    def __init__(self, server, dockerd, folder):
        self.server, self.dockerd, self.folder = server, dockerd, folder
        self.address = server.address

    def run(self, *command, check=True):
        if shutil.which(command[0]) is None:
            pytest.skip(f"{command[0]} is not installed")
        result = subprocess.run([*self.server.prefix, *command], capture_output=True, text=True, timeout=100)
        if check:
            assert result.returncode == 0, (command, result.stdout, result.stderr, self.server.log())
        return result

    def skopeo(self, verb, *arguments, check=True, plain=False):
        certs, users = f"cert-dir={self.folder}/certs", f"creds={USER}:{PASSWORD}"
        flags = [f"--{certs}", f"--{users}"]
        if verb == "copy":
            flags = [f"--{side}-{what}" for side in ("src", "dest")[: 1 if plain else 2] for what in (certs, users)]
        return self.run("skopeo", verb, *flags, *arguments, check=check)

    def podman(self, *arguments, check=True):
        roots = ["--root", f"{self.folder}/podman", "--runroot", f"{self.folder}/podman-run", "--storage-driver", "vfs"]
        return self.run("podman", *roots, *arguments, check=check)

    def docker(self, *arguments):
        return self.dockerd.docker(*arguments)


@pytest.fixture(scope="module")
def tools(dockerd, tmp_path_factory):
    folder = tmp_path_factory.mktemp("clients")
    cert, key = certificate(folder / "certs")
    users = htpasswd(folder / "users")
    prefix = ["nsenter", "-t", str(dockerd.process.pid), "-n"]
    flags = ["--tls-cert", str(cert), "--tls-key", str(key), "--htpasswd", str(users)]
    (folder / "certs" / "server.key").rename(folder / "server.key")
    flags[3] = str(folder / "server.key")
    with registry(folder, *flags, prefix=prefix) as server:
        tools = Tools(server, dockerd, folder)
        login = dockerd.docker_result("login", "-u", USER, "--password-stdin", server.address, input=PASSWORD)
        assert login.returncode == 0, (login.stderr, server.log())
        yield tools


def raw_manifest(tools, name):
    return tools.skopeo("inspect", "--raw", f"docker://{tools.address}/{name}").stdout


def digest(text):
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


@pytest.fixture(scope="module")
def pushed(tools):
    name = f"{tools.address}/team/busybox:v1"
    tools.docker("tag", "busybox:latest", name)
    out = tools.docker("push", name)
    found = next(line.split("digest: ")[1].split()[0] for line in out.splitlines() if "digest: " in line)
    return "team/busybox:v1", found


def test_docker_is_refused_with_a_wrong_password(tools):
    result = tools.dockerd.docker_result("login", "-u", USER, "--password-stdin", tools.address, input="wrong")
    assert result.returncode == 1
    assert "401" in result.stderr or "authentication required" in result.stderr


def test_docker_pushes_and_pulls_back_the_same_image(tools, pushed):
    name, found = pushed
    assert digest(raw_manifest(tools, name)) == found
    identity = tools.docker("inspect", "-f", "{{.Id}}", "busybox:latest")
    tools.docker("rmi", f"{tools.address}/{name}")
    tools.docker("pull", f"{tools.address}/{name}")
    assert tools.docker("inspect", "-f", "{{.Id}}", f"{tools.address}/{name}") == identity
    assert f"team/busybox@{found}" in tools.docker("inspect", "-f", "{{.RepoDigests}}", f"{tools.address}/{name}")
    tools.docker("pull", f"{tools.address}/team/busybox@{found}")


def test_pushing_again_mounts_and_skips(tools, pushed):
    name = f"{tools.address}/other/busybox:v1"
    tools.docker("tag", f"{tools.address}/{pushed[0]}", name)
    out = tools.docker("push", name)
    assert "Mounted from team/busybox" in out
    assert pushed[1] in out
    assert "Layer already exists" in tools.docker("push", name)


def test_skopeo_copies_between_forms_and_repositories(tools, pushed):
    layout = Path(f"{tools.folder}/layout")
    source = f"docker://{tools.address}/{pushed[0]}"
    tools.skopeo("copy", source, f"dir:{layout}-dir")
    assert digest((layout.parent / "layout-dir/manifest.json").read_text()) == pushed[1]
    tools.skopeo("copy", source, f"oci:{layout}:x")
    tools.skopeo("copy", f"oci:{layout}:x", f"docker://{tools.address}/oci/image:x")
    manifest = json.loads(raw_manifest(tools, "oci/image:x"))
    assert manifest["mediaType"] == "application/vnd.oci.image.manifest.v1+json"
    tools.skopeo("copy", f"docker://{tools.address}/oci/image:x", f"docker://{tools.address}/copy/of/it:y")
    assert raw_manifest(tools, "copy/of/it:y") == raw_manifest(tools, "oci/image:x")
    tools.docker("pull", f"{tools.address}/copy/of/it:y")
    assert tools.docker("run", "--help")
    config = tools.docker("inspect", "-f", "{{.Id}}", f"{tools.address}/copy/of/it:y")
    assert config == manifest["config"]["digest"]


def test_skopeo_lists_and_deletes(tools, pushed):
    for tag in ("a", "b"):
        tools.skopeo("copy", f"docker://{tools.address}/{pushed[0]}", f"docker://{tools.address}/listed:{tag}")
    found = json.loads(tools.skopeo("list-tags", f"docker://{tools.address}/listed").stdout)
    assert found["Tags"] == ["a", "b"]
    tools.skopeo("delete", f"docker://{tools.address}/listed:a")
    result = tools.skopeo("inspect", f"docker://{tools.address}/listed:a", check=False)
    assert result.returncode
    assert "manifest unknown" in result.stderr


def test_podman_pulls_what_docker_pushed_and_pushes_back(tools, pushed):
    flags = [f"--cert-dir={tools.folder}/certs", f"--creds={USER}:{PASSWORD}"]
    name = f"{tools.address}/{pushed[0]}"
    identity = tools.podman("pull", "-q", *flags, name).stdout.strip()
    assert "sha256:" + identity == tools.docker("inspect", "-f", "{{.Id}}", "busybox:latest")
    back = f"{tools.address}/podman/busybox:back"
    tools.podman("push", *flags, "--digestfile", f"{tools.folder}/digest", identity, f"docker://{back}")
    assert digest(raw_manifest(tools, "podman/busybox:back")) == (tools.folder / "digest").read_text().strip()
    tools.docker("pull", back)


def test_docker_manifest_makes_a_list(tools, pushed, tmp_path):
    # With --insecure, `docker manifest push` speaks plain HTTP.
    with registry(tmp_path, prefix=tools.server.prefix) as plain:
        name, inner = f"{plain.address}/team/list:v1", f"{plain.address}/{pushed[0]}"
        source = f"docker://{tools.address}/{pushed[0]}"
        tools.skopeo("copy", "--dest-tls-verify=false", "--dest-no-creds", source, f"docker://{inner}", plain=True)
        config = ["env", f"DOCKER_CONFIG={tmp_path}", "docker", "manifest"]
        tools.run(*config, "create", "--insecure", name, inner)
        found = tools.run(*config, "push", "--insecure", name).stdout
        raw = tools.run("skopeo", "inspect", "--tls-verify=false", "--raw", f"docker://{name}").stdout
    assert digest(raw) in found
    assert json.loads(raw)["manifests"][0]["digest"] == pushed[1]


def test_plain_clients_are_asked_for_a_password(tools):
    result = tools.run("curl", "-sik", f"https://{tools.address}/v2/_catalog")
    assert "401" in result.stdout.splitlines()[0]
    assert 'Www-Authenticate: Basic realm="Registry"' in result.stdout.replace("WWW-A", "Www-A")
    assert json.loads(result.stdout.splitlines()[-1])["errors"][0]["code"] == "UNAUTHORIZED"
