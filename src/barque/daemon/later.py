"""Modules whose code runs when something of them is first named: the daemon's start does without it.

An import of such a module finds it and puts it in its place, and that is all. Whoever then names a function or a class of
it, in any thread, has its code run first; nobody who imports needs to know. What a module defines must not be named while
others are imported, else it is imported with them: so those who import it name the module, and not what is in it.
"""

from __future__ import annotations

import importlib.util
import sys
import threading
import types

TYPE_CHECKING = False  # what is imported here cannot be put off
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.abc import Loader, MetaPathFinder
    from importlib.machinery import ModuleSpec
    from typing import Any
else:
    Loader = MetaPathFinder = object

PUT_OFF = frozenset({
    "aiohttp", "aiohttp.web", "asyncio.sslproto", "attr.converters", "attr.filters", "attr.validators", "bz2",
    "calendar", "copy", "email.base64mime", "email.header", "email.quoprimime", "fnmatch", "glob", "gzip",
    "http.client", "idna", "isal", "isal.igzip_lib", "isal.isal_zlib", "locale", "lzma", "mimetypes", "shlex",
    "shutil", "termios", "tokenize", "uuid",
    "barque.api.backends", "barque.api.checks", "barque.api.shapes", "barque.api.times", "barque.api.websocket",
    "barque.base.go_functions", "barque.base.go_lexer", "barque.base.go_regex", "barque.base.go_template",
    "barque.daemon.tls",
    "barque.distribution.progress",
    "barque.engine.apparmor", "barque.engine.archives", "barque.engine.checks", "barque.engine.commands",
    "barque.engine.commit", "barque.engine.container_files", "barque.engine.container_mounts",
    "barque.engine.container_streams", "barque.engine.create", "barque.engine.detach",
    "barque.engine.device_requests", "barque.engine.exec_process", "barque.engine.id_maps",
    "barque.engine.init_layer", "barque.engine.late_hooks", "barque.engine.log_files", "barque.engine.logs",
    "barque.engine.names", "barque.engine.pausing", "barque.engine.port_changes", "barque.engine.pumps",
    "barque.engine.removal", "barque.engine.resources", "barque.engine.rootfiles", "barque.engine.spec",
    "barque.engine.start_order", "barque.engine.starting", "barque.engine.stats", "barque.engine.storage_options",
    "barque.engine.top", "barque.engine.types", "barque.engine.updating", "barque.engine.volume_archives",
    "barque.engine.volume_options", "barque.engine.waiting",
    "barque.images.load", "barque.images.removal", "barque.images.save", "barque.images.summaries",
    "barque.images.views",
    "barque.keeper.logfile", "barque.keeper.strays",
    "barque.kernel.bpf_devices", "barque.kernel.conntrack", "barque.kernel.loop", "barque.kernel.namespaces",
    "barque.kernel.netlink.policy", "barque.kernel.quota",
    "barque.logdrivers.attributes", "barque.logdrivers.drivers", "barque.logdrivers.entry",
    "barque.logdrivers.options", "barque.logdrivers.plugin", "barque.logdrivers.shipper",
    "barque.logdrivers.source", "barque.logdrivers.values",
    "barque.network.dns.listeners", "barque.network.others",
    "barque.oci.manifest", "barque.oci.media", "barque.oci.platform",
    "barque.runtime.cgroups.v2", "barque.runtime.mount_options", "barque.runtime.rootfs", "barque.runtime.users",
    "barque.storage.archive", "barque.storage.compression", "barque.storage.disks",
    "barque.storage.erofs.image",
    "barque.storage.erofs.layer", "barque.storage.erofs.tree",
})  # fmt: skip
"""What a daemon imports at its start and does not need then."""

STAND_INS = {
    "email.parser": ("HeaderParser",), "email.policy": ("HTTP",), "html": ("escape",),
    "urllib.request": ("getproxies", "proxy_bypass"),
}  # fmt: skip
"""Modules of which others import names: what stands for these names takes calls and gives attributes."""

_locks: dict[str, threading.RLock] = {}
"""A lock for each module that has not run; whoever imports modules in their order can never wait for himself."""


class _Later(types.ModuleType):
    """A module before its own code has run; the modules of a package can be imported."""

    def __getattr__(self, name: str) -> Any:
        spec = self.__spec__
        if spec is None or (name.startswith("__") and name != "__all__"):
            raise _missing(self, name)
        # A module of the package is imported by whoever asks for it.
        if "__path__" in vars(self) and importlib.util.find_spec(f"{self.__name__}.{name}"):
            raise _missing(self, name)
        run(self)
        return getattr(self, name)


class _Running(_Later):
    """A module whose code is running now: it is seen half made by itself alone."""

    def __getattr__(self, name: str) -> Any:
        lock = _locks.get(self.__name__)
        if name.startswith("__"):
            raise _missing(self, name)
        if lock is None:
            # It has just run.
            return getattr(self, name)
        if lock.acquire(blocking=False):
            # It is this thread that runs it, or nobody any more.
            lock.release()
            if type(self) is _Running:
                raise _missing(self, name)
        else:
            with lock:
                pass
        return getattr(self, name)


def _missing(module: types.ModuleType, name: str) -> AttributeError:
    return AttributeError(f"module {module.__name__} has no attribute {name}")


def _become(module: types.ModuleType, kind: type[types.ModuleType]) -> None:
    module.__class__ = kind


def run(module: types.ModuleType) -> None:
    """Run a module's code, once, if it has not run."""
    lock = _locks.get(module.__name__)
    if lock is None:
        return
    with lock:
        spec = module.__spec__
        if type(module) is not _Later or spec is None or spec.loader is None:
            return
        _become(module, _Running)
        try:
            spec.loader.exec_module(module)
        except BaseException:
            _become(module, _Later)
            raise
        # From now on it is a module like any other.
        _become(module, types.ModuleType)
        del _locks[module.__name__]


class _StandIn:
    """Stands for a name of a module that has not run."""

    def __init__(self, module: types.ModuleType, name: str) -> None:
        self._module = module
        self._name = name

    def _real(self) -> Any:
        run(self._module)
        return vars(self._module)[self._name]

    def __call__(self, *given: Any, **named: Any) -> Any:
        return self._real()(*given, **named)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real(), name)


class _Placing(Loader):
    """Puts a module in its place instead of running it."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> types.ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: types.ModuleType) -> None:
        assert module.__spec__ is not None
        module.__spec__.loader = module.__loader__ = self._loader
        _locks[module.__name__] = threading.RLock()
        for name in STAND_INS.get(module.__name__, ()):
            vars(module)[name] = _StandIn(module, name)
        _become(module, _Later)


class _Finder(MetaPathFinder):
    """Finds the modules that are put off as all others are found."""

    def __init__(self, names: frozenset[str]) -> None:
        self._names = names

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> ModuleSpec | None:
        if name not in self._names and name not in STAND_INS:
            return None
        for finder in sys.meta_path:
            spec = finder.find_spec(name, path, target) if finder is not self else None
            if spec is not None:
                if spec.loader is not None:
                    spec.loader = _Placing(spec.loader)
                return spec
        return None


def put_off(names: frozenset[str] = PUT_OFF) -> None:
    """Put off modules, those that have not been imported yet."""
    sys.meta_path.insert(0, _Finder(names))


def waiting() -> list[str]:
    """Return the modules that were imported and have not run."""
    return [*_locks]
