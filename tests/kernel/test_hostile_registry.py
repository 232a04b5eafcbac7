"""A registry that breaks off, lies, floods, redirects or says nothing: what a pull makes of it."""

import gzip
import json
import os
import threading
import zlib

import pytest
import zstandard

from barque.base.errors import BarqueError, InvalidInputError, NotFoundError
from barque.distribution.credentials import Credentials
from barque.distribution.errors import CancelledError, RegistryError, TransportError
from barque.distribution.pull import Puller, Turns
from barque.distribution.settings import Settings
from barque.distribution.transport import Calls
from barque.images.store import ImageStore
from barque.oci import platform
from barque.oci.reference import parse
from barque.storage.content import ContentStore
from barque.storage.snapshots import DirectorySnapshotter
from fake_registry import FakeRegistry, digest_of, send, send_blob, serving, tar_of

pytestmark = pytest.mark.kernel
PLAIN = tar_of({"file": os.urandom(300_000)})
LAYER = gzip.compress(PLAIN, 1, mtime=0)


@pytest.fixture
def registry():
    with serving(FakeRegistry()) as made:
        yield made


class Pulled:
    """A store, and pulls into it with the messages they gave."""

    def __init__(self, root, registry):
        self.root, self.registry = root, registry
        self.messages = []
        self.settings = Settings(retry_delay_s=0.01, stall_timeout_s=2, connect_timeout_s=2)
        self.calls = Calls()
        self.open()

    def open(self):
        self.store = ImageStore(
            str(self.root), ContentStore(f"{self.root}/content"), DirectorySnapshotter(f"{self.root}/snapshots")
        )

    def pull(self, name="x:1", credentials=None, wanted=None, all_tags=False):
        puller = Puller(self.store, self.settings, Turns(), self.messages.append, self.calls)
        reference = parse(f"{self.registry.host}/{name}")
        puller.pull(reference, credentials or Credentials(), wanted=wanted, all_tags=all_tags)
        return self.store.resolve(str(reference))

    def refused(self, message, kind=BarqueError, **options):
        with pytest.raises(kind, match=message):
            self.pull(**options)
        self.empty()

    def empty(self):
        assert self.store.images() == []
        assert list(self.store.content.walk()) == []
        assert list(self.store.snapshots.walk()) == []

    def partials(self):
        return [size for _, size, _ in self.store.content.unfinished()]


@pytest.fixture
def pulled(tmp_path, registry):
    made = Pulled(tmp_path, registry)
    yield made
    made.store.close()


def test_a_plain_pull_is_whole(pulled, registry):
    digest = registry.add_image("1", LAYER)
    image = pulled.pull()
    assert image.diff_ids == [digest_of(PLAIN)]
    assert image.digests == (f"{registry.host}/x@{digest}",)
    assert pulled.partials() == []


def test_a_broken_connection_is_continued_where_it_broke(pulled, registry):
    registry.add_image("1", LAYER)
    starts = []

    def break_off(handler, data):
        wanted = handler.headers.get("Range", "bytes=0-")
        start = int(wanted[6:].rstrip("-"))
        starts.append(start)
        if len(starts) == 4:
            send_blob(handler, data)
            return
        handler.send_response(206 if start else 200)
        handler.send_header("Content-Length", str(len(data) - start))
        handler.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        handler.end_headers()
        handler.wfile.write(data[start : start + 60_000])
        handler.wfile.flush()
        handler.close_connection = True
        handler.connection.shutdown(2)

    registry.behaviours[f"/blobs/{digest_of(LAYER)}"] = break_off
    assert pulled.pull().diff_ids == [digest_of(PLAIN)]
    assert starts == [0, 60_000, 120_000, 180_000]


def test_a_registry_that_knows_no_ranges_is_read_again_from_the_start(pulled, registry):
    registry.add_image("1", LAYER)
    asked = []

    def whole(handler, data):
        asked.append(handler.headers.get("Range"))
        if len(asked) > 1:
            send(handler, 200, data)
            return
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data[:100_000])
        handler.wfile.flush()
        handler.close_connection = True
        handler.connection.shutdown(2)

    registry.behaviours[f"/blobs/{digest_of(LAYER)}"] = whole
    assert pulled.pull().diff_ids == [digest_of(PLAIN)]
    assert asked == [None, "bytes=100000-"]


