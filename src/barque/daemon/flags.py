"""The daemon's flags, each with its key in daemon.json, and what this engine does not have.

A flag that is known but not supported is refused by name instead of being taken and forgotten.
"""

import ipaddress
import json
from typing import Any, NamedTuple


class DaemonError(Exception):
    """The daemon cannot start; str() is what the user is told."""


class Flag(NamedTuple):
    """One option.

    `kind` is one of bool, str, int, list, map (key=value), objects (JSON), ulimits, runtimes, pools, driver-opts. `key` is its
    name in daemon.json, empty for those that only a command line has.
    """

    name: str
    kind: str
    default: Any
    help: str
    key: str = ""
    short: str = ""
    reloadable: bool = False


def _flag(name: str, kind: str, default: Any, text: str, **more: Any) -> Flag:
    return Flag(name, kind, default, text, more.pop("key", name), **more)


FLAGS = (
    _flag("add-runtime", "runtimes", {}, "Register an additional OCI runtime (name=path)", key="runtimes",
          reloadable=True),
    _flag("allow-direct-routing", "bool", False, "Let other machines reach published ports at containers' addresses"),
    _flag("bip", "str", "", "IPv4 address of the default bridge"),
    _flag("bip6", "str", "", "IPv6 address of the default bridge"),
    _flag("bridge", "str", "", "Name of the default bridge, or none", short="b"),
    _flag("bridge-accept-fwmark", "str", "", "Packets with this firewall mark reach all containers (mark[/mask])"),
    _flag("cdi-spec-dir", "list", ["/etc/cdi", "/var/run/cdi"], "Folder of CDI specs of devices; an empty one for none",
          key="cdi-spec-dirs", reloadable=True),
    _flag("cgroup-parent", "str", "", "Parent control group of all containers"),
    _flag("config-file", "str", "/etc/barque/daemon.json", "Configuration file", key=""),
    _flag("data-root", "str", "/var/lib/barque", "Root folder of persistent state"),
    _flag("debug", "bool", False, "Enable debug messages", short="D", reloadable=True),
    _flag("default-address-pool", "pools", [], "Address pool of user networks (base=CIDR,size=N)",
          key="default-address-pools"),
    _flag("default-cgroupns-mode", "str", "", "Default mode of cgroup namespaces (host or private)"),
    _flag("default-gateway", "str", "", "Default gateway of containers on the default bridge"),
    _flag("default-gateway-v6", "str", "", "Default IPv6 gateway of containers on the default bridge"),
    _flag("default-ipc-mode", "str", "private", "Default mode of ipc namespaces (shareable or private)"),
    _flag("default-network-opt", "driver-opts", {}, "Default options of new networks (driver=key=value)",
          key="default-network-opts"),
    _flag("default-runtime", "str", "barque", "Default OCI runtime of containers", reloadable=True),
    _flag("default-shm-size", "size", 64 << 20, "Default size of /dev/shm"),
    _flag("default-ulimit", "ulimits", {}, "Default ulimits of containers (name=soft[:hard])", key="default-ulimits"),
    _flag("disk-budget", "map", {}, "What images and build cache may take (keep-tags, unused-for, max-size, every)", reloadable=True),
    _flag("dns", "list", [], "DNS server of containers"),
    _flag("dns-opt", "list", [], "DNS options of containers", key="dns-opts"),
    _flag("dns-search", "list", [], "DNS search domains of containers"),
    _flag("event-hook", "objects", [], "Command or URL to be told of events, as JSON (filters, command, url, timeout)",
          key="event-hooks", reloadable=True),
    _flag("exec-opt", "list", [], "Runtime options (native.cgroupdriver=cgroupfs)", key="exec-opts"),
    _flag("exec-root", "str", "/run/barque", "Root folder of run time state"),
    _flag("experimental", "bool", False, "Enable experimental features"),
    _flag("firewall-backend", "str", "nftables", "Firewall backend (nftables)"),
    _flag("fixed-cidr", "str", "", "IPv4 range of containers' addresses on the default bridge"),
    _flag("fixed-cidr-v6", "str", "", "IPv6 range of containers' addresses on the default bridge"),
    _flag("group", "str", "docker", "Group of the unix socket", short="G"),
    _flag("help", "bool", False, "Print usage", key="", short="h"),
    _flag("host", "list", [], "Sockets to listen on", key="hosts", short="H"),
    _flag("host-gateway-ip", "str", "", "Address that host-gateway stands for in --add-host"),
    _flag("http-proxy", "str", "", "HTTP proxy for registries"),
    _flag("https-proxy", "str", "", "HTTPS proxy for registries"),
    _flag("icc", "bool", True, "Enable communication between containers on the default bridge"),
    _flag("idle-timeout", "int", 60, "Seconds without anything to do after which the daemon gives its memory back until "
          "something comes (0: never)"),
    _flag("init", "bool", False, "Run an init in containers that forwards signals and reaps processes"),
    _flag("init-path", "str", "", "Path of that init"),
    _flag("insecure-registry", "list", [], "Registries to talk to without TLS", key="insecure-registries",
          reloadable=True),
    _flag("ip", "str", "0.0.0.0", "Default address of published ports"),
    _flag("ip-forward", "bool", True, "Enable forwarding of packets"),
    _flag("ip-masq", "bool", True, "Enable masquerading"),
    _flag("ip6tables", "bool", True, "Enable IPv6 firewall rules"),
    _flag("iptables", "bool", True, "Enable firewall rules"),
    _flag("ipv6", "bool", False, "Enable IPv6 on the default bridge"),
    _flag("label", "list", [], "Labels of the daemon (key=value)", key="labels", reloadable=True),
    _flag("live-restore", "bool", False, "Keep containers running while the daemon is away", reloadable=True),
    _flag("log-driver", "str", "json-file", "Default driver of container logs"),
    _flag("log-format", "str", "text", "Format of the daemon's own log (text or json)"),
    _flag("log-level", "str", "info", "Level of the daemon's own log (debug, info, warn, error, fatal)", short="l"),
    _flag("log-opt", "map", {}, "Default options of the log driver (key=value)", key="log-opts"),
    _flag("max-concurrent-downloads", "int", 3, "Layers that a pull downloads side by side", reloadable=True),
    _flag("max-concurrent-uploads", "int", 5, "Layers that a push uploads side by side", reloadable=True),
    _flag("max-download-attempts", "int", 5, "How often a layer's download is tried", reloadable=True),
    _flag("mtu", "int", 0, "MTU of the default bridge"),
    _flag("metrics-addr", "str", "", "Serve numbers for Prometheus at this address (host:port)"),
    _flag("no-new-privileges", "bool", False, "Set no-new-privileges by default for new containers"),
    _flag("no-proxy", "str", "", "Comma-separated hosts that are reached without the proxy"),
    _flag("pidfile", "str", "/run/barque.pid", "File for the daemon's process id", short="p"),
    _flag("print-unit", "bool", False, "Print the systemd service and socket units", key=""),
    _flag("raw-logs", "bool", False, "Full timestamps without colours (the log has no colours)"),
    _flag("registry-certs", "list", ["/etc/barque/certs.d", "/etc/docker/certs.d"],
          "Folders with a folder of certificates for each registry"),
    _flag("registry-mirror", "list", [], "Preferred mirrors of Docker Hub, or of any registry ([REGISTRY=]URL)", key="registry-mirrors", reloadable=True),
    _flag("respect-host-firewall", "bool", False, "Published ports obey the host's own rules for incoming packets"),
    _flag("seccomp-profile", "str", "", "Path of a seccomp profile, builtin or unconfined"),
    _flag("shutdown-timeout", "int", 15, "Seconds that containers get to stop with the daemon", reloadable=True),
    _flag("storage-driver", "str", "", "Storage driver (erofs or overlay2)", short="s"),
    _flag("tls", "bool", False, "Use TLS; implied by --tlsverify"),
    _flag("tlscacert", "str", "", "Trust certificates signed only by this CA"),
    _flag("tlscert", "str", "", "Path of the TLS certificate"),
    _flag("tlskey", "str", "", "Path of the TLS key"),
    _flag("tlsverify", "bool", False, "Use TLS and verify clients"),
    _flag("userland-proxy", "bool", True, "Use a proxy for loopback and IPv6 traffic to published ports"),
    _flag("validate", "bool", False, "Check the configuration and exit", key=""),
    _flag("version", "bool", False, "Print version information and quit", key="", short="v"),
)  # fmt: skip

