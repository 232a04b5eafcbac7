"""RUN: mounts, environment, and the engine's runtime."""

import asyncio
import hashlib
import os
import shutil
import stat
from collections import defaultdict
from collections.abc import AsyncIterator, Container, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, Protocol

from barque.base.errors import BarqueError, InvalidInputError, UnsupportedError
from barque.base.ids import SHORT_LENGTH
from barque.builder.copying import Copier, CopyOptions
from barque.builder.folder_tree import FolderTree
from barque.builder.folders import KeptFolders
from barque.builder.graph import Exec, Mount
from barque.builder.results import Result, opened
from barque.builder.solver import Emit, Session
from barque.builder.trees import FOLDER, resolve
from barque.dockerfile.mounts import DeviceRequest
from barque.engine import steps
from barque.storage.archive.differences import holders
from barque.storage.snapshots import Mount as SnapshotMount, Snapshotter

if TYPE_CHECKING:
    from barque.engine.engine import Engine

Json = dict[str, Any]


class ExitError(BarqueError):
    """A command ended with another code than 0; `kept` is the snapshot that was left for its container."""

    def __init__(self, step: Exec, code: int, kept: str) -> None:
        command = " ".join(step.args)
        super().__init__(f"The command '{command}' returned a non-zero code: {code}")
        self.code = code
        self.kept = kept
        self.step = step


class SecretProvider(Protocol):
    """Gives a build's secrets and agents."""

    async def secret(self, name: str) -> bytes | None:
        """Return a secret's bytes, None without it."""
        ...

    async def agent(self, name: str, folder: str) -> str | None:
        """Return the path of a socket that reaches an SSH agent, made in folder; None without it."""
        ...


def check_allowed(step: Exec, known: Iterable[str], session: Session) -> None:
    """Refuse a command that wants what its build may not have.

    Args:
        step: the command.
        known: the CDI devices of this machine, sorted.
        session: of the build.

    Raises:
        InvalidInputError: it wants the host's network, all rights or a device, and the build was not allowed it.
    """
    options = session.options
    if step.network == "host" and not options.get("allow_host_network"):
        raise InvalidInputError("network.host is not allowed")
    if step.security == "insecure" and not options.get("allow_insecure"):
        raise InvalidInputError("security.insecure is not allowed")
    devices_of(step.devices, known, options.get("allow_devices", frozenset()))


async def execute(
    engine: "Engine", step: Exec, name: str, points: "Points", session: Session, emit: Emit
) -> steps.StepResult:
    """Run a step's command on the active snapshot `name`.

    Raises:
        StartError: it could not be started.
    """
    return await steps.run_step(engine, request_of(engine, step, name, points, session), emit)


def request_of(engine: "Engine", step: Exec, name: str, points: "Points", session: Session) -> steps.StepRequest:
    """Return what the engine runs for a command on the active snapshot `name`."""
    host: Json = dict(session.options.get("host") or {})
    if step.network != "default":
        host["NetworkMode"] = step.network
    if step.security == "insecure":
        host["Privileged"] = True
    if step.hosts:
        host["ExtraHosts"] = [*(host.get("ExtraHosts") or []), *step.hosts]
    if step.ulimits:
        mine = [{"Name": name, "Soft": soft, "Hard": hard} for name, soft, hard in step.ulimits]
        host["Ulimits"] = [*(host.get("Ulimits") or []), *mine]
    if step.cgroup_parent:
        host["CgroupParent"] = step.cgroup_parent
    if step.readonly_root:
        host["ReadonlyRootfs"] = True
    if step.devices:
        names = devices_of(step.devices, engine.cdi.names(), session.options.get("allow_devices", frozenset()))
        host["DeviceRequests"] = [{"Driver": "cdi", "DeviceIDs": names}] if names else []
    config = {
        "Hostname": step.hostname or session.options.get("hostname") or name[:SHORT_LENGTH], "Env": [*step.env, *step.hidden_env, *points.env],
        "User": step.user, "WorkingDir": step.cwd,
    }  # fmt: skip
    return steps.StepRequest(name, list(step.args), config, host, points.mounts, known=bool(session.options.get("known_ids")))


