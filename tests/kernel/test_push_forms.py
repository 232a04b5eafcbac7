"""Pushes to registries that take only chunks, break off, refuse or mount; and ways through proxies."""

import base64
import gzip
import json
import os
import socket
import threading

import pytest
import zstandard

from barque.base.errors import InvalidInputError
from barque.distribution.credentials import Credentials
from barque.distribution.errors import RegistryError, TransportError
from barque.distribution.pull import Puller, Turns
from barque.distribution.push import Pusher
from barque.distribution.settings import Settings
from barque.distribution.transport import Calls, Transport
from barque.images.model import PackedLayer
from barque.images.store import ImageStore
from barque.oci.reference import parse
from barque.storage.content import ContentStore
from barque.storage.snapshots import DirectorySnapshotter
from fake_registry import FakeRegistry, digest_of, send, serving, tar_of

pytestmark = pytest.mark.kernel
PLAIN = tar_of({"file": os.urandom(400_000)})


@pytest.fixture
def registry():
    with serving(FakeRegistry()) as made:
        yield made


@pytest.fixture
def store(tmp_path):
    opened = ImageStore(str(tmp_path), ContentStore(f"{tmp_path}/content"), DirectorySnapshotter(f"{tmp_path}/snapshots"))
    yield opened
    opened.close()


def pushed(store, registry, name="x:1", settings=None):
    messages = []
    reference = parse(f"{registry.host}/{name}")
    if str(reference) not in store.names():
        store.import_tar([PLAIN], reference=reference)
    pusher = Pusher(store, settings or Settings(retry_delay_s=0.01, stall_timeout_s=5), messages.append, Calls())
    pusher.push(reference, Credentials(), wanted=None)
    return messages


def layer_of(registry, tag="1"):
    (layer,) = json.loads(registry.manifests[tag][1])["layers"]
    return registry.blobs[layer["digest"]], layer


def test_a_layer_is_streamed_in_one_request(store, registry):
    messages = pushed(store, registry)
    data, layer = layer_of(registry)
    assert gzip.decompress(data) == PLAIN
    assert layer["size"] == len(data)
    (headers,) = registry.asked("PATCH", "/blobs/uploads/")
    assert headers["Transfer-Encoding"] == "chunked"
    assert [m["status"] for m in messages if m.get("id")][-1] == "Pushed"
    assert messages[-1]["aux"]["Size"] == len(registry.manifests["1"][1])


def test_a_registry_that_refuses_streams_gets_chunks_with_their_places(store, registry):
    registry.streams_allowed = False
    pushed(store, registry)
    assert gzip.decompress(layer_of(registry)[0]) == PLAIN
    ranges = [h.get("Content-Range") for h in registry.asked("PATCH", "/blobs/uploads/")]
    assert ranges[0] is None
    assert ranges[1].startswith("0-")


def test_an_upload_that_breaks_off_is_begun_again(store, registry):
    broken = []

    def break_off(handler, data):
        if handler.command == "PATCH" and not broken:
            broken.append(1)
            handler.rfile.read(1000)
            handler.connection.shutdown(socket.SHUT_RDWR)
            handler.close_connection = True
            return
        registry._write(handler, handler.command, handler.path.partition("?")[0])

    registry.behaviours["/blobs/uploads/"] = break_off
    messages = pushed(store, registry)
    assert gzip.decompress(layer_of(registry)[0]) == PLAIN
    assert any(m["status"].startswith("Retrying in") for m in messages if "status" in m)


def test_a_refusal_in_the_middle_is_told_in_the_registrys_words(store, registry):
    text = b'{"errors":[{"code":"DENIED","message":"requested access to the resource is denied"}]}'

    def refuse(handler, data):
        if handler.command == "POST":
            send(handler, 403, text)

    registry.behaviours["/blobs/uploads/"] = refuse
    with pytest.raises(RegistryError, match=r"^denied: requested access to the resource is denied$"):
        pushed(store, registry)
    assert registry.manifests == {}