UNSUPPORTED = frozenset(
    [
        "allow-nondistributable-artifacts",
        "api-cors-header",
        "authorization-plugin",
        "authorization-plugins",
        "containerd",
        "containerd-namespace",
        "containerd-plugins-namespace",
        "containerd-namespaces",
        "cpu-rt-period",
        "cpu-rt-runtime",
        "cri-containerd",
        "feature",
        "features",
        "ip-forward-no-drop",
        "network-control-plane-mtu",
        "network-diagnostic-port",
        "node-generic-resource",
        "node-generic-resources",
        "oom-score-adjust",
        "rootless",
        "selinux-enabled",
        "storage-opt",
        "storage-opts",
        "swarm-default-advertise-addr",
        "userland-proxy-path",
        "userns-remap",
    ]
)

BY_NAME = {flag.name: flag for flag in FLAGS}
BY_SHORT = {flag.short: flag for flag in FLAGS if flag.short}
BY_KEY = {flag.key: flag for flag in FLAGS if flag.key}

_TRUE = ("1", "t", "T", "true", "TRUE", "True")
_FALSE = ("0", "f", "F", "false", "FALSE", "False")


def parse_argv(argv: list[str]) -> dict[str, Any]:
    """Return the values given on a command line, by the flags' names.

    Raises:
        DaemonError: a flag is unknown, unsupported or has a bad value.
    """
    values: dict[str, Any] = {}
    words = iter(argv)
    for word in words:
        if not word.startswith("-") or word == "-":
            raise DaemonError('"barque daemon" accepts no arguments.\nSee "barque daemon --help".')
        flag, text = _flag_of(word)
        if text is None:
            if flag.kind == "bool":
                text = "true"
            else:
                text = next(words, None)
                if text is None:
                    raise DaemonError(f"flag needs an argument: {word}")
        _take(values, flag, text, word.partition("=")[0])
    return values


