"""Media types of manifests, configs and layers."""

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
OCI_LAYER_GZIP = OCI_LAYER + "+gzip"
OCI_LAYER_ZSTD = OCI_LAYER + "+zstd"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"

INDEXES = frozenset({OCI_INDEX, DOCKER_LIST})
MANIFESTS = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
CONFIGS = frozenset({OCI_CONFIG, DOCKER_CONFIG})
SCHEMA_1 = frozenset(
    {
        "application/vnd.docker.distribution.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v1+prettyjws",
    }
)
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
DOCKER_LAYER_GZIP = "application/vnd.docker.image.rootfs.diff.tar.gzip"
DOCKER_LAYER_ZSTD = "application/vnd.docker.image.rootfs.diff.tar.zstd"
PLUGIN_CONFIG = "application/vnd.docker.plugin.v1+json"

_LAYERS = {
    "gzip": (OCI_LAYER_GZIP, DOCKER_LAYER_GZIP), "zstd": (OCI_LAYER_ZSTD, DOCKER_LAYER_ZSTD),
    "uncompressed": (OCI_LAYER, DOCKER_LAYER),
}  # fmt: skip
_KINDS = {name: kind for kind, names in _LAYERS.items() for name in names}


def layer_type(kind: str, *, oci: bool) -> str:
    """Return the media type of layers that are compressed by `gzip`, `zstd` or not (`uncompressed`)."""
    return _LAYERS[kind][not oci]


def layer_kind(name: str) -> str:
    """Return how layers of a media type are compressed, empty where it is not known here."""
    return _KINDS.get(name, "")


def layer_as(name: str, *, oci: bool) -> str:
    """Return a layer's media type in OCI's or Docker's spelling; one that is not known here stays."""
    kind = layer_kind(name)
    return layer_type(kind, oci=oci) if kind else name
