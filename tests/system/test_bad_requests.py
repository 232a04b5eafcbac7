"""Wrong requests to every container route: the status, Docker's words, and nothing that stays behind."""

import json
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from barque.api import checks
from raw_requests import ask
from under_test import EngineUnderTest, traces, until

pytestmark = pytest.mark.system


def unchanged(engine: EngineUnderTest, before: dict[str, object]) -> None:
    try:
        until(lambda: traces(engine) == before, timeout_s=5)
    except AssertionError:
        assert traces(engine) == before


WRONG_CREATES: dict[str, tuple[Any, int, str]] = {
    "no body at all": (None, 400, "config cannot be empty"),
    "broken JSON": (b'{"Image": ', 400, "invalid JSON"),
    "two objects": (b'{"Image": "busybox"} {}', 400, "unexpected content after JSON"),
    "a list": (b"[1]", 400, "array"),
    "deep nesting": (b'{"Labels":' * 100_000, 400, "invalid JSON"),
    "no UTF-8": (b'{"Image": "\xff\xfe"}', 400, "invalid JSON"),
    "no image": ({"Cmd": ["sh"]}, 400, ""),
    "an image that is a number": ({"Image": 7}, 400, "cannot unmarshal number"),
    "an unknown image": ({"Image": "nosuch"}, 404, "No such image: nosuch:latest"),
    "a malformed image": ({"Image": "UPPER//x"}, 400, "invalid reference format"),
    "a command of numbers": ({"Image": "busybox", "Cmd": [1]}, 400, "cannot unmarshal number"),
    "an environment of objects": ({"Image": "busybox", "Env": [{}]}, 400, "cannot unmarshal object"),
    "an empty variable": ({"Image": "busybox", "Env": ["=x"]}, 400, "invalid environment variable: =x"),
    "a zero in a command": ({"Image": "busybox", "Cmd": ["a\0b"]}, 400, "NUL"),
    "labels that are a list": ({"Image": "busybox", "Labels": ["a"]}, 400, "cannot unmarshal array"),
    "a relative folder": ({"Image": "busybox", "WorkingDir": "tmp"}, 400, "needs to be an absolute path"),
    "an unknown signal": ({"Image": "busybox", "StopSignal": "SIGNOPE"}, 400, "invalid signal: SIGNOPE"),
    "a port beyond all": ({"Image": "busybox", "ExposedPorts": {"70000/tcp": {}}}, 400, "70000"),
    "a port of no protocol": ({"Image": "busybox", "ExposedPorts": {"80/xyz": {}}}, 400, "invalid proto"),
    "a published port that is text": ({"Image": "busybox", "HostConfig": {"PortBindings": {"80/tcp": [{"HostPort": "x"}]}}}, 400, "x"),
    "a published address that is none": ({"Image": "busybox", "HostConfig": {"PortBindings": {"80/tcp": [{"HostIp": "1.2.3"}]}}}, 400, "1.2.3"),
    "bindings that are a list": ({"Image": "busybox", "HostConfig": {"PortBindings": []}}, 400, "cannot unmarshal array"),
    "memory below the least": ({"Image": "busybox", "HostConfig": {"Memory": 1000}}, 400, "Minimum memory limit allowed is 6MB"),
    "memory that is text": ({"Image": "busybox", "HostConfig": {"Memory": "1g"}}, 400, "cannot unmarshal string"),
    "swap below memory": ({"Image": "busybox", "HostConfig": {"Memory": 64 << 20, "MemorySwap": 32 << 20}}, 400, "Minimum memoryswap limit"),
    "more processors than there are": ({"Image": "busybox", "HostConfig": {"NanoCpus": 10**15}}, 400, "range of CPUs is from 0.01"),
    "a processor that is not there": ({"Image": "busybox", "HostConfig": {"CpusetCpus": "999"}}, 400, "999"),
    "processors in words": ({"Image": "busybox", "HostConfig": {"CpusetCpus": "one"}}, 400, "one"),
    "both kinds of processor limits": ({"Image": "busybox", "HostConfig": {"NanoCpus": 10**9, "CpuQuota": 1000}}, 400, "Conflicting options"),
    "an unknown capability": ({"Image": "busybox", "HostConfig": {"CapAdd": ["CAP_NOPE"]}}, 400, "invalid capability"),
    "an unknown policy": ({"Image": "busybox", "HostConfig": {"RestartPolicy": {"Name": "sometimes"}}}, 400, "sometimes"),
    "a policy with --rm": ({"Image": "busybox", "HostConfig": {"AutoRemove": True, "RestartPolicy": {"Name": "always"}}}, 400, "AutoRemove"),
    "an unknown log driver": ({"Image": "busybox", "HostConfig": {"LogConfig": {"Type": "nope"}}}, 400, "nope"),
    "an unknown log option": ({"Image": "busybox", "HostConfig": {"LogConfig": {"Type": "json-file", "Config": {"nope": "1"}}}}, 400, "unknown log opt 'nope'"),
    "an unknown network": ({"Image": "busybox", "HostConfig": {"NetworkMode": "nope"}}, 201, ""),
    "a network of an unknown container": ({"Image": "busybox", "HostConfig": {"NetworkMode": "container:nope"}}, 400, "No such container: nope"),
    "a host name on the host's network of another": ({"Image": "busybox", "Hostname": "x", "HostConfig": {"NetworkMode": "container:x"}}, 400, "conflicting options"),
    "a relative bind": ({"Image": "busybox", "HostConfig": {"Binds": ["./x:/y"]}}, 400, "includes invalid characters for a local volume name"),
    "a bind without a target": ({"Image": "busybox", "HostConfig": {"Binds": ["/x:"]}}, 400, "invalid volume specification"),
    "a bind over the root": ({"Image": "busybox", "HostConfig": {"Binds": ["/x:/"]}}, 400, "destination can't be '/'"),
    "two mounts on one place": ({"Image": "busybox", "HostConfig": {"Binds": ["/tmp:/y", "/var:/y"]}}, 400, "Duplicate mount point: /y"),
    "a mount of an unknown type": ({"Image": "busybox", "HostConfig": {"Mounts": [{"Type": "nope", "Target": "/x"}]}}, 400, "mount type unknown"),
    "a bind whose source is not there": ({"Image": "busybox", "HostConfig": {"Mounts": [{"Type": "bind", "Source": "/nosuch/x", "Target": "/x"}]}}, 400, "bind source path does not exist: /nosuch/x"),
    "an unknown option of security": ({"Image": "busybox", "HostConfig": {"SecurityOpt": ["nope=1"]}}, 400, "nope"),
    "an unknown runtime": ({"Image": "busybox", "HostConfig": {"Runtime": "nope"}}, 400, "unknown or invalid runtime name: nope"),
    "a device that is not there": ({"Image": "busybox", "HostConfig": {"Devices": [{"PathOnHost": "/dev/nope"}]}}, 201, ""),
    "a graphics card": ({"Image": "busybox", "HostConfig": {"DeviceRequests": [{"Count": -1, "Capabilities": [["gpu"]]}]}}, 201, ""),
    "a storage option": ({"Image": "busybox", "HostConfig": {"StorageOpt": {"colour": "red"}}}, 400, "unknown option colour"),
    "a check that is too often": ({"Image": "busybox", "Healthcheck": {"Test": ["CMD", "x"], "Interval": 5}}, 400, "cannot be less than 1ms"),
    "an unknown limit": ({"Image": "busybox", "HostConfig": {"Ulimits": [{"Name": "nope", "Soft": 1, "Hard": 1}]}}, 201, ""),
    "fields that nobody knows": ({"Image": "busybox", "Nonsense": {"a": [1]}, "HostConfig": {"Nope": 7}}, 201, ""),
}  # fmt: skip


