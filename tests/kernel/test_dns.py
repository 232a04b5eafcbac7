"""The name server in real network namespaces, with real servers outside."""

import os
import select
import socket
import struct
import threading
import time
from pathlib import Path

import pytest

from under_test import until

pytest.importorskip("dns", reason="dnspython is not installed")
import dns.exception
import dns.flags
import dns.message
import dns.rcode
import dns.rrset

from barque.kernel.netlink import namespace
from barque.network.dns.client import NameService
from barque.network.resolving import ServedNamespace
from dns_scenarios import World, address, code, silent, world

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="enters network namespaces"),
]

ONE, TWO, THREE = "127.0.1.1", "127.0.1.2", "127.0.1.3"


@pytest.fixture
def here(tmp_path):
    with world(tmp_path) as made:
        yield made


def two(here: World):
    a, b = here.container("a"), here.container("b")
    a.join("n1", "alpha", "web", ip="10.0.0.2")
    b.join("n1", "beta", "web", ip="10.0.0.3")
    return a, b


def test_containers_of_a_network_find_each_other_by_udp_and_tcp(here):
    a, b = two(here)
    a.serve()
    b.serve()
    for tcp in (False, True):
        assert a.addresses("beta", tcp=tcp) == ["10.0.0.3"]
        assert b.addresses("web", tcp=tcp) == ["10.0.0.2", "10.0.0.3"]
        assert b.addresses("2.0.0.10.in-addr.arpa", "PTR", tcp=tcp) == ["alpha.n1net."]


def test_a_name_is_gone_at_once_and_so_is_a_stopped_server(here):
    a, b = two(here)
    a.serve()
    b.serve()
    assert a.addresses("beta") == ["10.0.0.3"]
    here.service.remove("b-n1")
    assert a.ask("beta").rcode() == dns.rcode.SERVFAIL
    here.service.stop("b")
    with pytest.raises(dns.exception.Timeout):
        b.ask("alpha", timeout_s=0.3)


def test_a_program_of_the_container_may_listen_on_port_53_of_all_addresses(here):
    a, _ = two(here)
    a.serve()
    with namespace.entered(a.space.fd):
        own = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        own.bind(("0.0.0.0", 53))
        own.settimeout(5)
        asking = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with own, asking:
        assert a.addresses("beta") == ["10.0.0.3"]
        asking.sendto(b"hello", ("127.0.0.1", 53))
        assert own.recv(10) == b"hello"


def test_foreign_names_are_asked_once_and_kept_with_their_age(here):
    server = here.outside(ONE, address("192.0.2.7", ttl=30))
    a, b = two(here)
    a.serve(ONE)
    b.serve(ONE)
    assert a.addresses("www.example.org") == ["192.0.2.7"]
    until(lambda: b.ask("WWW.example.org").answer[0].ttl < 30, "the answer has aged", timeout_s=5)
    message = b.ask("WWW.example.org")
    assert message.answer[0].ttl in (28, 29)
    assert str(message.answer[0].name).lower() == "www.example.org."
    assert server.asked == ["www.example.org."]


def test_what_may_not_be_kept_is_asked_again(here):
    server = here.outside(ONE, address("192.0.2.7", ttl=0))
    a, _ = two(here)
    a.serve(ONE)
    for _ in range(2):
        assert a.addresses("www.example.org") == ["192.0.2.7"]
    assert len(server.asked) == 2


def test_the_first_server_counts_even_where_the_second_is_faster(here):
    def slow(question, stream):
        time.sleep(0.05)
        return address("192.0.2.1")(question, stream)

    here.outside(ONE, slow)
    here.outside(TWO, address("192.0.2.2"))
    a, _ = two(here)
    a.serve(ONE, TWO)
    assert a.addresses("www.example.org") == ["192.0.2.1"]


