import asyncio
import json

import pytest


async def _json(response):
    return response.status, json.loads(await response.text())


async def test_a_ping_says_ok_with_the_headers_that_clients_negotiate_by(api):
    async with api.session.get("/_ping") as response:
        assert await response.text() == "OK"
        assert response.headers["Api-Version"] == "1.51"
        assert response.headers["Ostype"] == "linux"
        assert response.headers["Docker-Experimental"] == "false"
        assert response.headers["Server"].startswith("Barque/")
        assert "Builder-Version" in response.headers
    async with api.session.head("/v1.30/_ping") as response:
        assert response.status == 200
        assert "Builder-Version" in response.headers


@pytest.mark.parametrize(
    ("path", "status", "message"),
    [
        ("/nothing", 404, "page not found"),
        ("/v1.99/info", 400, "client version 1.99 is too new. Maximum supported API version is 1.51"),
        ("/v1.12/info", 400, ("client version 1.12 is too old. Minimum supported API version is 1.24, "
         "please upgrade your client to a newer version")),
        ("/v1.41/containers/none/json", 404, "No such container: none"),
        ("/containers/json?filters={", 400, "invalid filter"),
        ('/containers/json?filters={"a":"b"}', 400, "invalid filter"),
        ("/containers/json?limit=x", 400, 'strconv.ParseInt: parsing "x": invalid syntax'),
        ("/containers/a/logs", 400, "Bad parameters: you must choose at least one stream"),
        ("/containers/a/stats?one-shot=1", 400, "cannot have stream=true and one-shot=true"),
        ("/services", 503, None),
        ("/events?since=x", 400, None),
        ("/containers/a/archive", 400, "path cannot be empty"),
    ],
)  # fmt: skip
async def test_an_error_has_dockers_status_and_text(api, path, status, message):
    async with api.session.get(path) as response:
        found = await _json(response)
    assert found[0] == status
    assert message is None or found[1]["message"] == message


@pytest.mark.parametrize("filters", ['{"label":["a","b"]}', '{"label":{"a":true,"b":true}}'])
async def test_filters_come_in_two_shapes(api, filters):
    async with api.session.get(
        "/containers/json", params={"filters": filters, "all": "1", "size": "false"}
    ) as response:
        assert response.status == 200
    assert api.containers.calls == [
        ("list", {"all": True, "limit": 0, "size": False, "filters": {"label": ["a", "b"]}})
    ]


@pytest.mark.parametrize(
    ("body", "kind", "message"),
    [
        (b"", None, "config cannot be empty in order to create a container"),
        (b"{", "application/json", "invalid JSON"),
        (b"[]", "application/json", "cannot unmarshal array"),
        (b"{} {}", "application/json", "unexpected content after JSON"),
        (b"{}", "text/plain", "unsupported Content-Type header (text/plain): must be 'application/json'"),
        (b'{"Image":1}', "application/json", ("cannot unmarshal number 1 into Go struct field "
         "ContainerConfigWrapper.Image of type string")),
        (b'{"HostConfig":{"Memory":"1"}}', "application/json", "ContainerConfigWrapper.HostConfig.Memory of type int64"),
        (b'{"HostConfig":{"PortBindings":{"1/tcp":[{"HostPort":1}]}}}', "application/json", "HostPort of type string"),
    ],
)  # fmt: skip
async def test_a_bad_body_is_refused(api, body, kind, message):
    headers = {"Content-Type": kind} if kind else {}
    async with api.session.post(
        "/containers/create", data=body, headers=headers, skip_auto_headers=["Content-Type"]
    ) as r:
        status, value = await _json(r)
    assert status == 400
    assert message in value["message"]
    assert not api.containers.calls


async def test_a_body_without_end_is_refused(api):
    async def endless():
        while True:
            yield b" " * 65536

    async with api.session.post(
        "/containers/create", data=endless(), headers={"Content-Type": "application/json"}
    ) as response:
        assert response.status == 413


async def test_unknown_fields_pass_and_a_command_may_be_one_string(api):
    body = {"image": "i", "Cmd": "ls", "New": {"a": 1}}
    async with api.session.post("/containers/create?name=n", json=body) as response:
        assert await _json(response) == (201, {"Id": "a" * 64, "Warnings": []})
    assert api.containers.calls == [("create", {"Image": "i", "Cmd": ["ls"], "New": {"a": 1}}, "n", "")]


async def test_a_conflict_is_a_409(api):
    async with api.session.post("/containers/create?name=taken", json={"Image": "i"}) as response:
        assert response.status == 409