@pytest.mark.parametrize(("body", "status", "words"), WRONG_CREATES.values(), ids=WRONG_CREATES.keys())
def test_a_wrong_create_is_told_and_leaves_nothing(engine: EngineUnderTest, body: Any, status: int, words: str) -> None:
    before = traces(engine)
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    got, answer = ask(engine, "POST", "/v1.51/containers/create", data)
    if got == 201:
        engine.docker("rm", "-v", answer["Id"])
    said = answer.get("message") or "" if isinstance(answer, dict) else str(answer)
    assert (got, words in said) == (status, True), answer
    unchanged(engine, before)


@pytest.mark.parametrize("name", ["a", "-a", "a b", "a/b", "ä", ".x", "a\nb", "x" * 300 + "/", "/"])
def test_a_name_that_cannot_be_is_told(engine: EngineUnderTest, name: str) -> None:
    from urllib.parse import quote

    before = traces(engine)
    body = json.dumps({"Image": "busybox"}).encode()
    status, answer = ask(engine, "POST", f"/containers/create?name={quote(name, safe='')}", body)
    assert status == 400, answer
    assert "Invalid container name" in answer["message"]
    unchanged(engine, before)


def test_a_body_that_is_too_big_or_of_another_kind_is_refused(engine: EngineUnderTest) -> None:
    before = traces(engine)
    big = b'{"Image": "busybox", "Cmd": ["' + b"x" * (9 << 20) + b'"]}'
    status, answer = ask(engine, "POST", "/containers/create", big)
    assert status == 413 and "larger than" in answer["message"]
    status, answer = ask(engine, "POST", "/containers/create", b"Image=busybox", "application/x-www-form-urlencoded")
    assert status == 400 and "unsupported Content-Type header" in answer["message"]
    unchanged(engine, before)


