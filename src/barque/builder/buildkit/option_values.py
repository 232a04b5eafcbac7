"""Values of the Dockerfile frontend's options, read. Pure."""

from collections.abc import Mapping
from typing import Any

from barque.base.errors import InvalidInputError, UnsupportedError
from barque.builder import graph
from barque.dockerfile.directives import EXTENDED
from barque.oci.reference import parse

Json = dict[str, Any]
_PLAIN = {
    "target", "filename", "context", "contextkey", "dockerfilekey", "no-cache", "platform", "add-hosts",
    "force-network-mode", "cgroup-parent", "shm-size", "ulimit", "hostname", "image-resolve-mode", "multi-platform",
    "cache-from", "cache-imports", "cmdline", "source", "requestid", "frontend.caps",
}  # fmt: skip
_PREFIXES = ("build-arg:", "label:", "context:", "input:", "input-metadata:", "attest:", "local-sessionid:", "vcs:")
_BUILT_IN = ("docker/dockerfile", "docker/dockerfile-upstream", EXTENDED)


def number(name: str, text: str) -> int:
    """Return an option that is a count.

    Raises:
        InvalidInputError: it is none.
    """
    if not (text.isascii() and text.isdigit()):
        raise InvalidInputError(f"invalid {name}: {text}")
    return int(text)


def ulimit(text: str) -> Json:
    """Return a limit (`name=soft[:hard]`) as the engine takes it.

    Raises:
        InvalidInputError: it is none.
    """
    name, equals, value = text.partition("=")
    soft, _, hard = value.partition(":")
    if not equals or not soft.lstrip("-").isdigit() or (hard and not hard.lstrip("-").isdigit()):
        raise InvalidInputError(f"invalid ulimit: {text}")
    return {"Name": name, "Soft": int(soft), "Hard": int(hard or soft)}


def network_mode(text: str, entitlements: frozenset[str]) -> str:
    """Return the network of RUN.

    Raises:
        InvalidInputError: it is unknown, or not allowed to this build.
    """
    if text in ("", "sandbox", "default"):
        return graph.DEFAULT_NETWORK
    if text == "host" and "network.host" not in entitlements:
        raise InvalidInputError("network.host is not allowed")
    if text not in ("host", "none"):
        raise InvalidInputError(f"unsupported network mode {text!r}")
    return text


def allowed_devices(entitlements: frozenset[str]) -> frozenset[str]:
    """Return the devices that a build may use: `device` allows all, `device=NAME` one or a class."""
    found = {one.partition("=")[2].removeprefix("name=") or "*" for one in entitlements if one.partition("=")[0] == "device"}
    return frozenset(found)


def check_options(options: dict[str, str]) -> None:
    """Refuse what would otherwise be passed over.

    Raises:
        UnsupportedError: an option is unknown or not supported.
    """
    for key, value in options.items():
        if key in _PLAIN or key.startswith(_PREFIXES):
            continue
        raise UnsupportedError(f"the Dockerfile frontend does not know the option {key}={value}")


def foreign(line: str) -> str:
    """Return the image of a frontend that is not built in, empty for those that are.

    Raises:
        InvalidInputError: it is no image.
    """
    # The directive may have a command line behind the name.
    name = (line.split() or [""])[0]
    return "" if parse(name).familiar_name in _BUILT_IN else name


def is_true(text: str) -> bool:
    """Tell whether an option's value means yes."""
    return text.lower() in ("1", "t", "true")


def host_options(options: Mapping[str, str], given: Json) -> Json:
    """Return what the commands of RUN are given besides the Dockerfile, on top of what is given already.

    Raises:
        InvalidInputError: a value is wrong.
    """
    host = dict(given)
    if options.get("add-hosts"):
        host["ExtraHosts"] = [pair.replace("=", ":", 1) for pair in options["add-hosts"].split(",") if pair]
    if options.get("shm-size"):
        host["ShmSize"] = number("shm-size", options["shm-size"])
    if options.get("ulimit"):
        host["Ulimits"] = [ulimit(text) for text in options["ulimit"].split(",") if text]
    if options.get("cgroup-parent"):
        host["CgroupParent"] = options["cgroup-parent"]
    return host
