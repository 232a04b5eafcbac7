"""The same questions put to 127.0.0.11 in containers of Docker and of ours: the answers must agree."""

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

import pytest

pytest.importorskip("dns", reason="dnspython is not installed")
import dns.flags
import dns.message
import dns.query
import dns.rcode
import dns.rdatatype
import dns.rrset

from barque.kernel.netlink import namespace
from dns_scenarios import Outside
from under_test import EngineUnderTest, running_engine

pytestmark = [pytest.mark.conformance, pytest.mark.timeout(180)]

_GATEWAY = "10.221.0.1"
_RECORDS = {
    ("www.example.org.", "A"): ["www.example.org. 300 IN CNAME web.example.org.", "web.example.org. 60 IN A 192.0.2.7"],
    ("www.example.org.", "AAAA"): ["www.example.org. 300 IN CNAME web.example.org.", "web.example.org. 60 IN AAAA 2001:db8::7"],
    ("example.org.", "MX"): ["example.org. 100 IN MX 10 mail.example.org."],
    ("example.org.", "TXT"): ['example.org. 100 IN TXT "v=spf1 -all"'],
    ("_http._tcp.example.org.", "SRV"): ["_http._tcp.example.org. 100 IN SRV 1 2 80 web.example.org."],
    ("7.2.0.192.in-addr.arpa.", "PTR"): ["7.2.0.192.in-addr.arpa. 100 IN PTR web.example.org."],
    ("many.example.org.", "A"): [f"many.example.org. 60 IN A 198.51.100.{n}" for n in range(100)],
}


def _world(question: dns.message.Message, stream: bool) -> dns.message.Message:
    """Play the servers outside."""
    asked = question.question[0]
    answer = dns.message.make_response(question, recursion_available=True)
    found = _RECORDS.get((asked.name.to_text().lower(), dns.rdatatype.to_text(asked.rdtype)))
    if asked.name.to_text().lower() == "broken.example.org.":
        answer.set_rcode(dns.rcode.SERVFAIL)
    elif found is None and not any(asked.name.to_text().lower() == name for name, _ in _RECORDS):
        answer.set_rcode(dns.rcode.NXDOMAIN)
    sets: dict[tuple[str, str], list[str]] = {}
    for text in found or ():
        name, ttl, _, kind, data = text.split(maxsplit=4)
        sets.setdefault((name, kind), [ttl]).append(data)
    for (name, kind), (ttl, *data) in sets.items():
        answer.answer.append(dns.rrset.from_text_list(name, int(ttl), "IN", kind, data))
    if not stream and len(answer.to_wire(max_size=65535)) > (question.payload if question.edns >= 0 else 512):
        answer.answer.clear()
        answer.flags |= dns.flags.TC
    return answer


class Asked(NamedTuple):
    """A container to ask in."""

    pid: str

    def ask(self, name: str, kind: str, *, tcp: bool, edns: bool) -> dns.message.Message:
        question = dns.message.make_query(name, kind, use_edns=0 if edns else -1, payload=4096)
        with namespace.inside(f"/proc/{self.pid}/ns/net"):
            query = dns.query.tcp if tcp else dns.query.udp
            return query(question, "127.0.0.11", timeout=8)


@contextlib.contextmanager
def _asked(docker, host_pid: str | None) -> Iterator[Asked]:
    """Make a network with containers, and a server outside at the network's gateway."""
    docker("network", "create", "--subnet", "10.221.0.0/24", "--gateway", _GATEWAY, "names")
    space = namespace.inside(f"/proc/{host_pid}/ns/net") if host_pid else contextlib.nullcontext()
    with space:
        outside = Outside(_GATEWAY, _world)
    try:
        flags = ("run", "-d", "--network", "names", "--dns", _GATEWAY)
        docker(*flags, "--name", "asker", "--ip", "10.221.0.10", "busybox", "sleep", "1000")
        docker(*flags, "--name", "Web", "--ip", "10.221.0.11", "--network-alias", "all", "--hostname", "boxed",
               "busybox", "sleep", "1000")  # fmt: skip
        docker(*flags, "--name", "db.main", "--ip", "10.221.0.12", "--network-alias", "all", "busybox", "sleep", "1000")
        yield Asked(docker("inspect", "-f", "{{.State.Pid}}", "asker"))
    finally:
        docker("rm", "-f", "asker", "Web", "db.main")
        docker("network", "rm", "names")
        outside.close()