WRONG_CALLS = [
    ("POST", "/containers/nope/start", None, 404, "No such container: nope"),
    ("POST", "/containers/{id}/start", {"a": 1}, 400, "non-empty request body"),
    ("POST", "/containers/nope/stop", None, 404, "No such container: nope"),
    ("POST", "/containers/{id}/stop?t=x", None, 400, "x"),
    ("POST", "/containers/{id}/stop?signal=NOPE", None, 400, "invalid signal: NOPE"),
    ("POST", "/containers/{id}/kill?signal=NOPE", None, 400, "invalid signal: NOPE"),
    ("POST", "/containers/{stopped}/kill", None, 409, "is not running"),
    ("POST", "/containers/{stopped}/pause", None, 409, "is not running"),
    ("POST", "/containers/{id}/unpause", None, 409, "is not paused"),
    ("POST", "/containers/{stopped}/exec", {"Cmd": ["x"]}, 409, "is not running"),
    ("POST", "/containers/{id}/exec", {}, 400, "No exec command specified"),
    ("POST", "/containers/{id}/exec", {"Cmd": "x", "Env": ["=x"]}, 400, "invalid environment variable"),
    ("POST", "/containers/{id}/exec", {"Cmd": ["x"], "DetachKeys": "nope"}, 400, "nope"),
    ("POST", "/exec/nope/start", {}, 404, "No such exec instance: nope"),
    ("POST", "/exec/nope/resize?h=1&w=1", None, 404, "No such exec instance: nope"),
    ("GET", "/exec/nope/json", None, 404, "No such exec instance: nope"),
    ("POST", "/containers/{id}/resize?h=x&w=1", None, 400, "invalid syntax"),
    ("POST", "/containers/{stopped}/resize?h=1&w=1", None, 409, "is not running"),
    ("POST", "/containers/{id}/rename?name=", None, 400, "Neither old nor new names may be empty"),
    ("POST", "/containers/{id}/rename?name=%2F%2Fx", None, 400, "Invalid container name"),
    ("POST", "/containers/{id}/rename?name=badcalls-stopped", None, 409, "is already in use"),
    ("POST", "/containers/{id}/update", {"Memory": "x"}, 400, "cannot unmarshal string"),
    ("POST", "/containers/{id}/update", {"RestartPolicy": {"Name": "nope"}}, 400, "nope"),
    ("POST", "/containers/{id}/wait?condition=nope", None, 400, 'invalid condition: "nope"'),
    ("GET", "/containers/{id}/logs", None, 400, "you must choose at least one stream"),
    ("GET", "/containers/{id}/logs?stdout=1&since=x", None, 400, "x"),
    ("GET", "/containers/{id}/top?ps_args=nope", None, 500, "ps"),
    ("GET", "/containers/{stopped}/top", None, 409, "is not running"),
    ("GET", "/containers/json?filters=nope", None, 400, "invalid filter"),
    ("GET", '/containers/json?filters={"nope":["x"]}', None, 400, "invalid filter 'nope'"),
    ("GET", '/containers/json?filters={"status":["x"]}', None, 400, "invalid filter 'status=x'"),
    ("GET", "/containers/json?limit=x", None, 400, "invalid syntax"),
    ("GET", '/containers/json?filters={"publish":["1-4000000000"]}', None, 400, "is no port"),
    ("GET", '/containers/json?filters={"expose":["' + "9" * 5000 + '"]}', None, 400, "is no port"),
    ("GET", '/containers/json?filters={"exited":["' + "9" * 5000 + '"]}', None, 400, "invalid filter"),
    ("GET", '/containers/json?filters={"before":["nope"]}', None, 404, "No such container: nope"),
    ("GET", "/containers/{id}/archive", None, 400, "path cannot be empty"),
    ("GET", "/containers/{id}/archive?path=/nope", None, 404, "Could not find the file /nope in container"),
    ("PUT", "/containers/{id}/archive?path=/nope", b"", 404, "Could not find the file /nope in container"),
    ("PUT", "/containers/{id}/archive?path=/tmp", b"noise" * 500, 400, ""),
    ("PUT", "/containers/{id}/archive?path=/etc/passwd", b"", 400, "not a directory"),
    ("DELETE", "/containers/{id}", None, 409, "stop the container before removing or force remove"),
    ("DELETE", "/containers/{id}?link=1", None, None, ""),
    ("POST", "/containers/prune?filters={\"nope\":[\"x\"]}", None, 400, "invalid filter 'nope'"),
    ("POST", "/commit", None, 400, "container"),
    ("POST", "/commit?container=nope", None, 404, "No such container: nope"),
    ("POST", "/commit?container={id}&repo=UPPER", None, 400, "invalid reference format"),
    ("POST", "/commit?container={id}&changes=NOPE+x", None, 400, "NOPE"),
    ("GET", "/containers/{id}/attach/ws", None, 400, ""),
    ("GET", "/containers/{id}/stats?stream=1&one-shot=1", None, 400, "cannot have stream=true and one-shot=true"),
    ("GET", "/containers/nope/export", None, 404, "No such container: nope"),
    ("GET", "/events?since=10&until=5", None, 400, "cannot be after"),
    ("GET", "/system/df?type=nope", None, 400, "unknown object type: nope"),
    ("GET", "/v1.0/info", None, 400, "too old"),
    ("GET", "/v1.99/info", None, 400, "too new"),
    ("GET", "/nope", None, 404, "page not found"),
    ("DELETE", "/info", None, 404, "page not found"),
    ("GET", "/containers/" + "a" * 5000 + "/json", None, 404, "No such container"),
    ("GET", "/containers/%00/json", None, 404, "No such container"),
    ("GET", "/containers/..%2F..%2Fetc/json", None, 404, ""),
]  # fmt: skip


