"""A client of registries as a command, of nothing but the specification: push, pull, copy, ls, catalog, digest, delete.

    python registry_client.py --ca FILE --user NAME:PASSWORD VERB ARGUMENT...

It shares no code with the project, so that both are held against the same words.
"""

import argparse
import base64
import hashlib
import json
import re
import ssl
import sys
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlencode, urljoin

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
KINDS = [
    MANIFEST,
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
]


class Refused(SystemExit):
    """The registry answers with another status than was hoped for."""


class Client:
    """One registry's answers."""

    def __init__(self, ca: str, user: str) -> None:
        self.context = ssl.create_default_context(cafile=ca)
        self.basic = "Basic " + base64.b64encode(user.encode()).decode()

    def ask(self, method: str, url: str, body: bytes | None = None, **headers: str) -> tuple[int, dict[str, str], bytes]:
        """Return an answer whatever its status is, with the names of its headers in small letters."""
        named = {key.replace("_", "-"): value for key, value in headers.items()}
        request = urllib.request.Request(url, body, {"Authorization": self.basic, **named}, method=method)
        try:
            answer = urllib.request.urlopen(request, context=self.context, timeout=30)
        except urllib.error.HTTPError as error:
            answer = error
        with answer:
            return answer.status, {k.lower(): v for k, v in answer.headers.items()}, answer.read()

    def want(self, status: int, method: str, url: str, body: bytes | None = None, **headers: str):
        """Return headers and body of an answer that has a status."""
        found, told, data = self.ask(method, url, body, **headers)
        if found != status:
            raise Refused(f"{method} {url}: {found} {data[:500].decode(errors='replace')}")
        return told, data


