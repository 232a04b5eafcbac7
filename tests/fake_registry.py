"""A registry whose every answer a test decides; it counts what it was asked."""

import gzip
import hashlib
import http.server
import io
import json
import tarfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Handler = http.server.BaseHTTPRequestHandler
Behaviour = Callable[[Handler, bytes], None]


def digest_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def tar_of(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


class FakeRegistry:
    """Manifests and blobs by path; a behaviour in place of an answer where a test wants one."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[str, tuple[str, bytes]] = {}
        self.behaviours: dict[str, Behaviour] = {}
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.host = ""

    def add_image(self, tag: str, *layers: bytes, plain: list[bytes] | None = None, **config: object) -> str:
        """Put an image of these compressed layers; return its manifest's digest."""
        plain = plain if plain is not None else [gzip.decompress(layer) for layer in layers]
        made = {
            "architecture": "amd64", "os": "linux", "config": {}, "history": [],
            "rootfs": {"type": "layers", "diff_ids": [digest_of(p) for p in plain]}, **config,
        }  # fmt: skip
        described = [self.add_blob(layer) for layer in layers]
        manifest = {
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json",
                       **self.add_blob(json.dumps(made).encode())},
            "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", **d} for d in described],
        }  # fmt: skip
        return self.add_manifest(tag, manifest)

    def add_blob(self, data: bytes) -> dict[str, object]:
        self.blobs[digest_of(data)] = data
        return {"digest": digest_of(data), "size": len(data)}

    def add_manifest(self, tag: str, value: object) -> str:
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        kind = "application/vnd.oci.image.manifest.v1+json"
        if isinstance(value, dict):
            kind = value.get("mediaType", kind)
        self.manifests[tag] = self.manifests[digest_of(data)] = (kind, data)
        return digest_of(data)

    def asked(self, method: str, part: str) -> list[dict[str, str]]:
        """Return the headers of all requests of a method whose path has a part."""
        return [headers for m, path, headers in self.requests if m == method and part in path]

    def answer(self, handler: Handler, method: str) -> None:
        path = handler.path.partition("?")[0]
        self.requests.append((method, handler.path, dict(handler.headers.items())))
        for part, behave in self.behaviours.items():
            if part in path:
                behave(handler, self.blobs.get(path.rpartition("/")[2], b""))
                return
        if path == "/v2/":
            send(handler, 200, b"{}")
        elif "/manifests/" in path and (found := self.manifests.get(path.rpartition("/")[2])):
            send(handler, 200, found[1], {"Content-Type": found[0]})
        elif "/blobs/" in path and path.rpartition("/")[2] in self.blobs:
            send_blob(handler, self.blobs[path.rpartition("/")[2]])
        else:
            send(handler, 404, b'{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}')


def send(handler: Handler, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
    """Send a whole answer."""
    handler.send_response(status)
    for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
        handler.send_header(name, value)
    handler.end_headers()
    if handler.command != "HEAD":
        handler.wfile.write(body)


def send_blob(handler: Handler, data: bytes) -> None:
    """Send a blob, or the range that is asked for."""
    wanted = handler.headers.get("Range")
    if wanted:
        start = int(wanted.removeprefix("bytes=").rstrip("-"))
        place = f"bytes {start}-{len(data) - 1}/{len(data)}"
        send(handler, 206, data[start:], {"Content-Range": place})
    else:
        send(handler, 200, data)


@contextmanager
def serving(registry: FakeRegistry) -> Iterator[FakeRegistry]:
    """Let the registry answer on a port of 127.0.0.1."""

    class Answers(Handler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *words: object) -> None:
            return

        def do_GET(self) -> None:  # noqa: N802
            registry.answer(self, "GET")

        def do_HEAD(self) -> None:  # noqa: N802
            registry.answer(self, "HEAD")

        def do_POST(self) -> None:  # noqa: N802
            registry.answer(self, "POST")

    class Server(http.server.ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *words: object) -> None:
            return

    with Server(("127.0.0.1", 0), Answers) as server:
        registry.host = f"127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield registry
        finally:
            server.shutdown()
            thread.join()