def test_a_mount_that_is_not_granted_becomes_an_upload(store, registry):
    pushed(store, registry, "a/x:1")
    for granted in (True, False):
        registry.mounts_allowed = granted
        name = f"b{int(granted)}/x:1"
        registry.behaviours[f"b{int(granted)}/x/blobs/sha256"] = lambda handler, data: send(handler, 404, b"{}")
        messages = pushed(store, registry, name)
        steps = [m["status"] for m in messages if m.get("id")]
        assert steps[-1] == ("Mounted from a/x" if granted else "Pushed")
        assert "mount=sha256" in next(p for m, p, _ in registry.requests if m == "POST" and f"b{int(granted)}/x" in p)


def test_a_layer_that_the_registry_has_lost_is_sent_again(store, registry):
    pushed(store, registry)
    registry.blobs.clear()
    assert "Pushed" in [m.get("status") for m in pushed(store, registry)]
    gone = PackedLayer("sha256:" + "0" * 64, 1, "x", f"{registry.host}/x")
    store.add_packed(digest_of(PLAIN), [gone])
    registry.blobs.clear()
    pushed(store, registry)
    assert gone not in store.packed(digest_of(PLAIN))


@pytest.fixture
def elsewhere():
    with serving(FakeRegistry()) as made:
        yield made


def pulled_and_named_for(store, registry, elsewhere, *layers, **more):
    """Pull an image that is compressed as nobody here compresses, name it for another registry; return its digest."""
    digest = registry.add_image("1", *layers, **more)
    reference = parse(f"{registry.host}/x:1")
    puller = Puller(store, Settings(retry_delay_s=0.01), Turns(), lambda message: None, Calls())
    puller.pull(reference, Credentials(), wanted=None, all_tags=False)
    store.tag(store.resolve(str(reference)).id, f"{elsewhere.host}/x", "1")
    return digest


@pytest.mark.parametrize("pack", [lambda data: gzip.compress(data, 9, mtime=7), zstandard.compress], ids=["gzip", "zstd"])
def test_a_pulled_image_keeps_its_digest_at_any_registry(store, registry, elsewhere, tmp_path, pack):
    layers = pack(PLAIN), pack(tar_of({"other": b"x" * 5000}))
    digest = pulled_and_named_for(store, registry, elsewhere, *layers, plain=[PLAIN, tar_of({"other": b"x" * 5000})])
    # Nothing asks the first registry, which may be away by then; and the next daemon knows it too.
    registry.behaviours["/"] = lambda handler, data: send(handler, 503, b"")
    store.close()
    store = ImageStore(str(tmp_path), store.content, store.snapshots)
    messages = pushed(store, elsewhere)
    assert messages[-1]["aux"]["Digest"] == digest
    assert elsewhere.manifests["1"] == registry.manifests["1"]
    assert set(layers) <= set(elsewhere.blobs.values())
    for name in list(store.names()):
        image = store.resolve(name)
        store.untag(name)
    store.delete(image.id)
    assert list(store.content.walk()) == []
    store.close()


def pull(store, registry, tag):
    """Pull x:tag and return what was told of its layers."""
    messages = []
    puller = Puller(store, Settings(retry_delay_s=0.01), Turns(), messages.append, Calls())
    puller.pull(parse(f"{registry.host}/x:{tag}"), Credentials(), wanted=None, all_tags=False)
    return [m["status"] for m in messages if "progressDetail" in m]


FORMS = {"gzip": lambda data: gzip.compress(data, 9, mtime=7), "zstd": zstandard.compress}


@pytest.mark.parametrize("is_one_image", [True, False], ids=["one image", "two images"])
def test_a_layer_that_is_pulled_in_two_forms_is_pushed_in_each(store, registry, elsewhere, tmp_path, is_one_image):
    configs = [{}, {} if is_one_image else {"author": "another"}]
    wanted = {
        tag: registry.add_image(tag, pack(PLAIN), plain=[PLAIN], **config)
        for (tag, pack), config in zip(FORMS.items(), configs, strict=True)
    }
    assert "Pull complete" in pull(store, registry, "gzip")
    assert "Pull complete" in pull(store, registry, "zstd")
    assert store.kept_forms([digest_of(PLAIN)]) == {digest_of(pack(PLAIN)) for pack in FORMS.values()}
    assert set(pull(store, registry, "zstd")) == {"Already exists"}
    registry.behaviours["/"] = lambda handler, data: send(handler, 503, b"")
    store.close()
    store = ImageStore(str(tmp_path), store.content, store.snapshots)
    # Each in its form, in both orders, although the repository has the layer in the other form already.
    for tag in ("gzip", "zstd", "gzip"):
        source = f"{registry.host}/x:{tag}"
        store.tag(store.resolve(source).id, f"{elsewhere.host}/x", tag, store.target(source))
        assert pushed(store, elsewhere, f"x:{tag}")[-1]["aux"]["Digest"] == wanted[tag]
        assert elsewhere.manifests[tag] == registry.manifests[tag]
    assert {pack(PLAIN) for pack in FORMS.values()} <= set(elsewhere.blobs.values())
    store.close()