def test_no_such_name_of_a_second_server_does_not_win(here):
    def slow(question, stream):
        time.sleep(0.05)
        return address("192.0.2.1")(question, stream)

    here.outside(ONE, slow)
    here.outside(TWO, code(dns.rcode.NXDOMAIN))
    a, _ = two(here)
    a.serve(ONE, TWO)
    assert a.addresses("www.example.org") == ["192.0.2.1"]


@pytest.mark.parametrize("rcode", [dns.rcode.SERVFAIL, dns.rcode.REFUSED])
def test_a_server_that_fails_is_passed_over(here, rcode):
    here.outside(ONE, code(rcode))
    here.outside(TWO, address("192.0.2.2"))
    a, _ = two(here)
    a.serve(ONE, TWO)
    assert a.addresses("www.example.org") == ["192.0.2.2"]
    a.serve(ONE)
    assert a.ask("other.example.org").rcode() == dns.rcode.SERVFAIL


def test_a_silent_server_costs_a_moment_and_soon_nothing(here):
    here.outside(ONE, silent)
    here.outside(TWO, address("192.0.2.2"))
    a, _ = two(here)
    a.serve(ONE, TWO)
    took = []
    for number in range(4):
        start = time.monotonic()
        assert a.addresses(f"www{number}.example.org") == ["192.0.2.2"]
        took.append(time.monotonic() - start)
    assert max(took) < 2
    assert max(took[2:]) < 0.1, took