def test_what_an_ended_pull_left_is_continued(pulled, registry):
    registry.add_image("1", LAYER)
    with pulled.store.content.partial(digest_of(LAYER)) as file:
        file.write(LAYER[:100_000])
    pulled.store.close()
    pulled.open()
    assert pulled.pull().diff_ids == [digest_of(PLAIN)]
    (headers,) = registry.asked("GET", digest_of(LAYER))
    assert headers["Range"] == "bytes=100000-"


@pytest.mark.parametrize("kept", [b"x" * 100_000, LAYER + b"more", b"x" * len(LAYER), gzip.compress(b"other" * 50_000)])
def test_a_damaged_beginning_is_fetched_again(pulled, registry, kept):
    registry.add_image("1", LAYER)
    with pulled.store.content.partial(digest_of(LAYER)) as file:
        file.write(kept)
    assert pulled.pull().diff_ids == [digest_of(PLAIN)]
    assert pulled.partials() == []


def test_a_pull_that_is_called_off_ends_at_once_and_keeps_its_beginning(pulled, registry):
    registry.add_image("1", LAYER)

    def hang(handler, data):
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data[:150_000])
        handler.wfile.flush()
        handler.rfile.read(1)

    class CallsOff(list):
        def append(self, message):
            if message["status"] == "Downloading":
                threading.Thread(target=pulled.calls.cancel).start()

    registry.behaviours[f"/blobs/{digest_of(LAYER)}"] = hang
    pulled.messages = CallsOff()
    pulled.refused("context canceled", CancelledError)
    assert 0 < pulled.partials()[0] <= 150_000


def test_a_stream_that_is_too_short_every_time_is_given_up(pulled, registry):
    registry.add_image("1", LAYER)
    tries = []

    def short(handler, data):
        tries.append(1)
        handler.send_response(503)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    registry.behaviours[f"/blobs/{digest_of(LAYER)}"] = short
    pulled.refused("received unexpected HTTP status: 503 Service Unavailable")
    assert len(tries) == pulled.settings.attempts
    assert any("Retrying in" in m.get("status", "") for m in pulled.messages)


def test_an_endless_stream_ends_at_the_size_that_was_told(pulled, registry):
    registry.add_image("1", LAYER)
    sent = []

    def flood(handler, data):
        handler.send_response(200)
        handler.end_headers()
        handler.close_connection = True
        try:
            handler.wfile.write(data)
            while True:
                handler.wfile.write(b"\0" * 65536)
                sent.append(1)
                assert len(sent) < 10_000
        except OSError:
            return

    registry.behaviours[f"/blobs/{digest_of(LAYER)}"] = flood
    pulled.refused("sends more than the", InvalidInputError)


def test_another_size_is_refused_before_a_byte_is_read(pulled, registry):
    registry.add_image("1", LAYER)
    registry.behaviours[f"/blobs/{digest_of(LAYER)}"] = lambda handler, data: send(handler, 200, data + b"x")
    pulled.refused("unexpected size of sha256:", InvalidInputError)


def test_another_digest_is_refused(pulled, registry):
    registry.add_image("1", LAYER)
    other = gzip.compress(tar_of({"file": os.urandom(300_000)}), 1, mtime=0)
    wrong = other[: len(LAYER)].ljust(len(LAYER), b"\0")
    registry.behaviours[f"/blobs/{digest_of(LAYER)}"] = lambda handler, data: send(handler, 200, wrong)
    pulled.refused("verification failed|invalid compressed data|unexpected EOF", InvalidInputError)
    assert pulled.partials() == []


def test_a_layer_that_is_not_what_the_configuration_says_is_refused(pulled, registry):
    registry.add_image("1", LAYER, plain=[PLAIN + b"\0"])
    pulled.refused("unexpected digest", InvalidInputError)


def test_a_configuration_of_another_digest_is_refused(pulled, registry):
    registry.add_image("1", LAYER)
    config = json.loads(registry.manifests["1"][1])["config"]
    registry.blobs[config["digest"]] = b"{}".ljust(config["size"])
    pulled.refused("image config verification failed")