@pytest.fixture(scope="module")
def pair(engine: EngineUnderTest) -> Iterator[dict[str, str]]:
    running = engine.docker("run", "-d", "--name", "badcalls", "busybox", "sleep", "1000")
    stopped = engine.docker("create", "--name", "badcalls-stopped", "busybox")
    yield {"id": running, "stopped": stopped}
    engine.docker("rm", "-f", running, stopped)


@pytest.mark.parametrize(("method", "path", "body", "status", "words"), WRONG_CALLS, ids=lambda v: str(v)[:50])
def test_a_wrong_call_is_told_and_changes_nothing(
    engine: EngineUnderTest, pair: dict[str, str], method: str, path: str, body: Any, status: int | None, words: str
) -> None:
    before = traces(engine)
    for key, value in pair.items():
        path = path.replace("{" + key + "}", value)
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    got, answer = ask(engine, method, path.replace('"', "%22"), data)
    assert 400 <= got < 600, answer
    assert status in (None, got), answer
    assert words in str(answer)
    assert "internal error" not in str(answer)
    assert engine.docker("inspect", "-f", "{{.State.Status}}", pair["id"]) == "running"
    unchanged(engine, before)


def test_a_start_that_fails_leaves_no_mount_no_group_and_no_process(engine: EngineUnderTest) -> None:
    before, began = traces(engine), str(time.time())
    for arguments, code in (
        (["busybox", "/nosuch"], 127), (["busybox", "/etc/passwd"], 126), (["busybox", "/etc"], 126),
        (["-w", "/etc/passwd", "busybox", "true"], 125), (["-u", "nosuch", "busybox", "true"], 125),
        (["--sysctl", "kernel.nope=1", "busybox", "true"], 125), (["--device", "/dev/nope", "busybox", "true"], 127),
        (["--ulimit", "nofile=9999999999:9999999999", "busybox", "true"], 0),
        (["--gpus", "all", "busybox", "true"], 125), (["--entrypoint", "", "busybox"], 125), (["--nosuchflag", "busybox"], 125),
    ):  # fmt: skip
        result = engine.docker_result("run", "--rm", *arguments, stdin=subprocess.DEVNULL)
        assert result.returncode == code, (arguments, result.stderr)
        assert code == 0 or result.stderr.strip()
    unchanged(engine, before)
    made = engine.docker("events", "--since", began, "--until", str(time.time()), "--filter", "event=create",
                         "--format", "{{.ID}}").split()  # fmt: skip
    assert len(made) >= 7
    assert [path for name in made for path in Path("/sys/fs/cgroup").glob(f"*/*/{name}")] == []


