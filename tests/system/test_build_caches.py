"""Caches of builds that lie elsewhere, by buildx: in registries, in images, in folders of the client."""

import base64
import hashlib
import http.server
import json
import re
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from plugins import Run, barque_in, docker_in
from registries import RegistryUnderTest
from under_test import EngineUnderTest

RANDOM = "cat /proc/sys/kernel/random/uuid"

pytestmark = pytest.mark.system

STAGES = f"""\
FROM busybox AS side
RUN {RANDOM} > /side
FROM busybox
WORKDIR /w
COPY a.txt ./
RUN {RANDOM} > /own
COPY --from=side /side /side
ENV LAST=1
"""


@pytest.fixture
def docker(engine: EngineUnderTest, tmp_path: Path) -> Run:
    """Give the docker command with buildx, in the folder `tmp_path`."""
    (tmp_path / "a.txt").write_text("a\n")
    (tmp_path / ".dockerignore").write_text("*\n!a.txt\n")

    return docker_in(engine, tmp_path)


def forget(docker: Run, *images: str) -> None:
    """Let the engine forget images and all that its own cache has."""
    if images:
        docker("rmi", "-f", *images)
    docker("buildx", "prune", "-af")


def seen(docker: Run, image: str) -> str:
    return docker("run", "--rm", image, "cat", "/own", "/side", "/w/a.txt").stdout


def steps(said: str) -> dict[str, str]:
    """Return the number of each step of a Dockerfile by its instruction."""
    return {text: number for number, text in re.findall(r"^#(\d+) \[.*\d/\d\] ((?:RUN|COPY|WORKDIR).*)$", said, re.MULTILINE)}


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("form", ["", ",image-manifest=false", ",oci-mediatypes=false", ",compression=zstd,compression-level=7"])
def test_a_cache_in_a_registry_spares_all_steps(
    mode: str, form: str, docker: Run, tmp_path: Path, registry: RegistryUnderTest
) -> None:
    (tmp_path / "Dockerfile").write_text(STAGES)
    ref = f"{registry.host}/cache:{mode}{len(form)}"
    said = docker("buildx", "build", "-t", "cached", "--cache-to", f"type=registry,ref={ref},mode={mode}{form}", ".").stderr
    assert "exporting cache to registry" in said
    first = seen(docker, "cached")
    forget(docker, "cached")
    said = docker("buildx", "build", "-t", "cached", "--cache-from", f"type=registry,ref={ref}", ".").stderr
    assert f"importing cache manifest from {ref}" in said
    found = steps(said)
    assert len(found) == 5
    assert all(f"#{number} CACHED" in said for number in found.values()), said
    assert seen(docker, "cached") == first
    raw = json.loads(docker("buildx", "imagetools", "inspect", "--raw", ref).stdout)
    kinds = {one["mediaType"].rpartition(".")[2] for one in raw.get("layers", raw.get("manifests"))}
    assert ("tar+zstd" in kinds) == ("zstd" in form)
    config = raw["config"] if "config" in raw else raw["manifests"][-1]
    assert config["mediaType"] == "application/vnd.buildkit.cacheconfig.v0"
    assert ("manifests" in raw) == (form in (",image-manifest=false", ",oci-mediatypes=false"))


def test_what_changed_is_carried_out_and_what_did_not_is_not(
    docker: Run, tmp_path: Path, registry: RegistryUnderTest
) -> None:
    (tmp_path / "Dockerfile").write_text(STAGES)
    ref = f"{registry.host}/cache:changed"
    docker("buildx", "build", "-t", "cached", "--cache-to", f"type=registry,ref={ref},mode=max", ".")
    first = seen(docker, "cached").split()
    forget(docker, "cached")
    (tmp_path / "a.txt").write_text("b\n")
    said = docker("buildx", "build", "-t", "cached", "--cache-from", ref, ".").stderr
    second = seen(docker, "cached").split()
    assert second[0] != first[0], said
    assert second[1:] == [first[1], "b"], said
    # What came from elsewhere is in the engine's own cache now.
    said = docker("buildx", "build", "-t", "cached", ".").stderr
    assert all(f"#{number} CACHED" in said for number in steps(said).values()), said