def test_a_manifest_of_another_digest_is_refused(pulled, registry):
    digest = registry.add_image("1", LAYER)
    registry.manifests[digest] = ("x", b'{"schemaVersion": 2}')
    pulled.refused("manifest verification failed for digest", name=f"x@{digest}")


def bomb(size):
    packer = zlib.compressobj(9, wbits=31)
    return packer.compress(bytes(size)) + packer.flush()


def test_a_decompression_bomb_is_stopped_by_its_ratio(pulled, registry):
    pulled.settings.plain_ratio_max = 100
    registry.add_image("1", bomb(200 << 20), plain=[b""])
    pulled.refused("decompression bomb: a layer of", InvalidInputError)


def test_a_small_zstd_bomb_is_stopped_too(pulled, registry):
    data = zstandard.compress(bytes(100 << 20), 19)
    registry.add_image("1", data, plain=[b""])
    pulled.refused("decompression bomb: a layer of", InvalidInputError)


def test_a_layer_does_not_fill_the_disk(pulled, registry):
    pulled.settings.plain_free_min = 1 << 60
    registry.add_image("1", bomb(64 << 20), plain=[b""])
    pulled.refused("no space left on device: a layer expands to more than")


@pytest.mark.parametrize(
    ("name", "link"),
    [("../../outside", None), ("a/../../outside", None), ("link/outside", "/tmp"), ("link/outside", "../../..")],
)
def test_names_and_links_that_leave_the_layer_do_not(pulled, registry, tmp_path, name, link):
    import io
    import tarfile

    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        if link is not None:
            info = tarfile.TarInfo("link")
            info.type, info.linkname = tarfile.SYMTYPE, link
            tar.addfile(info)
        info = tarfile.TarInfo(name)
        info.size = 1
        tar.addfile(info, io.BytesIO(b"x"))
    registry.add_image("1", gzip.compress(out.getvalue()))
    try:
        pulled.pull()
    except InvalidInputError:
        pulled.empty()
    for folder in (tmp_path, tmp_path.parent, tmp_path / "snapshots", "/tmp", "/"):
        assert not os.path.lexists(f"{folder}/outside")


def test_too_many_layers_are_refused_before_any_comes(pulled, registry):
    layer = {"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", **registry.add_blob(LAYER)}
    config = {"mediaType": "application/vnd.oci.image.config.v1+json", **registry.add_blob(b"{}")}
    for count, message in ((126, "max depth exceeded: the image has 126 layers"), (100_000, "larger than")):
        registry.add_manifest("1", {"schemaVersion": 2, "config": config, "layers": [layer] * count})
        pulled.refused(message)
    assert registry.asked("GET", "/blobs/") == []


def test_an_index_that_leads_to_itself_or_too_deep_is_refused(pulled, registry):
    kind = "application/vnd.oci.image.index.v1+json"
    inner = {"schemaVersion": 2, "mediaType": kind, "manifests": []}
    for _ in range(6):
        data = json.dumps(inner).encode()
        entry = {"mediaType": kind, "digest": registry.add_manifest("i", data), "size": len(data)}
        entry["platform"] = {"os": "linux", "architecture": platform.host().architecture}
        inner = {"schemaVersion": 2, "mediaType": kind, "manifests": [entry]}
    registry.add_manifest("1", inner)
    pulled.refused("nested too deep", InvalidInputError)
    looped = json.dumps(inner).encode()
    registry.manifests["2"] = (kind, looped)
    registry.manifests[inner["manifests"][0]["digest"]] = (kind, looped)
    pulled.refused("verification failed", name="x:2")


@pytest.mark.parametrize(
    ("body", "kind", "message"),
    [
        (b"<html><body>It works!</body></html>", "text/html", "invalid manifest"),
        (b"", "application/json", "invalid manifest"),
        (b'{"schemaVersion": 1, "name": "x"}', "application/json", "schema 1 support has been removed"),
        (b'{"schemaVersion": 2, "manifests": []}', "application/json", "no matching manifest"),
        (b"[" * 200_000, "application/json", "invalid manifest"),
    ],
)
def test_what_is_no_manifest_is_refused(pulled, registry, body, kind, message):
    registry.manifests["1"] = (kind, body)
    pulled.refused(message)


