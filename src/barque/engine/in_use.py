"""What containers need to stay: their images and volumes, those of containers that are being made included."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from barque.engine.engine import Engine

Json = dict[str, Any]


def images(engine: "Engine") -> list[Json]:
    """Return {"id", "image_id", "running"} of every use of an image."""
    found = []
    for container in engine.containers_by_id.values():
        mounted = [point["image"] for point in container.row["mounts"] if point["Type"] == "image"]
        for image in [container.row["image"], *mounted]:
            found.append({"id": container.id, "image_id": image, "running": container.is_running})
    return found + [{"id": made, "image_id": image, "running": False} for made, (image, _) in engine.making.items()]


def volumes(engine: "Engine") -> list[tuple[str, set[str]]]:
    """Return each container's id with the names of its volumes."""
    mounts = [(container.id, container.row["mounts"]) for container in engine.containers_by_id.values()]
    mounts += [(made, points) for made, (_, points) in engine.making.items()]
    return [(name, {p["Name"] for p in points if p["Type"] == "volume"}) for name, points in mounts]
