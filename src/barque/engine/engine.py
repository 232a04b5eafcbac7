"""The engine as a whole: its parts, the index of containers, opening and closing."""

import asyncio
import functools
import logging
import os
import uuid
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, NamedTuple

from barque.base.errors import BarqueError, InvalidInputError, NotFoundError
from barque.engine import create as creation, in_use, network_watch, reconcile
from barque.engine.cdi import CdiDevices
from barque.engine.config import EngineConfig, registry_settings
from barque.engine.container import Container
from barque.engine.containers import Containers
from barque.engine.disk_budget import DiskBudget
from barque.engine.event_hooks import EventHooks
from barque.engine.events import Events
from barque.engine.execs import Execs
from barque.engine.images import Images
from barque.engine.lifecycle import Lifecycle, now_ns
from barque.engine.log_changes import FolderWatch
from barque.engine.log_shipping import LogShipping
from barque.engine.metrics import Metrics
from barque.engine.networks import Networks
from barque.engine.port_proxy import PortProxy
from barque.engine.seccomp import SeccompPrograms
from barque.engine.secrets import Store
from barque.engine.state import Database
from barque.engine.system import System
from barque.engine.time_limits import TimeLimits
from barque.engine.volume_plugins import SOCKET_FOLDERS, Plugins
from barque.engine.volumes import Volumes
from barque.images.model import Image
from barque.images.store import open_store
from barque.keeper.client import Keeper
from barque.keeper.link import Doze
from barque.kernel import ext4
from barque.network import files
from barque.network.dns.client import NameService
from barque.network.manager import NetworkManager
from barque.runtime import cgroups
from barque.storage.drivers import open_snapshots

if TYPE_CHECKING:
    from barque.engine.registries import Registries

Json = dict[str, Any]
log = logging.getLogger(__name__)
_PREPARE_AFTER_S = 0.2
_OWN_RUNTIMES = ("", "barque", "io.containerd.runc.v2")


class Slept(NamedTuple):
    """What an engine leaves to the next when it dozes off: its link to the keeper, its past events, what lives in memory alone."""

    keeper: Doze
    events: list[Json]
    healths: dict[str, Json]
    execs: list[Json]
    watched: list[int]
    """Descriptors with news of what must not wait for the next client."""


