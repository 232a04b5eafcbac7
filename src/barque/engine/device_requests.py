"""HostConfig.DeviceRequests: devices by name (CDI) and GPUs, put into config.json when a container starts."""

import os
import shutil
from typing import TYPE_CHECKING, Any

from barque.base.errors import BarqueError
from barque.engine import cdi

if TYPE_CHECKING:
    from barque.engine.engine import Engine

Json = dict[str, Any]
_GPU_KINDS = {"nvidia": "nvidia.com/gpu", "amd": "amd.com/gpu"}
_NVIDIA_HOOK = "nvidia-container-runtime-hook"
_NVIDIA_ABILITIES = ("compat32", "compute", "display", "graphics", "utility", "video")


def inject(engine: "Engine", requests: list[Json], spec: Json, rules: list[Json]) -> None:
    """Give a container the devices of its requests.

    Args:
        engine: the engine.
        requests: HostConfig.DeviceRequests.
        spec: config.json, changed in place.
        rules: linux.resources.devices, added to.

    Raises:
        BarqueError: a device is not known, or no driver has it.
    """
    for request in requests:
        if request.get("Driver") == "cdi":
            cdi.apply(spec, rules, engine.cdi.edits(request.get("DeviceIDs") or []))
        else:
            _inject_gpus(engine, request, spec, rules)


def _inject_gpus(engine: "Engine", request: Json, spec: Json, rules: list[Json]) -> None:
    driver, identities = request.get("Driver") or "", request.get("DeviceIDs") or []
    sets = [set(wanted) for wanted in request.get("Capabilities") or []]
    able = {"gpu", "nvidia", "amd", *_NVIDIA_ABILITIES}
    chosen = next((wanted for wanted in sets if "gpu" in wanted and wanted <= able), None)
    if identities and request.get("Count"):
        raise BarqueError("cannot set both Count and DeviceIDs on device request")
    if chosen is not None:
        known = engine.cdi.names()
        for vendor, kind in _GPU_KINDS.items():
            if driver in ("", vendor) and any(name.startswith(f"{kind}=") for name in known):
                cdi.apply(spec, rules, engine.cdi.edits(_gpus(kind, request.get("Count") or 0, identities, known)))
                return
        hook = shutil.which(_NVIDIA_HOOK) if driver in ("", "nvidia") else None
        if hook:
            _add_nvidia_hook(hook, request.get("Count") or 0, identities, chosen, spec)
            return
    shown = " ".join(f"[{' '.join(wanted)}]" for wanted in request.get("Capabilities") or [])
    raise BarqueError(f'could not select device driver "{driver}" with capabilities: [{shown}]')


def _gpus(kind: str, count: int, identities: list[str], known: list[str]) -> list[str]:
    """Return the CDI names of so many GPUs (-1: all), or of certain ones."""
    if identities:
        return [f"{kind}={identity}" for identity in identities]
    if count >= 0:
        return [f"{kind}={number}" for number in range(count)]
    return [f"{kind}=all"] if f"{kind}=all" in known else [name for name in known if name.startswith(f"{kind}=")]


def _add_nvidia_hook(hook: str, count: int, identities: list[str], abilities: set[str], spec: Json) -> None:
    """Have NVIDIA's own hook add its devices: it reads these variables."""
    wanted = identities or (["all"] if count < 0 else [str(number) for number in range(count)])
    variables = {"NVIDIA_VISIBLE_DEVICES": ",".join(wanted) or "void"}
    named = sorted(abilities & set(_NVIDIA_ABILITIES))
    if named:
        variables["NVIDIA_DRIVER_CAPABILITIES"] = ",".join(named)
    kept = [entry for entry in spec["process"]["env"] if entry.partition("=")[0] not in variables]
    spec["process"]["env"] = kept + [f"{key}={value}" for key, value in variables.items()]
    made = {"path": hook, "args": [_NVIDIA_HOOK, "prestart"], "env": [f"{k}={v}" for k, v in os.environ.items()]}
    spec.setdefault("hooks", {}).setdefault("prestart", []).append(made)