def test_a_taken_port_is_an_error_and_the_container_stays_created(engine: EngineUnderTest) -> None:
    with socket.socket() as listener:
        listener.bind(("0.0.0.0", 0))
        listener.listen()
        port = listener.getsockname()[1]
        result = engine.docker_result("run", "-d", "--name", "noport", "-p", f"{port}:80", "busybox", "sleep", "9")
    assert result.returncode == 125
    assert str(port) in result.stderr
    assert engine.docker("inspect", "-f", "{{.State.Status}}", "noport") == "created"
    engine.docker("rm", "noport")


def test_a_name_in_use_is_a_conflict(engine: EngineUnderTest) -> None:
    first = engine.docker("create", "--name", "taken", "busybox")
    result = engine.docker_result("create", "--name", "taken", "busybox")
    assert result.returncode == 1
    assert f'The container name "/taken" is already in use by container "{first}"' in result.stderr
    engine.docker("rm", "taken")


def broke(status: int, answer: Any) -> bool:
    """Tell whether the daemon met something that it did not expect."""
    said = answer.get("message") or "" if isinstance(answer, dict) else str(answer)
    return status >= 500 and ("internal error" in said or "got itself in trouble" in said)


STRANGE: dict[str, list[Any]] = {
    "str": ["\0", "a\0b", "\n", "x" * 5000, "../../../../tmp/evil", "\ud800", "/", ":", ",", "{{.}}", "container:"],
    "int": [-1, 0, 1, 1 << 31, (1 << 63) - 1, -(1 << 63)], "uint": [0, 1, 1 << 31, 1 << 63],
    "bool": [True, False], "float": [0.0, -1.5, 1e300], "args": [["\0"], ["x"], [""], [], ["../x"]],
}  # fmt: skip


def strange(kind: Any) -> Iterator[Any]:
    """Yield values that have the right type and nothing else that is right."""
    if isinstance(kind, dict) and "*" in kind:
        for key in ("", "\0", "a", "../x", "80/tcp", "x" * 300):
            yield from ({key: value} for value in [*strange(kind["*"])][:2])
    elif isinstance(kind, dict):
        yield {}
        for key, inner in kind.items():
            yield from ({key: value} for value in strange(inner))
    elif isinstance(kind, list):
        yield [None]
        yield from ([value] for value in strange(kind[0]))
    else:
        yield from STRANGE.get(kind, ["x", 1, None, [], {}])


def fields() -> Iterator[tuple[str, Any]]:
    for key, kind in checks.CREATE.items():
        if key == "HostConfig":
            yield from (("HostConfig", {name: inner}) for name, inner in kind.items())
        else:
            yield key, kind


