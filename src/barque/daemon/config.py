"""From the daemon's options to what the engine is told."""

import os
import shutil

from barque.daemon.options import Options, command, firewall_mark
from barque.engine.config import EngineConfig
from barque.network.model import NetworkOptions

RELOADED = ("labels", "live_restore", "shutdown_timeout_s", "registry_mirrors", "insecure_registries", "default_runtime",
            "runtimes", "debug", "max_concurrent_downloads", "max_concurrent_uploads", "max_download_attempts",
            "cdi_spec_dirs", "builder", "disk_budget", "event_hooks")  # fmt: skip


def network_options(options: Options) -> NetworkOptions:
    """Return what the options say about networks."""
    return NetworkOptions(
        bridge=options["bridge"],
        bip=options["bip"],
        bip6=options["bip6"],
        fixed_cidr=options["fixed-cidr"],
        fixed_cidr_v6=options["fixed-cidr-v6"],
        default_gateway=options["default-gateway"],
        ipv6=options["ipv6"],
        mtu=options["mtu"],
        icc=options["icc"],
        ip_forward=options["ip-forward"],
        ip_masq=options["ip-masq"],
        iptables=options["iptables"],
        ip6tables=options["ip6tables"],
        userland_proxy=options["userland-proxy"],
        host_ip="" if options["ip"] == "0.0.0.0" and "ip" not in options.given else options["ip"],
        default_gateway6=options["default-gateway-v6"],
        firewall="respect-host" if options["respect-host-firewall"] else "",
        direct_routing=options["allow-direct-routing"],
        accept_mark=firewall_mark(options["bridge-accept-fwmark"]) if options["bridge-accept-fwmark"] else None,
        default_network_options=options["default-network-opt"],
        default_address_pools=tuple((pool["base"], pool["size"]) for pool in options["default-address-pool"]),
    )


def runtimes_of(options: Options) -> dict[str, str]:
    """Return the known OCI runtimes by name: those that were added, and runc and crun where installed."""
    found = {name: path for name in ("runc", "crun") if (path := shutil.which(name))}
    added = {name: runtime.get("path") or name for name, runtime in options["add-runtime"].items()}
    return {**found, **added}


def engine_config(options: Options) -> EngineConfig:
    """Return the engine's configuration."""
    return EngineConfig(
        data_root=os.path.abspath(options["data-root"]),
        storage_driver="overlay2" if options["storage-driver"] == "overlayfs" else options["storage-driver"],
        exec_root=os.path.abspath(options["exec-root"]),
        network=network_options(options),
        dns=options["dns"],
        dns_search=options["dns-search"],
        dns_options=options["dns-opt"],
        default_ulimits=list(options["default-ulimit"].values()),
        default_runtime=options["default-runtime"],
        runtimes=runtimes_of(options),
        log_driver=options["log-driver"],
        log_opts=options["log-opt"],
        shm_size=options["default-shm-size"],
        ipc_mode=options["default-ipc-mode"],
        cgroupns_mode=options["default-cgroupns-mode"],
        cgroup_parent=options["cgroup-parent"] or "/barque",
        cdi_spec_dirs=[folder for folder in options["cdi-spec-dir"] if folder],
        disk_budget=options["disk-budget"],
        event_hooks=options["event-hook"],
        live_restore=options["live-restore"],
        shutdown_timeout_s=options["shutdown-timeout"],
        init=options["init"],
        init_path=options["init-path"],
        labels=options["label"],
        registry_mirrors=options["registry-mirror"],
        insecure_registries=options["insecure-registry"],
        registry_certificates=options["registry-certs"],
        http_proxy=_proxy(options, "http-proxy"),
        https_proxy=_proxy(options, "https-proxy"),
        no_proxy=_proxy(options, "no-proxy"),
        max_concurrent_downloads=options["max-concurrent-downloads"],
        max_concurrent_uploads=options["max-concurrent-uploads"],
        max_download_attempts=options["max-download-attempts"],
        seccomp_profile=options["seccomp-profile"],
        no_new_privileges=options["no-new-privileges"],
        host_gateway_ip=options["host-gateway-ip"],
        experimental=options["experimental"],
        builder=options["builder"],
        debug=options["debug"] or options["log-level"] == "debug",
        daemon_argv=command(options),
        # A service manager that started us starts us again.
        restart_daemon="NOTIFY_SOCKET" not in os.environ and "LISTEN_FDS" not in os.environ,
    )


def _proxy(options: Options, name: str) -> str:
    """Return a proxy option: the flag or daemon.json first, then the environment as other programs read it."""
    variable = name.replace("-", "_")
    return options[name] or os.environ.get(variable.upper()) or os.environ.get(variable) or ""


def reload(config: EngineConfig, options: Options) -> list[str]:
    """Take over what may change while the daemon runs; return the names of what did."""
    fresh = engine_config(options)
    changed = [name for name in RELOADED if getattr(config, name) != getattr(fresh, name)]
    for name in changed:
        setattr(config, name, getattr(fresh, name))
    return changed