def test_a_form_goes_with_the_image_that_was_pulled_in_it(store, registry):
    for tag, pack in FORMS.items():
        registry.add_image(tag, pack(PLAIN), plain=[PLAIN], author=tag)
        pull(store, registry, tag)
    gone = store.resolve(f"{registry.host}/x:zstd")
    for name in (*gone.names, *gone.digests):
        store.untag(name)
    store.delete(gone.id)
    left = digest_of(FORMS["gzip"](PLAIN))
    assert store.kept_forms([digest_of(PLAIN)]) == {left}
    assert store.content.has(left)
    assert not store.content.has(digest_of(FORMS["zstd"](PLAIN)))


def test_a_form_goes_with_the_last_name_that_means_it(store, registry):
    wanted = {tag: registry.add_image(tag, pack(PLAIN), plain=[PLAIN]) for tag, pack in FORMS.items()}
    for tag in FORMS:
        pull(store, registry, tag)
    forms = {tag: digest_of(pack(PLAIN)) for tag, pack in FORMS.items()}
    store.untag(f"{registry.host}/x:zstd")
    assert store.kept_forms([digest_of(PLAIN)]) == set(forms.values())
    store.untag(f"{registry.host}/x@{wanted['zstd']}")
    assert store.kept_forms([digest_of(PLAIN)]) == {forms["gzip"]}
    assert {digest: store.content.has(digest) for digest in (*forms.values(), *wanted.values())} == {
        forms["gzip"]: True, forms["zstd"]: False, wanted["gzip"]: True, wanted["zstd"]: False,
    }  # fmt: skip
    # An image without names keeps what it came with.
    for name in list(store.names()):
        store.untag(name)
    assert store.kept_forms([digest_of(PLAIN)]) == {forms["gzip"]}
    assert store.content.has(wanted["gzip"])


def test_a_manifest_that_is_gone_is_not_named(store, registry):
    registry.add_image("1", gzip.compress(PLAIN))
    pull(store, registry, "1")
    image = store.resolve(f"{registry.host}/x:1")
    store.tag(image.id, "y", "1", "sha256:" + "0" * 64)
    assert store.target("docker.io/library/y:1") == ""


def test_what_a_manifest_says_of_a_layer_that_is_here_is_not_believed(store, registry):
    registry.add_image("good", gzip.compress(PLAIN))
    pull(store, registry, "good")
    other = gzip.compress(tar_of({"evil": b"x"}))
    registry.add_image("evil", other, plain=[PLAIN])
    with pytest.raises(InvalidInputError, match="unexpected digest"):
        pull(store, registry, "evil")
    assert digest_of(other) not in {form.digest for form in store.packed(digest_of(PLAIN))}
    assert not store.content.has(digest_of(other))


def test_a_damaged_form_comes_anew_with_the_next_pull(store, registry, elsewhere):
    packed = gzip.compress(PLAIN, 9, mtime=7)
    wanted = pulled_and_named_for(store, registry, elsewhere, packed)
    os.unlink(store.content.path(digest_of(packed)))
    pull(store, registry, "1")
    assert pushed(store, elsewhere)[-1]["aux"]["Digest"] == wanted


