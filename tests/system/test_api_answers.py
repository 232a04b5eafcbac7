"""Real answers of the engine, key by key, against the Engine API's specification."""

import http.client
import json
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest

import api_schema
from under_test import EngineUnderTest, until

pytestmark = pytest.mark.system

# What Docker leaves out as well where there is nothing to tell, and what belongs to other platforms and stores.
ABSENT = {
    # Left out where empty (`omitempty`).
    "Annotations", "ArgsEscaped", "Healthcheck", "Init", "MacAddress", "Mounts", "NetworkDisabled", "Shell",
    "StopSignal", "StopTimeout", "StorageOpt", "Sysctls", "Tmpfs", "ExposedPorts", "Health", "Retries", "StartInterval",
    "StartPeriod", "Timeout", "Driver", "Name", "SizeRootFs", "SizeRw", "OsVersion", "Variant", "Experimental",
    "ProductLicense", "DefaultAddressPools", "DiscoveredDevices", "runtimeArgs", "status", "user", "UsageData",
    "AuxiliaryAddresses", "IPRange", "KernelMemoryTCP", "limit", "failcnt", "Info", "Status", "networks", "Labels",
    "max_usage", "Links", "Expected", "IPAMConfig", "Gateway", "ConfigFrom", "PublicPort", "IP", "Created", "Comment",
    "Options", "GenericResources", "HttpProxy", "percpu_usage", "Services", "RelativePath", "Author", "CreatedAt",
    # Of the containerd image store, of Windows, of Swarm.
    "platform", "data", "urls", "annotations", "artifactType",
    "ImageManifestDescriptor", "Descriptor", "Manifests", "Containerd", "commitbytes", "commitpeakbytes",
    "privateworkingset", "endpoint_id", "instance_id", "read_count_normalized", "read_size_bytes",
    "write_count_normalized", "write_size_bytes", "Cluster", "Managers", "Nodes", "ClusterVolume", "Peers",
}  # fmt: skip
# Null in Docker's own answers too, though the specification does not say so.
NULL = {".ExitCode: null instead of integer", ".HostConfig.OomKillDisable: null instead of boolean",
        ".HostConfig.MemorySwappiness: null instead of integer"}  # fmt: skip


# Told beside their successors until version 1.52, and told already that comes with it.
OLD = {".id", ".status", ".from", ".Status"}


def ask(engine: EngineUnderTest, method: str, path: str, body: Any = None) -> Any:
    connection = http.client.HTTPConnection("localhost", timeout=30)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(30)
    connection.sock.connect(str(engine.socket))
    data = None if body is None else json.dumps(body).encode()
    connection.request(method, path, data, {"Content-Type": "application/json"} if data else {})
    answer = connection.getresponse()
    text = answer.read()
    connection.close()
    assert answer.status < 300, (path, text)
    return json.loads(text.splitlines()[0]) if text.strip() else None


@pytest.fixture(scope="module")
def scene(engine: EngineUnderTest) -> Iterator[dict[str, str]]:
    """A container with much to tell, one that never ran, an exec instance, an image, a volume."""
    rich = engine.docker(
        "run", "-d", "--name", "rich", "-p", "0:80", "-p", "0:53/udp", "--expose", "81", "--health-cmd", "true",
        "--health-interval", "50ms", "-v", "rich-volume:/v", "-v", "/tmp:/t:ro", "--tmpfs", "/tt", "-l", "a=b",
        "-m", "64m", "--cpus", "1", "--restart", "always", "--ulimit", "nofile=100:200", "--sysctl", "net.core.somaxconn=99",
        "--annotation", "x=y", "--stop-signal", "SIGINT", "--stop-timeout", "3", "--cap-add", "NET_ADMIN",
        "busybox", "sleep", "1000")  # fmt: skip
    bare = engine.docker("create", "--name", "bare", "busybox")
    until(lambda: engine.docker("inspect", "-f", "{{.State.Health.Status}}", "rich") == "healthy")
    engine.docker("exec", "rich", "touch", "/new")
    made = ask(engine, "POST", "/v1.51/containers/rich/exec", {"Cmd": ["true"], "AttachStdout": True})
    engine.docker("commit", "rich", "rich-image")
    yield {"rich": rich, "bare": bare, "exec": made["Id"], "began": str(int(time.time()) - 5), "now": str(int(time.time()) + 1)}
    engine.docker("rm", "-fv", "rich", "bare")
    engine.docker("volume", "rm", "rich-volume")
    engine.docker("rmi", "rich-image")


