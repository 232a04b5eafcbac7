"""What a further process in a running container is to the runtime."""

from typing import TYPE_CHECKING, Any

from barque.base.errors import InvalidInputError
from barque.engine import apparmor, links, resources, spec
from barque.engine.container import Container
from barque.engine.rootfiles import user_of_process

if TYPE_CHECKING:
    from barque.engine.engine import Engine

Json = dict[str, Any]


def describe(engine: "Engine", container: Container, config: Json, *, tty: bool) -> Json:
    """Return the OCI process of an exec's request.

    Raises:
        InvalidInputError: the container has no such user or group, or the working folder is no absolute path.
    """
    host = container.host
    cwd = config.get("WorkingDir") or container.config.get("WorkingDir") or "/"
    if not cwd.startswith("/"):
        raise InvalidInputError("OCI runtime exec failed: exec failed: Cwd must be an absolute path")
    wanted = config.get("User") or container.config.get("User") or ""
    user = user_of_process(container.pid, wanted, host.get("GroupAdd") or ())
    env = {"Env": _merged(links.with_variables(engine, container), config.get("Env") or [])}
    names = spec.capabilities({"Privileged": True} if config.get("Privileged") else host)
    process: Json = {
        "args": config["Cmd"],
        "env": spec.environment(env, str(container.config.get("Hostname") or ""), user.home, tty=tty),
        "cwd": cwd,
        "user": spec.user_object(user),
        "capabilities": spec.capability_sets(names, user.uid),
        "noNewPrivileges": spec.no_new_privileges(host, default=engine.config.no_new_privileges),
        "oomScoreAdj": host.get("OomScoreAdj") or 0,
    }
    profile = apparmor.profile_of({"Privileged": True} if config.get("Privileged") else host)
    if profile:
        process["apparmorProfile"] = profile
    if tty:
        process["terminal"] = True
    limits = resources.rlimits(host, tuple(engine.config.default_ulimits))
    if limits:
        process["rlimits"] = limits
    return process


def _merged(base: list[str], more: list[str]) -> list[str]:
    found = {entry.partition("=")[0]: entry for entry in base}
    found.update({entry.partition("=")[0]: entry for entry in more})
    return list(found.values())