@pytest.fixture(scope="module")
def ours() -> Iterator[EngineUnderTest]:
    yield from running_engine()


@pytest.fixture(scope="module")
def both(dockerd_with_networks: object, ours: EngineUnderTest) -> Iterator[tuple[Asked, Asked]]:
    oracle = dockerd_with_networks
    with _asked(oracle.docker, (oracle.root / "pid").read_text().strip()) as theirs, _asked(ours.docker, None) as mine:
        yield theirs, mine


def plain(message: dns.message.Message) -> tuple[str, str, list[str]]:
    """Return what is compared: the code, whether it was cut, and the records whatever their order."""
    flags = dns.flags.to_text(message.flags & (dns.flags.QR | dns.flags.TC | dns.flags.RD | dns.flags.RA))
    records = [
        f"{rrset.name} {rrset.ttl} {dns.rdatatype.to_text(rrset.rdtype)} {item}"
        for section in (message.answer, message.authority) for rrset in section for item in rrset
    ]  # fmt: skip
    return dns.rcode.to_text(message.rcode()), flags, sorted(records)


QUESTIONS = [
    ("Web", "A"), ("web", "A"), ("WEB.names", "A"), ("Web.", "A"), ("all", "A"), ("db.main", "A"), ("db.main.names", "A"),
    ("web", "AAAA"), ("all", "AAAA"), ("web", "MX"), ("boxed", "A"), ("10.221.0.11", "A"),
    ("11.0.221.10.in-addr.arpa", "PTR"), ("12.0.221.10.in-addr.arpa", "PTR"), ("7.2.0.192.in-addr.arpa", "PTR"),
    ("9.9.9.9.in-addr.arpa", "PTR"), ("x.in-addr.arpa", "PTR"),
    ("www.example.org", "A"), ("WWW.Example.ORG", "A"), ("www.example.org", "AAAA"), ("www.example.org", "MX"),
    ("example.org", "MX"), ("example.org", "TXT"), ("_http._tcp.example.org", "SRV"), ("_http._tcp.web", "SRV"),
    ("nope.example.org", "A"), ("nope", "A"), ("nope", "AAAA"), ("nope", "TXT"), ("broken.example.org", "A"),
    ("main", "A"), ("main.names", "A"), ("names", "A"), ("web.other", "A"), ("many.example.org", "A"),
]  # fmt: skip
_OURS = "asked outside by Docker, which tells the world the name and gets NXDOMAIN for one that exists; empty from us"
DIFFERS = {("web", "TXT"): _OURS, ("web", "HTTPS"): _OURS, ("web", "ANY"): "asked outside by Docker; its addresses from us"}
QUESTIONS += DIFFERS


@pytest.mark.parametrize("tcp", [False, True], ids=["udp", "tcp"])
@pytest.mark.parametrize("edns", [False, True], ids=["plain", "edns"])
@pytest.mark.parametrize(("name", "kind"), QUESTIONS, ids=[f"{name}-{kind}" for name, kind in QUESTIONS])
def test_an_answer_is_the_same(both, name, kind, edns, tcp):
    theirs, mine = (plain(asked.ask(name, kind, tcp=tcp, edns=edns)) for asked in both)
    if (name, kind) in DIFFERS:
        assert theirs != mine, "the table tells a difference that is not there"
    else:
        assert mine == theirs
