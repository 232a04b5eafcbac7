"""Many networks, many containers on one of them, one alias of many: starts cost what they cost before, restarts work."""

import http.client
import json
import os
import re
import socket
import subprocess
from typing import Any

import pytest

from traffic import Server, ask
from under_test import EngineUnderTest, running_engine

pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]

# So many that their addresses fit into a plain answer by UDP.
_BEARERS = 24
_NETWORKS, _CONTAINERS = 100, 60
_STARTS = 12
# The times of starts are within 1.5 (bench/networks.py); what the daemon uses is counted in whole ticks of 10 ms.
_RATIO, _TICKS = 1.5, 6


def call(engine: EngineUnderTest, method: str, target: str, body: Any = None) -> Any:
    """Send a request; return the JSON of its answer."""
    connection = http.client.HTTPConnection("localhost", timeout=60)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(str(engine.socket))
    connection.request(method, target, json.dumps(body), {"Content-Type": "application/json"})
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    assert answer.status < 400, (method, target, content)
    return json.loads(content) if content else None


def start(engine: EngineUnderTest, *aliases: str, port: int = 0, keep: bool = True) -> str:
    """Start a container on the network "first"; return its id."""
    config = {
        "Image": "busybox", "Cmd": ["sleep", "100000"] if keep else ["true"],
        "HostConfig": {"NetworkMode": "first", "PortBindings": {"80/tcp": [{"HostPort": str(port)}]} if port else {}},
        "NetworkingConfig": {"EndpointsConfig": {"first": {"Aliases": list(aliases)}}},
    }  # fmt: skip
    made = str(call(engine, "POST", "/containers/create", config)["Id"])
    call(engine, "POST", f"/containers/{made}/start")
    if not keep:
        call(engine, "POST", f"/containers/{made}/wait")
        call(engine, "DELETE", f"/containers/{made}")
    return made


def cost(engine: EngineUnderTest) -> int:
    """Return the ticks of processor time that the daemon uses for some containers that end at once."""

    def ticks() -> int:
        with open(f"/proc/{engine.pid}/stat", encoding="ascii") as file:
            fields = file.read().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    before = ticks()
    for _ in range(_STARTS):
        start(engine, keep=False)
    return ticks() - before


def test_many_of_everything_cost_no_more_and_survive_the_daemon() -> None:
    for engine in running_engine("--default-address-pool=base=10.0.0.0/8,size=24"):
        call(engine, "POST", "/networks/create", {"Name": "first"})
        start(engine, keep=False)
        at_first = cost(engine)
        for number in range(_NETWORKS):
            call(engine, "POST", "/networks/create", {"Name": f"net{number}"})
        made = [start(engine, *(["shared"] if at < _BEARERS else []), port=18600 + at) for at in range(_CONTAINERS)]
        in_the_end = cost(engine)
        assert in_the_end <= at_first * _RATIO + _TICKS, (at_first, in_the_end)
        last = call(engine, "GET", f"/containers/{made[-1]}/json")
        netns = f"/proc/{last['State']['Pid']}/ns/net"
        server = Server(netns)
        try:
            for _ in range(2):
                script = "nslookup shared 127.0.0.11 2>/dev/null | sed -n '4,$s/^Address: *//p' | sort -u | wc -l"
                told = engine.docker("exec", made[-1], "sh", "-c", script)
                assert int(told) == _BEARERS
                gateway = last["NetworkSettings"]["Networks"]["first"]["Gateway"]
                port = 18600 + _CONTAINERS - 1
                here = f"/proc/{os.getpid()}/ns/net"
                assert all(ask({here: [("tcp", "127.0.0.1", port), ("tcp", gateway, port)]})[here])
                rules = subprocess.run(["nft", "list", "ruleset"], capture_output=True, text=True, check=True).stdout
                assert len(set(re.findall(r'"br-\w+"', rules))) == _NETWORKS + 1
                # Another daemon makes the table anew, and takes all over.
                engine.kill_daemon()
        finally:
            server.end()
        start(engine, keep=False)
        engine.docker("rm", "-f", *made)
        call(engine, "POST", "/networks/prune")
        assert len(call(engine, "GET", "/networks")) == 3