ROUTES = [
    ("GET /containers/json", "/containers/json?all=1&size=1", None),
    ("GET /containers/{id}/json", "/containers/rich/json?size=1", None),
    ("GET /containers/{id}/json", "/containers/bare/json", None),
    ("GET /containers/{id}/top", "/containers/rich/top", None),
    ("GET /containers/{id}/changes", "/containers/rich/changes", None),
    ("GET /containers/{id}/stats", "/containers/rich/stats?stream=0", None),
    ("GET /containers/{id}/stats", "/containers/bare/stats?stream=0", None),
    ("POST /containers/{id}/update", "/containers/rich/update", {"CpuShares": 512}),
    ("GET /images/json", "/images/json?digests=1&shared-size=1", None),
    ("GET /images/{name}/json", "/images/busybox/json", None),
    ("GET /images/{name}/json", "/images/rich-image/json", None),
    ("GET /images/{name}/history", "/images/rich-image/history", None),
    ("GET /info", "/info", None),
    ("GET /version", "/version", None),
    ("GET /events", "/events?since={began}&until={now}", None),
    ("GET /system/df", "/system/df", None),
    ("GET /exec/{id}/json", "/exec/{exec}/json", None),
    ("GET /volumes", "/volumes", None),
    ("GET /volumes/{name}", "/volumes/rich-volume", None),
    ("GET /networks", "/networks", None),
    ("GET /networks/{id}", "/networks/bridge", None),
    ("POST /containers/prune", '/containers/prune?filters={"label":["nosuch"]}', None),
    ("POST /images/prune", '/images/prune?filters={"label":["nosuch"]}', None),
    ("POST /volumes/prune", '/volumes/prune?filters={"label":["nosuch"]}', None),
    ("POST /networks/prune", '/networks/prune?filters={"label":["nosuch"]}', None),
]  # fmt: skip


@pytest.mark.parametrize(("route", "path", "body"), ROUTES, ids=[path.split("?")[0] for _, path, _ in ROUTES])
def test_an_answer_has_the_keys_and_types_of_the_specification(
    engine: EngineUnderTest, scene: dict[str, str], route: str, path: str, body: Any
) -> None:
    for key, value in scene.items():
        path = path.replace("{" + key + "}", value)
    verb = route.split(maxsplit=1)[0]
    found = api_schema.check(route, ask(engine, verb, "/v1.51" + path.replace('"', "%22"), body))
    assert found.wrong - NULL == set()
    assert found.unknown - OLD == set()
    if path == "/containers/bare/stats?stream=0":
        # Of what does not run there is nothing to count.
        return
    assert {name for name in found.missing if name.rpartition(".")[2] not in ABSENT} == set()


def test_creating_answers_have_the_shape_of_the_specification(engine: EngineUnderTest) -> None:
    made = ask(engine, "POST", "/v1.51/containers/create", {"Image": "busybox"})
    assert api_schema.check("POST /containers/create", made) == (set(), set(), set())
    waited = ask(engine, "POST", f"/v1.51/containers/{made['Id']}/start") or ask(engine, "POST", f"/v1.51/containers/{made['Id']}/wait")
    found = api_schema.check("POST /containers/{id}/wait", waited)
    assert (found.wrong, found.unknown, found.missing) == (set(), set(), {".Error"})
    image = ask(engine, "POST", f"/v1.51/commit?container={made['Id']}&repo=shape")
    assert api_schema.check("POST /commit", image) == (set(), set(), set())
    assert api_schema.check("DELETE /images/{name}", ask(engine, "DELETE", "/v1.51/images/shape"))[:2] == (set(), set())
    ask(engine, "DELETE", f"/v1.51/containers/{made['Id']}?v=1")


@pytest.mark.parametrize("version", [f"1.{minor}" for minor in range(24, 52)])
def test_every_version_is_served(engine: EngineUnderTest, scene: dict[str, str], version: str) -> None:
    minor = int(version.split(".")[1])
    shown = ask(engine, "GET", f"/v{version}/containers/{scene['rich']}/json")
    assert ("KernelMemory" in shown["HostConfig"]) == (minor < 42)
    image = ask(engine, "GET", f"/v{version}/images/rich-image/json")
    assert ("VirtualSize" in image) == (minor < 44)
    assert ("Hostname" in image["Config"]) == (minor < 50)
    info = ask(engine, "GET", f"/v{version}/info")
    assert ("BridgeNfIptables" in info) == (minor < 50)
    assert engine.docker_result("ps", "-q").returncode == 0


@pytest.mark.parametrize("version", ["1.24", "1.30", "1.40", "1.41", "1.43", "1.45", "1.47", "1.50"])
def test_the_docker_command_speaks_old_versions_with_the_engine(engine: EngineUnderTest, version: str) -> None:
    engine.environment["DOCKER_API_VERSION"] = version
    try:
        assert engine.docker("version", "-f", "{{.Client.APIVersion}} {{.Server.MinAPIVersion}}") == f"{version} 1.24"
        assert engine.docker("run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2") == "out"
        name = engine.docker("run", "-d", "busybox", "sleep", "100")
        assert engine.docker("exec", name, "echo", "in") == "in"
        assert engine.docker("ps", "-q", "--no-trunc", "--filter", f"id={name}") == name
        assert engine.docker("inspect", "-f", "{{.State.Running}}", name) == "true"
        engine.docker("rm", "-f", name)
    finally:
        del engine.environment["DOCKER_API_VERSION"]