async def test_a_stop_before_1_42_knows_no_signal(api):
    async with api.session.post("/v1.41/containers/c/stop?signal=KILL&t=3") as response:
        assert response.status == 204
    async with api.session.post("/containers/c/stop?signal=KILL") as response:
        assert response.status == 204
    assert [call[2] for call in api.containers.calls] == [
        {"signal": "", "timeout_s": 3}, {"signal": "KILL", "timeout_s": None},
    ]  # fmt: skip


async def test_images_are_shaped_for_older_clients(api):
    async with api.session.get("/v1.42/images/json") as response:
        (row,) = await response.json()
    assert (row["RepoTags"], row["VirtualSize"], row["Containers"]) == (["<none>:<none>"], 5, -1)
    async with api.session.get("/images/json") as response:
        (row,) = await response.json()
    assert (row["RepoTags"], row["Containers"], "VirtualSize" in row) == ([], 2, False)


async def test_events_are_a_line_each(api):
    async with api.session.get("/events") as response:
        assert (await response.text()).splitlines() == ['{"Action":"a"}', '{"Action":"b"}']


async def test_an_error_behind_the_first_message_is_a_message(api):
    async with api.session.post("/images/load", data=b"x") as response:
        lines = [json.loads(line) for line in (await response.text()).splitlines()]
    assert lines == [{"stream": "one"}, {"errorDetail": {"message": "torn"}, "error": "torn"}]


async def test_an_error_before_the_first_message_of_a_pull_is_a_proper_answer(api):
    async with api.session.post("/images/create?fromImage=x&tag=latest") as response:
        status, value = await _json(response)
    assert status == 404
    assert value["message"] == "pull access denied for x"


async def test_wait_sends_its_head_before_the_container_ends(api):
    async with api.session.post("/containers/c/wait?condition=removed") as response:
        assert response.status == 200
        api.containers.wait_result.set_result({"StatusCode": 7})
        assert json.loads(await response.text()) == {"StatusCode": 7}
    async with api.session.post("/containers/c/wait?condition=x") as response:
        assert response.status == 400


async def test_a_follower_ends_when_its_client_goes(api):
    response = await api.session.get("/containers/c/logs?stdout=1&follow=1")
    assert response.headers["Content-Type"] == "application/vnd.docker.multiplexed-stream"
    assert await response.content.readany() == b"\x01\0\0\0\0\0\0\x03hi\n"
    response.close()
    async with asyncio.timeout(5):
        while not api.containers.closed_followers:
            await asyncio.sleep(0.01)


async def test_an_archive_goes_both_ways(api):
    async with api.session.get("/containers/c/archive?path=/f") as response:
        assert await response.read() == b"abc"
        assert response.headers["X-Docker-Container-Path-Stat"]
    async with api.session.head("/containers/c/archive?path=/f") as response:
        assert response.headers["X-Docker-Container-Path-Stat"]
    async with api.session.put(
        "/containers/c/archive?path=/f&noOverwriteDirNonDir=true", data=b"tar" * 99999
    ) as response:
        assert response.status == 200
    assert api.containers.calls[-1] == (
        "put", "/f", b"tar" * 99999, {"no_overwrite_dir_non_dir": True, "copy_uid_gid": False},
    )  # fmt: skip


@pytest.mark.parametrize("query", ["checkpoint=c1", "checkpoint-dir=/d"])
async def test_a_start_from_a_checkpoint_is_refused(api, query):
    async with api.session.post(f"/containers/a/start?{query}") as response:
        status, value = await _json(response)
    assert (status, value["message"]) == (501, "checkpoints are not supported")
    assert api.containers.calls == []


async def test_limits_of_a_classic_build_have_types(api):
    ulimits = json.dumps([{"Name": "nofile", "Soft": "many", "Hard": 1}])
    async with api.session.post("/build", params={"ulimits": ulimits}) as response:
        status, value = await _json(response)
    assert status == 400
    assert "Soft of type int64" in value["message"]


async def test_a_request_goes_on_without_its_client_and_the_server_does_not_rest_meanwhile(api):
    assert api.server.rests
    api.containers.may_stop.clear()
    _, writer = await asyncio.open_unix_connection(api.path)
    writer.write(b"POST /containers/c/stop HTTP/1.1\r\nHost: x\r\n\r\n")
    async with asyncio.timeout(20):
        while not api.containers.calls:
            await asyncio.sleep(0.005)
        writer.close()
        while api.server.connections:
            await asyncio.sleep(0.005)
        assert not api.server.rests
        api.containers.may_stop.set()
        while not api.server.rests:
            await asyncio.sleep(0.005)
    assert api.server.accepted == 1