def test_a_cache_that_was_not_needed_is_handed_on_whole(docker: Run, tmp_path: Path, registry: RegistryUnderTest) -> None:
    (tmp_path / "Dockerfile").write_text(STAGES)
    one, two = f"{registry.host}/cache:one", f"{registry.host}/cache:two"
    docker("buildx", "build", "-t", "cached", "--cache-to", f"type=registry,ref={one},mode=max", ".")
    first = seen(docker, "cached").split()
    forget(docker, "cached")
    docker("buildx", "build", "--cache-from", one, "--cache-to", f"type=registry,ref={two},mode=max", ".")
    forget(docker)
    # The side's result was not needed in between; it is what this build needs.
    (tmp_path / "a.txt").write_text("b\n")
    docker("buildx", "build", "-t", "cached", "--cache-from", two, ".")
    assert seen(docker, "cached").split()[1] == first[1]


def test_an_image_holds_its_own_cache(docker: Run, tmp_path: Path, registry: RegistryUnderTest) -> None:
    (tmp_path / "Dockerfile").write_text(STAGES)
    name = f"{registry.host}/inline:1"
    docker("buildx", "build", "-t", name, "--cache-to", "type=inline", "--push", ".")
    first = seen(docker, name)
    forget(docker, name)
    said = docker("buildx", "build", "-t", "cached", "--cache-from", name, ".").stderr
    assert all(f"#{number} CACHED" in said for number in steps(said).values()), said
    assert seen(docker, "cached") == first


def test_an_image_that_is_here_is_a_cache(docker: Run, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(STAGES)
    docker("buildx", "build", "-t", "kept", "--build-arg", "BUILDKIT_INLINE_CACHE=1", ".")
    first = seen(docker, "kept")
    forget(docker)
    said = docker("buildx", "build", "-t", "cached", "--cache-from", "kept", ".").stderr
    assert all(f"#{number} CACHED" in said for number in steps(said).values()), said
    assert seen(docker, "cached") == first
    docker("save", "-o", "kept.tar", "kept")
    subprocess.run(["tar", "xf", "kept.tar"], cwd=tmp_path, check=True)
    listed = json.loads((tmp_path / "manifest.json").read_text())
    config = json.loads((tmp_path / listed[0]["Config"]).read_text())
    records = json.loads(base64.b64decode(config["moby.buildkit.cache.v0"]))
    assert {"layer"} <= {key for record in records for result in record.get("layers", []) for key in result}


@pytest.mark.parametrize("form", ["", ",compression=uncompressed", ",compression=zstd,mode=max"])
def test_a_cache_in_a_folder_of_the_client(form: str, docker: Run, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(STAGES)
    docker("buildx", "build", "-t", "cached", "--cache-to", f"type=local,dest=folder{form}", ".")
    assert (tmp_path / "folder/index.json").exists()
    first = seen(docker, "cached")
    forget(docker, "cached")
    said = docker("buildx", "build", "-t", "cached", "--cache-from", "type=local,src=folder", ".").stderr
    assert all(f"#{number} CACHED" in said for number in steps(said).values()), said
    assert seen(docker, "cached") == first


def test_a_cache_that_is_not_there_is_told_and_the_build_goes_on(docker: Run, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM busybox\nRUN true\n")
    said = docker("buildx", "build", "--cache-from", "type=registry,ref=127.0.0.1:1/x", ".").stderr
    assert re.search(r"ERROR: .*(127.0.0.1:1|refused)", said), said
    said = docker("buildx", "build", "--cache-to", "type=registry,ref=127.0.0.1:1/x,ignore-error=true", ".").stderr
    assert "exporting cache to registry" in said
    docker("buildx", "build", "--cache-to", "type=registry,ref=127.0.0.1:1/x", ".", code=1)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda config: config.update(layers=[{"blob": "sha256:" + "0" * 64, "parent": 7}]), "there is no layer 7"),
        (lambda config: config["layers"][0].update(parent=len(config["layers"]) - 1), "circle"),
        (lambda config: config["layers"][0].update(blob="sha256:" + "0" * 64), "does not list"),
        (lambda config: config.update(records=7), "a list is missing"),
    ],
    ids=["parent", "circle", "blob", "records"],
)
def test_a_broken_cache_is_told_and_the_build_goes_on(
    damage: Callable[[dict[str, object]], None], message: str, docker: Run, tmp_path: Path
) -> None:
    (tmp_path / "Dockerfile").write_text("FROM busybox\nRUN echo 1 > /1\nRUN echo 2 > /2\n")
    docker("buildx", "build", "-t", "cached", "--cache-to", "type=local,dest=folder", ".")
    index = tmp_path / "folder/index.json"
    blobs = tmp_path / "folder/blobs/sha256"

    def put(value: object) -> tuple[str, int]:
        data = json.dumps(value).encode()
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        return f"sha256:{digest}", len(data)

    listed = json.loads(index.read_text())
    manifest = json.loads((blobs / listed["manifests"][0]["digest"][7:]).read_text())
    config = json.loads((blobs / manifest["config"]["digest"][7:]).read_text())
    damage(config)
    manifest["config"]["digest"], manifest["config"]["size"] = put(config)
    listed["manifests"][0]["digest"], listed["manifests"][0]["size"] = put(manifest)
    index.write_text(json.dumps(listed))
    forget(docker, "cached")
    said = docker("buildx", "build", "-t", "cached", "--cache-from", "type=local,src=folder", ".").stderr
    assert message in said
    assert docker("run", "--rm", "cached", "cat", "/1", "/2").stdout == "1\n2\n"


