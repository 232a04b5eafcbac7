"""The paths of the API, a module per noun."""

from barque.api.router import Table
from barque.api.routes import (
    archives,
    build,
    buildkit,
    containers,
    execs,
    images,
    mounts,
    networks,
    registries,
    secrets,
    streams,
    system,
    unsupported,
    volumes,
)


def add_all(table: Table) -> None:
    """Add every route to the table; the first that fits a path wins: a fixed word before any name in its place."""
    for module in (system, mounts, containers, streams, archives, execs, images, registries, networks, volumes, secrets,
                   build, buildkit, unsupported):  # fmt: skip
        module.add(table)