def test_what_was_damaged_of_a_kept_layer_is_compressed_anew(store, registry, elsewhere):
    packed = gzip.compress(PLAIN, 9, mtime=7)
    for number, damage in enumerate((packed[:-1], packed[:-1] + b"x", None)):
        store.content.ingest([packed])
        pulled_and_named_for(store, registry, elsewhere, packed)
        path = store.content.path(digest_of(packed))
        os.unlink(path)
        if damage is not None:
            with open(path, "wb") as file:
                file.write(damage)
        elsewhere.blobs.clear()
        pushed(store, elsewhere)
        data, _ = layer_of(elsewhere)
        assert gzip.decompress(data) == PLAIN, number
        assert store.kept_forms([digest_of(PLAIN)]) == set()
        store.sweep()
        assert not store.content.has(digest_of(packed))


def test_ten_images_that_share_a_base_send_it_once(store, registry):
    store.import_tar([PLAIN], reference=parse("base:1"))
    base = store.resolve("base:1")
    for number in range(10):
        with store.lease() as lease:
            diff_id, _ = store.add_layer(lease, base.top, [tar_of({f"top{number}": os.urandom(1000)})])
            config = {**base.config, "rootfs": {"type": "layers", "diff_ids": [*base.diff_ids, diff_id]}}
            image = store.register(json.dumps(config).encode(), parent=base.id)
        # Half of them in repositories of their own: the base is mounted there.
        registry.mounts_allowed = True
        name = f"{registry.host}/{'x' if number % 2 else f'own{number}'}"
        store.tag(image.id, name, f"t{number}")
        pushed(store, registry, f"{name.partition('/')[2]}:t{number}")
    sent = [len(data) for data in registry.blobs.values()]
    assert sum(size > 300_000 for size in sent) == 1
    # Eleven layers: each upload is a session with one stream.
    assert len(registry.asked("PATCH", "/blobs/uploads/")) == 11
    assert len([i for i in store.snapshots.walk() if i.kind == "committed"]) == 11


def test_the_manifest_comes_last(store, registry):
    pushed(store, registry)
    written = [(m, p) for m, p, _ in registry.requests if m in ("PUT", "PATCH", "POST")]
    assert written[-1][0] == "PUT"
    assert "/manifests/1" in written[-1][1]


class Proxy:
    """A proxy that remembers what it was asked, and answers all of it itself."""

    def __init__(self):
        self.lines = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://me:secret@127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            with connection:
                data = connection.recv(65536)
                self.lines.append(data.decode())
                connection.sendall(b"HTTP/1.1 403 no\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")


def test_requests_go_through_the_proxy_that_is_set_and_only_those(registry):
    proxy = Proxy()
    settings = Settings(http_proxy=proxy.url, https_proxy=proxy.url, no_proxy="direct.test,10.0.0.0/8")
    transport = Transport(settings, Calls())
    answer = transport.request("GET", "http://registry.test/v2/?a=b")
    assert (answer.status, answer.text()) == (403, b"no")
    head = proxy.lines[0].splitlines()
    assert head[0] == "GET http://registry.test/v2/?a=b HTTP/1.1"
    assert "Host: registry.test" in head
    pair = base64.b64encode(b"me:secret").decode()
    assert f"Proxy-Authorization: Basic {pair}" in head
    with pytest.raises(TransportError):
        transport.request("GET", "https://registry.test:444/v2/")
    assert proxy.lines[1].startswith("CONNECT registry.test:444 HTTP/1.")
    assert transport.request("GET", f"http://{registry.host}/v2/").status == 200
    for direct in ("http://sub.direct.test/", "http://10.1.2.3:1/"):
        with pytest.raises(TransportError):
            Transport(Settings(http_proxy=proxy.url, no_proxy=settings.no_proxy, connect_timeout_s=0.2), Calls()).request(
                "GET", direct
            )
    assert len(proxy.lines) == 2
    proxy.listener.close()


def test_a_pull_goes_through_a_proxy(store, registry):
    registry.add_image("1", gzip.compress(PLAIN))
    settings = Settings(http_proxy=f"http://{registry.host}", insecure=["registry.test"], connect_timeout_s=0.5)
    messages = []
    real = registry.answer

    def answer(handler, method):
        handler.path = handler.path.removeprefix("http://registry.test")
        real(handler, method)

    registry.answer = answer
    reference = parse("registry.test/x:1")
    Puller(store, settings, Turns(), messages.append, Calls()).pull(reference, Credentials(), wanted=None, all_tags=False)
    assert store.resolve(str(reference)).diff_ids == [digest_of(PLAIN)]
