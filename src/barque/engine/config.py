"""What the daemon's flags and daemon.json mean to the engine."""

from dataclasses import dataclass, field
from typing import Any

from barque.distribution.settings import Settings, mirrors_of
from barque.network.model import NetworkOptions

Json = dict[str, Any]


@dataclass(slots=True)
class EngineConfig:
    """Parsed options; sizes in bytes, times in seconds.

    `runtimes` maps a name to the path of an OCI runtime; the names `barque` and `` mean our own.
    `default_ulimits` are {"Name","Soft","Hard"} objects as in HostConfig.Ulimits.
    """

    data_root: str = "/var/lib/barque"
    exec_root: str = "/run/barque"
    storage_driver: str = ""
    """A name of barque.storage.drivers; empty for the best that this kernel can do."""
    network: NetworkOptions = field(default_factory=NetworkOptions)
    dns: list[str] = field(default_factory=list)
    dns_search: list[str] = field(default_factory=list)
    dns_options: list[str] = field(default_factory=list)
    default_ulimits: list[Json] = field(default_factory=list)
    default_runtime: str = "barque"
    runtimes: dict[str, str] = field(default_factory=dict)
    log_driver: str = "json-file"
    log_opts: dict[str, str] = field(default_factory=dict)
    shm_size: int = 64 << 20
    ipc_mode: str = "private"
    cgroupns_mode: str = ""
    cgroup_parent: str = "/barque"
    cdi_spec_dirs: list[str] = field(default_factory=list)
    disk_budget: dict[str, str] = field(default_factory=dict)
    """See barque.engine.disk_budget."""
    event_hooks: list[Any] = field(default_factory=list)
    """See barque.engine.event_hooks."""
    live_restore: bool = False
    shutdown_timeout_s: int = 15
    init: bool = False
    init_path: str = ""
    labels: list[str] = field(default_factory=list)
    registry_mirrors: list[str] = field(default_factory=list)
    insecure_registries: list[str] = field(default_factory=list)
    registry_certificates: list[str] = field(default_factory=lambda: ["/etc/barque/certs.d", "/etc/docker/certs.d"])
    http_proxy: str = ""
    https_proxy: str = ""
    no_proxy: str = ""
    max_concurrent_downloads: int = 3
    max_concurrent_uploads: int = 5
    max_download_attempts: int = 5
    seccomp_profile: str = ""
    no_new_privileges: bool = False
    host_gateway_ip: str = ""
    experimental: bool = False
    builder: Json = field(default_factory=dict)
    """`builder` of daemon.json."""
    debug: bool = False
    daemon_argv: list[str] = field(default_factory=list)
    restart_daemon: bool = False


def registry_settings(config: EngineConfig) -> Settings:
    """Return what the configuration says about registries.

    Raises:
        InvalidInputError: a mirror is no URL.
    """
    return Settings(
        mirrors=mirrors_of(config.registry_mirrors),
        insecure=config.insecure_registries,
        certificates=config.registry_certificates,
        http_proxy=config.http_proxy,
        https_proxy=config.https_proxy,
        no_proxy=config.no_proxy,
        downloads=config.max_concurrent_downloads,
        uploads=config.max_concurrent_uploads,
        attempts=config.max_download_attempts,
    )
