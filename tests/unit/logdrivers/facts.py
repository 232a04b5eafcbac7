"""A container that drivers are told of."""

from barque.logdrivers.entry import ContainerFacts


def facts(**changes):
    values = {
        "options": {}, "id": "c" * 64, "name": "web", "command": ["sh", "-c", "true"],
        "image_id": "sha256:" + "d" * 64, "image_name": "shop/web:1", "created_ns": 0,
        "env": ["STAGE=prod", "SECRET=x"], "labels": {"team": "a", "tier": "b"},
    }  # fmt: skip
    return ContainerFacts(**{**values, **changes})