def devices_of(wanted: Iterable[DeviceRequest], known: Iterable[str], allowed: Container[str]) -> list[str]:
    """Return the CDI devices that a command is given.

    Args:
        wanted: `vendor/class=name`, `vendor/class` for the first of a class, `vendor/class=*` for all of it.
        known: those that the specs of this machine name, sorted.
        allowed: those that the build may use, "*" for all.

    Raises:
        InvalidInputError: one is needed and not known, or not allowed.
    """
    found: dict[str, None] = {}
    for one in wanted:
        kind, equals, name = one.name.partition("=")
        of_kind = [device for device in known if device.partition("=")[0] == kind]
        chosen = of_kind if name == "*" else [device for device in of_kind if device == one.name] if equals else of_kind[:1]
        if not chosen and one.required:
            raise InvalidInputError(f"the device {one.name} is not known to this engine: no CDI spec names it")
        for device in chosen:
            if "*" not in allowed and device not in allowed and kind not in allowed:
                raise InvalidInputError(f"the device {device} is not allowed to this build: use --allow device, or --allow device={device}")
            found[device] = None
    return list(found)


class Points:
    """What a step's mounts became: mount points, and variables of its environment."""

    def __init__(self) -> None:
        self.mounts: list[Json] = []
        self.env: list[str] = []

    def bind(self, source: str, target: str, *, readonly: bool) -> None:
        """Add a bind."""
        self.mounts.append({
            "Type": "bind", "Name": "", "Source": source, "Destination": target, "Driver": "", "Mode": "",
            "RW": not readonly, "Propagation": "rprivate", "copy": False, "make": False, "anonymous": False,
        })  # fmt: skip

    def snapshot(self, mounts: list[SnapshotMount], target: str) -> None:
        """Add an active snapshot."""
        self.mounts.append({
            "Type": "overlay", "Name": "", "Source": "", "Destination": target, "Driver": "", "Mode": "", "RW": True,
            "Propagation": "rprivate", "copy": False, "make": False, "anonymous": False, "mounts": mounts,
        })  # fmt: skip

    def tmpfs(self, target: str, options: str) -> None:
        """Add a tmpfs."""
        self.mounts.append({
            "Type": "tmpfs", "Name": "", "Source": "", "Destination": target, "Driver": "", "Mode": "", "RW": True,
            "Propagation": "", "copy": False, "make": False, "anonymous": False, "tmpfs": options,
        })  # fmt: skip

    def overlay(self, lowers: list[str], folder: str, target: str, *, writable: bool) -> None:
        """Add a view of folders (nearest first); what is written to it is thrown away."""
        for name in ("upper", "work"):
            os.makedirs(f"{folder}/{name}", exist_ok=True)
        options: tuple[str, ...] = ("ro", f"lowerdir={':'.join([*lowers, f'{folder}/work'])}")
        if writable:
            options = (f"lowerdir={':'.join(lowers)}", f"upperdir={folder}/upper", f"workdir={folder}/work", "volatile")
        self.mounts.append({
            "Type": "overlay", "Name": "", "Source": "", "Destination": target, "Driver": "", "Mode": "",
            "RW": writable, "Propagation": "rprivate", "copy": False, "make": False, "anonymous": False,
            "mounts": [SnapshotMount("overlay", "overlay", options)],
        })  # fmt: skip


