"""All options of the daemon: defaults, daemon.json, command line, and their conflicts."""

import copy
import json
import os
import sys
from typing import Any

from barque.base.errors import InvalidInputError
from barque.daemon.flags import BY_KEY, FLAGS, UNSUPPORTED, DaemonError, Flag, checked_pool, parse_argv, size_bytes
from barque.distribution.settings import mirrors_of
from barque.engine.disk_budget import budget_of
from barque.engine.event_hooks import hooks_of

Json = dict[str, Any]

_FILE_TYPES: dict[str, tuple[type, str]] = {
    "bool": (bool, "bool"), "int": (int, "int"), "str": (str, "string"), "list": (list, "[]string"),
    "map": (dict, "map[string]string"), "ulimits": (dict, "map"), "runtimes": (dict, "map"), "pools": (list, "[]"),
    "objects": (list, "[]"),
    "driver-opts": (dict, "map[string]map[string]string"),
}  # fmt: skip
_FILE_ONLY: dict[str, Any] = {"builder": {}}
"""What daemon.json sets and the command line does not, and its defaults."""
_STORAGE_DRIVERS = ("erofs", "overlay2", "overlayfs")
_LEVELS = ("debug", "info", "warn", "error", "fatal")


def command(options: "Options") -> list[str]:
    """Return the command line that starts this daemon."""
    return [sys.executable, "-m", "barque", "daemon", *options.argv]


class Options:
    """What the daemon was told, by the flags' names; `given` names those that were told at all."""

    def __init__(self, argv: list[str], kept: Json | None = None) -> None:
        """Read the command line and the file it names.

        Args:
            argv: the words behind `daemon`.
            kept: what `kept()` gave of the daemon before us in this process: the file, which may say something else by
                now, is not read then.

        Raises:
            DaemonError: either is wrong, or they contradict each other.
        """
        self.argv = argv
        self.flags = parse_argv(argv)
        self.values: dict[str, Any] = {**_FILE_ONLY, **{flag.name: flag.default for flag in FLAGS}}
        self.values.update(self.flags)
        self.given = set(self.flags)
        if kept is None:
            self.load_file()
            self._at_start = self.values, self.given
        else:
            self.values, self.given = kept["values"], set(kept["given"])
            self._at_start = kept["at_start"]["values"], set(kept["at_start"]["given"])

    def kept(self) -> Json:
        """Return the options as they are, and as they were when the daemon started, for the next one in this process."""
        values, given = self._at_start
        return {"values": self.values, "given": sorted(self.given),
                "at_start": {"values": values, "given": sorted(given)}}  # fmt: skip

    def of_start(self) -> "Options":
        """Return the options as they were when the daemon started."""
        found = copy.copy(self)
        found.values, found.given = self._at_start
        return found

    def __getitem__(self, name: str) -> Any:
        return self.values[name]

    @property
    def config_file(self) -> str:
        """Return the path of daemon.json."""
        return str(self.values["config-file"])

    def load_file(self) -> set[str]:
        """Read daemon.json, again on a reload; return the names of what it sets.

        Raises:
            DaemonError: the file is wrong or contradicts the command line.
        """
        try:
            found = read_file(self.config_file)
            self._refuse_conflicts(found)
            values = {**_FILE_ONLY, **{flag.name: flag.default for flag in FLAGS}, **found, **self.flags}
            check(values)
        except DaemonError as error:
            raise DaemonError(
                f"unable to configure the Barque daemon with file {self.config_file}: {error}"
                if os.path.exists(self.config_file)
                else str(error)
            ) from None
        self.values = values
        self.given = set(self.flags) | set(found)
        return set(found)

    def _refuse_conflicts(self, found: dict[str, Any]) -> None:
        both = [
            f"{_key(name)}: (from flag: {_shown(self.flags[name])}, from file: {_shown(found[name])})"
            for name in found
            if name in self.flags
        ]
        if both:
            raise DaemonError(
                "the following directives are specified both as a flag and in the configuration file: "
                + ", ".join(both)
            )


def _key(name: str) -> str:
    return next(flag.key for flag in FLAGS if flag.name == name)


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return "[" + " ".join(str(item) for item in value) + "]"
    return str(value)


