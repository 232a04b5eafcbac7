"""The map of networks and its pictures."""

import itertools
import json
import shutil
import subprocess
import xml.etree.ElementTree as ElementTree

import pytest
from hypothesis import given, strategies as st

from barque.cli import network_map, network_pictures
from barque.cli.natural import natural_key


def network(name, *subnets, **more):
    return {"Id": f"{name}id", "Name": name, "Driver": "bridge", "Internal": False,
            "IPAM": {"Config": [{"Subnet": subnet, "Gateway": "1.1.1.1"} for subnet in subnets]}, **more}  # fmt: skip


def container(name, *networks, ports=(), state="running", mode="bridge", aliases=None):
    return {
        "Id": f"{name}id", "Names": [f"/{name}"], "Image": "busybox", "State": state,
        "HostConfig": {"NetworkMode": mode},
        "NetworkSettings": {"Networks": {
            item: {"IPAddress": address, "IPPrefixLen": 16, "MacAddress": "02:42:ac:11:00:02", "Aliases": aliases}
            for item, address in networks
        }},
        "Ports": [{"IP": ip, "PublicPort": public, "PrivatePort": private, "Type": "tcp"}
                  for ip, public, private in ports],
    }  # fmt: skip


def example():
    return network_map.make(
        [network("front", "172.18.0.0/16"), network("back", "172.19.0.0/16", "fd00::/64", Internal=True),
         network("none", Driver="null")],
        [
            container("web10", ("front", "172.18.0.3"), ports=[("0.0.0.0", 8080, 80), ("::", 8080, 80)]),
            container("web9", ("front", "172.18.0.2"), ("back", "172.19.0.2"), aliases=["www"]),
            container("db", ("back", "172.19.0.3"), state="exited"),
            container("side", mode="container:dbid"),
        ],
    )  # fmt: skip


def test_a_tree_shows_who_is_where():
    assert network_map.tree(example()) == (
        "back (bridge, 172.19.0.0/16, fd00::/64, internal)\n"
        "├── db  172.19.0.3  (exited)\n"
        "│   └── shared by side\n"
        "└── web9  172.19.0.2\n"
        "    ├── also called www\n"
        "    └── also in front\n"
        "front (bridge, 172.18.0.0/16)\n"
        "├── web9  172.18.0.2\n"
        "│   ├── also called www\n"
        "│   └── also in back\n"
        "└── web10  172.18.0.3\n"
        "    ├── 0.0.0.0:8080 -> 80/tcp\n"
        "    └── [::]:8080 -> 80/tcp\n"
        "none (null)\n"
    )


def test_only_the_networks_asked_for_are_drawn():
    drawn = network_map.make([network("a"), network("b")], [container("x", ("a", "1.2.3.4")), container("y", ("b", ""))], ["bid"])
    assert network_map.tree(drawn) == "b (bridge)\n└── y\n"


def test_json_holds_the_same():
    found = network_map.to_json(example())
    assert json.loads(json.dumps(found)) == found
    assert [row["Name"] for row in found] == ["back", "front", "none"]
    assert found[1]["Containers"][1]["Ports"][0] == {"Host": "0.0.0.0:8080", "Container": "80/tcp"}
    assert found[0]["Containers"][0]["SharedBy"] == ["side"]


NAMES = st.text(min_size=1, max_size=12).filter(str.strip)


@given(st.lists(NAMES, unique=True, max_size=4), st.lists(st.tuples(NAMES, st.sets(st.integers(0, 3))), max_size=6))
def test_any_names_give_a_well_formed_picture(nets, boxes):
    containers = [
        container(name, *[(nets[n], "10.0.0.2") for n in sorted(places) if n < len(nets)], ports=[("", 80, 80)])
        for name, places in boxes
    ]
    drawn = network_map.make([network(name, "10.0.0.0/8") for name in nets], containers)
    ElementTree.fromstring(network_pictures.svg(drawn))
    assert network_map.tree(drawn).count("\n") >= len(nets)
    text = network_pictures.dot(drawn)
    assert text.startswith("graph networks {") and text.endswith("}\n")


def test_boxes_of_a_picture_do_not_overlap():
    drawn = example()
    root = ElementTree.fromstring(network_pictures.svg(drawn))
    spans: dict[str, list[tuple[float, float]]] = {}
    for item in root.iter("{http://www.w3.org/2000/svg}rect"):
        if item.get("x"):
            top = float(item.get("y"))
            spans.setdefault(item.get("x"), []).append((top, top + float(item.get("height"))))
    assert len(spans) == 2
    for column in spans.values():
        column.sort()
        assert all(above[1] <= below[0] for above, below in itertools.pairwise(column))
        assert column[0][0] >= 0 and column[-1][1] <= float(root.get("height"))


def test_graphviz_reads_what_we_write():
    if shutil.which("dot") is None:
        pytest.skip("graphviz is not installed")
    subprocess.run(["dot", "-Tsvg"], input=network_pictures.dot(example()), text=True, check=True, capture_output=True)


def test_names_with_numbers_sort_by_their_value():
    names = ["web10", "web9", "web", "Web2", "web09", "1", "web9a"]
    assert sorted(names, key=natural_key) == ["1", "Web2", "web", "web9", "web9a", "web09", "web10"]
