"""Making an image of a container."""

import asyncio
from typing import TYPE_CHECKING, Any

from barque.base.errors import ConflictError, NotFoundError
from barque.engine import pausing
from barque.engine.container import Container
from barque.oci.reference import parse

if TYPE_CHECKING:
    from barque.engine.engine import Engine

Json = dict[str, Any]
_NOT_OF_IMAGES = ("Hostname", "Image", "HostConfig", "NetworkingConfig")


async def commit(
    engine: "Engine",
    container: Container,
    *,
    repo: str,
    tag: str,
    comment: str,
    author: str,
    pause: bool,
    changes: list[str],
    config: Json | None,
) -> Json:
    """Make an image of a container; return {"Id"}.

    Raises:
        ConflictError: the container is being removed.
        NotFoundError: its image is gone.
        InvalidInputError: the name or a change is wrong.
    """
    if container.status in ("removing", "dead"):
        raise ConflictError(f"You cannot commit container {container.id} which is {container.status.capitalize()}")
    reference = parse(f"{repo}:{tag}" if tag else repo).with_default_tag() if repo else None
    own = {key: value for key, value in container.config.items() if key not in _NOT_OF_IMAGES}
    own.update((key, value) for key, value in (config or {}).items() if value and key not in _NOT_OF_IMAGES)
    parent = engine.image_of(container)
    if parent is None:
        raise NotFoundError(f"No such image: {container.row['image']}: the container's image was removed")
    frozen = pause and container.status == "running"
    command = " ".join(container.config.get("Cmd") or [])
    if frozen:
        try:
            await pausing.pause(engine, container)
        except ConflictError:
            # It ended just now: nothing writes any more.
            frozen = False
    try:
        image = await asyncio.to_thread(
            lambda: engine.image_store.commit(
                parent, container.id, config=own, changes=changes, author=author, comment=comment,
                created_by=command, reference=reference,
            )
        )  # fmt: skip
        named = reference.familiar if reference else ""
        engine.publish(container, "commit", comment=comment, imageID=image.id, imageRef=named)
    finally:
        if frozen and container.status == "paused":
            await pausing.unpause(engine, container)
    return {"Id": image.id}