class CacheMounts:
    """The folders behind `RUN --mount=type=cache`, and making a step's mounts ready.

        <root>/<digest of id>/    a cache's files
        <root>/tmp/<random>/      what lives as long as a step
        <private>/<random>/       secrets and sockets, as long as a step

    `private` lies where the engine keeps what does not outlive the machine: in memory, as a rule.
    """

    def __init__(self, kept: KeptFolders, private: str) -> None:
        self._kept = kept
        self.root = root = kept.root
        self.private = private
        shutil.rmtree(private, ignore_errors=True)
        os.makedirs(private, mode=0o700)
        shutil.rmtree(f"{root}/tmp", ignore_errors=True)
        os.makedirs(f"{root}/tmp", mode=0o700, exist_ok=True)
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    @asynccontextmanager
    async def points(
        self, step: Exec, inputs: list[Result], snapshots: Snapshotter, session: Session, outputs: Mapping[Mount, str]
    ) -> AsyncIterator[Points]:
        """Yield a step's mounts, made ready; `outputs` are the snapshots behind those whose files are kept.

        Raises:
            InvalidInputError: a mount's source is missing, or a secret is.
        """
        points = Points()
        scratch = f"{self.root}/tmp/{os.urandom(8).hex()}"
        async with AsyncExitStack() as stack:
            hidden = f"{self.private}/{os.path.basename(scratch)}"
            for folder in (scratch, hidden) if step.mounts else ():
                os.mkdir(folder, 0o711)
                stack.callback(shutil.rmtree, folder, ignore_errors=True)
            for number, mount in enumerate(step.mounts):
                place = f"{scratch}/{number}"
                if mount in outputs:
                    points.snapshot(snapshots.mounts(outputs[mount]), mount.target)
                elif mount.type == "cache":
                    await self._cache(mount, step, points, inputs, snapshots, stack)
                elif mount.type == "tmpfs":
                    points.tmpfs(mount.target, f"exec,mode=1777{f',size={mount.size}' if mount.size else ''}")
                elif mount.type == "bind":
                    await asyncio.to_thread(_bind, mount, points, inputs[max(mount.input, 0)], snapshots, place)
                elif mount.type == "secret":
                    await give_secret(mount, points, session, f"{hidden}/{number}")
                elif mount.type == "ssh":
                    await _ssh(mount, points, session, f"{hidden}/{number}")
                else:
                    raise UnsupportedError(f"unsupported mount type {mount.type}")
            yield points

    async def _cache(
        self, mount: Mount, step: Exec, points: Points, inputs: list[Result], snapshots: Snapshotter,
        stack: AsyncExitStack,
    ) -> None:  # fmt: skip
        name = hashlib.sha256((mount.id or mount.target).encode("utf-8", "surrogateescape")).hexdigest()
        if mount.sharing == "locked":
            lock = self._locks[name]
            await stack.enter_async_context(lock)
        elif mount.sharing == "private":
            base, number = name, 0
            while self._kept.in_use(name):
                number += 1
                name = f"{base}-{number}"
        shown = f' with id "{mount.id}"' if mount.id and mount.id != mount.target else ""
        self._kept.take(name, f"cached mount {mount.target} from exec {' '.join(step.args)}{shown}")
        stack.callback(self._kept.release, name)
        folder = f"{self.root}/{name}"
        if not os.path.isdir(folder):
            await asyncio.to_thread(_fill_cache, mount, folder, inputs, snapshots)
        os.utime(folder)
        points.bind(folder, mount.target, readonly=mount.readonly)


def _fill_cache(mount: Mount, folder: str, inputs: list[Result], snapshots: Snapshotter) -> None:
    made = f"{os.path.dirname(folder)}/tmp/{os.urandom(8).hex()}"
    os.mkdir(made, 0o700)
    os.chown(made, mount.uid, mount.gid)
    os.chmod(made, 0o755 if mount.mode is None else mount.mode)
    if mount.input > 0:
        _export(inputs[mount.input], mount.selector, made, snapshots)
    os.rename(made, folder)


def _bind(mount: Mount, points: Points, source: Result, snapshots: Snapshotter, place: str) -> None:
    """Show files of another step: layers and folders where they lie, an archive's as a copy."""
    os.mkdir(place, 0o755)
    lowers, is_folder = _shown_in_place(source, mount.selector, snapshots)
    if not lowers:
        path = _export(source, mount.selector, f"{place}/from", snapshots)
        lowers, is_folder = [path], os.path.isdir(path)
    if is_folder:
        points.overlay(lowers, place, mount.target, writable=not mount.readonly)
    elif mount.readonly:
        points.bind(lowers[0], mount.target, readonly=True)
    elif not stat.S_ISREG(os.lstat(lowers[0]).st_mode):
        # A copy of what can be read of an image's device would be one of this machine's disk.
        raise InvalidInputError(f"{mount.selector} is neither a folder nor a regular file: it can be mounted read-only alone")
    else:
        # What is written to a bound file is thrown away with this copy of it.
        points.bind(shutil.copy2(lowers[0], f"{place}/file"), mount.target, readonly=False)


