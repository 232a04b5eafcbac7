"""What a registry server is told: defaults, the configuration file, and the checks of both."""

from typing import NamedTuple


class Settings(NamedTuple):
    """How a server behaves; where it listens and keeps things is told apart from this."""

    read_only: bool = False
    deletes: bool = True
    sparse: bool = False
    """Manifests may refer to what the repository does not have."""
    page: int = 1000
    """Most entries of one answer of a listing."""
    idle_s: float = 60
    """A client that sends or takes nothing for so long is cut off."""
    requests_max: int = 1000
    """More at a time are asked to come later."""
    blob_size_max: int = 0
    """Bytes; 0 for no limit."""
    open_mounts: bool = True
    """A mount that names no repository finds the blob in any: right only where who may push may read all of them."""
    relative_urls: bool = True
    """Location headers without the host: right behind any proxy."""
    chunk_min: int = 0
    """Least bytes of a chunk that clients should send, told in OCI-Chunk-Min-Length."""
