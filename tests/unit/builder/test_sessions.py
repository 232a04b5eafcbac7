"""Files that go over gRPC, both ways, between a client on one end of a socket and the engine on the other."""

import asyncio
import hashlib
import os
import socket
import stat
from pathlib import Path
from typing import Any

import pytest
from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError
from grpclib.server import Server

from barque.base.errors import BarqueError, InvalidInputError, UnavailableError
from barque.builder.buildkit import receiving
from barque.builder.buildkit.bringing import DIFF_COPY, receive
from barque.builder.buildkit.bulk import Frames
from barque.builder.buildkit.pb import stat_pb2, wire_pb2
from barque.builder.buildkit.sending import go_mode
from barque.builder.buildkit.sessions import ClientSession, Sessions
from barque.builder.file_digests import FileDigests
from barque.builder.folder_tree import FolderTree

Packet = wire_pb2.Packet


class FakeClient:
    """A client that sends given packets, and content for what is asked for."""

    def __init__(self, stats: list[Any], contents: dict[int, bytes]) -> None:
        self.stats, self.contents = stats, contents
        self.asked: list[int] = []
        self.metadata: dict[str, str] = {}

    def __mapping__(self) -> dict[str, Handler]:
        return {f"/{DIFF_COPY}": Handler(self.diff_copy, Cardinality.STREAM_STREAM, Packet, Packet)}

    async def diff_copy(self, stream: Any) -> None:
        self.metadata = dict(stream.metadata)
        for one in self.stats:
            await stream.send_message(Packet(type=Packet.PACKET_STAT, stat=one))
        await stream.send_message(Packet(type=Packet.PACKET_STAT))
        while (packet := await stream.recv_message()) is not None:
            if packet.type == Packet.PACKET_FIN:
                await stream.send_message(Packet(type=Packet.PACKET_FIN))
                return
            self.asked.append(packet.ID)
            if self.contents[packet.ID]:
                await stream.send_message(Packet(type=Packet.PACKET_DATA, ID=packet.ID, data=self.contents[packet.ID]))
            await stream.send_message(Packet(type=Packet.PACKET_DATA, ID=packet.ID))


async def session_of(client: FakeClient) -> ClientSession:
    ours, theirs = socket.socketpair()
    loop = asyncio.get_running_loop()
    server = Server([client])
    await loop.connect_accepted_socket(server._protocol_factory, theirs)
    session = ClientSession("id", "name", "key", frozenset({f"/{DIFF_COPY}".lower()}))
    await loop.create_connection(lambda: session.client.protocol, sock=ours)
    return session


def entry(path: str, mode: int, **parts: Any) -> Any:
    return stat_pb2.Stat(path=path, mode=mode, modTime=1_700_000_000_123_456_789, **parts)


FOLDER, LINK = 1 << 31, 1 << 27


async def test_files_come_over_with_their_kinds_modes_and_times(tmp_path: Path) -> None:
    client = FakeClient(
        [entry("d", FOLDER | 0o750), entry("d/f", 0o640, size=5), entry("d/l", LINK | 0o777, linkname="f"), entry("e", 0o755)],
        {1: b"hello", 3: b""},
    )
    session = await session_of(client)
    received = await receive(session, str(tmp_path), {"dir-name": ["context"]})
    assert received.transferred > 5
    assert received.changed
    assert client.asked == [1, 3]
    assert client.metadata["dir-name"] == "context"
    found = (tmp_path / "d/f").stat()
    assert (tmp_path / "d/f").read_bytes() == b"hello"
    assert stat.S_IMODE(found.st_mode) == 0o640
    assert found.st_mtime_ns == 1_700_000_000_123_456_789
    assert os.readlink(tmp_path / "d/l") == "f"
    assert (tmp_path / "d").stat().st_mtime_ns == 1_700_000_000_123_456_789
    session.client.close()