def test_a_manifest_without_end_is_not_read_to_its_end(pulled, registry):
    def flood(handler, data):
        handler.send_response(200)
        handler.end_headers()
        handler.close_connection = True
        try:
            while True:
                handler.wfile.write(b" " * 65536)
        except OSError:
            return

    registry.behaviours["/manifests/"] = flood
    pulled.refused("the answer is larger than", TransportError)


@pytest.mark.parametrize("said", [b"", b"hello\r\n", b"HTTP/1.1 abc def\r\n\r\n"])
def test_a_server_that_does_not_speak_http_is_said_plainly(pulled, registry, said):
    def babble(handler, data):
        handler.wfile.write(said)
        handler.close_connection = True

    registry.behaviours["/v2/"] = babble
    pulled.refused(rf'Get "http://{registry.host}/v2/.*": ', TransportError)


def test_credentials_are_not_sent_on_to_another_host(pulled, registry):
    registry.add_image("1", LAYER)
    with serving(FakeRegistry()) as other:
        other.blobs = registry.blobs

        def redirect(handler, data):
            place = f"http://{other.host}{handler.path}"
            send(handler, 307, b"", {"Location": place})

        def challenge(handler, data):
            if "Authorization" in handler.headers:
                send(handler, 200, b"{}")
            else:
                send(handler, 401, b"{}", {"WWW-Authenticate": 'Basic realm="x"'})

        registry.behaviours["/blobs/"] = redirect
        registry.behaviours["/v2/"] = lambda handler, data: (
            challenge(handler, data) if handler.path == "/v2/" else None
        )
        real = registry.answer

        def answer(handler, method):
            if handler.path == "/v2/":
                registry.requests.append((method, handler.path, dict(handler.headers.items())))
                challenge(handler, b"")
            elif "/blobs/" in handler.path:
                registry.requests.append((method, handler.path, dict(handler.headers.items())))
                redirect(handler, b"")
            else:
                registry.behaviours.clear()
                real(handler, method)

        registry.answer = answer
        image = pulled.pull(credentials=Credentials("me", "secret"))
        assert image.diff_ids == [digest_of(PLAIN)]
        assert all("Authorization" in headers for headers in registry.asked("GET", "/blobs/"))
        assert len(other.asked("GET", "/blobs/")) == 2
        assert not any("Authorization" in headers for headers in other.asked("GET", ""))


def test_redirects_without_end_are_given_up(pulled, registry):
    registry.add_image("1", LAYER)
    registry.behaviours["/blobs/"] = lambda handler, data: send(handler, 307, b"", {"Location": handler.path})
    pulled.refused("stopped after 10 redirects", TransportError)


def test_a_redirect_to_a_file_is_no_address(pulled, registry):
    registry.add_image("1", LAYER)
    registry.behaviours["/blobs/"] = lambda handler, data: send(handler, 302, b"", {"Location": "file:///etc/passwd"})
    pulled.refused("unsupported protocol scheme", TransportError)


@pytest.mark.parametrize("part", ["/manifests/", "/blobs/"])
def test_a_redirect_to_what_is_no_url_is_told(pulled, registry, part):
    registry.add_image("1", LAYER)
    registry.behaviours[part] = lambda handler, data: send(handler, 307, b"", {"Location": "http://[nowhere"})
    pulled.refused("leads to an invalid URL 'http://.nowhere'", TransportError)


def test_a_token_server_at_what_is_no_url_is_told(pulled, registry):
    challenge = {"WWW-Authenticate": 'Bearer realm="http://[nowhere",service="x"'}
    registry.behaviours["/v2/"] = lambda handler, data: send(handler, 401, b"{}", challenge)
    pulled.refused("invalid realm of the registry's token server", TransportError)


@pytest.mark.parametrize("tags", [b"5", b"true", b'"all"', b'{"a": 1}', b"[5]", b"[null]"])
def test_a_list_of_tags_that_is_none_is_told(pulled, registry, tags):
    registry.behaviours["/tags/list"] = lambda handler, data: send(handler, 200, b'{"tags": %b}' % tags)
    pulled.refused("the registry's list is (not JSON|broken)", TransportError, name="x", all_tags=True)


