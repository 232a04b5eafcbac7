"""`network graph` of a real engine."""

import json
import sys
import xml.etree.ElementTree as ElementTree

import pytest

from under_test import EngineUnderTest

pytestmark = pytest.mark.system


@pytest.fixture
def drawn(engine: EngineUnderTest):
    """Give an engine with two networks and three containers."""
    engine.docker("network", "create", "--subnet", "10.210.0.0/24", "front")
    engine.docker("network", "create", "--internal", "--subnet", "10.211.0.0/24", "back")
    engine.docker("run", "-d", "--name", "web", "--network", "front", "-p", "127.0.0.1:18090:80", "busybox", "sleep", "1000")
    engine.docker("network", "connect", "--alias", "www", "back", "web")
    engine.docker("run", "-d", "--name", "db", "--network", "back", "busybox", "sleep", "1000")
    engine.docker("run", "-d", "--name", "side", "--network", "container:db", "busybox", "sleep", "1000")
    engine.docker("create", "--name", "later", "--network", "front", "busybox", "true")
    yield engine
    engine.docker("rm", "-f", "web", "db", "side", "later")
    engine.docker("network", "rm", "front", "back")


def test_a_tree_shows_networks_containers_addresses_and_ports(drawn):
    assert drawn.barque("network", "graph", "front", "back") == (
        "back (bridge, 10.211.0.0/24, internal)\n"
        "├── db  10.211.0.3\n"
        "│   └── shared by side\n"
        "└── web  10.211.0.2\n"
        "    ├── 127.0.0.1:18090 -> 80/tcp\n"
        "    ├── also called www\n"
        "    └── also in front\n"
        "front (bridge, 10.210.0.0/24)\n"
        "└── web  10.210.0.2\n"
        "    ├── 127.0.0.1:18090 -> 80/tcp\n"
        "    └── also in back"
    )
    assert "later  (created)" in drawn.barque("network", "graph", "--all", "front")


def test_other_forms_show_the_same(drawn):
    rows = {row["Name"]: row for row in json.loads(drawn.barque("network", "graph", "--format", "json"))}
    assert {"front", "back", "bridge", "host", "none"} <= rows.keys()
    assert rows["back"]["Internal"] and [box["Name"] for box in rows["back"]["Containers"]] == ["db", "web"]
    picture = ElementTree.fromstring(drawn.barque("network", "graph", "--format", "svg"))
    texts = {item.text for item in picture.iter("{http://www.w3.org/2000/svg}text")}
    assert {"front", "back", "web", "db", "10.210.0.2", "127.0.0.1:18090", "80/tcp"} <= texts
    assert '"box web" -- "net front"' in drawn.barque("network", "graph", "--format", "dot")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nonsense"], "Error response from daemon: network nonsense not found"),
        (["--format", "nonsense"], 'unknown form "nonsense": must be one of "tree", "dot", "svg", "json"'),
    ],
)
def test_what_cannot_be_drawn_is_said(engine, words, said):
    result = engine.run([sys.executable, "-m", "barque", "network", "graph", *words])
    assert (result.returncode, result.stdout, result.stderr.strip()) == (1, "", said)