@pytest.mark.parametrize("size", [1, 7, 16_384])
async def test_frames_come_in_pieces_of_any_size(size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Frames.data_received

    def in_pieces(frames: Frames, data: bytes) -> None:
        for start in range(0, len(data), size):
            whole(frames, data[start : start + size])

    monkeypatch.setattr(Frames, "data_received", in_pieces)
    contents = {number: os.urandom(number**5 % 70_001) for number in range(40)}
    listed = [entry(f"{number:02}", 0o644, size=len(contents[number])) for number in range(40)]
    session = await session_of(FakeClient(listed, contents))
    received = await receive(session, str(tmp_path), {})
    assert received.transferred > sum(map(len, contents.values()))
    assert [(tmp_path / f"{number:02}").read_bytes() for number in range(40)] == [*contents.values()]
    session.client.close()


async def test_a_client_that_refuses_is_quoted(tmp_path: Path) -> None:
    class Refusing(FakeClient):
        async def diff_copy(self, stream: Any) -> None:
            await stream.send_message(Packet(type=Packet.PACKET_STAT, stat=self.stats[0]))
            raise GRPCError(Status.PERMISSION_DENIED, "not this folder")

    session = await session_of(Refusing([entry("a", 0o644, size=1)], {}))
    with pytest.raises(BarqueError, match="not this folder"):
        await receive(session, str(tmp_path), {})
    session.client.close()


async def test_what_is_unchanged_is_not_asked_for_again_and_what_is_gone_goes(tmp_path: Path) -> None:
    listed = [entry("a", 0o644, size=1), entry("b", 0o644, size=1)]
    first = await session_of(FakeClient(listed, {0: b"1", 1: b"2"}))
    await receive(first, str(tmp_path), {})
    client = FakeClient([entry("b", 0o644, size=1), entry("c", 0o644, size=3)], {1: b"new"})
    second = await session_of(client)
    await receive(second, str(tmp_path), {})
    assert client.asked == [1]
    assert sorted(os.listdir(tmp_path)) == ["b", "c"]
    first.client.close()
    second.client.close()


async def test_what_came_over_is_not_read_for_its_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digests = FileDigests(bytes)
    listed = [entry("a", 0o644, size=5), entry("b", 0o644, size=0), entry("c", 0o644, size=1)]
    for name, contents in (("first", {0: b"hello", 1: b"", 2: b"c"}), ("again", {2: b"d"})):
        listed[2].modTime += 1
        client = FakeClient(listed, contents)
        session = await session_of(client)
        await receive(session, str(tmp_path), {}, digests)
        session.client.close()
        assert client.asked == [*contents], name
    assert len(digests.packed()) == 3 * 56
    monkeypatch.setattr(FolderTree, "read", None)
    fd = os.open(tmp_path, os.O_RDONLY)
    tree = FolderTree(fd, digests=digests)
    found = [tree.digest(name) for name in "abc"]
    os.close(fd)
    assert found == [hashlib.sha256(data).hexdigest() for data in (b"hello", b"", b"d")]


async def test_a_folder_is_changed_by_whatever_is_not_as_it_was(tmp_path: Path) -> None:
    usual = {"d": entry("d", FOLDER | 0o750), "d/f": entry("d/f", 0o640, size=1), "l": entry("l", LINK | 0o777, linkname="d")}
    contents = dict.fromkeys(range(9), b"x")

    async def changed(**others: Any) -> bool:
        entries = {**usual, **others}
        session = await session_of(FakeClient([entries[name] for name in sorted(entries) if entries[name] is not None], contents))
        received = await receive(session, str(tmp_path), {})
        session.client.close()
        return received.changed

    assert await changed()
    for others in (
        {"d": entry("d", FOLDER | 0o700)}, {"d": entry("d", FOLDER | 0o750, uid=1)}, {"d/f": entry("d/f", 0o600, size=1)},
        {"d/f": entry("d/f", 0o640, size=1, gid=1)}, {"d/f": None},
        {"l": entry("l", LINK | 0o777, linkname="e")}, {"l": None}, {"l": entry("l", FOLDER | 0o755)}, {"n": entry("n", 0o644, size=1)},
    ):  # fmt: skip
        assert not await changed()
        assert await changed(**others)
        assert await changed()
    later = entry("d", FOLDER | 0o750)
    later.modTime += 1
    assert not await changed(d=later)


@pytest.mark.parametrize("path", ["../x", "/etc/x", "a/../../x", "a//b", ".", "", "missing/x", "x\0y"])
async def test_paths_that_lead_away_are_refused(path: str, tmp_path: Path) -> None:
    session = await session_of(FakeClient([entry(path, 0o644)], {0: b"x"}))
    with pytest.raises(InvalidInputError):
        await receive(session, str(tmp_path), {})
    assert os.listdir(tmp_path) == []
    session.client.close()


async def test_nothing_is_written_through_a_link_that_the_client_sent(tmp_path: Path) -> None:
    outside, inside = tmp_path / "outside", tmp_path / "inside"
    outside.mkdir()
    inside.mkdir()
    client = FakeClient([entry("a", LINK | 0o777, linkname=str(outside)), entry("a/x", 0o644)], {1: b"evil"})
    session = await session_of(client)
    with pytest.raises((BarqueError, OSError)):
        await receive(session, str(inside), {})
    assert os.listdir(outside) == []
    session.client.close()


async def test_few_of_very_many_files_are_open_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receiving, "_MOST_OPEN", 2)
    count = 40
    most = 0

    class Counting(FakeClient):
        async def diff_copy(self, stream: Any) -> None:
            for one in self.stats:
                await stream.send_message(Packet(type=Packet.PACKET_STAT, stat=one))
            for _ in range(count):
                await stream.recv_message()
            nonlocal most
            most = len([fd for fd in os.listdir("/proc/self/fd") if _leads(fd, tmp_path)])
            for number in reversed(range(count)):
                await stream.send_message(Packet(type=Packet.PACKET_DATA, ID=number, data=b"%d" % number))
                await stream.send_message(Packet(type=Packet.PACKET_DATA, ID=number))
            await stream.send_message(Packet(type=Packet.PACKET_STAT))
            await stream.recv_message()

    client = Counting([entry(f"{number}", 0o644, size=2) for number in range(count)], {})
    session = await session_of(client)
    await receive(session, str(tmp_path), {})
    # The folder itself is open twice.
    assert 0 < most <= 4
    assert [(tmp_path / str(number)).read_bytes() for number in range(count)] == [b"%d" % number for number in range(count)]
    session.client.close()