def _shown_in_place(source: Result, selector: str, snapshots: Snapshotter) -> tuple[list[str], bool]:
    """Return the folders on disk (nearest first) or the one file at a path; nothing where there are none.

    Raises:
        InvalidInputError: the path does not exist.
    """
    with opened(snapshots, source) as tree:
        real = resolve(tree, selector)
        node = tree.lstat(real)
        if node is None:
            raise InvalidInputError(f'failed to calculate checksum of ref: "{"/" + selector.lstrip("/")}": not found')
        if isinstance(tree, FolderTree) and tree.path:
            folders = [f"{tree.path}/{real}".rstrip("/")]
        elif source.layers:
            layers = [snapshots.layer_dir(source.top), *snapshots.lower_dirs(source.top)]
            folders = holders(layers, real)
        else:
            return [], False
    # These characters part the options of an overlay.
    if any(character in folder for folder in folders for character in ",:\\"):
        return [], False
    return folders, node.kind == FOLDER


def _export(source: Result, selector: str, folder: str, snapshots: Snapshotter) -> str:
    """Copy what lies at a path of a result into a folder; return the folder or the one file in it."""
    os.makedirs(folder, exist_ok=True)
    with opened(snapshots, source) as tree:
        real = resolve(tree, selector)
        node = tree.lstat(real)
        if node is None:
            raise InvalidInputError(f'failed to calculate checksum of ref: "{"/" + selector.lstrip("/")}": not found')
        root = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        copier = Copier(root, CopyOptions(owner=None))
        try:
            copier.copy(tree, real, "file", "/" if node.kind == FOLDER else "/file")
            if node.kind == FOLDER:
                os.chmod(folder, node.mode)
                return folder
            return f"{folder}/file"
        finally:
            copier.close()
            os.close(root)


async def give_secret(mount: Mount, points: Points, session: Session, place: str) -> None:
    """Make a secret a variable, a file or both; the file lies in the new folder `place`.

    Raises:
        InvalidInputError: it is required and the client has none of that name, or it is no text for a variable.
    """
    provider: SecretProvider | None = session.options.get("secrets")
    data = await provider.secret(mount.id) if provider is not None else None
    if data is None:
        if mount.required:
            raise InvalidInputError(f"secret {mount.id}: not found")
        return
    if mount.env is not None:
        if b"\0" in data:
            raise InvalidInputError(f"secret {mount.id} cannot be a variable: it holds a NUL byte")
        points.env.append(f"{mount.env}={data.decode('utf-8', 'surrogateescape')}")
    if not mount.target:
        return
    os.mkdir(place, 0o700)
    path = f"{place}/secret"
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
        file.write(data)
    os.chown(path, mount.uid, mount.gid)
    os.chmod(path, 0o400 if mount.mode is None else mount.mode)
    points.bind(path, mount.target, readonly=True)


async def _ssh(mount: Mount, points: Points, session: Session, place: str) -> None:
    provider: SecretProvider | None = session.options.get("secrets")
    os.mkdir(place, 0o700)
    path = await provider.agent(mount.id or "default", place) if provider is not None else None
    if path is None:
        if mount.required:
            raise InvalidInputError(f"unset ssh forward key {mount.id or 'default'}")
        return
    os.chown(path, mount.uid, mount.gid)
    os.chmod(path, 0o600 if mount.mode is None else mount.mode)
    points.bind(path, mount.target, readonly=True)
    points.env.append(f"SSH_AUTH_SOCK={mount.target}")
