import pytest

from barque.base.errors import InvalidInputError, NotFoundError
from barque.engine import links, port_changes


def test_a_link_brings_the_variables_that_docker_brings():
    made = links.variables("/web/my-db", "172.17.0.2", ["5433/tcp", "5432/tcp", "53/udp"], ["A=b", "PATH=/x", "odd"])
    assert made == [
        "MY_DB_PORT=tcp://172.17.0.2:5432",
        "MY_DB_PORT_5432_TCP=tcp://172.17.0.2:5432",
        "MY_DB_PORT_5432_TCP_ADDR=172.17.0.2",
        "MY_DB_PORT_5432_TCP_PORT=5432",
        "MY_DB_PORT_5432_TCP_PROTO=tcp",
        "MY_DB_PORT_5433_TCP=tcp://172.17.0.2:5433",
        "MY_DB_PORT_5433_TCP_ADDR=172.17.0.2",
        "MY_DB_PORT_5433_TCP_PORT=5433",
        "MY_DB_PORT_5433_TCP_PROTO=tcp",
        "MY_DB_PORT_53_UDP=udp://172.17.0.2:53",
        "MY_DB_PORT_53_UDP_ADDR=172.17.0.2",
        "MY_DB_PORT_53_UDP_PORT=53",
        "MY_DB_PORT_53_UDP_PROTO=udp",
        "MY_DB_PORT_5432_TCP_START=tcp://172.17.0.2:5432",
        "MY_DB_PORT_5432_TCP_PORT_START=5432",
        "MY_DB_PORT_5432_TCP_END=tcp://172.17.0.2:5433",
        "MY_DB_PORT_5432_TCP_PORT_END=5433",
        "MY_DB_NAME=/web/my-db",
        "MY_DB_ENV_A=b",
    ]


def test_links_are_read_in_all_their_spellings():
    assert links.parse("db") == ("db", "db")
    assert links.parse("db:store") == ("db", "store")
    assert links.parse("/db:/web/store") == ("db", "store")
    for text in ("", ":", "a:b:c", "a:"):
        with pytest.raises(InvalidInputError):
            links.parse(text)


def binding(port: str, address: str = "") -> dict[str, str]:
    return {"HostIp": address, "HostPort": port}


def test_ports_are_added_and_withdrawn_by_what_is_said_of_them():
    before = {"80/tcp": [binding("8080"), binding("8081", "127.0.0.1")], "53/udp": [binding("")]}
    changed = port_changes.changed(before, {"90/tcp": [binding("9000")]}, {"53/udp": [binding("")]})
    assert changed == {"80/tcp": before["80/tcp"], "90/tcp": [binding("9000")]}
    assert port_changes.changed(before, {}, {"80/tcp": [binding("8081")]})["80/tcp"] == [binding("8080")]
    assert "80/tcp" not in port_changes.changed(before, {}, {"80/tcp": []})
    assert port_changes.changed(before, {"80/tcp": [binding("8080")]}, {})["80/tcp"] == before["80/tcp"]
    assert before["53/udp"] == [binding("")], "the old bindings are not touched"


@pytest.mark.parametrize("removed", [{"81/tcp": []}, {"80/tcp": [binding("1")]}, {"80/tcp": [binding("", "::1")]}])
def test_a_port_that_is_not_published_cannot_be_withdrawn(removed):
    with pytest.raises(NotFoundError, match="is not published"):
        port_changes.changed({"80/tcp": [binding("8080")]}, {}, removed)
