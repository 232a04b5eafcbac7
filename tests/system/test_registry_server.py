"""The registry server as a process: the protocol by plain requests."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading

import pytest

from barque.oci import media
from registry_process import Client, certificate, digest, push_blob, push_image, registry

OCTETS = {"Content-Type": "application/octet-stream"}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with registry(tmp_path_factory.mktemp("registry"), "--max-blob-size", "64m") as running:
        yield running


@pytest.fixture
def call(server):
    client = Client(server)
    yield client
    client.connection.close()


def code(body):
    return json.loads(body)["errors"][0]["code"]


def test_an_image_comes_back_byte_for_byte(call):
    raw, _ = push_image(call, "round/trip", "v1")
    for reference in ("v1", digest(raw)):
        status, headers, body = call("GET", f"/v2/round/trip/manifests/{reference}")
        assert (status, body, headers["Content-Type"]) == (200, raw, media.OCI_MANIFEST)
        status, headers, body = call("HEAD", f"/v2/round/trip/manifests/{reference}")
        assert (status, body, headers["Content-Length"]) == (200, b"", str(len(raw)))
    status, headers, body = call("GET", f"/v2/round/trip/blobs/{digest(b'layer')}", Range="bytes=1-3")
    assert (status, body, headers["Content-Range"]) == (206, b"aye", "bytes 1-3/5")
    status, headers, _ = call("GET", f"/v2/round/trip/blobs/{digest(b'layer')}", Range="bytes=9-")
    assert (status, headers["Content-Range"]) == (416, "bytes */5")
    status, _, body = call("GET", "/v2/round/trip/manifests/v1", If_None_Match=f'"{digest(raw)}"')
    assert (status, body) == (304, b"")


def test_chunks_arrive_in_order_and_go_on_after_an_interruption(server, call):
    data = os.urandom(300_000)
    status, headers, _ = call("POST", "/v2/chunks/blobs/uploads/", Content_Length="0")
    assert status == 202
    where = headers["Location"]
    assert headers["Docker-Upload-UUID"] in where
    status, headers, _ = call("PATCH", where, data[:100_000], Content_Range="0-99999", **OCTETS)
    assert (status, headers["Range"]) == (202, "0-99999")
    status, headers, _ = call("PATCH", where, data[5:10], Content_Range="5-9", **OCTETS)
    assert (status, headers["Range"], headers["Location"]) == (416, "0-99999", where)
    # A connection that breaks in the middle of a chunk: what has arrived stays.
    host, _, port = server.address.rpartition(":")
    with socket.create_connection((host, int(port))) as broken:
        head = f"PATCH {where} HTTP/1.1\r\nHost: x\r\nContent-Length: 200000\r\nContent-Range: 100000-299999\r\n\r\n"
        broken.sendall(head.encode() + data[100_000:150_000])
    for _ in range(200):
        status, headers, _ = call("GET", where)
        assert status == 204
        if headers["Range"] == "0-149999":
            break
    assert headers["Range"] == "0-149999"
    for _ in range(200):
        status, _, body = call("PATCH", where, data[150_000:], Content_Range="150000-299999", **OCTETS)
        if status != 409:
            break
    assert status == 202, body
    status, headers, _ = call("PUT", f"{where}?digest={digest(data)}", b"")
    assert (status, headers["Docker-Content-Digest"]) == (201, digest(data))
    status, _, body = call("GET", headers["Location"])
    assert (status, body) == (200, data)


def test_uploads_are_cancelled(call):
    _, headers, _ = call("POST", "/v2/cancel/blobs/uploads/")
    where = headers["Location"]
    assert call("DELETE", where)[0] == 204
    for method in ("GET", "DELETE", "PATCH"):
        status, _, body = call(method, where, b"x" if method == "PATCH" else None)
        assert (status, code(body)) == (404, "BLOB_UPLOAD_UNKNOWN")
    for hostile in ("../../../../etc/passwd", "%2e%2e%2fx", "x" * 500):
        assert call("GET", f"/v2/cancel/blobs/uploads/{hostile}")[0] in (400, 404)


def test_content_is_what_its_digest_says(call):
    status, _, body = call("POST", f"/v2/wrong/blobs/uploads/?digest={digest(b'a')}", b"b")
    assert (status, code(body)) == (400, "DIGEST_INVALID")
    assert call("HEAD", f"/v2/wrong/blobs/{digest(b'b')}")[0] == 404
    raw, _ = push_image(call, "wrong", "x")
    status, _, body = call("PUT", f"/v2/wrong/manifests/{digest(b'')}", raw, Content_Type=media.OCI_MANIFEST)
    assert (status, code(body)) == (400, "DIGEST_INVALID")


def test_manifests_refer_to_what_is_here(call):
    raw, _ = push_image(call, "here", "x")
    status, _, body = call("PUT", "/v2/elsewhere/manifests/x", raw, Content_Type=media.OCI_MANIFEST)
    assert (status, code(body)) == (404, "MANIFEST_BLOB_UNKNOWN")
    assert json.loads(body)["errors"][0]["detail"] == [{"digest": digest(b"{}")}, {"digest": digest(b"layer")}]
    assert call("GET", f"/v2/elsewhere/manifests/{digest(raw)}")[0] == 404
    status, _, body = call("PUT", "/v2/here/manifests/x", b"x" * ((4 << 20) + 1), Content_Type=media.OCI_MANIFEST)
    assert status == 413
    status, _, body = call("PUT", "/v2/here/manifests/-bad", raw, Content_Type=media.OCI_MANIFEST)
    assert (status, code(body)) == (400, "TAG_INVALID")


def test_blobs_are_mounted_across_repositories(call):
    push_blob(call, "mount/from", b"shared")
    status, headers, _ = call("POST", f"/v2/mount/to/blobs/uploads/?mount={digest(b'shared')}&from=mount/from")
    assert (status, headers["Location"]) == (201, f"/v2/mount/to/blobs/{digest(b'shared')}")
    assert call("GET", headers["Location"])[2] == b"shared"
    status, headers, _ = call("POST", f"/v2/mount/to/blobs/uploads/?mount={digest(b'absent')}&from=mount/from")
    assert status == 202
    assert call("DELETE", headers["Location"])[0] == 204
    assert call("POST", f"/v2/mount/third/blobs/uploads/?mount={digest(b'shared')}")[0] == 201


def test_tags_and_repositories_are_listed_in_pages(call):
    for tag in ("b", "a", "C", "10", "9"):
        push_image(call, "pages/one", tag)
    push_image(call, "pages-two", "x")
    status, headers, body = call("GET", "/v2/pages/one/tags/list?n=2")
    assert json.loads(body) == {"name": "pages/one", "tags": ["10", "9"]}
    seen = []
    path = "/v2/pages/one/tags/list?n=2"
    while path:
        _, headers, body = call("GET", path)
        seen += json.loads(body)["tags"]
        link = headers["Link"]
        path = link.partition("<")[2].partition(">")[0] if link else ""
    assert seen == ["10", "9", "C", "a", "b"]
    _, headers, body = call("GET", "/v2/pages/one/tags/list?n=0")
    assert (json.loads(body)["tags"], headers["Link"]) == ([], None)
    status, _, body = call("GET", "/v2/pages/one/tags/list?n=-1")
    assert (status, code(body)) == (400, "PAGINATION_NUMBER_INVALID")
    status, _, body = call("GET", "/v2/nowhere/tags/list")
    assert (status, code(body)) == (404, "NAME_UNKNOWN")
    _, _, body = call("GET", "/v2/_catalog?n=1000")
    found = json.loads(body)["repositories"]
    assert {"pages/one", "pages-two"} <= set(found)
    _, headers, body = call("GET", f"/v2/_catalog?n=1&last={found[0]}")
    assert json.loads(body)["repositories"] == [found[1]]


def test_referrers_are_listed_and_filtered(call):
    raw, _ = push_image(call, "about", "subject")
    subject = {"mediaType": media.OCI_MANIFEST, "digest": digest(raw), "size": len(raw)}
    made = []
    for kind in ("application/a", "application/b"):
        one, headers = push_image(call, "about", "sig", subject=subject, artifactType=kind, annotations={"k": kind})
        assert headers["OCI-Subject"] == digest(raw)
        made.append((digest(one), kind))
    status, headers, body = call("GET", f"/v2/about/referrers/{digest(raw)}")
    assert (status, headers["Content-Type"]) == (200, media.OCI_INDEX)
    assert sorted((d["digest"], d["artifactType"]) for d in json.loads(body)["manifests"]) == sorted(made)
    _, headers, body = call("GET", f"/v2/about/referrers/{digest(raw)}?artifactType=application/b")
    assert headers["OCI-Filters-Applied"] == "artifactType"
    assert [d["annotations"] for d in json.loads(body)["manifests"]] == [{"k": "application/b"}]
    assert call("DELETE", f"/v2/about/manifests/{made[1][0]}")[0] == 202
    _, _, body = call("GET", f"/v2/about/referrers/{digest(raw)}?artifactType=application/b")
    assert json.loads(body)["manifests"] == []
    assert call("GET", "/v2/about/referrers/nonsense")[0] == 400


def test_tags_manifests_and_blobs_are_deleted(call):
    raw, _ = push_image(call, "deleted", "one")
    push_image(call, "deleted", "two")
    assert call("DELETE", "/v2/deleted/manifests/one")[0] == 202
    assert call("GET", "/v2/deleted/manifests/one")[0] == 404
    assert call("GET", f"/v2/deleted/manifests/{digest(raw)}")[0] == 200
    assert call("DELETE", f"/v2/deleted/manifests/{digest(raw)}")[0] == 202
    assert json.loads(call("GET", "/v2/deleted/tags/list")[2])["tags"] == []
    assert call("DELETE", f"/v2/deleted/blobs/{digest(b'layer')}")[0] == 202
    status, _, body = call("DELETE", f"/v2/deleted/blobs/{digest(b'layer')}")
    assert (status, code(body)) == (404, "BLOB_UNKNOWN")


def test_other_methods_and_paths_are_refused(call):
    status, headers, body = call("PUT", "/v2/_catalog")
    assert (status, code(body), headers["Allow"]) == (405, "UNSUPPORTED", "GET")
    assert call("GET", "/v1/search")[0] == 404
    status, _, body = call("GET", "/v2/Upper/tags/list")
    assert (status, code(body)) == (400, "NAME_INVALID")
    for path in ("/v2/../../etc/passwd", "/v2/a/blobs/../../x", "/v2/%2e%2e/tags/list"):
        assert call("GET", path)[0] in (400, 404)


def test_a_blob_may_be_too_big(call):
    _status, headers, _ = call("POST", "/v2/big/blobs/uploads/")
    where = headers["Location"]
    call.connection.putrequest("PATCH", where)
    call.connection.putheader("Content-Length", str(1 << 40))
    call.connection.endheaders()
    response = call.connection.getresponse()
    assert (response.status, code(response.read())) == (413, "SIZE_INVALID")


def test_many_pushes_of_one_blob_at_once_leave_one(server):
    data = os.urandom(3 << 20)
    results = []
    ingest = server.root / "registry/content/ingest"
    before = sorted(ingest.iterdir())

    def push():
        results.append(Client(server)("POST", f"/v2/same/blobs/uploads/?digest={digest(data)}", data)[0])

    threads = [threading.Thread(target=push) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [201] * 6
    assert sorted(ingest.iterdir()) == before


def test_a_server_that_ends_lets_requests_finish_and_uploads_go_on(tmp_path):
    data = os.urandom(200_000)
    with registry(tmp_path) as running:
        call = Client(running)
        _, headers, _ = call("POST", "/v2/a/blobs/uploads/")
        where = headers["Location"]
        call("PATCH", where, data[:100_000], Content_Range="0-99999", **OCTETS)
        call.connection.putrequest("PATCH", where)
        call.connection.putheader("Content-Length", "100000")
        call.connection.endheaders()
        call.connection.send(data[100_000:150_000])
        running.process.send_signal(signal.SIGTERM)
        call.connection.send(data[150_000:])
        assert call.connection.getresponse().status == 202
        call.connection.close()
        assert running.process.wait(30) == 0
        running.start()
        call = Client(running)
        assert call("PUT", f"{where}?digest={digest(data)}", b"")[0] == 201
        running.stop(signal.SIGKILL)
        running.start()
        assert Client(running)("GET", f"/v2/a/blobs/{digest(data)}")[2] == data


def test_two_servers_share_a_folder(tmp_path):
    data = os.urandom(100_000)
    with registry(tmp_path) as one, registry(tmp_path) as two:
        first, second = Client(one), Client(two)
        _, headers, _ = first("POST", "/v2/a/blobs/uploads/")
        where = headers["Location"]
        assert first("PATCH", where, data[:50_000], **OCTETS)[0] == 202
        assert second("PATCH", where, data[50_000:], **OCTETS)[0] == 202
        assert first("PUT", f"{where}?digest={digest(data)}", b"")[0] == 201
        push_image(second, "a", "tag")
        assert json.loads(first("GET", "/v2/a/tags/list")[2])["tags"] == ["tag"]
        assert second("GET", f"/v2/a/blobs/{digest(data)}")[2] == data


def test_a_read_only_registry_refuses_changes(tmp_path):
    with registry(tmp_path) as running:
        raw, _ = push_image(Client(running), "a", "x")
    with registry(tmp_path, "--read-only") as running:
        call = Client(running)
        assert call("GET", "/v2/a/manifests/x")[2] == raw
        for method, path in (
            ("POST", "/v2/a/blobs/uploads/"),
            ("PUT", "/v2/a/manifests/y"),
            ("DELETE", "/v2/a/manifests/x"),
            ("DELETE", f"/v2/a/blobs/{digest(b'layer')}"),
        ):
            status, _, body = call(method, path, raw if method == "PUT" else None)
            assert (status, code(body)) == (405, "UNSUPPORTED")


def test_a_slow_client_is_cut_off(tmp_path):
    with registry(tmp_path, "--idle-timeout", "300ms") as running:
        call = Client(running)
        _, headers, _ = call("POST", "/v2/a/blobs/uploads/")
        host, _, port = running.address.rpartition(":")
        with socket.create_connection((host, int(port)), timeout=20) as slow:
            slow.sendall(f"PATCH {headers['Location']} HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nab".encode())
            assert slow.recv(100).startswith(b"HTTP/1.1 408")
        data = os.urandom(32 << 20)
        push_blob(call, "a", data)
        with socket.create_connection((host, int(port)), timeout=20) as slow:
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            slow.sendall(f"GET /v2/a/blobs/{digest(data)} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            for _ in range(300):
                if "too slow" in running.log():
                    break
                threading.Event().wait(0.05)
            assert "too slow" in running.log()


def test_a_body_that_waits_is_invited_only_when_it_is_wanted(server, call):
    data = os.urandom(100_000)
    host, _, port = server.address.rpartition(":")
    _, headers, _ = call("POST", "/v2/expect/blobs/uploads/")
    for where, answer in ((headers["Location"], b"100"), ("/v2/Wrong/blobs/uploads/x", b"400")):
        with socket.create_connection((host, int(port)), timeout=20) as waiting:
            head = f"PATCH {where} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(data)}\r\nExpect: 100-continue\r\n\r\n"
            waiting.sendall(head.encode())
            assert waiting.recv(12) == b"HTTP/1.1 " + answer
            if answer == b"100":
                waiting.sendall(data)
                received = b""
                while b"\r\n\r\n202" not in received and b" 202 " not in received:
                    received += waiting.recv(1000)
    assert call("PUT", f"{headers['Location']}?digest={digest(data)}", b"")[0] == 201


def test_counts_health_and_a_configuration_file(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"metrics-addr": f"127.0.0.1:{port}", "page-size": 1, "no-delete": True}))
    with registry(tmp_path, "--config", str(path)) as running:
        call = Client(running)
        for tag in ("a", "b"):
            push_image(call, "counted", tag)
        assert json.loads(call("GET", "/v2/counted/tags/list")[2])["tags"] == ["a"]
        assert call("DELETE", "/v2/counted/manifests/a")[0] == 405
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
        assert 'barque_registry_requests_total{method="PUT",status="201",target="manifest"} 2' in text
        assert 'barque_registry_request_duration_seconds_count{method="DELETE",target="manifest"} 1' in text
        connection.request("GET", "/healthz")
        assert connection.getresponse().read() == b"ok\n"
        connection.close()
    path.write_text(json.dumps({"page-sise": 1}))
    with pytest.raises(AssertionError, match="unknown key page-sise"), registry(tmp_path / "wrong", "--config", str(path)):
        pass


def test_old_tags_go_with_their_content_while_the_registry_serves(tmp_path):
    with registry(tmp_path) as running:
        call = Client(running)
        raws = {tag: push_image(call, "ci/app", tag, tag.encode())[0] for tag in ("pr-1", "pr-2", "latest")}
        other, _ = push_image(call, "team/app", "pr-1", b"pr-1")
        command = [sys.executable, "-m", "barque", "registry", "gc", "--root", str(tmp_path / "registry")]
        rules = ["--gc-grace", "0s", "--gc-untagged", "--retain", "ci/*:pr-*=1"]
        planned = subprocess.run([*command, *rules, "--dry-run"], capture_output=True, text=True, check=True).stdout
        assert json.loads(call("GET", "/v2/ci/app/tags/list")[2])["tags"] == ["latest", "pr-1", "pr-2"]
        assert subprocess.run([*command, *rules], capture_output=True, text=True, check=True).stdout == planned
        assert planned.splitlines()[:2] == ["tag ci/app:pr-1", f"manifest ci/app@{digest(raws['pr-1'])}"]
        assert json.loads(call("GET", "/v2/ci/app/tags/list")[2])["tags"] == ["latest", "pr-2"]
        assert call("GET", f"/v2/ci/app/manifests/{digest(raws['pr-1'])}")[0] == 404
        assert call("GET", f"/v2/ci/app/blobs/{digest(b'pr-1')}")[0] == 404
        assert call("GET", "/v2/ci/app/manifests/pr-2")[2] == raws["pr-2"]
        assert call("GET", "/v2/team/app/manifests/pr-1")[2] == other
        assert call("GET", f"/v2/team/app/blobs/{digest(b'pr-1')}")[2] == b"pr-1"
    for flags, why in ((["--retain", "ci/*=0"], "keeps nothing"), (["--retain", "1", "--proxy", "http://x"], "not for a cache")):
        with pytest.raises(AssertionError, match=why), registry(tmp_path / "wrong", *flags):
            pass


def test_client_certificates_are_demanded(tmp_path):
    import ssl

    cert, key = certificate(tmp_path / "tls")
    flags = ["--tls-cert", str(cert), "--tls-key", str(key), "--tls-client-ca", str(cert)]
    with registry(tmp_path, *flags) as running:
        host, _, port = running.address.rpartition(":")
        context = ssl.create_default_context(cafile=str(cert))
        with pytest.raises((ssl.SSLError, OSError)):
            connection = http.client.HTTPSConnection(host, int(port), context=context, timeout=10)
            connection.request("GET", "/v2/")
            connection.getresponse()
        context.load_cert_chain(cert, key)
        connection = http.client.HTTPSConnection(host, int(port), context=context, timeout=10)
        connection.request("GET", "/v2/")
        assert connection.getresponse().status == 200
        connection.close()