class Repository:
    """One repository: `host:port/path:tag` or `host:port/path@digest` names something in it."""

    def __init__(self, client: Client, name: str) -> None:
        self.client = client
        host, _, rest = name.partition("/")
        self.path, _, self.reference = rest.partition("@") if "@" in rest else rest.partition(":")
        self.base = f"https://{host}/v2/{self.path}"

    def manifest(self, reference: str = "") -> tuple[str, bytes]:
        """Return type and bytes of a manifest; its digest is right."""
        reference = reference or self.reference
        told, raw = self.client.want(200, "GET", f"{self.base}/manifests/{reference}", Accept=", ".join(KINDS))
        assert told["docker-content-digest"] == digest(raw)
        assert not reference.startswith("sha256:") or reference == digest(raw)
        head, nothing = self.client.want(200, "HEAD", f"{self.base}/manifests/{reference}", Accept=", ".join(KINDS))
        assert (head["docker-content-digest"], head["content-length"], nothing) == (digest(raw), str(len(raw)), b"")
        return told["content-type"], raw

    def put_manifest(self, kind: str, raw: bytes) -> None:
        """Send a manifest under the reference."""
        told, _ = self.client.want(201, "PUT", f"{self.base}/manifests/{self.reference}", raw, Content_Type=kind)
        assert told["docker-content-digest"] == digest(raw)

    def blob(self, wanted: str) -> bytes:
        """Return a blob, in one piece and in two, of which both must be the same."""
        url = f"{self.base}/blobs/{wanted}"
        _, data = self.client.want(200, "GET", url)
        assert digest(data) == wanted
        if len(data) > 1:
            _, tail = self.client.want(206, "GET", url, Range=f"bytes={len(data) // 2}-")
            assert tail == data[len(data) // 2 :]
        return data

    def put_blob(self, data: bytes, chunk: int = 0) -> dict[str, object]:
        """Send a blob that is not there: in one request after the session's, or in chunks; return its descriptor."""
        told = {"digest": digest(data), "size": len(data)}
        status, _, _ = self.client.ask("HEAD", f"{self.base}/blobs/{digest(data)}")
        if status == 200:
            return told
        headers, _ = self.client.want(202, "POST", f"{self.base}/blobs/uploads/", b"")
        url = urljoin(self.base, headers["location"])
        for start in range(0, len(data), chunk) if chunk else ():
            piece = data[start : start + chunk]
            span = f"{start}-{start + len(piece) - 1}"
            kind = "application/octet-stream"
            headers, _ = self.client.want(202, "PATCH", url, piece, Content_Type=kind, Content_Range=span)
            assert headers["range"].removeprefix("bytes=") == f"0-{start + len(piece) - 1}"
            url = urljoin(url, headers["location"])
        joint = "&" if "?" in url else "?"
        final = f"{url}{joint}{urlencode({'digest': digest(data)})}"
        self.client.want(201, "PUT", final, b"" if chunk else data, Content_Type="application/octet-stream")
        return told

    def mount(self, wanted: str, source: str) -> bool:
        """Take a blob over from another repository; tell whether that was granted."""
        query = urlencode({"mount": wanted, "from": source})
        status, _, _ = self.client.ask("POST", f"{self.base}/blobs/uploads/?{query}", b"")
        return status == 201

    def copy_to(self, target: "Repository", reference: str = "") -> bytes:
        """Copy a manifest and all below it, blobs by mounting; return its bytes."""
        kind, raw = self.manifest(reference)
        parsed = json.loads(raw)
        for inner in parsed.get("manifests", []):
            inside = Repository.__new__(Repository)
            inside.__dict__ = {**target.__dict__, "reference": inner["digest"]}
            self.copy_to(inside, inner["digest"])
        for part in [*parsed.get("layers", []), *([parsed["config"]] if "config" in parsed else [])]:
            if not target.mount(part["digest"], self.path):
                raise Refused(f"{part['digest']} was not mounted")
        target.put_manifest(kind, raw)
        return raw

    def pages(self, url: str, key: str) -> list[str]:
        """Return a list, two at a time where the registry has pages."""
        found: list[str] = []
        while url:
            told, data = self.client.want(200, "GET", url)
            found += json.loads(data)[key] or []
            link = re.fullmatch(r'<([^>]+)>; *rel="?next"?', told.get("link", ""))
            url = urljoin(url, link[1]) if link else ""
        return found


def digest(data: bytes) -> str:
    """Return the digest of bytes."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def push(repository: Repository, folder: str) -> str:
    """Push an OCI layout of one image, its layers in chunks; return the manifest's digest."""
    layout = Path(folder)
    (entry,) = json.loads((layout / "index.json").read_text())["manifests"]

    def stored(wanted: str) -> bytes:
        return (layout / "blobs/sha256" / wanted.partition(":")[2]).read_bytes()

    raw = stored(entry["digest"])
    parsed = json.loads(raw)
    for layer in parsed["layers"]:
        data = stored(layer["digest"])
        assert repository.put_blob(data, chunk=max(1, len(data) // 3))["digest"] == layer["digest"]
    repository.put_blob(stored(parsed["config"]["digest"]))
    repository.put_manifest(entry["mediaType"], raw)
    return digest(raw)


def pull(repository: Repository, folder: str) -> str:
    """Write an image as an OCI layout; return the manifest's digest."""
    layout = Path(folder)
    (layout / "blobs/sha256").mkdir(parents=True)
    kind, raw = repository.manifest()
    parsed = json.loads(raw)
    blobs = [raw, *(repository.blob(part["digest"]) for part in [parsed["config"], *parsed["layers"]])]
    for data in blobs:
        (layout / "blobs/sha256" / digest(data).partition(":")[2]).write_bytes(data)
    entry = {"mediaType": kind, "digest": digest(raw), "size": len(raw)}
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    (layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return digest(raw)


def delete(repository: Repository) -> str:
    """Delete a manifest by its digest; it is gone then, under every name."""
    _, raw = repository.manifest()
    repository.client.want(202, "DELETE", f"{repository.base}/manifests/{digest(raw)}")
    for reference in (digest(raw), repository.reference):
        _, data = repository.client.want(404, "GET", f"{repository.base}/manifests/{reference}")
        assert json.loads(data)["errors"][0]["code"] == "MANIFEST_UNKNOWN"
    return digest(raw)


def main() -> None:
    """Do what the command line says; print digests or names, one a line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ca", required=True)
    parser.add_argument("--user", required=True)
    parser.add_argument("verb", choices=("push", "pull", "copy", "ls", "catalog", "digest", "delete"))
    parser.add_argument("name")
    parser.add_argument("other", nargs="?", default="")
    options = parser.parse_args()
    client = Client(options.ca, options.user)
    repository = Repository(client, options.name)
    host = repository.base.partition("/v2/")[0]
    verbs = {
        "push": lambda: push(repository, options.other),
        "pull": lambda: pull(repository, options.other),
        "copy": lambda: digest(repository.copy_to(Repository(client, options.other))),
        "ls": lambda: "\n".join(repository.pages(f"{repository.base}/tags/list?n=2", "tags")),
        "catalog": lambda: "\n".join(repository.pages(f"{host}/v2/_catalog?n=2", "repositories")),
        "digest": lambda: digest(repository.manifest()[1]),
        "delete": lambda: delete(repository),
    }
    sys.stdout.write(verbs[options.verb]() + "\n")


if __name__ == "__main__":
    main()