@pytest.mark.parametrize("lie", ["manifest", "config", "layer"])
def test_behind_a_mirror_that_lies_another_one_is_asked(pulled, registry, lie):
    registry.add_image("1", LAYER)
    manifest = json.loads(registry.manifests["1"][1])
    wrong = {"manifest": "/manifests/", "config": manifest["config"]["digest"], "layer": digest_of(LAYER)}[lie]
    with serving(FakeRegistry()) as liar:
        liar.add_image("1", LAYER)

        def answer(handler, data):
            told = {"Docker-Content-Digest": "sha256:" + "0" * 64}
            send(handler, 200, b"x" * len(data or liar.manifests["1"][1]), told)

        liar.behaviours[wrong] = answer
        pulled.settings.mirrors = {"registry.test": [f"http://{liar.host}", f"http://{registry.host}"]}
        puller = Puller(pulled.store, pulled.settings, Turns(), pulled.messages.append, pulled.calls)
        puller.pull(parse("registry.test/x:1"), Credentials(), wanted=None, all_tags=False)
        assert liar.asked("GET", wrong)
    assert pulled.store.resolve("registry.test/x:1").diff_ids == [digest_of(PLAIN)]


def test_a_limit_of_requests_is_shown(pulled, registry):
    text = b'{"errors":[{"code":"TOOMANYREQUESTS","message":"You have reached your pull rate limit."}]}'
    registry.behaviours["/manifests/"] = lambda handler, data: send(handler, 429, text)
    pulled.refused("^toomanyrequests: You have reached your pull rate limit.$", RegistryError)


def test_a_token_is_fetched_for_the_scope_with_the_users_name(pulled, registry):
    registry.add_image("1", LAYER)
    with serving(FakeRegistry()) as tokens:
        tokens.behaviours["/token"] = lambda handler, data: send(handler, 200, b'{"token": "t0k3n", "expires_in": 300}')
        realm = f'Bearer realm="http://{tokens.host}/token",service="here"'
        real = registry.answer

        def answer(handler, method):
            if handler.headers.get("Authorization") != "Bearer t0k3n":
                registry.requests.append((method, handler.path, dict(handler.headers.items())))
                send(handler, 401, b"{}", {"WWW-Authenticate": realm})
            else:
                real(handler, method)

        registry.answer = answer
        pulled.pull(credentials=Credentials("me", "secret"))
        ((_, path, headers),) = tokens.requests
        assert "service=here" in path
        assert "scope=repository%3Ax%3Apull" in path
        assert headers["Authorization"].startswith("Basic ")


def test_a_foreign_system_and_a_foreign_kind_are_refused(pulled, registry):
    registry.add_image("1", LAYER, os="windows")
    pulled.refused("image operating system 'windows' cannot be used on this platform")
    plugin = {"mediaType": "application/vnd.docker.plugin.v1+json", **registry.add_blob(b"{}")}
    registry.add_manifest("2", {"schemaVersion": 2, "config": plugin, "layers": []})
    pulled.refused(r"\(plugin\) when fetching", name="x:2")


def test_a_manifest_for_no_wanted_platform_is_refused(pulled, registry):
    registry.add_manifest("1", {"schemaVersion": 2, "manifests": []})
    wanted = platform.parse("linux/arm64")
    pulled.refused("no matching manifest for linux/arm64/v8 in the manifest list entries", NotFoundError, wanted=wanted)