@pytest.mark.parametrize(("key", "kind"), [*fields()], ids=lambda value: next(iter(value)) if isinstance(value, dict) and value else str(value))
def test_no_value_of_a_field_breaks_the_engine(engine: EngineUnderTest, key: str, kind: Any) -> None:
    for value in strange(kind):
        body = {"Image": "busybox", "Cmd": ["true"], key: value}
        status, answer = ask(engine, "POST", "/containers/create", json.dumps(body).encode())
        assert not broke(status, answer), (value, answer)
        if status != 201:
            assert 400 <= status < 502 and answer["message"], (value, answer)
            continue
        made = answer["Id"]
        if key != "HostConfig" or next(iter(value or {"": 0})) in ("BlkioWeightDevice", "Devices", "Dns", "Ulimits", "Sysctls", "MaskedPaths"):
            status, answer = ask(engine, "POST", f"/containers/{made}/start")
            assert not broke(status, answer) and "Error:" not in str(answer), (value, answer)
        assert ask(engine, "GET", f"/containers/{made}/json")[0] in (200, 404)
        assert ask(engine, "GET", "/containers/json?all=1")[0] == 200
        assert ask(engine, "DELETE", f"/containers/{made}?force=1&v=1")[0] in (204, 404, 409)
        until(lambda made=made: ask(engine, "GET", f"/containers/{made}/json")[0] == 404, f"a container with {value} is removed")


ODD = ["", "%00", "%ff", "%ed%a0%80", "-1", "1e9", "9" * 5000, "x", "%0a", "..%2f..", "[]", "null", "%7B%22label%22%3A%5B%22%5Cud800%22%5D%7D",
       "%7B%22label%22%3A%5B1%5D%7D", "%2e%2e%2f"]  # fmt: skip
QUERIES = [
    ("GET", "/containers/json", ["all", "limit", "size", "filters"]), ("GET", "/containers/{id}/json", ["size"]),
    ("GET", "/containers/{id}/logs?stdout=1", ["since", "until", "tail", "timestamps"]),
    ("GET", "/containers/{id}/top", ["ps_args"]), ("POST", "/containers/{id}/resize", ["h", "w"]),
    ("POST", "/containers/{id}/rename?x=1", ["y"]), ("POST", "/containers/{id}/kill", ["signal=NOPE&x"]),
    ("GET", "/containers/{id}/archive", ["path"]), ("POST", "/containers/prune", ["filters=[]&x"]),
    ("GET", "/events?until=1", ["since", "filters"]), ("GET", "/system/df", ["type"]), ("GET", "/images/json", ["filters", "all"]),
    ("POST", "/commit?container=nosuch", ["repo", "tag", "changes", "pause"]), ("GET", "/images/busybox/json", ["platform"]),
    ("GET", "/images/get", ["names"]), ("GET", "/volumes", ["filters"]), ("GET", "/networks", ["filters"]),
    ("GET", "/images/search", ["limit=1&term", "filters"]),
]  # fmt: skip


@pytest.mark.parametrize(("method", "path", "names"), QUERIES, ids=lambda value: str(value)[:40])
def test_no_value_of_a_query_breaks_the_engine(engine: EngineUnderTest, pair: dict[str, str], method: str, path: str, names: list[str]) -> None:
    path = path.replace("{id}", pair["id"])
    for name in names:
        for value in ODD:
            status, answer = ask(engine, method, f"{path}{'&' if '?' in path else '?'}{name}={value}")
            assert not broke(status, answer), (name, value, answer)
            assert status < 600


@pytest.mark.parametrize("path", ["/containers/{}/json", "/images/{}/json", "/volumes/{}", "/networks/{}", "/exec/{}/json", "/v{}/info", "/images/{}/get"])
def test_no_name_breaks_the_engine(engine: EngineUnderTest, path: str) -> None:
    for value in [*ODD, "a" * 60000, "%25", "..", "sha256:" + "0" * 64, "sha256:x", "a@b", "UPPER", "a:b:c", "%2F"]:
        status, answer = ask(engine, "GET", path.format(value))
        assert 400 <= status < 600 or not value or value in ("[]", "null"), (value, answer)
        assert not broke(status, answer), (value, answer)