def _leads(fd: str, folder: Path) -> bool:
    try:
        return os.readlink(f"/proc/self/fd/{fd}").startswith(str(folder))
    except FileNotFoundError:
        return False


async def test_files_of_which_not_all_came_are_removed(tmp_path: Path) -> None:
    class Leaving(FakeClient):
        async def diff_copy(self, stream: Any) -> None:
            for one in self.stats:
                await stream.send_message(Packet(type=Packet.PACKET_STAT, stat=one))
            await stream.send_message(Packet(type=Packet.PACKET_DATA, ID=0, data=b"whole"))
            await stream.send_message(Packet(type=Packet.PACKET_DATA, ID=0))
            await stream.send_message(Packet(type=Packet.PACKET_DATA, ID=1, data=b"half"))

    session = await session_of(Leaving([entry(name, 0o644, size=9) for name in "abc"], {}))
    with pytest.raises(UnavailableError, match="before all had come"):
        await receive(session, str(tmp_path), {})
    assert os.listdir(tmp_path) == ["a"]
    session.client.close()


async def test_a_device_is_refused(tmp_path: Path) -> None:
    session = await session_of(FakeClient([entry("dev", 1 << 26 | 0o600, devmajor=1, devminor=3)], {}))
    with pytest.raises(InvalidInputError, match="dev: devices and sockets"):
        await receive(session, str(tmp_path), {})
    session.client.close()


async def test_a_session_that_comes_late_is_waited_for() -> None:
    sessions = Sessions()
    waiting = asyncio.create_task(sessions.get("prefix:later"))
    await asyncio.sleep(0)
    session = ClientSession("later", "", "", frozenset())
    await sessions.add(session)
    assert await waiting is session
    with pytest.raises(InvalidInputError):
        await sessions.add(session)
    session.client.close()


def test_modes_go_out_as_they_came_in(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"")
    (tmp_path / "f").chmod(0o4755)
    fd = os.open(tmp_path, os.O_RDONLY)
    node = FolderTree(fd).lstat("f")
    os.close(fd)
    assert node is not None
    assert go_mode(node) == 0o755 | 1 << 23


async def test_a_listing_as_the_last_time_needs_no_look_at_any_file(tmp_path: Path) -> None:
    stats = [entry(name, 0o644, size=5) for name in "abc"]
    first = await receive(await session_of(FakeClient(stats, dict.fromkeys(range(3), b"hello"))), str(tmp_path), {})
    (tmp_path / "b").unlink()
    again = FakeClient(stats, {})
    same = await receive(await session_of(again), str(tmp_path), {}, earlier=first.listing)
    assert (again.asked, same.changed, same.listing) == ([], False, first.listing)
    assert not (tmp_path / "b").exists()
    looked = FakeClient(stats, {1: b"hello"})
    await receive(await session_of(looked), str(tmp_path), {})
    assert looked.asked == [1]


@pytest.mark.parametrize("change", ["first", "last", "fewer", "more"])
async def test_a_listing_that_differs_anywhere_is_looked_at_whole(change: str, tmp_path: Path) -> None:
    stats = [entry(f"{number:03}", 0o644, size=5) for number in range(100)]
    contents = dict.fromkeys(range(101), b"hello")
    first = await receive(await session_of(FakeClient(stats, contents)), str(tmp_path), {})
    (tmp_path / "050").unlink()
    place = {"first": 0, "last": 99}.get(change)
    if place is not None:
        stats[place] = entry(stats[place].path, 0o600, size=5)
    elif change == "fewer":
        del stats[99]
    else:
        stats.append(entry("100", 0o644, size=5))
    client = FakeClient(stats, contents)
    received = await receive(await session_of(client), str(tmp_path), {}, earlier=first.listing)
    assert received.changed
    assert sorted(client.asked) == sorted({50, *({place} if place is not None else ()), *({100} if change == "more" else ())})
    assert sorted(os.listdir(tmp_path)) == [one.path for one in stats]