def _flag_of(word: str) -> tuple[Flag, str | None]:
    if word.startswith("--"):
        name, equals, text = word[2:].partition("=")
        if name in UNSUPPORTED:
            raise DaemonError(f"--{name} is not supported by this engine")
        flag = BY_NAME.get(name)
        if flag is None:
            raise DaemonError(f"unknown flag: --{name}")
        return flag, text if equals else None
    flag = BY_SHORT.get(word[1])
    if flag is None:
        raise DaemonError(f"unknown shorthand flag: {word[1]!r} in {word}")
    rest = word[2:]
    return flag, rest.removeprefix("=") if rest else None


def _take(values: dict[str, Any], flag: Flag, text: str, shown: str) -> None:
    try:
        match flag.kind:
            case "bool":
                values[flag.name] = truth(text)
            case "int":
                values[flag.name] = int(text)
            case "size":
                values[flag.name] = size_bytes(text)
            case "str":
                values[flag.name] = text
            case "list":
                values.setdefault(flag.name, []).extend(_items(flag, text))
            case "driver-opts":
                name, value = _pair(flag, text)
                key, _, setting = value.partition("=")
                values.setdefault(flag.name, {}).setdefault(name, {})[key] = setting
            case "objects":
                values.setdefault(flag.name, []).append(json.loads(text))
            case "pools":
                values.setdefault(flag.name, []).append(_pool(text))
            case _:
                name, value = _pair(flag, text)
                values.setdefault(flag.name, {})[name] = value
    except ValueError as error:
        raise DaemonError(f'invalid argument "{text}" for "{shown}" flag: {error}') from None


def truth(text: str) -> bool:
    """Return a flag's text as truth.

    Raises:
        ValueError: it is neither.
    """
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise ValueError(f'strconv.ParseBool: parsing "{text}": invalid syntax')


def size_bytes(text: str) -> int:
    """Return a size like 64m in bytes.

    Raises:
        ValueError: it is none.
    """
    number, unit = text.lower().removesuffix("ib").removesuffix("b"), 0
    for power, letter in enumerate("kmgtp", 1):
        if number.endswith(letter):
            number, unit = number[:-1], power
    try:
        value = int(float(number) * 1024**unit)
    except (ValueError, OverflowError):
        raise ValueError(f"invalid size: '{text}'") from None
    if value < 0:
        raise ValueError(f"invalid size: '{text}'")
    return value


def _items(flag: Flag, text: str) -> list[str]:
    if flag.name == "label" and not text.partition("=")[0]:
        raise ValueError(f"invalid label format: '{text}'")
    return [text]


def _pool(text: str) -> dict[str, Any]:
    fields = dict(part.partition("=")[::2] for part in text.split(","))
    if set(fields) != {"base", "size"} or not fields["size"].isdigit():
        raise ValueError("invalid address pool: must be base=CIDR,size=NUMBER")
    return checked_pool({"base": fields["base"], "size": int(fields["size"])})


def checked_pool(pool: dict[str, Any]) -> dict[str, Any]:
    """Return a pool of subnets that can be one.

    Raises:
        ValueError: it cannot.
    """
    base = ipaddress.ip_network(pool["base"])
    if not base.prefixlen <= pool["size"] <= base.max_prefixlen:
        raise ValueError(f"invalid address pool: {base} has no subnets with a prefix of {pool['size']} bits")
    return pool


def _pair(flag: Flag, text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise ValueError(f"invalid argument {text}: must be formatted as <name>=<value>")
    if flag.kind == "runtimes":
        return name, {"path": value}
    if flag.kind == "ulimits":
        soft, _, hard = value.partition(":")
        try:
            return name, {"Name": name, "Soft": int(soft), "Hard": int(hard or soft)}
        except ValueError:
            raise ValueError(f"invalid ulimit argument: {text}") from None
    return name, value


def usage() -> str:
    """Return the help text."""
    lines = ["Usage:  barque daemon [OPTIONS]", "", "The engine's daemon: serves the API and minds containers.", "",
             "Options:"]  # fmt: skip
    shown = {
        "bool": "", "int": "int", "size": "bytes", "str": "string", "list": "list", "map": "map",
        "ulimits": "ulimit", "runtimes": "runtime", "pools": "pool-options", "objects": "json", "driver-opts": "mapmap",
    }  # fmt: skip
    for flag in FLAGS:
        short = f"-{flag.short}," if flag.short else "   "
        lines.append(f"  {short} --{flag.name} {shown[flag.kind]}".ljust(44) + flag.help)
    return "\n".join(lines)