def test_two_pulls_of_one_layer_fetch_it_once(pulled, registry):
    registry.add_image("1", LAYER)
    turns, done = Turns(), []

    def pull():
        puller = Puller(pulled.store, pulled.settings, turns, pulled.messages.append, Calls())
        puller.pull(parse(f"{registry.host}/x:1"), Credentials(), wanted=None, all_tags=False)
        done.append(1)

    threads = [threading.Thread(target=pull) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(done) == 4
    assert len(registry.asked("GET", digest_of(LAYER))) == 1


def test_ten_images_that_share_a_base_bring_it_once(pulled, registry):
    tops = [gzip.compress(tar_of({f"top{n}": os.urandom(1000)})) for n in range(10)]
    for number, top in enumerate(tops):
        registry.add_image(str(number), LAYER, top)
    for number in range(10):
        pulled.pull(f"x:{number}")
    assert len(registry.asked("GET", digest_of(LAYER))) == 1
    layers = [i for i in pulled.store.snapshots.walk() if i.kind == "committed"]
    assert len(layers) == 11
    # The tar, and the compressed layer for pushes.
    assert {b.digest for b in pulled.store.content.walk() if b.size > 300_000} == {digest_of(PLAIN), digest_of(LAYER)}


def test_an_identity_token_is_exchanged_by_post_and_no_password_is_sent(pulled, registry):
    registry.add_image("1", LAYER)
    with serving(FakeRegistry()) as tokens:
        bodies = []

        def give(handler, data):
            bodies.append(handler.rfile.read(int(handler.headers["Content-Length"])).decode())
            send(handler, 200, b'{"access_token": "t0k3n"}')

        tokens.behaviours["/token"] = give
        real = registry.answer

        def answer(handler, method):
            if handler.headers.get("Authorization") == "Bearer t0k3n":
                real(handler, method)
            else:
                challenge = f'Bearer realm="http://{tokens.host}/token",service="here"'
                send(handler, 401, b"{}", {"WWW-Authenticate": challenge})

        registry.answer = answer
        pulled.pull(credentials=Credentials(identity_token="refresh!"))
        assert "grant_type=refresh_token" in bodies[0]
        assert "refresh_token=refresh%21" in bodies[0]
        assert "Authorization" not in tokens.requests[0][2]


def test_a_token_that_expires_in_between_is_fetched_again(pulled, registry):
    registry.add_image("1", LAYER)
    given = []
    with serving(FakeRegistry()) as tokens:

        def give(handler, data):
            given.append(f"t{len(given)}")
            send(handler, 200, json.dumps({"token": given[-1], "expires_in": 300}).encode())

        tokens.behaviours["/token"] = give
        real = registry.answer

        def answer(handler, method):
            # Each token is good for the manifest or for blobs, not for both.
            wanted = "Bearer t1" if "/blobs/" in handler.path else "Bearer t0"
            if handler.path != "/v2/" and handler.headers.get("Authorization") == wanted:
                real(handler, method)
            else:
                challenge = f'Bearer realm="http://{tokens.host}/token",service="here"'
                send(handler, 401, b"{}", {"WWW-Authenticate": challenge})

        registry.answer = answer
        pulled.pull(credentials=Credentials("me", "secret"))
        assert given == ["t0", "t1"]


def test_credentials_are_not_sent_in_the_clear_for_a_registry_with_tls(pulled):
    from barque.distribution.credentials import Authority
    from barque.distribution.transport import Transport

    authority = Authority(Transport(pulled.settings, pulled.calls), Credentials("me", "secret"), "https://r.test")
    authority.challenged(['Bearer realm="http://elsewhere.test/token",service="x"'])
    with pytest.raises(TransportError, match="without TLS"):
        authority.header("repository:x:pull")


def test_what_refers_to_an_image_is_listed_with_and_without_the_api(pulled, registry):
    from barque.distribution.endpoints import Endpoint
    from barque.distribution.registry import Registry

    digest = registry.add_image("1", LAYER)
    made = Registry(Endpoint(f"http://{registry.host}"), pulled.settings, Credentials(), pulled.calls)
    repository = made.repository("x")
    assert repository.referrers(digest).manifests == ()
    about = {"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": 3}
    index = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [about]}
    registry.add_manifest(digest.replace(":", "-"), index)
    assert [m.digest for m in repository.referrers(digest).manifests] == [digest]
    registry.behaviours["/referrers/"] = lambda handler, data: send(handler, 200, json.dumps(index).encode())
    assert len(repository.referrers(digest, "application/x").manifests) == 1
    made.close()


def test_a_registry_in_trouble_for_a_moment_is_asked_for_the_manifest_again(pulled, registry):
    registry.add_image("1", LAYER)
    tries = []

    def stumble(handler, data):
        tries.append(1)
        if len(tries) == 3:
            registry.behaviours.clear()
            registry.answer(handler, "GET")
        else:
            send(handler, 502, b"")

    registry.behaviours["/manifests/"] = stumble
    assert pulled.pull().diff_ids == [digest_of(PLAIN)]