@pytest.fixture
def actions() -> Iterator[tuple[str, dict[str, bytes]]]:
    """Give the attributes of a cache in a service that speaks GitHub's protocol, and what it keeps."""
    kept: dict[str, bytes] = {}
    open_: dict[str, bytes] = {}

    class Service(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            pass

        def answer(self, data: bytes, status: int = 200) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def body(self) -> bytes:
            return self.rfile.read(int(self.headers["Content-Length"]))

        def do_POST(self) -> None:
            asked = json.loads(self.body())
            method, key = self.path.rpartition("/")[2], asked["key"]
            here = f"http://{self.headers['Host']}/blob/{key.replace('#', '%23')}"
            if self.headers["Authorization"] != f"Bearer {token}" or not self.path.startswith("/x/twirp/"):
                self.answer(b"{}", 401)
            elif method == "CreateCacheEntry":
                self.answer(json.dumps({"ok": key not in kept, "signed_upload_url": here}).encode())
            elif method == "FinalizeCacheEntryUpload":
                kept[key] = open_.pop(key)
                self.answer(json.dumps({"ok": len(kept[key]) == asked["size_bytes"], "entry_id": "1"}).encode())
            else:
                found = [one for one in kept if one.startswith(key)]
                url = f"http://{self.headers['Host']}/blob/{found[-1].replace('#', '%23')}" if found else ""
                self.answer(json.dumps({"ok": bool(found), "signed_download_url": url, "matched_key": (found or [""])[-1]}).encode())

        def do_PUT(self) -> None:
            assert self.headers["x-ms-blob-type"] == "BlockBlob"
            open_[self.path.removeprefix("/blob/").replace("%23", "#")] = self.body()
            self.answer(b"", 201)

        def do_GET(self) -> None:
            self.answer(kept[self.path.removeprefix("/blob/").replace("%23", "#")])

    claims = json.dumps({"ac": json.dumps([{"Scope": "refs/heads/x", "Permission": 3}, {"Scope": "refs/heads/main", "Permission": 1}])})
    token = f"e30.{base64.urlsafe_b64encode(claims.encode()).decode().rstrip('=')}.c2ln"
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Service) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/x/"
        yield f"type=gha,url={url},url_v2={url},token={token},scope=mine", kept
        server.shutdown()


