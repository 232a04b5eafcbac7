"""`build --verify-reproducible`: two builds without the cache must give the same image; the first difference is shown."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import sys
import tarfile
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from barque.base.errors import BarqueError, InvalidInputError
from barque.cli.building.outputs import Destination, Output
from barque.cli.building.solve import SolveError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from barque.cli.building.request import BuildRequest
    from barque.cli.building.running import Runner

_EPOCH = "build-arg:SOURCE_DATE_EPOCH"
_CHUNK = 1 << 20


def verify(runner: Runner, request: BuildRequest) -> int:
    """Build twice, compare, and, where both are the same, make what was asked for; return the exit code.

    Raises:
        BarqueError: the engine's archive cannot be read.
    """
    if request.call or request.inputs.uploads:
        raise InvalidInputError("--verify-reproducible builds twice: it needs a build, and a context that can be sent twice")
    # Times of the two runs differ in any case; without a time to hold files to, the present one is taken.
    request.options.setdefault(_EPOCH, str(int(time.time())))
    folder = runner.temporary.folder()
    paths = [os.path.join(folder, f"{number}.tar") for number in (1, 2)]
    for path in paths:
        code = _built(runner, request, path)
        if code:
            return code
    difference = first_difference(*map(Image, paths))
    if difference:
        print(f"ERROR: the build is not reproducible: {difference}", file=sys.stderr)
        return 1
    print("The build is reproducible: two builds without the cache gave the same image", file=sys.stderr)
    for path in paths:
        os.unlink(path)
    request.options.pop("no-cache", None)
    return runner.build(request)


def _built(runner: Runner, request: BuildRequest, path: str) -> int:
    output = Output("oci", {"tar": "true", "rewrite-timestamp": "true"}, Destination(path=path))
    once = replace(request, options={**request.options, "no-cache": ""}, outputs=[output], cache_exports=[])
    display = runner.display()
    try:
        asyncio.run(runner.alone(once, display))
    except KeyboardInterrupt:
        print("ERROR: failed to solve: Canceled: context canceled", file=sys.stderr)
        return 130
    except SolveError as error:
        runner.show_failure(error, request)
        return 1
    return 0


class _Blob(NamedTuple):
    digest: str
    platform: str
    step: str


class Image:
    """An OCI archive: its configs and layers, in order.

    Raises:
        BarqueError: it is none.
    """

    def __init__(self, path: str) -> None:
        self._tar = tarfile.open(path)  # noqa: SIM115 - read as long as the process lives
        self.layers: list[_Blob] = []
        self.configs: list[tuple[str, dict[str, Any]]] = []
        try:
            self._read(self._json("index.json"), "")
        except (KeyError, ValueError, TypeError) as error:
            raise BarqueError(f"the engine's archive cannot be read: {error}") from None

    def _json(self, name: str) -> Any:
        file = self._tar.extractfile(name)
        return json.loads(file.read()) if file is not None else {}

    def _blob(self, digest: str) -> Any:
        return self._json(f"blobs/{digest.replace(':', '/')}")

    def _read(self, index: Any, platform: str) -> None:
        for entry in index["manifests"]:
            found = entry.get("platform") or {}
            if found.get("os") == "unknown":
                # Attestations name the run that they are of.
                continue
            here = "/".join(filter(None, (found.get("os"), found.get("architecture"), found.get("variant")))) or platform
            manifest = self._blob(entry["digest"])
            if "manifests" in manifest:
                self._read(manifest, here)
                continue
            config = self._blob(manifest["config"]["digest"])
            self.configs.append((here, config))
            steps = [row.get("created_by", "") for row in config.get("history") or [] if not row.get("empty_layer")]
            for number, layer in enumerate(manifest["layers"]):
                self.layers.append(_Blob(layer["digest"], here, steps[number] if number < len(steps) else ""))

    def entries(self, digest: str) -> Iterator[tuple[tarfile.TarInfo, str]]:
        """Yield a layer's files, each with the digest of its content."""
        raw = self._tar.extractfile(f"blobs/{digest.replace(':', '/')}")
        with tarfile.open(fileobj=raw, mode="r|*") as layer:
            for member in layer:
                content = hashlib.sha256()
                file = layer.extractfile(member) if member.isreg() else None
                while file is not None and (data := file.read(_CHUNK)):
                    content.update(data)
                yield member, content.hexdigest()


def first_difference(one: Image, other: Image) -> str:
    """Return what differs first, empty where nothing does."""
    if len(one.layers) != len(other.layers):
        return f"the first build gave {len(one.layers)} layers, the second {len(other.layers)}"
    for number, (first, second) in enumerate(zip(one.layers, other.layers, strict=True), 1):
        if first.digest == second.digest:
            continue
        where = f"layer {number}" + (f" of {first.platform}" if first.platform and len(one.configs) > 1 else "")
        where += f" ({first.step})" if first.step else ""
        return f"{where}: {_differing_file(one, other, first, second)}"
    for (platform, first_config), (_, second_config) in zip(one.configs, other.configs, strict=True):
        found = _differing_value(first_config, second_config, "config")
        if found:
            return f"{platform + ': ' if platform else ''}{found}"
    return ""


def _differing_file(one: Image, other: Image, first: _Blob, second: _Blob) -> str:
    before = {member.name: (member, content) for member, content in one.entries(first.digest)}
    after = {member.name: (member, content) for member, content in other.entries(second.digest)}
    for name in before:
        if name not in after:
            return f"/{name} is in the first build alone"
    for name, (member, content) in after.items():
        if name not in before:
            return f"/{name} is in the second build alone"
        old, old_content = before[name]
        if old_content != content:
            return f"the content of /{name} differs ({old.size} bytes in the first build, {member.size} in the second)"
        for what in ("type", "mode", "uid", "gid", "mtime", "linkname", "size"):
            if getattr(old, what) != getattr(member, what):
                return f"the {what} of /{name} differs: {getattr(old, what)!r} in the first build, {getattr(member, what)!r} in the second"
        if old.pax_headers != member.pax_headers:
            return f"the extended attributes of /{name} differ"
    if list(before) != list(after):
        return "the same files in another order"
    return "the same files, written in another form"


def _differing_value(one: Any, other: Any, path: str) -> str:
    if isinstance(one, dict) and isinstance(other, dict):
        keys = dict.fromkeys([*one, *other])
        return next(filter(None, (_differing_value(one.get(key), other.get(key), f"{path}.{key}") for key in keys)), "")
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        pairs = enumerate(zip(one, other, strict=True))
        return next(filter(None, (_differing_value(a, b, f"{path}[{number}]") for number, (a, b) in pairs)), "")
    return "" if one == other else f"{path} differs: {one!r} in the first build, {other!r} in the second"
