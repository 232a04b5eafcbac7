"""What a build of the classic API is asked to do."""

from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]


@dataclass(slots=True)
class BuildRequest:
    """The parameters of POST /build; sizes in bytes. `host` is HostConfig for the commands of RUN."""

    dockerfile: str = ""
    remote: str = ""
    tags: list[str] = field(default_factory=list)
    build_args: dict[str, str | None] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    target: str = ""
    platform: str = ""
    no_cache: bool = False
    cache_from: list[str] = field(default_factory=list)
    pull: bool = False
    quiet: bool = False
    remove: bool = True
    force_remove: bool = False
    squash: bool = False
    network: str = ""
    build_id: str = ""
    host: Json = field(default_factory=dict)
    auth: Json = field(default_factory=dict)
    explain: bool = False
