"""What the engine tells BuildKit's clients of itself: its one worker, its version, what it can do."""

from functools import cache
from typing import Any, NamedTuple

import barque
from barque.builder.buildkit.pb import caps_pb2, ops_pb2, worker_pb2
from barque.oci import platform as platforms

# Clients ask for features by the version of BuildKit that brought them.
BUILDKIT_VERSION = "v0.24.0"
_HOST_GATEWAY = "org.mobyproject.buildkit.worker.moby.host-gateway-ip"
_SNAPSHOTTER = "org.mobyproject.buildkit.worker.snapshotter"

_EMULATED = {
    "x86_64": "linux/amd64", "aarch64": "linux/arm64", "arm": "linux/arm/v7", "riscv64": "linux/riscv64",
    "ppc64le": "linux/ppc64le", "s390x": "linux/s390x", "i386": "linux/386", "mips64el": "linux/mips64le",
    "loongarch64": "linux/loong64",
}  # fmt: skip

FRONTEND_CAPS = (
    "solve.base", "solve.inlinereturn", "resolveimage", "resolveimage.resolvemode", "source.metaresolver", "readfile",
    "return", "returnmap", "readdir", "statfile", "proto.refarray", "reference.output",
    "frontend.inputs", "gateway.solve.metadata", "frontend.caps", "gateway.solve.evaluate", "gateway.evaluate",
    "gateway.warnings", "reference.attestations", "gateway.exec", "gateway.exec.extrahosts", "gateway.exec.secretenv",
    "gateway.exec.signals", "gateway.exec.filesystem",
)  # fmt: skip
LLB_CAPS = (
    "source.image", "source.image.resolvemode", "source.local", "source.local.unique", "source.local.sessionid",
    "source.local.includepatterns", "source.local.followpaths", "source.local.excludepatterns",
    "source.local.sharedkeyhint", "source.git", "source.git.keepgitdir", "source.git.fullurl", "source.git.subdir",
    "source.git.checksum", "source.git.mountsshsock", "source.git.knownsshhosts", "source.http", "source.http.checksum", "source.http.perm", "exec.meta.base",
    "exec.meta.network", "exec.meta.security", "exec.meta.setsdefaultpath", "exec.meta.proxyenv", "exec.mount.bind",
    "exec.mount.cache", "exec.mount.cache.sharing", "exec.mount.selector", "exec.mount.tmpfs", "exec.mount.tmpfs.size",
    "exec.mount.secret", "exec.mount.ssh", "exec.secretenv", "exec.meta.ulimit", "exec.meta.cgroup.parent",
    "exec.validexitcode", "exec.meta.cdi", "file.base", "file.rm.wildcard",
    "file.copy.includeexcludepatterns", "file.copy.requiredpaths", "file.copy.alwaysreplaceexistingdestpaths",
    "file.copy.modestring", "file.symlink.create", "constraints", "platform", "meta.ignorecache", "meta.description",
    "meta.exportcache", "mergeop", "diffop", "exporter.sourcedateepoch", "exporter.image.attestations",
    "exporter.multiple",
)  # fmt: skip


class Identity(NamedTuple):
    """The engine's id, the address of its host as containers reach it, and the platforms that it runs."""

    id: str
    host_gateway: str
    platforms: tuple[str, ...]


def version() -> Any:
    """Return the version message."""
    return worker_pb2.BuildkitVersion(package="barque", version=BUILDKIT_VERSION, revision=barque.__version__)


def platform_message(text: str) -> Any:
    """Return a platform as a message."""
    found = platforms.parse(text)
    return ops_pb2.Platform(OS=found.os, Architecture=found.architecture, Variant=found.variant)


@cache
def record(identity: Identity) -> Any:
    """Return the worker's record, which is the same message each time."""
    labels = {_SNAPSHOTTER: "overlayfs"}
    if identity.host_gateway:
        labels[_HOST_GATEWAY] = identity.host_gateway
    return worker_pb2.WorkerRecord(
        ID=identity.id, Labels=labels, platforms=[platform_message(one) for one in identity.platforms],
        BuildkitVersion=version(),
    )  # fmt: skip


@cache
def caps(names: tuple[str, ...]) -> list[Any]:
    """Return capabilities as messages, which are the same each time."""
    return [caps_pb2.APICap(ID=name, Enabled=True) for name in names]


def platforms_here() -> tuple[str, ...]:
    """Return the platforms that this machine runs: its own, and those that binfmt_misc has an interpreter for."""
    own = str(platforms.host())
    found = [own]
    for name, text in _EMULATED.items():
        try:
            with open(f"/proc/sys/fs/binfmt_misc/qemu-{name}", encoding="ascii", errors="replace") as file:
                if file.readline().strip() == "enabled" and text not in found:
                    found.append(text)
        except OSError:
            continue
    return tuple(found)
