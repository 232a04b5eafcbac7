"""The docker command and ours say the same to an engine about networks, and print the same of its answers."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.conformance

ID = "0123456789ab" + "c" * 52
NETWORKS = [
    {"Name": "zeta", "Id": ID, "Created": "2026-01-02T03:04:05.678901234Z", "Scope": "local", "Driver": "bridge",
     "EnableIPv4": True, "EnableIPv6": True, "Internal": True, "Attachable": False, "Ingress": False,
     "IPAM": {"Driver": "default", "Options": None, "Config": [{"Subnet": "172.20.0.0/16", "Gateway": "172.20.0.1"}]},
     "ConfigFrom": {"Network": ""}, "ConfigOnly": False, "Containers": {}, "Options": {"a": "b"},
     "Labels": {"z": "1"}},
    {"Name": "alpha10", "Id": "f" * 64, "Created": "2026-01-02T03:04:05Z", "Scope": "local", "Driver": "macvlan",
     "EnableIPv4": True, "EnableIPv6": False, "Internal": False, "Attachable": True, "Ingress": False,
     "IPAM": {"Driver": "default", "Options": {}, "Config": []}, "ConfigFrom": {"Network": ""}, "ConfigOnly": False,
     "Containers": {}, "Options": {}, "Labels": {}},
    {"Name": "alpha9", "Id": "e" * 64, "Created": "2026-01-02T03:04:05Z", "Scope": "swarm", "Driver": "overlay",
     "EnableIPv4": True, "EnableIPv6": False, "Internal": False, "Attachable": True, "Ingress": True,
     "IPAM": {"Driver": "default", "Options": {}, "Config": []}, "ConfigFrom": {"Network": ""}, "ConfigOnly": False,
     "Containers": {}, "Options": {}, "Labels": None},
]  # fmt: skip
CONTAINER = {
    "Id": ID, "Name": "/web", "Created": "2026-01-02T03:04:05Z", "Config": {}, "HostConfig": {},
    "State": {"Status": "running", "Running": True},
    "NetworkSettings": {"Ports": {
        "80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}, {"HostIp": "::", "HostPort": "8080"}],
        "53/udp": [{"HostIp": "127.0.0.1", "HostPort": "5353"}], "9/tcp": None,
        "443/tcp": [{"HostIp": "0.0.0.0", "HostPort": "32768"}]}},
}  # fmt: skip


class Engine:
    """Answers as an engine would, and keeps what it was asked."""

    def __init__(self, path: Path) -> None:
        self.seen: list[object] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(16)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5)

    def _serve(self) -> None:
        while True:
            try:
                made, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._talk, args=(made,), daemon=True).start()

    def _talk(self, made: socket.socket) -> None:
        with made, made.makefile("rb") as read:
            while line := read.readline():
                method, target, _ = line.decode().split()
                headers = {}
                while (text := read.readline().decode().strip()) != "":
                    name, _, value = text.partition(":")
                    headers[name.lower()] = value.strip()
                if headers.get("transfer-encoding") == "chunked":
                    body = b""
                    while size := int(read.readline(), 16):
                        body += read.read(size)
                        read.readline()
                    read.readline()
                else:
                    body = read.read(int(headers.get("content-length") or 0))
                status, answer = self._answer(method, target, body)
                data = b"" if answer is None else json.dumps(answer).encode()
                head = (f"HTTP/1.1 {status} X\r\nApi-Version: 1.50\r\nOstype: linux\r\nContent-Type: application/json\r\n"
                        f"Content-Length: {len(data)}\r\n\r\n")  # fmt: skip
                made.sendall(head.encode() + (b"" if method == "HEAD" else data))

    def _answer(self, method: str, target: str, body: bytes) -> tuple[int, object]:
        url = urllib.parse.urlsplit(target)
        path = re.sub(r"^/v1\.\d+", "", url.path)
        if path == "/_ping":
            return 200, "OK"
        query = dict(urllib.parse.parse_qsl(url.query, keep_blank_values=True))
        if "filters" in query:
            query["filters"] = json.loads(query["filters"])
        request = json.loads(body) if body else None
        if path == "/networks/create":
            # Docker's command sends several subnets in any order.
            request["IPAM"]["Config"].sort(key=str)
        self.seen.append((method, path, query, request))
        if path == "/networks":
            return 200, NETWORKS
        if path == "/networks/create":
            return 201, {"Id": ID, "Warning": "take care"}
        if path == "/networks/prune":
            return 200, {"NetworksDeleted": ["one", "two"]}
        if path == "/containers/create":
            return 201, {"Id": ID, "Warnings": []}
        if path == "/containers/web/json":
            return 200, CONTAINER
        name = path.split("/")[2] if path.count("/") > 1 else ""
        if name.startswith("missing"):
            return 404, {"message": f"network {name} not found"}
        if name == "used":
            return 403, {"message": "error while removing network: network used has active endpoints"}
        if method == "GET" and path.startswith("/networks/"):
            return 200, NETWORKS[0]
        return 200 if method == "POST" else 204, None


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Engine, Path]]:
    if shutil.which("docker") is None:
        pytest.skip("the docker command is not installed: nothing to compare with")
    folder = tmp_path_factory.mktemp("engine")
    made = Engine(folder / "s")
    yield made, folder
    made.close()


COMMANDS = """
network ls
network list
network ls -q
network ls --no-trunc
network ls -q --no-trunc
network ls -f driver=bridge -f name=x --filter label=a=b
network ls -f nonsense
network ls --format json
network ls --format {{json.}}
network ls --format {{.Name}}:{{.ID}}:{{.Driver}}:{{.Scope}}:{{.IPv6}}:{{.IPv4}}:{{.Internal}}
network ls --format {{.Labels}}|{{.CreatedAt}}
network ls --format "table {{.Name}}\\t{{.Internal}}\\t{{.IPv4}}"
network ls --format {{.Label\\u0020"z"}}
network ls --format {{.Nonsense}}
network ls --format {{.Name
network ls --format raw
network ls -q --format {{.Name}}
network ls extra
network ls --nonsense
network
network nonsense
network create
network create a b
network create net
network create -d macvlan -o parent=eth0 -o macvlan_mode=bridge net
network create --driver bridge --opt com.docker.network.bridge.name=br7 net
network create --subnet 10.1.0.0/16 net
network create --subnet 10.1.0.0/16 --gateway 10.1.0.1 --ip-range 10.1.5.0/24 net
network create --subnet 10.1.0.0/16 --aux-address a=10.1.0.5 --aux-address b=10.1.0.6 net
network create --subnet 10.1.0.0/16 --subnet fd00::/64 --gateway fd00::1 --gateway 10.1.0.9 --ipv6 net
network create --subnet 10.1.0.0/16,10.2.0.0/16 net
network create --subnet 10.1.0.0/16 --subnet 10.1.2.0/24 net
network create --subnet nonsense net
network create --subnet 10.1.0.0/16 --gateway nonsense net
network create --subnet 10.1.0.0/16 --gateway 10.2.0.1 net
network create --subnet 10.1.0.0/16 --ip-range 10.2.0.0/24 net
network create --subnet 10.1.0.0/16 --ip-range nonsense net
network create --subnet 10.1.0.0/16 --ip-range 10.1.1.0/24 --ip-range 10.1.2.0/24 net
network create --subnet 10.1.0.0/16 --subnet 10.2.0.0/16 --gateway 10.1.0.1 --gateway 10.1.0.2 net
network create --subnet 10.1.0.0/16 --aux-address a=10.2.0.5 net
network create --subnet 10.1.0.0/16 --aux-address nonsense net
network create --gateway 10.1.0.1 net
network create --ip-range 10.1.0.0/24 net
network create --ipv4=false --ipv6 net
network create --ipv6=false net
network create --internal --attachable --label a=b --label c net
network create --ingress --scope swarm -d overlay net
network create --config-only --subnet 10.1.0.0/16 conf
network create --config-from conf net
network create --config-from conf --config-only net
network create --ipam-driver null --ipam-opt a=b net
network create --opt nonsense net
network create --label =x net
network create --ipv6=nonsense net
network rm
network rm net
network rm a missing b
network rm -f a missing b
network rm -f used a
network remove a
network inspect
network inspect zeta
network inspect zeta missing
network inspect -v zeta
network inspect -f {{.Name}} zeta
network inspect -f {{json.IPAM}} zeta
network inspect -f {{range.IPAM.Config}}{{.Subnet}}{{end}} zeta
network inspect -f {{.Nonsense}} zeta
network inspect -f {{ zeta
network inspect --format json zeta
network inspect -f {{.Name}} missing
network prune -f
network prune -f --filter until=24h --filter label!=a=b
network prune
network prune extra
network connect
network connect net
network connect net web
network connect --alias a --alias b,c net web
network connect --ip 10.1.0.5 --ip6 fd00::5 --link-local-ip 169.254.1.1 net web
network connect --ip nonsense net web
network connect --link db:d --link other net web
network connect --driver-opt a=b --driver-opt c=d --gw-priority 5 net web
network connect --driver-opt nonsense net web
network connect --gw-priority nonsense net web
network connect missing web
network disconnect net
network disconnect net web
network disconnect -f net web
network disconnect missing web
port web
port web 80
port web 80/tcp
port web 53/udp
port web 53
port web 9
port web 7777
port web nonsense
port missing
container port web 443/tcp
port
create --network net img
create --network name=net,alias=a,alias=b img
create --network name=net,ip=10.1.0.5,ip6=fd00::5,mac-address=02:00:00:00:00:01 img
create --network name=net,link-local-ip=169.254.1.1,gw-priority=7 img
create --network name=net,driver-opt=a=b,driver-opt=c=d img
create --network name=net,"driver-opt=com.docker.network.endpoint.sysctls=net.ipv4.conf.eth0.log_martians=1" img
create --network a --network name=b,alias=x img
create --network a --network a img
create --network a --network host img
create --network bridge --network a img
create --network host --network none img
create --network name=net,nonsense=1 img
create --network name=net,nonsense img
create --network name=net,gw-priority=nonsense img
create --network name=net,ip=nonsense img
create --network name=net,mac-address=nonsense img
create --network alias=a img
create --network "" img
create --network name= img
create --network container:web img
create --network container:web --network a img
create --network host img
create --network none img
create --network default img
create --net net --net-alias a img
create --network net --network-alias a --network-alias b img
create --network-alias a img
create --network bridge --network-alias a img
create --network host --network-alias a img
create --network name=net,alias=a --network-alias b img
create --network net --ip 10.1.0.5 --ip6 fd00::5 img
create --ip 10.1.0.5 img
create --ip nonsense img
create --network name=net,ip=10.1.0.5 --ip 10.1.0.6 img
create --network name=net,ip6=fd00::5 --ip6 fd00::6 img
create --network net --mac-address 02:00:00:00:00:01 img
create --mac-address 02:00:00:00:00:01 img
create --mac-address nonsense img
create --network name=net,mac-address=02:00:00:00:00:01 --mac-address 02:00:00:00:00:02 img
create --network net --link-local-ip 169.254.1.1 img
create --network name=net,link-local-ip=169.254.1.1 --link-local-ip 169.254.1.2 img
create --link db img
create --link db:d --link x img
create --link db:d:e img
create --network net --link db:d img
create --network host --link db img
create --network a --network b --link db:d img
create --network none -p 80:80 img
create --network host -p 80:80 img
create -p 80 -p 8080:80/udp -p 127.0.0.1::90 -p [::1]:91:91 -P img
create -p 8000-8002:90-92 --expose 70 --expose 60-61/udp img
create -p nonsense img
create -p 1:2:3:4 img
create -p 99999:80 img
create -p 80:80/nonsense img
create -p 8000-8001:90-92 img
create --expose nonsense img
create --expose 80:80 img
create --dns 1.1.1.1 --dns-search a.example --dns-option ndots:1 --dns-opt x img
create --dns nonsense img
create --dns-search nonsense..x img
create --dns-search . img
create --add-host a:1.2.3.4 --add-host b=::1 --add-host c:[::1] --add-host d:host-gateway img
create --add-host nonsense img
create --add-host a:nonsense img
create --hostname h --domainname d img
create --network net --hostname x_y img
""".strip().splitlines()  # fmt: skip


def words_of(line: str) -> list[str]:
    found = []
    for word in re.findall(r'(?:[^\s"]|"[^"]*")+', line):
        plain = word if "{{" in word and not word.startswith('"') else word.replace('"', "")
        found.append(plain.replace("\\u0020", " ").replace("\\t", "\t").replace("{{json.", "{{json .").replace("{{range.", "{{range ."))
    return found


def run(engine: tuple[Engine, Path], command: list[str], line: str) -> tuple[list[object], int, str, str]:
    made, folder = engine
    made.seen.clear()
    environment = {**os.environ, "DOCKER_HOST": f"unix://{folder}/s", "BARQUE_HOST": f"unix://{folder}/s",
                   "DOCKER_CONFIG": str(folder), "DOCKER_CLI_HINTS": "false"}  # fmt: skip
    result = subprocess.run(
        [*command, *words_of(line)], env=environment, capture_output=True, text=True, timeout=30,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    texts = [text.replace("barque", "docker").replace("Barque", "Docker") for text in (result.stdout, result.stderr)]
    return [*made.seen], result.returncode, texts[0], texts[1]


@pytest.mark.parametrize("line", COMMANDS)
def test_both_commands_ask_and_print_the_same(engine: tuple[Engine, Path], line: str) -> None:
    theirs = run(engine, ["docker"], line)
    ours = run(engine, [sys.executable, "-m", "barque"], line)
    assert ours[0] == theirs[0]
    assert ours[1] == theirs[1], (theirs, ours)
    for mine, their in zip(ours[2:], theirs[2:], strict=True):
        # The verbs that Docker does not have.
        mine = "".join(line for line in mine.splitlines(keepends=True) if not line.startswith(("  graph ", "  rename ")))
        assert mine == their