def test_who_waits_for_what_another_asked_first_is_told_when_the_other_is_gone(here):
    told = threading.Event()

    def slow(question, stream):
        told.wait(10)
        return address("192.0.2.1")(question, stream)

    server = here.outside(ONE, slow)
    asking = []
    for container in two(here):
        container.serve(ONE)
        with namespace.entered(container.space.fd):
            asking.append(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        asking[-1].connect(("127.0.0.11", 53))
        asking[-1].settimeout(10)
    first, second = asking
    with first, second:
        first.send(dns.message.make_query("www.example.org", "A").to_wire())
        until(lambda: server.asked, "the server was asked")
        second.send(dns.message.make_query("www.example.org", "A").to_wire())
        second.send(dns.message.make_query("web", "A").to_wire())
        assert dns.message.from_wire(second.recv(4096)).answer[0].name.to_text() == "web.", "both were read"
        here.service.stop("a")
        told.set()
        assert dns.message.from_wire(second.recv(4096)).answer[0][0].to_text() == "192.0.2.1"


def test_a_server_that_is_not_there_is_passed_over_at_once(here):
    here.outside(TWO, address("192.0.2.2"))
    a, _ = two(here)
    a.serve(ONE, TWO)
    start = time.monotonic()
    assert a.addresses("www.example.org") == ["192.0.2.2"]
    assert time.monotonic() - start < 1


def test_nobody_outside_is_a_failure(here):
    a, _ = two(here)
    a.serve()
    assert a.ask("www.example.org").rcode() == dns.rcode.SERVFAIL


def test_no_such_name_is_told(here):
    here.outside(ONE, code(dns.rcode.NXDOMAIN))
    a, _ = two(here)
    a.serve(ONE)
    assert a.ask("www.example.org").rcode() == dns.rcode.NXDOMAIN


def big(question, stream):
    answer = dns.message.make_response(question)
    if not stream:
        answer.flags |= dns.flags.TC
        return answer
    texts = [f"10.{n >> 8}.{n & 255}.1" for n in range(2000)]
    answer.answer.append(dns.rrset.from_text_list(question.question[0].name, 60, "IN", "A", texts))
    return answer


def test_a_cut_answer_is_asked_again_by_tcp_and_given_whole_where_it_fits(here):
    here.outside(ONE, big)
    a, _ = two(here)
    a.serve(ONE)
    assert a.ask("big.example.org").flags & dns.flags.TC
    assert len(a.addresses("big.example.org", tcp=True)) == 2000


def test_an_old_server_is_asked_without_edns(here):
    def old(question, stream):
        if question.edns >= 0:
            return code(dns.rcode.FORMERR)(question, stream)
        return address("192.0.2.3")(question, stream)

    server = here.outside(ONE, old)
    a, _ = two(here)
    a.serve(ONE)
    assert a.addresses("one.example.org") == ["192.0.2.3"]
    assert a.addresses("two.example.org") == ["192.0.2.3"]
    assert len(server.asked) == 3


def forged(question, stream):
    """Send answers that are damaged, of another number or question, then the right one."""
    right = address("192.0.2.5")(question, stream)
    number = address("6.6.6.6")(question, stream)
    number.id ^= 1
    other = address("6.6.6.6")(dns.message.make_query("evil.example.org", "A", id=question.id), stream)
    loop = bytearray(right.to_wire())
    at = bytes(loop).index(b"\xc0\x0c")
    loop[at : at + 2] = struct.pack("!H", 0xC000 | at)
    return [b"", b"x", right.to_wire()[:20], number, other, bytes(loop), right]


def test_forged_and_damaged_answers_are_passed_over(here):
    here.outside(ONE, forged)
    a, _ = two(here)
    a.serve(ONE)
    assert a.addresses("www.example.org") == ["192.0.2.5"]


def test_a_loop_of_names_is_only_passed_on(here):
    def loop(question, stream):
        answer = dns.message.make_response(question)
        answer.answer.append(dns.rrset.from_text("www.example.org.", 5, "IN", "CNAME", "other.example.org."))
        answer.answer.append(dns.rrset.from_text("other.example.org.", 5, "IN", "CNAME", "www.example.org."))
        return answer

    server = here.outside(ONE, loop)
    a, _ = two(here)
    a.serve(ONE)
    assert len(a.ask("www.example.org").answer) == 2
    assert len(server.asked) == 1


def test_a_flood_of_names_is_bounded_and_own_names_are_answered_meanwhile(here):
    here.outside(ONE, silent)
    a, b = two(here)
    a.serve(ONE)
    b.serve(ONE)
    with namespace.entered(a.space.fd):
        flood = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with flood:
        flood.connect(("127.0.0.11", 53))
        flood.settimeout(5)
        for number in range(600):
            flood.send(dns.message.make_query(f"x{number}.example.org", "A").to_wire())
            if number % 50 == 0:
                assert b.addresses("web") == ["10.0.0.2", "10.0.0.3"]
        refused = dns.message.from_wire(flood.recv(4096))
        assert refused.rcode() == dns.rcode.REFUSED
    files = len(os.listdir(f"/proc/{here.service.pid}/fd"))
    assert files < 400
    status = Path(f"/proc/{here.service.pid}/status").read_text()
    assert int(status.split("VmRSS:")[1].split()[0]) < 40_000


def test_rubbish_is_survived(here):
    a, _ = two(here)
    a.serve()
    with namespace.entered(a.space.fd):
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        stream = socket.create_connection(("127.0.0.11", 53), 5)
        slow = socket.create_connection(("127.0.0.11", 53), 5)
    with sock, stream, slow:
        for size in (0, 1, 11, 12, 13, 100, 5000):
            sock.sendto(os.urandom(size), ("127.0.0.11", 53))
        stream.sendall(b"\xff\xff" + os.urandom(100))
        assert stream.recv(10) == b""
        question = dns.message.make_query("beta", "A").to_wire()
        message = struct.pack("!H", len(question)) + question
        for byte in message + message:
            slow.sendall(bytes((byte,)))
        for _ in range(2):
            size = int.from_bytes(slow.recv(2, socket.MSG_WAITALL), "big")
            assert dns.message.from_wire(slow.recv(size, socket.MSG_WAITALL)).answer
    assert a.addresses("beta") == ["10.0.0.3"]


def test_conversations_are_bounded(here):
    a, _ = two(here)
    a.serve()
    with namespace.entered(a.space.fd):
        kept = [socket.create_connection(("127.0.0.11", 53), 5) for _ in range(80)]
    try:
        until(lambda: sum(bool(select.select([s], [], [], 0)[0]) for s in kept) == 16, timeout_s=5)
        kept[0].close()
    finally:
        for sock in kept:
            sock.close()
    assert a.addresses("beta", tcp=True) == ["10.0.0.3"]


def test_an_internal_network_asks_only_servers_of_its_own(here):
    server = here.outside(ONE, address("192.0.2.7"))
    a, _ = two(here)
    a.serve(ONE, forward=False)
    assert a.ask("www.example.org").rcode() == dns.rcode.SERVFAIL
    assert not server.asked
    with namespace.entered(a.space.fd):
        inside = here.outside(TWO, address("192.0.2.8"))
    a.serve(TWO, inside=True, forward=False)  # --dns of a container's own loopback
    assert a.addresses("www.example.org") == ["192.0.2.8"]
    assert inside.asked


def test_names_without_a_dot_are_not_asked_outside_where_ndots_is_set(here):
    server = here.outside(ONE, address("192.0.2.7"))
    a, _ = two(here)
    a.serve(ONE, options=("ndots:2",))
    message = a.ask("short")
    assert message.rcode() == dns.rcode.NOERROR and not message.answer
    assert a.addresses("short.example") == ["192.0.2.7"]
    assert server.asked == ["short.example."]


def test_a_killed_server_comes_back_with_all_it_knew(here):
    a, b = two(here)
    a.serve()
    b.serve()
    assert a.addresses("beta") == ["10.0.0.3"]
    first = here.service.pid
    os.kill(first, 9)
    until(lambda: here.service.pid not in (0, first), timeout_s=5)
    assert a.addresses("beta") == ["10.0.0.3"]
    assert b.addresses("alpha", tcp=True) == ["10.0.0.2"]


def test_names_are_answered_while_no_daemon_is_there_and_the_next_one_takes_over(here, tmp_path):
    a, b = two(here)
    a.serve()
    b.serve()
    assert a.addresses("beta") == ["10.0.0.3"]
    pid = here.service.pid
    here.service.close()
    assert a.addresses("beta") == ["10.0.0.3"]
    second = NameService(str(tmp_path))
    try:
        a.service = b.service = here.service = second
        a.join("n1", "alpha", ip="10.0.0.2")
        second.serve(ServedNamespace("a", a.path, ()))
        second.settle()
        until(lambda: a.ask("beta").rcode() == dns.rcode.SERVFAIL, timeout_s=5)
        assert a.addresses("alpha") == ["10.0.0.2"]
        assert second.pid == 0, "no second process was started"
        os.kill(pid, 9)
        until(lambda: second.pid, timeout_s=5)
        assert a.addresses("alpha") == ["10.0.0.2"]
    finally:
        second.stop("a")
        second.close()


def test_the_process_ends_with_the_service_and_where_its_place_is_gone(here, tmp_path):
    a, _ = two(here)
    a.serve()
    assert a.addresses("alpha") == ["10.0.0.2"]
    ended = os.pidfd_open(here.service.pid)
    try:
        here.service.close()
        (tmp_path / "dns.sock").unlink()
        ready, _, _ = select.select([ended], [], [], 10)
        assert ready, "it goes on for nobody"
    finally:
        os.close(ended)


def test_many_ask_at_once(here):
    here.outside(ONE, address("192.0.2.7"))
    a, b = two(here)
    a.serve(ONE)
    b.serve(ONE)
    failed = []

    def work(container, number):
        try:
            for step in range(40):
                assert container.addresses("web") == ["10.0.0.2", "10.0.0.3"]
                assert container.addresses(f"w{step}.example.org", tcp=bool(number & 1)) == ["192.0.2.7"]
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=((a, b)[n & 1], n >> 1)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