def read_file(path: str) -> dict[str, Any]:
    """Return the values of a daemon.json by the flags' names; none where the file is missing.

    Raises:
        DaemonError: unreadable, no JSON object, an unknown or unsupported key, a wrong type.
    """
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise DaemonError(f"{error}") from None
    if not text.strip():
        return {}
    try:
        content = json.loads(text.removeprefix("\ufeff"))
    except (ValueError, RecursionError) as error:
        raise DaemonError(f"invalid JSON: {error}") from None
    if not isinstance(content, dict):
        raise DaemonError("the configuration is not a JSON object")
    return _known(content)


def _known(content: Json) -> dict[str, Any]:
    content = {**content, **_proxies(content.pop("proxies", {}))}
    only_here = {key: _checked_builder(content.pop(key)) for key in _FILE_ONLY if key in content}
    unknown = [key for key in content if key not in BY_KEY and key not in UNSUPPORTED]
    if unknown:
        raise DaemonError("the following directives don't match any configuration option: " + ", ".join(unknown))
    refused = [key for key in content if key in UNSUPPORTED]
    if refused:
        raise DaemonError("the following directives are not supported by this engine: " + ", ".join(refused))
    return only_here | {BY_KEY[key].name: _file_value(BY_KEY[key], key, value) for key, value in content.items()}


def _checked_builder(value: Any) -> Json:
    if not isinstance(value, dict):
        raise DaemonError("builder: wants an object")
    from barque.builder.collecting import policies_of

    try:
        policies_of(value, 1)
    except InvalidInputError as error:
        raise DaemonError(str(error)) from None
    return value


def _proxies(value: Any) -> Json:
    if not isinstance(value, dict) or set(value) - {"http-proxy", "https-proxy", "no-proxy"}:
        raise DaemonError("proxies: wants http-proxy, https-proxy and no-proxy")
    return value


def _file_value(flag: Flag, key: str, value: Any) -> Any:
    if flag.kind == "size" and isinstance(value, str | int) and not isinstance(value, bool):
        try:
            return size_bytes(str(value))
        except ValueError as error:
            raise DaemonError(f"{key}: {error}") from None
    if flag.kind not in _FILE_TYPES:
        raise _wrong_type(key, value, "size")
    wanted, shown = _FILE_TYPES[flag.kind]
    if not isinstance(value, wanted) or (wanted is int and isinstance(value, bool)):
        raise _wrong_type(key, value, shown)
    inside: list[Any] = []
    if flag.kind == "list" and isinstance(value, list):
        inside = value
    elif flag.kind == "map" and isinstance(value, dict):
        inside = list(value.values())
    if not all(isinstance(item, str) for item in inside):
        raise _wrong_type(key, value, shown)
    if flag.kind == "ulimits" and isinstance(value, dict):
        return {name: _ulimit(name, item) for name, item in value.items()}
    if flag.kind == "driver-opts":
        return _driver_options(key, value)
    if flag.kind == "pools" and isinstance(value, list):
        return [_pool(item) for item in value]
    return value


def _wrong_type(key: str, value: Any, wanted: str) -> DaemonError:
    return DaemonError(f"json: cannot unmarshal {json.dumps(value)[:60]} into field {key} of type {wanted}")


def _pool(item: Any) -> Json:
    if isinstance(item, dict) and isinstance(item.get("base"), str) and isinstance(item.get("size"), int):
        try:
            return checked_pool(item)
        except ValueError as error:
            raise DaemonError(f"invalid default-address-pools entry: {error}") from None
    raise DaemonError("invalid default-address-pools entry: wants base and size")


def _driver_options(key: str, value: Any) -> dict[str, dict[str, str]]:
    for options in value.values():
        if not isinstance(options, dict) or not all(isinstance(item, str) for item in options.values()):
            raise _wrong_type(key, options, "map[string]string")
    return value  # type: ignore[no-any-return]


def _ulimit(name: str, item: Any) -> Json:
    if isinstance(item, dict) and all(isinstance(item.get(part, 0), int) for part in ("Soft", "Hard")):
        soft = item.get("Soft", 0)
        return {"Name": name, "Soft": soft, "Hard": item.get("Hard", soft)}
    raise DaemonError(f"invalid default-ulimits entry for {name}: wants Name, Soft and Hard")