class Engine:
    """Implements the API's Backend; made and used in one event loop.

    Order of use: `await open()`, any calls, `await close()`.
    """

    containers: Containers
    images: Images
    networks: Networks
    volumes: Volumes
    system: System

    def __init__(self, config: EngineConfig) -> None:
        self.config = config
        self.events = Events()
        self.containers_by_id: dict[str, Container] = {}
        self.by_name: dict[str, str] = {}
        self.making: dict[str, tuple[str, list[Json]]] = {}
        """Image and mounts of containers that are being made, by their ids."""
        self.early_exits: dict[str, Json] = {}
        self.step_exits: dict[str, Callable[[Json], None]] = {}
        self.step_ends: set[asyncio.Task[None]] = set()
        # Set by whoever composes the daemon: makes what builds images with the engine's help, when it is first needed.
        self.make_builds: Callable[[], Any] | None = None
        self._builds: Any = None
        self.closing = False
        self.cgroups_v2 = cgroups.is_v2()
        self.cgroupns_mode = config.cgroupns_mode or ("private" if self.cgroups_v2 else "host")
        self.lifecycle = Lifecycle(self)
        self.execs = Execs(self)
        self.containers = Containers(self)
        self.system = System(self)
        self.logs = LogShipping(self)
        self.time_limits = TimeLimits(self)
        self.metrics = Metrics(self)
        self.disk_budget, self.event_hooks = DiskBudget(self), EventHooks(self)
        self.secret_rows: dict[str, Json] = {}
        self.secrets, self.configs = Store(self, "secret"), Store(self, "config")
        self.seccomp = SeccompPrograms(config.seccomp_profile)
        self.init_layer_lock = asyncio.Lock()
        self.cdi = CdiDevices(lambda: config.cdi_spec_dirs)
        self.log_folders = FolderWatch()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._waiting_events: list[Json] | None = []
        self._resolver: tuple[float, files.Resolver] | None = None
        self.engine_id = ""

    async def open(self, slept: Slept | None = None) -> None:
        """Open the data root, find the keeper, take over what runs, bring back what should.

        Args:
            slept: what the daemon left that dozed off in this process; only what ended since is brought back then.

        Raises:
            BarqueError: a part cannot be opened.
            OSError: the data root or exec root is read-only or full.
        """
        config = self.config
        for root in (config.data_root, config.exec_root):
            os.makedirs(f"{root}/containers", mode=0o710, exist_ok=True)
            # No other user may walk in: below lie containers' variables, and files of theirs, set-user-id programs too.
            os.chmod(root, 0o710)
        ext4.spread(f"{config.data_root}/containers")
        self.database = Database(f"{config.data_root}/state.db")
        self._load_id()
        self.secret_rows = self.database.load("secret")
        self.snapshots = open_snapshots(f"{config.data_root}/snapshots", config.storage_driver)
        self.image_store = open_store(config.data_root, self.snapshots)
        self.images = Images(self.image_store, lambda: in_use.images(self), self.events.publish)
        self.plugins = Plugins((*SOCKET_FOLDERS, f"{config.exec_root}/plugins"))
        self.volumes = Volumes(
            f"{config.data_root}/volumes", self.database, self.events, lambda: in_use.volumes(self), now_ns, self.plugins
        )
        self.volumes.content = self.image_store.content
        self.volumes.layers_of = lambda ref: self.snapshots.mounts(self.image_store.resolve(ref).top)
        self.network = NetworkManager(config.data_root, config.exec_root, config.network, self.database)
        self.network.open()
        self.network.use_proxy(PortProxy())
        self.network.use_name_server(NameService(config.exec_root))
        self.networks = Networks(self)
        self.keeper = await Keeper.connect_or_spawn(
            config.exec_root, on_event=self._on_event, daemon_argv=config.daemon_argv or None,
            restart_daemon=config.restart_daemon, dozed=slept.keeper if slept else None,
        )  # fmt: skip
        self.disk_budget.open()
        self.event_hooks.apply(config.event_hooks)
        found = await reconcile.reconcile(self, dozed=slept is not None)
        self.logs.restore()
        if slept is not None:
            self.events.restore(slept.events)
            for container_id, shown in slept.healths.items():
                if container_id in self.containers_by_id:
                    self.containers_by_id[container_id].health = shown
            self.execs.restore(slept.execs)
        waiting, self._waiting_events = self._waiting_events or [], None
        for event in waiting:
            # What had ended when the keeper was asked is settled.
            if event["event"] != "exit" or event.get("exec_id") or event["id"] not in found.ended:
                self._on_event(event)
        for container_id, event in found.unheard.items():
            self.lifecycle.exited(self.containers_by_id[container_id], event)
        network_watch.watch(self)
        if slept is None:
            reconcile.bring_back(self, [*self.containers_by_id.values()])
        if self.seccomp.is_given:
            # One that cannot be keeps the daemon from starting.
            self._compile_filter()
        self.spawn(self._prepare(awakened=slept is not None))

    def _compile_filter(self) -> None:
        from barque.engine import spec

        self.seccomp.program(spec.capabilities({}), "")

    async def _prepare(self, *, awakened: bool) -> None:
        """Do what no answer needs; the requests that come first are answered first."""
        await asyncio.sleep(_PREPARE_AFTER_S)
        self._compile_filter()
        if not awakened:
            self.network.warn_of_others()
            await reconcile.sweep_groups(self)

    def _load_id(self) -> None:
        row = self.database.load("engine").get("id")
        if row is None:
            row = {"id": str(uuid.uuid4())}
            self.database.put("engine", "id", row)
        self.engine_id = row["id"]

    async def take_leave(self, slept: Slept | None) -> None:
        """End the keeper, which else starts a daemon anew, with its last process, where `open` failed."""
        if hasattr(self, "keeper"):
            await self.keeper.close(shutdown=True)
        elif slept is not None:
            Keeper.leave(slept.keeper, shutdown=True)

    async def close(self, stop_containers: bool = True, *, keeper_stays: bool = False) -> None:
        """Close everything; with stop_containers stop what runs first, else it runs on.

        The keeper ends with the last of its processes, unless it stays.
        """
        self.closing = True
        if stop_containers:
            await self.lifecycle.stop_all()
        for container in self.containers_by_id.values():
            if container.health_task is not None:
                container.health_task.cancel()
        await self.logs.close()
        self.log_folders.end()
        for task in [*self._tasks]:
            task.cancel()
        if self._tasks:
            await asyncio.wait([*self._tasks], timeout=2)
        if self.step_ends:
            await asyncio.wait([*self.step_ends], timeout=10)
        await self.keeper.close(shutdown=not keeper_stays)
        network_watch.end(self)
        self.network.close()
        self.image_store.close()
        await asyncio.to_thread(self.snapshots.close)
        await asyncio.to_thread(self.database.close)

    @functools.cached_property
    def registries(self) -> "Registries":
        """Return what pulls and pushes; its code comes with the first who asks, not with the daemon's start."""
        from barque.engine.registries import Registries

        return Registries(self.image_store, lambda: registry_settings(self.config))

    @property
    def builds(self) -> Any:
        """Return what builds images, None where nothing does."""
        if self._builds is None and self.make_builds is not None:
            self._builds = self.make_builds()
        return self._builds

    # The index.

    def find(self, ref: str) -> Container:
        """Return the container that an id, a name or a unique id prefix means.

        Raises:
            NotFoundError: none is meant.
            InvalidInputError: several are, or ref is empty.
        """
        plain = ref.removeprefix("/")
        container = self.containers_by_id.get(plain)
        if container is not None:
            return container
        found = self.by_name.get(plain)
        if found is not None and found in self.containers_by_id:
            return self.containers_by_id[found]
        if not plain:
            raise InvalidInputError("No container name or ID supplied")
        if len(plain) < 64 and all(c in "0123456789abcdef" for c in plain):
            matching = [i for i in self.containers_by_id if i.startswith(plain)]
            if len(matching) == 1:
                return self.containers_by_id[matching[0]]
            if matching:
                raise InvalidInputError(f"multiple IDs found with provided prefix: {plain}")
        raise NotFoundError(f"No such container: {ref}")

    def reserve_name(self, name: str, container_id: str) -> None:
        """Let a name mean a container that is about to be.

        Raises:
            ConflictError: it is taken.
        """
        if name in self.by_name:
            raise creation.conflict(name, self.by_name[name])
        self.by_name[name] = container_id

    def add(self, container: Container) -> None:
        """Put a container into the index."""
        self.containers_by_id[container.id] = container
        self.by_name[container.name] = container.id

    def discard(self, container: Container) -> None:
        """Take a container out of the index."""
        self.containers_by_id.pop(container.id, None)
        if self.by_name.get(container.name) == container.id:
            del self.by_name[container.name]

    def save(self, container: Container) -> None:
        """Write a container's row soon."""
        if not container.removed.is_set():
            self.database.put("container", container.id, container.row)

    def changed(self, container: Container) -> None:
        """Forget what was made of a container for the list."""
        container.summary = None

    def publish(self, container: Container, action: str, **more: str) -> None:
        """Tell that something happened to a container."""
        self.events.publish("container", action, container.id, container.attributes(**more))

    @property
    def is_busy(self) -> bool:
        """Tell whether anything goes on beside requests."""
        return bool(self._tasks)

    def doze(self) -> Slept:
        """Leave the keeper to the next engine, with what it cannot know otherwise; `close` must follow."""
        healths = {key: one.health for key, one in self.containers_by_id.items() if one.health is not None}
        return Slept(self.keeper.doze(), self.events.past(), healths, self.execs.ended(), self.network.watch_rules_on())

    def spawn(self, coroutine: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        """Run a coroutine beside; its failure is logged."""
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._task_done)
        return task

    def _task_done(self, task: "asyncio.Task[Any]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("a task of the engine failed", exc_info=task.exception())

    # Places and values.

    def folder(self, container_id: str) -> str:
        """Return a container's folder on disk."""
        return f"{self.config.data_root}/containers/{container_id}"

    def bundle(self, container_id: str) -> str:
        """Return a container's folder that does not outlive the machine."""
        return f"{self.config.exec_root}/containers/{container_id}"

    def cgroup_path(self, container: Container) -> str:
        """Return the path of a container's control group."""
        parent = container.host.get("CgroupParent") or self.config.cgroup_parent
        return f"/{parent.strip('/')}/{container.id}"

    def runtime_path(self, name: str) -> str:
        """Return the path of another OCI runtime, empty for our own.

        Raises:
            InvalidInputError: it is not known any more.
        """
        if name in _OWN_RUNTIMES:
            return ""
        if name not in self.config.runtimes:
            raise InvalidInputError(f"unknown or invalid runtime name: {name}")
        return self.config.runtimes[name]

    def seccomp_program(self, host: Json, *, external: bool) -> bytes | None:
        """Return the compiled filter of a container, None without one or for another runtime."""
        from barque.engine import spec

        choice = spec.seccomp_choice(host)
        if external or choice == "unconfined":
            return None
        return self.seccomp.program(spec.capabilities(host), choice)

    def seccomp_profile(self, host: Json) -> Json | None:
        """Return linux.seccomp for another runtime."""
        from barque.engine import spec

        choice = spec.seccomp_choice(host)
        return None if choice == "unconfined" else self.seccomp.resolved(spec.capabilities(host), choice)

    def host_resolver(self) -> files.Resolver:
        """Return what the host's resolv.conf says, read again when it changes."""
        try:
            changed = os.stat("/etc/resolv.conf").st_mtime
            if self._resolver is None or self._resolver[0] != changed:
                with open("/etc/resolv.conf", encoding="utf-8", errors="replace") as file:
                    self._resolver = (changed, files.parse_resolver(file.read()))
        except OSError:
            return files.Resolver()
        return self._resolver[1]

    def image_of(self, container: Container) -> Image | None:
        """Return the image a container was made from, None once it is gone."""
        try:
            return self.image_store.resolve(container.row["image"])
        except BarqueError:
            return None

    def shown_image(self, container: Container) -> str:
        """Return the image's name for the list: the id once the name means another image."""
        ref = str(container.row["image_ref"])
        try:
            if self.image_store.resolve(ref).id == container.row["image"]:
                return ref
        except BarqueError:
            pass
        return str(container.row["image"])

    def execs_running(self, container: Container) -> list[str]:
        """Return the ids of the container's running exec instances."""
        return [e for e in container.exec_ids if self.execs.is_running(e)]

    # The keeper's news.

    def _on_event(self, event: Json) -> None:
        if self._waiting_events is not None:
            self._waiting_events.append(event)
            return
        kind = event["event"]
        if kind == "exit":
            self._exit(event)
        elif kind == "adopted":
            if event.get("lost"):
                log.warning("container %s: lost while the keeper was away: %s", event.get("id"), event["lost"])
        elif kind == "log_error":
            log.error("container %s: log lines were lost: %s", event.get("id"), event.get("message"))
        else:
            log.warning("%s", kind.replace("_", " "))
            if kind == "keeper_restarted":
                self.spawn(reconcile.end_unknown(self))

    def _exit(self, event: Json) -> None:
        container = self.containers_by_id.get(event["id"])
        told = self.step_exits.pop(event.get("exec_id") or event["id"], None)
        if told is not None:
            told(event)
        elif event.get("exec_id"):
            self.execs.exited(event)
        elif container is None:
            return
        elif container.pid == 0:
            # The answer to its start is still on its way to the coroutine that waits for it.
            self.early_exits[container.id] = event
        else:
            self.lifecycle.exited(container, event)