def test_a_cache_in_github_s_service(
    actions: tuple[str, dict[str, bytes]], docker: Run, engine: EngineUnderTest, tmp_path: Path
) -> None:
    attributes, kept = actions
    (tmp_path / "Dockerfile").write_text(STAGES)

    def build(*words: str) -> subprocess.CompletedProcess[str]:
        # Releases of buildx leave such a cache out where they do not find themselves in a workflow.
        command = [sys.executable, "-m", "barque", "build", "--progress=plain", *words, "."]
        return subprocess.run(command, cwd=tmp_path, env=engine.environment, capture_output=True, text=True, timeout=100)

    said = build("-t", "cached", "--cache-to", f"{attributes},mode=max")
    assert said.returncode == 0, said.stderr
    first = seen(docker, "cached")
    forget(docker, "cached")
    said = build("-t", "cached", "--cache-from", attributes, "--cache-to", f"{attributes},mode=max")
    assert all(f"#{number} CACHED" in said.stderr for number in steps(said.stderr).values()), said.stderr
    assert seen(docker, "cached") == first
    indexes = [key for key in kept if key.startswith("index-mine-1-")]
    assert [key.partition("#")[2] for key in indexes] == ["1", "2"]
    assert all(key.startswith("buildkit-blob-1-sha256:") for key in kept if key not in indexes)
    said = build("--cache-to", "type=gha,url=http://127.0.0.1:1/,token=e30.e30.x")
    assert said.returncode == 1
    assert "second version of GitHub's cache service" in said.stderr


@pytest.fixture
def bucket() -> Iterator[str]:
    """Give the attributes of a cache in a bucket of an object store."""
    pytest.importorskip("aiobotocore", reason="aiobotocore is not installed: no bucket is reached")
    server = pytest.importorskip("moto.server", reason="moto is not installed: there is no object store").ThreadedMotoServer(
        ip_address="127.0.0.1", port=0, verbose=False
    )
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    urllib.request.urlopen(urllib.request.Request(f"{url}/caches", method="PUT")).close()
    yield f"type=s3,bucket=caches,region=us-east-1,endpoint_url={url},use_path_style=true"
    server.stop()


def test_a_cache_in_a_bucket(bucket: str, docker: Run, engine: EngineUnderTest, tmp_path: Path) -> None:
    # The release of buildx beside us knows of no buckets, and passes them over.
    barque = barque_in(engine, tmp_path, tmp_path / ".docker")
    variables = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret-of-the-bucket"}

    def build(*words: str, code: int = 0) -> str:
        return barque("build", "--progress=plain", *words, ".", code=code, env=variables).stderr  # type: ignore[no-any-return]

    (tmp_path / "Dockerfile").write_text(STAGES)
    place = f"{bucket},prefix=team/,name=main;branch"
    build("-t", "cached", "--cache-to", f"{place},mode=max")
    first = seen(docker, "cached")
    for name in ("main", "branch"):
        forget(docker, "cached")
        more = ["--cache-to", f"{place},mode=max,touch_refresh=0s"] if name == "main" else []
        said = build("-t", "cached", "--cache-from", f"{bucket},prefix=team/,name={name}", *more)
        assert all(f"#{number} CACHED" in said for number in steps(said).values()), said
        assert seen(docker, "cached") == first
    listed = urllib.request.urlopen(bucket.partition("endpoint_url=")[2].partition(",")[0] + "/caches").read().decode()
    keys = re.findall("<Key>(.*?)</Key>", listed)
    assert {key for key in keys if "blobs" not in key} == {"team/manifests/main", "team/manifests/branch"}
    assert all(key.startswith("team/blobs/sha256:") for key in keys if "blobs" in key)
    # One that is not there yet knows nothing; a wrong bucket is told, and is no failure where it was to be passed over.
    forget(docker, "cached")
    build("-t", "cached", "--cache-from", f"{bucket},name=other")
    wrong = bucket.replace("bucket=caches", "bucket=nowhere")
    assert "NoSuchBucket" in build("--cache-to", wrong, code=1)
    build("--cache-to", f"{wrong},ignore-error=true")
    assert "bucket ($AWS_BUCKET) not set for s3 cache" in build("--cache-to", "type=s3,region=r", code=1)
    assert "secret-of-the-bucket" not in "".join(path.read_text("latin1") for path in (engine.root / "data/builder/history").rglob("*") if path.is_file())
