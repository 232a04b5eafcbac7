"""Bills of materials: a scanner, which is an image, runs on what was built and leaves in-toto statements.

The protocol is BuildKit's: the scanner finds the files at BUILDKIT_SCAN_SOURCE, what is scanned besides in folders of
BUILDKIT_SCAN_SOURCE_EXTRAS, and writes its statements into BUILDKIT_SCAN_DESTINATION; it is a step of the build like
any other, so it is cached.
"""

import asyncio
import json
from collections.abc import Mapping
from typing import Any

from barque.base.errors import BarqueError, InvalidInputError
from barque.builder import graph
from barque.builder.buildkit.attestations import Predicate
from barque.builder.buildkit.builds import Build
from barque.builder.results import Result, opened
from barque.builder.solver import Solver
from barque.builder.trees import FILE
from barque.images.model import Image
from barque.storage.snapshots import Snapshotter

Json = dict[str, Any]
_SOURCE, _EXTRAS, _DESTINATION = "/run/src/core/sbom", "/run/src/extras", "/run/out"
_LARGEST = 40 << 20
_KIND = "https://spdx.dev/Document"


def scan(
    scanner: Image, name: str, what: tuple[graph.Vertex, Mapping[str, graph.Vertex]], label: str
) -> graph.Vertex:
    """Return the step that scans what a vertex makes.

    Args:
        scanner: the image.
        name: how the client calls it.
        what: is scanned, and what is scanned besides, by name.
        label: the platform it is for, empty for the only one.

    Raises:
        InvalidInputError: the image says not what runs.
    """
    config = scanner.run_config
    arguments = (*(config.get("Entrypoint") or ()), *(config.get("Cmd") or ()))
    if not arguments:
        raise InvalidInputError(f"scanner image {name} does not have an entrypoint or cmd")
    layers = tuple(zip(scanner.chain, scanner.diff_ids, strict=True))
    root = graph.Files((graph.Layers(layers, scanner.created_ns),), (graph.MakeFolder(_DESTINATION),))
    vertex, extras = what
    environment = [
        *(config.get("Env") or ()), f"BUILDKIT_SCAN_DESTINATION={_DESTINATION}", f"BUILDKIT_SCAN_SOURCE={_SOURCE}",
    ]  # fmt: skip
    if extras:
        environment.append(f"BUILDKIT_SCAN_SOURCE_EXTRAS={_EXTRAS}/")
    mounts = [graph.Mount(_SOURCE, input=1)]
    mounts += [graph.Mount(f"{_EXTRAS}/sbom-{one}", input=number) for number, one in enumerate(extras, 2)]
    return graph.Exec(
        (root, vertex, *extras.values()), arguments, tuple(environment), config.get("WorkingDir") or "/",
        config.get("User") or "", tuple(mounts), name=f"[{label + ' ' if label else ''}sbom] generating sbom using {name}",
    )  # fmt: skip


async def predicates(build: Build, solver: Solver, snapshots: Snapshotter) -> dict[str, list[Predicate]]:
    """Run the scans of a build and return what they found, by platform.

    Raises:
        BarqueError: a scanner failed.
        InvalidInputError: what it left are no statements.
    """
    found = {}
    for name, vertex in build.scans.items():
        result = await solver.solve(vertex, build.session)
        found[name] = await asyncio.to_thread(_read, snapshots, result)
    return found


def _read(snapshots: Snapshotter, result: Result) -> list[Predicate]:
    made = []
    with opened(snapshots, result) as tree:
        place = _DESTINATION.lstrip("/")
        for name in tree.names(place):
            node = tree.lstat(f"{place}/{name}")
            if node is None or node.kind != FILE:
                raise InvalidInputError(f"the scanner left {name}, which is no file")
            if node.size > _LARGEST:
                raise InvalidInputError(f"{name} exceeds {_LARGEST} bytes")
            made.append(_statement(name, b"".join(bytes(chunk) for chunk in tree.read(f"{place}/{name}"))))
    if not made:
        raise BarqueError("the scanner left no statements")
    return made


def _statement(name: str, raw: bytes) -> Predicate:
    try:
        value = json.loads(raw)
        kind, content = value["predicateType"], value["predicate"]
    except (ValueError, KeyError, TypeError):
        raise InvalidInputError(f"cannot parse {name}, which the scanner left, as in-toto statement") from None
    if kind != _KIND:
        raise InvalidInputError(f"bundle entry {name} does not match required predicate type {_KIND}, got {kind}")
    return Predicate(kind, content, name)
