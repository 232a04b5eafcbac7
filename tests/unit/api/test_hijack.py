import asyncio

from barque.api.detach import Detector

UPGRADE = b"Connection: Upgrade\r\nUpgrade: tcp\r\n"


async def _open(api, request):
    reader, writer = await asyncio.open_unix_connection(api.path)
    writer.write(request)
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
    return reader, writer, head


def _post(path, headers=b"", body=b""):
    return b"POST " + path + b" HTTP/1.1\r\nHost: x\r\n" + headers + b"Content-Length: %d\r\n\r\n" % len(body) + body


async def _recv(api, size=65536):
    return await asyncio.wait_for(asyncio.get_running_loop().sock_recv(api.containers.engine_end, size), 5)


async def test_attach_carries_both_ways_and_ends_with_the_output(api):
    reader, writer, head = await _open(api, _post(b"/containers/c/attach?stream=1&stdin=1&stdout=1", UPGRADE))
    assert head.startswith(b"HTTP/1.1 101 UPGRADED\r\n")
    assert b"application/vnd.docker.raw-stream" in head
    writer.write(b"ls\n")
    assert await _recv(api) == b"ls\n"
    api.containers.engine_end.send(b"out")
    api.containers.engine_end.close()
    assert await asyncio.wait_for(reader.read(), 5) == b"out"
    writer.close()


async def test_input_that_comes_with_the_request_is_kept(api):
    _, writer, _ = await _open(api, _post(b"/containers/c/attach?stream=1", UPGRADE) + b"early ")
    writer.write(b"late")
    got = b""
    while got != b"early late":
        got += await _recv(api)
    writer.close()


async def test_exec_start_keeps_input_behind_its_body(api):
    headers = UPGRADE + b"Content-Type: application/json\r\n"
    reader, writer, head = await _open(api, _post(b"/exec/e/start", headers, b'{"Tty":true}') + b"typed")
    assert head.startswith(b"HTTP/1.1 101")
    assert await _recv(api) == b"typed"
    api.containers.engine_end.close()
    assert await asyncio.wait_for(reader.read(), 5) == b""
    writer.close()


async def test_a_client_that_ends_its_input_still_gets_output(api):
    reader, writer, _ = await _open(api, _post(b"/containers/c/attach?stream=1", UPGRADE))
    writer.write(b"x")
    writer.write_eof()
    assert await _recv(api) == b"x"
    assert await _recv(api) == b""
    api.containers.engine_end.send(b"answer")
    api.containers.engine_end.close()
    assert await asyncio.wait_for(reader.read(), 5) == b"answer"
    writer.close()


async def test_a_head_that_comes_in_pieces_upgrades_all_the_same(api):
    request = _post(b"/containers/c/attach?stream=1&stdin=1", UPGRADE) + b"early"
    reader, writer = await asyncio.open_unix_connection(api.path)
    for at in range(0, len(request), 7):
        writer.write(request[at : at + 7])
        await writer.drain()
        await asyncio.sleep(0.001)
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
    assert head.startswith(b"HTTP/1.1 101 UPGRADED")
    got = b""
    while got != b"early":
        got += await _recv(api)
    writer.close()


async def test_a_body_that_looks_like_an_upgrade_is_left_as_it_is(api):
    body = b"GET / HTTP/1.1\r\nUpgrade: tcp\r\n\r\nGET / HTTP/1.1\r\nUpgrade: tcp\r\n\r\n"
    reader, writer = await asyncio.open_unix_connection(api.path)
    head = b"PUT /containers/c/archive?path=/ HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
    writer.write(head)
    for at in range(0, len(body), 11):
        await asyncio.sleep(0.001)
        writer.write(body[at : at + 11])
    assert (await asyncio.wait_for(reader.readline(), 5)).startswith(b"HTTP/1.1 200")
    assert api.containers.calls[-1][2] == body
    writer.close()


async def test_what_is_no_http_is_answered_at_once(api):
    reader, writer = await asyncio.open_unix_connection(api.path)
    writer.write(bytes((22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3)))
    assert b"400" in await asyncio.wait_for(reader.readline(), 5)
    writer.close()


async def test_without_an_upgrade_the_answer_is_200_and_the_stream_raw(api):
    api.containers.tty = False
    reader, writer, head = await _open(api, _post(b"/v1.41/containers/c/attach?stream=1"))
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"raw-stream" in head
    api.containers.engine_end.close()
    await asyncio.wait_for(reader.read(), 5)
    writer.close()


async def test_without_a_terminal_new_clients_are_told_of_frames(api):
    api.containers.tty = False
    _, writer, head = await _open(api, _post(b"/containers/c/attach?stream=1", UPGRADE))
    assert b"multiplexed-stream" in head
    writer.close()


async def test_detach_keys_end_the_connection_across_pieces(api):
    reader, writer, _ = await _open(api, _post(b"/containers/c/attach?stream=1&stdin=1", UPGRADE))
    writer.write(b"a\x10")
    assert await _recv(api) == b"a"
    writer.write(b"\x11")
    assert await asyncio.wait_for(reader.read(), 5) == b""
    assert api.containers.detached
    assert await _recv(api) == b""
    writer.close()


async def test_without_a_terminal_no_key_detaches(api):
    api.containers.tty = False
    _, writer, _ = await _open(api, _post(b"/containers/c/attach?stream=1&stdin=1", UPGRADE))
    writer.write(b"a\x10\x11b")
    assert await _recv(api) == b"a\x10\x11b"
    assert not api.containers.detached
    writer.close()


async def test_a_refused_upgrade_is_a_json_error_and_the_connection_goes_on(api):
    _reader, writer, head = await _open(api, _post(b"/containers/c/attach?detachKeys=ctrl-,x", UPGRADE))
    assert head.startswith(b"HTTP/1.1 400")
    writer.close()


async def test_much_output_is_carried_whole_to_a_slow_client(api):
    reader, writer, _ = await _open(api, _post(b"/containers/c/attach?stream=1", UPGRADE))
    data = bytes(range(256)) * 20000

    async def produce():
        await asyncio.get_running_loop().sock_sendall(api.containers.engine_end, data)
        api.containers.engine_end.close()

    task = asyncio.ensure_future(produce())
    await asyncio.sleep(0.1)
    assert not task.done(), "nothing may pile up in the daemon"
    assert await asyncio.wait_for(reader.read(), 10) == data
    await task
    writer.close()


async def test_a_client_that_goes_detaches(api):
    _, writer, _ = await _open(api, _post(b"/containers/c/attach?stream=1", UPGRADE))
    writer.transport.abort()
    assert await _recv(api) == b""


async def test_a_websocket_attaches(api):
    async with api.session.ws_connect("/containers/c/attach/ws?stream=1&stdin=1&stdout=1") as websocket:
        await websocket.send_bytes(b"in")
        assert await _recv(api) == b"in"
        api.containers.engine_end.send(b"out")
        assert (await websocket.receive(5)).data == b"out"


def test_a_broken_sequence_of_detach_keys_is_passed_on():
    detector = Detector(b"ab")
    assert detector.feed(b"xa") == (b"x", False)
    assert detector.feed(b"ac") == (b"aac", False)
    assert detector.feed(b"ab") == (b"", True)
