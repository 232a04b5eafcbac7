"""A registry that caches another: fetched once, served while the other is away, nothing wrong kept, no secret told."""

import base64
import http.client
import http.server
import json
import os
import threading
import time
from typing import ClassVar

import pytest

from barque.oci import media
from registry_process import PASSWORD, USER, Client, digest, htpasswd, push_image, registry

BASIC = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()


class Authorized(Client):
    def __call__(self, method, path, body=None, **headers):
        return super().__call__(method, path, body, Authorization=BASIC, **headers)


@pytest.fixture
def origin(tmp_path):
    users = htpasswd(tmp_path / "users")
    with registry(tmp_path / "origin", "--htpasswd", str(users)) as running:
        yield running


@pytest.fixture
def cache(origin, tmp_path):
    (tmp_path / "password").write_text(PASSWORD + "\n")
    flags = ["--proxy", origin.url, "--proxy-user", USER, "--proxy-password-file", str(tmp_path / "password")]
    with registry(tmp_path / "cache", *flags) as running:
        yield running


def test_images_are_fetched_once_and_served_while_the_origin_is_away(origin, cache):
    data = os.urandom(3 << 20)
    raw, _ = push_image(Authorized(origin), "team/app", "v1", data)
    call = Client(cache)
    status, headers, body = call("GET", "/v2/team/app/manifests/v1")
    assert (status, body, headers["Docker-Content-Digest"]) == (200, raw, digest(raw))
    status, headers, _ = call("HEAD", f"/v2/team/app/blobs/{digest(data)}")
    assert (status, headers["Content-Length"]) == (200, str(len(data)))
    results = []

    def fetch():
        results.append(Client(cache)("GET", f"/v2/team/app/blobs/{digest(data)}")[2])

    threads = [threading.Thread(target=fetch) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [data] * 5
    assert origin.log().count(f"GET /v2/team/app/blobs/{digest(data)} 200") == 1
    assert json.loads(call("GET", "/v2/team/app/tags/list?n=5")[2])["tags"] == ["v1"]
    # The tag moves.
    other, _ = push_image(Authorized(origin), "team/app", "v1", b"other")
    assert call("GET", "/v2/team/app/manifests/v1")[2] == other
    assert call("GET", "/v2/team/app/manifests/nothing")[0] == 404
    assert call("GET", f"/v2/team/app/blobs/{digest(b'nothing')}")[0] == 404
    origin.stop()
    assert call("GET", "/v2/team/app/manifests/v1")[2] == other
    assert call("GET", f"/v2/team/app/manifests/{digest(raw)}")[2] == raw
    assert call("GET", f"/v2/team/app/blobs/{digest(data)}", Range="bytes=5-9")[2] == data[5:10]
    assert json.loads(call("GET", "/v2/team/app/tags/list")[2])["tags"] == ["v1"]
    status, _, body = call("GET", "/v2/team/app/manifests/v9")
    assert (status, "not reachable" in json.loads(body)["errors"][0]["message"]) == (503, True)
    status, _, body = call("POST", "/v2/team/app/blobs/uploads/")
    assert (status, json.loads(body)["errors"][0]["code"]) == (405, "UNSUPPORTED")


class _Hostile(http.server.BaseHTTPRequestHandler):
    """An upstream that lies; and another host that wants to hear secrets."""

    protocol_version = "HTTP/1.1"
    heard: ClassVar[list[tuple[str, str]]] = []
    elsewhere = ""

    def do_GET(self):
        self.heard.append((self.headers["Host"], self.headers.get("Authorization", "")))
        rest = self.path.split("/v2/", 1)[-1]
        if self.path.startswith("/stolen"):
            self.answer(200, b"moved blob")
        elif not self.headers.get("Authorization"):
            self.answer(401, b"", **{"WWW-Authenticate": 'Basic realm="x"'})
        elif rest.startswith("html/"):
            self.answer(200, b"<html>hello</html>", **{"Content-Type": "text/html"})
        elif rest.startswith("wrong/manifests"):
            self.answer(200, b'{"schemaVersion":2,"manifests":[]}', **{"Content-Type": media.OCI_INDEX})
        elif rest.startswith("moved/"):
            self.answer(307, b"", Location=f"http://{self.elsewhere}/stolen")
        else:
            self.answer(200, b"x" * 100_000)

    def answer(self, status, body, **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_HEAD(self):
        self.do_GET()

    def log_message(self, *arguments):
        pass


@pytest.fixture
def hostile():
    servers = [http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Hostile) for _ in range(2)]
    for server in servers:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    _Hostile.heard.clear()
    _Hostile.elsewhere = f"localhost:{servers[1].server_port}"
    yield f"http://127.0.0.1:{servers[0].server_port}"
    for server in servers:
        server.shutdown()
        server.server_close()


def test_an_upstream_that_lies_is_not_believed(hostile, tmp_path):
    (tmp_path / "password").write_text(PASSWORD)
    flags = ["--proxy", hostile, "--proxy-user", USER, "--proxy-password-file", str(tmp_path / "password")]
    with registry(tmp_path / "cache", *flags) as cache:
        call = Client(cache)
        assert call("GET", "/v2/html/manifests/x")[0] == 503
        assert call("GET", f"/v2/wrong/manifests/{digest(b'something else')}")[0] == 503
        wanted = digest(b"y" * 100_000)
        with pytest.raises(http.client.IncompleteRead):
            call("GET", f"/v2/blobs/blobs/{wanted}")
        content = tmp_path / "cache/registry/content"
        assert [p for p in content.rglob("*") if p.is_file()] == []
        call = Client(cache)
        assert call("GET", f"/v2/moved/blobs/{digest(b'moved blob')}")[2] == b"moved blob"
    assert [auth for host, auth in _Hostile.heard if host == _Hostile.elsewhere] == [""]
    assert (hostile[7:], BASIC) in _Hostile.heard


def test_tokens_are_fetched_where_the_registry_says(tmp_path):
    jwt = pytest.importorskip("jwt")
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    (tmp_path / "key.pem").write_bytes(key.public_key().public_bytes(serialization.Encoding.PEM, form))
    asked = []

    class Tokens(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            from urllib.parse import parse_qs, urlsplit

            query = parse_qs(urlsplit(self.path).query)
            asked.append((self.headers.get("Authorization"), query))
            access = []
            for scope in query.get("scope", []):
                kind, name, actions = scope.split(":")
                access.append({"type": kind, "name": name, "actions": actions.split(",")})
            claims = {"iss": "me", "aud": query["service"][0], "sub": "jane", "exp": time.time() + 60, "access": access}
            body = json.dumps({"token": jwt.encode(claims, key, "ES256")}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Tokens)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    realm = f"http://127.0.0.1:{server.server_port}/token"
    flags = ["--token-realm", realm, "--token-service", "here", "--token-issuer", "me", "--token-key", str(tmp_path / "key.pem")]
    with registry(tmp_path / "origin", *flags) as origin:

        class Bearer(Client):
            repository = "a/b"

            def __call__(self, method, path, body=None, **headers):
                access = [{"type": "repository", "name": self.repository, "actions": ["pull", "push"]}]
                claims = {"iss": "me", "aud": "here", "exp": time.time() + 60, "access": access}
                token = jwt.encode(claims, key, "ES256")
                return super().__call__(method, path, body, Authorization=f"Bearer {token}", **headers)

        raw, _ = push_image(Bearer(origin), "a/b", "x")
        assert Client(origin)("GET", "/v2/a/b/manifests/x")[0] == 401
        assert Bearer(origin)("GET", "/v2/other/tags/list")[0] == 401

        class Stranger(Bearer):
            repository = "c/d"

        # To know a digest is not to be allowed to read: a mount that names no repository is an upload here.
        for origin_of_it, status in (("", 202), ("&from=a/b", 401)):
            path = f"/v2/c/d/blobs/uploads/?mount={digest(b'layer')}{origin_of_it}"
            assert Stranger(origin)("POST", path)[0] == status
        assert Stranger(origin)("GET", f"/v2/c/d/blobs/{digest(b'layer')}")[0] == 404
        (tmp_path / "password").write_text(PASSWORD)
        more = ["--proxy", origin.url, "--proxy-user", USER, "--proxy-password-file", str(tmp_path / "password")]
        with registry(tmp_path / "cache", *more) as cache:
            assert Client(cache)("GET", "/v2/a/b/manifests/x")[2] == raw
            assert Client(cache)("GET", f"/v2/a/b/blobs/{digest(b'layer')}")[2] == b"layer"
    server.shutdown()
    server.server_close()
    assert asked == [(BASIC, {"service": ["here"], "scope": ["repository:a/b:pull"]})]
