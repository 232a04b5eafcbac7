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
        self.uploads: dict[str, bytes] = {}
        self.streams_allowed = True
        self.mounts_allowed = False
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
        if "/blobs/uploads/" in path or method == "PUT":
            self._write(handler, method, path)
        elif path == "/v2/":
            send(handler, 200, b"{}")
        elif "/manifests/" in path and (found := self.manifests.get(path.rpartition("/")[2])):
            send(handler, 200, found[1], {"Content-Type": found[0]})
        elif "/blobs/" in path and path.rpartition("/")[2] in self.blobs:
            send_blob(handler, self.blobs[path.rpartition("/")[2]])
        else:
            send(handler, 404, b'{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}')

    def _write(self, handler: Handler, method: str, path: str) -> None:
        query = dict(pair.split("=", 1) for pair in handler.path.partition("?")[2].split("&") if pair)
        body = read_body(handler)
        place, identity = path.rpartition("/")[0], path.rpartition("/")[2]
        if method == "POST":
            wanted = query.get("mount", "").replace("%3A", ":")
            if wanted in self.blobs and self.mounts_allowed:
                send(handler, 201, b"", {"Location": "/"})
                return
            identity = f"u{len(self.uploads)}"
            self.uploads[identity] = b""
            send(handler, 202, b"", {"Location": f"{place}/{identity}?state=1"})
        elif method == "PATCH":
            if "Content-Length" not in handler.headers and not self.streams_allowed:
                send(handler, 411, b"")
                return
            told = handler.headers.get("Content-Range")
            assert told is None or int(told.partition("-")[0]) == len(self.uploads[identity])
            self.uploads[identity] += body
            send(handler, 202, b"", {"Location": f"{place}/{identity}?state=2"})
        elif method == "DELETE":
            self.uploads.pop(identity, None)
            send(handler, 204, b"")
        elif "/manifests/" in path:
            self.manifests[identity] = (handler.headers["Content-Type"], body)
            send(handler, 201, b"")
        else:
            data = self.uploads.pop(identity) + body
            digest = query["digest"].replace("%3A", ":")
            assert digest_of(data) == digest
            self.blobs[digest] = data
            send(handler, 201, b"")


def read_body(handler: Handler) -> bytes:
    """Return a request's body, chunked or not."""
    if handler.headers.get("Transfer-Encoding") != "chunked":
        return handler.rfile.read(int(handler.headers.get("Content-Length", "0")))
    parts = []
    while size := int(handler.rfile.readline(), 16):
        parts.append(handler.rfile.read(size))
        handler.rfile.readline()
    handler.rfile.readline()
    return b"".join(parts)


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

        def do_PATCH(self) -> None:  # noqa: N802
            registry.answer(self, "PATCH")

        def do_PUT(self) -> None:  # noqa: N802
            registry.answer(self, "PUT")

        def do_DELETE(self) -> None:  # noqa: N802
            registry.answer(self, "DELETE")

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