def check(values: dict[str, Any]) -> None:
    """Refuse values that cannot work.

    Raises:
        DaemonError: names the first of them.
    """
    if values["log-level"] not in _LEVELS:
        raise DaemonError(f"invalid logging level: {values['log-level']}")
    if values["log-format"] not in ("text", "json"):
        raise DaemonError(f"invalid log format: {values['log-format']}")
    if values["storage-driver"] not in ("", *_STORAGE_DRIVERS):
        raise DaemonError(
            f"unsupported storage driver: {values['storage-driver']}: this engine has erofs and overlay2"
        )
    if values["firewall-backend"] not in ("", "nftables"):
        raise DaemonError(f"unsupported firewall backend: {values['firewall-backend']}: this engine has nftables")
    if values["idle-timeout"] < 0:
        raise DaemonError(f"invalid idle timeout: {values['idle-timeout']}: use seconds, or 0 for never")
    for option in values["exec-opt"]:
        if option != "native.cgroupdriver=cgroupfs":
            raise DaemonError(f"unsupported exec option: {option}: this engine has native.cgroupdriver=cgroupfs")
    for label in values["label"]:
        if "=" not in label or label.startswith("="):
            raise DaemonError(f"bad attribute format: {label}")
    _check_modes(values)
    _check_runtimes(values)
    _check_registries(values)
    try:
        budget_of(values["disk-budget"])
        hooks_of(values["event-hook"])
    except InvalidInputError as error:
        raise DaemonError(str(error)) from None


def firewall_mark(text: str) -> tuple[int, int]:
    """Return mark and mask of `1`, `0x1` or `0x1/0x3`.

    Raises:
        ValueError: it is none, or more than 32 bits.
    """
    mark, slash, mask = text.partition("/")
    found = int(mark, 0), int(mask, 0) if slash else 0xFFFFFFFF
    if not all(0 <= number < 1 << 32 for number in found):
        raise ValueError(text)
    return found


def _check_modes(values: dict[str, Any]) -> None:
    if values["default-ipc-mode"] not in ("private", "shareable"):
        raise DaemonError(f"configured default-ipc-mode ({values['default-ipc-mode']}) is invalid")
    if values["default-cgroupns-mode"] not in ("", "host", "private"):
        raise DaemonError(f"configured default-cgroupns-mode ({values['default-cgroupns-mode']}) is invalid")
    if values["bridge"] == "none" and values["bip"]:
        raise DaemonError("cannot specify both --bip and --bridge=none")
    if values["bridge"] and values["bip"]:
        raise DaemonError("You specified -b & --bip, mutually exclusive options. Please specify only one")
    if values["bridge-accept-fwmark"]:
        try:
            firewall_mark(values["bridge-accept-fwmark"])
        except ValueError:
            raise DaemonError(f"invalid firewall mark: {values['bridge-accept-fwmark']}: want mark or mark/mask") from None
    if not 0 <= values["mtu"] <= 65535:
        raise DaemonError(f"invalid default MTU: {values['mtu']}")
    for name in ("data-root", "exec-root", "pidfile"):
        if not values[name]:
            raise DaemonError(f"{name} must not be empty")


def _check_registries(values: dict[str, Any]) -> None:
    try:
        mirrors_of(values["registry-mirror"])
    except InvalidInputError as error:
        raise DaemonError(str(error)) from None
    for name in ("max-concurrent-downloads", "max-concurrent-uploads", "max-download-attempts"):
        if values[name] < 1:
            raise DaemonError(f"invalid {name.replace('-', ' ')}: {values[name]}")


def _check_runtimes(values: dict[str, Any]) -> None:
    for name, runtime in values["add-runtime"].items():
        if name in ("barque", ""):
            raise DaemonError(f"runtime name '{name}' is reserved")
        if not isinstance(runtime, dict) or not isinstance(runtime.get("path", ""), str):
            raise DaemonError(f"runtime {name}: wants a path")
        extra = [key for key in runtime if key != "path" and runtime[key]]
        if extra:
            raise DaemonError(f"runtime {name}: {', '.join(extra)} is not supported")
    default = values["default-runtime"]
    if default not in ("barque", "runc", "crun", "io.containerd.runc.v2") and default not in values["add-runtime"]:
        raise DaemonError(f"specified default runtime '{default}' does not exist")
