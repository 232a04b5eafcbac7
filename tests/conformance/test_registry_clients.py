"""docker, skopeo, podman and a client of the bare specification push, pull, copy, list and delete; TLS and users on.

What they do at the registry server of our own they do at Debian's docker-registry too, with the same digests.
"""

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from registries import free_port
from registry_process import PASSWORD, USER, certificate, htpasswd, registry
from under_test import until

pytestmark = pytest.mark.conformance
CLIENT = Path(__file__).resolve().parent.parent / "registry_client.py"


class DebianRegistry:
    """docker-registry where the clients are, with the same certificate and users as ours."""

    def __init__(self, root: Path, prefix: Sequence[str], secured: str) -> None:
        self.root, self.prefix = root, prefix
        self.address = f"127.0.0.1:{free_port()}"
        root.mkdir(parents=True, exist_ok=True)
        (root / "config.yml").write_text(
            f"version: 0.1\nstorage: {{filesystem: {{rootdirectory: {root}/data}}, delete: {{enabled: true}}}}\n"
            f"http: {{addr: '{self.address}'{secured}\nlog: {{level: error, accesslog: {{disabled: true}}}}\n"
        )
        with (root / "registry.log").open("wb") as log:
            words = [*prefix, "docker-registry", "serve", str(root / "config.yml")]
            self.process = subprocess.Popen(words, stdout=log, stderr=log)
        until(self.answers, "docker-registry listens", 20)

    def answers(self) -> bool:
        assert self.process.poll() is None, self.log()
        host, _, port = self.address.partition(":")
        words = [*self.prefix, sys.executable, "-c", f"import socket; socket.create_connection(('{host}', {port}), 5)"]
        return subprocess.run(words, capture_output=True).returncode == 0

    def log(self) -> str:
        return (self.root / "registry.log").read_text()[-4000:]


@contextmanager
def served(kind: str, folder: Path, prefix: Sequence[str], secure: Path | None = None) -> Iterator[object]:
    """Give a registry of a kind, with the TLS key and users of a folder or with neither."""
    if kind == "own":
        flags = []
        if secure:
            flags = ["--tls-cert", f"{secure}/certs/ca.crt", "--tls-key", f"{secure}/server.key"]
            flags += ["--htpasswd", f"{secure}/users"]
        with registry(folder, *flags, prefix=prefix) as made:
            yield made
        return
    if shutil.which("docker-registry") is None:
        pytest.skip("docker-registry is not installed")
    secured = "}"
    if secure:
        secured = f", tls: {{certificate: {secure}/certs/ca.crt, key: {secure}/server.key}}}}\n"
        secured += f"auth: {{htpasswd: {{realm: Registry, path: {secure}/users}}}}"
    made = DebianRegistry(folder, prefix, secured)
    try:
        yield made
    finally:
        made.process.terminate()
        made.process.wait()


class Tools:
    """Commands run where the registry is."""

    def __init__(self, server, dockerd, folder, kind):
        self.server, self.dockerd, self.folder, self.kind = server, dockerd, folder, kind
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

    def client(self, verb, *names):
        words = [sys.executable, str(CLIENT), "--ca", f"{self.folder}/certs/ca.crt", "--user", f"{USER}:{PASSWORD}"]
        return self.run(*words, verb, *(n if n.startswith("/") else f"{self.address}/{n}" for n in names)).stdout.strip()

    def docker(self, *arguments):
        return self.dockerd.docker(*arguments)


@pytest.fixture(scope="module", params=["own", "debian"])
def tools(request, dockerd, tmp_path_factory):
    folder = tmp_path_factory.mktemp("clients")
    _, key = certificate(folder / "certs")
    # A folder of certificates with a key in it would mean a certificate of the client's.
    key.rename(folder / "server.key")
    htpasswd(folder / "users")
    prefix = ["nsenter", "-t", str(dockerd.process.pid), "-n"]
    with served(request.param, folder, prefix, folder) as server:
        tools = Tools(server, dockerd, folder, request.param)
        login = dockerd.docker_result("login", "-u", USER, "--password-stdin", server.address, input=PASSWORD)
        assert login.returncode == 0, (login.stderr, server.log())
        yield tools
        for name in dockerd.docker("images", "--format", "{{.Repository}}:{{.Tag}}").split():
            if name.startswith(server.address):
                dockerd.docker_result("rmi", name)
        dockerd.docker("logout", server.address)


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
    assert sorted(found["Tags"]) == ["a", "b"]
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
    with served(tools.kind, tmp_path, tools.server.prefix) as plain:
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
    assert 'www-authenticate: basic realm="registry"' in result.stdout.lower()
    assert json.loads(result.stdout.splitlines()[-1])["errors"][0]["code"] == "UNAUTHORIZED"


def test_a_client_of_the_bare_specification_agrees_with_docker(tools, pushed, tmp_path):
    name, found = pushed
    assert tools.client("digest", name) == found
    assert tools.client("pull", name, f"{tmp_path}/layout") == found
    # Back again, in chunks, to a repository of its own; then on by mounts; docker finds the same image at each.
    assert tools.client("push", "bare/pushed:one", f"{tmp_path}/layout") == found
    assert tools.client("copy", "bare/pushed:one", "bare/copied:two") == found
    identity = tools.docker("inspect", "-f", "{{.Id}}", "busybox:latest")
    for copy in ("bare/pushed:one", "bare/copied:two"):
        assert f"Digest: {found}" in tools.docker("pull", f"{tools.address}/{copy}")
        assert tools.docker("inspect", "-f", "{{.Id}}", f"{tools.address}/{copy}") == identity
        tools.docker("rmi", f"{tools.address}/{copy}")


def test_lists_come_in_pages_and_what_is_deleted_is_gone(tools, pushed):
    for tag in ("a", "b", "c"):
        tools.client("copy", pushed[0], f"paged/it:{tag}")
    tags = tools.client("ls", "paged/it").split()
    # Debian's docker-registry has neither pages nor an order of tags.
    assert (tags if tools.kind == "own" else sorted(tags)) == ["a", "b", "c"]
    assert {"paged/it", "team/busybox"} <= set(tools.client("catalog", "x").split())
    assert tools.client("delete", "paged/it:b") == pushed[1]
    assert tools.run("curl", "-skf", "-u", f"{USER}:{PASSWORD}", f"https://{tools.address}/v2/paged/it/manifests/b",
                     check=False).returncode == 22  # fmt: skip
    # The other repositories' manifests stay.
    assert tools.client("digest", pushed[0]) == pushed[1]
