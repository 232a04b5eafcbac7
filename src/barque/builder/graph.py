"""The steps of a build as a graph: vertices with inputs, and what each is told apart by.

A vertex is itself: a frontend that wants a step once uses one vertex. Steps of different vertices, also
of different builds, still meet in the solver, by the key of what they do. A vertex of BuildKit's protocol
maps to one here field by field.
"""

from dataclasses import dataclass, field

from barque.dockerfile.instructions import InlineFile
from barque.dockerfile.mounts import DeviceRequest

DEFAULT_NETWORK = "default"


@dataclass(frozen=True, slots=True, eq=False)
class Vertex:
    """One step; `name` is what people read of it."""

    name: str = field(default="", kw_only=True)
    no_cache: bool = field(default=False, kw_only=True)

    @property
    def inputs(self) -> "tuple[Vertex, ...]":
        """Return the steps whose results it needs."""
        return ()


@dataclass(frozen=True, slots=True, eq=False)
class Scratch(Vertex):
    """Nothing: no layers."""


@dataclass(frozen=True, slots=True, eq=False)
class Layers(Vertex):
    """Layers that are here already: chain ids and diffIDs, lowest first; when the last one was made."""

    layers: "tuple[tuple[str, str], ...]" = ()
    created_ns: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Source(Vertex):
    """Files from outside: `local://name`, `http(s)://...`, `git://...`, `docker-image://...`.

    Attributes are sorted pairs: `checksum`, `filename`, `keep_git`, `platform`, ...
    """

    identifier: str
    attributes: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Mount:
    """A mount of an Exec; `input` is an index of its inputs, -1 without one.

    Types: bind, cache, tmpfs, secret, ssh. `selector` is the path inside the input. Sizes in bytes.
    """

    target: str
    type: str = "bind"
    input: int = -1
    selector: str = ""
    readonly: bool = True
    id: str = ""
    sharing: str = "shared"
    size: int = 0
    mode: int | None = None
    uid: int = 0
    gid: int = 0
    required: bool = False
    env: str | None = None
    output: bool = False
    """What is written there is a result of its own (see ExecOutput), not thrown away."""


@dataclass(frozen=True, slots=True, eq=False)
class Exec(Vertex):
    """Run a command on a root; `needs[0]` is the root, the rest is what mounts take.

    `args`, `env`, `cwd`, `user` as in an OCI process. `hidden_env` is set too, but does not tell steps apart.
    """

    needs: tuple[Vertex, ...]
    args: tuple[str, ...]
    env: tuple[str, ...] = ()
    cwd: str = "/"
    user: str = ""
    mounts: tuple[Mount, ...] = ()
    network: str = DEFAULT_NETWORK
    security: str = "sandbox"
    hidden_env: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    hostname: str = ""
    shell: tuple[str, ...] = ()
    files: tuple[InlineFile, ...] = ()
    ulimits: tuple[tuple[str, int, int], ...] = ()
    """Name, soft and hard limit."""
    exit_codes: tuple[int, ...] = ()
    """The codes with which the command may end; none: 0 alone."""
    cgroup_parent: str = ""
    devices: tuple[DeviceRequest, ...] = ()
    readonly_root: bool = False

    @property
    def inputs(self) -> tuple[Vertex, ...]:
        """Return the root and what the mounts take."""
        return self.needs


@dataclass(frozen=True, slots=True, eq=False)
class ExecOutput(Vertex):
    """What a command left in one of its mounts, on top of what the mount took."""

    command: Exec
    mount: Mount

    @property
    def inputs(self) -> tuple[Vertex, ...]:
        """Return the command and all that it takes: it is run again where this is not known any more."""
        return (self.command, *self.command.needs)


@dataclass(frozen=True, slots=True, eq=False)
class Failed(Vertex):
    """What a command that failed has left of its root, in an active snapshot."""

    command: Exec
    snapshot: str

    @property
    def inputs(self) -> tuple[Vertex, ...]:
        """Return the root that the command began with."""
        return self.command.needs[:1]


@dataclass(frozen=True, slots=True)
class CopyFiles:
    """Copy `source` of input `input` to `target` (absolute; a slash at its end means a folder).

    `owner` is user[:group], looked up in the root; empty: 0:0, "=": as the source has it. `mode` is as
    for --chmod. `required` paths must be there. `unpack`: an archive is unpacked there. `wildcard`: the source may match several files.
    """

    input: int
    source: str
    target: str
    owner: str = ""
    mode: str = ""
    unpack: bool = False
    wildcard: bool = True
    follow: bool = True
    contents: bool = True
    excludes: tuple[str, ...] = ()
    includes: tuple[str, ...] = ()
    required: tuple[str, ...] = ()
    replace: bool = False
    optional: bool = False
    time_ns: int | None = None


@dataclass(frozen=True, slots=True)
class MakeFile:
    """Write a file."""

    path: str
    data: bytes
    mode: int = 0o644
    owner: str = ""
    time_ns: int | None = None


@dataclass(frozen=True, slots=True)
class MakeFolder:
    """Make a folder."""

    path: str
    mode: int = 0o755
    parents: bool = True
    owner: str = ""
    time_ns: int | None = None


@dataclass(frozen=True, slots=True)
class MakeLink:
    """Make a symbolic link."""

    target: str
    path: str
    owner: str = ""
    time_ns: int | None = None


@dataclass(frozen=True, slots=True)
class RemovePath:
    """Remove a file or folder."""

    path: str
    wildcard: bool = False
    optional: bool = False


Action = CopyFiles | MakeFile | MakeFolder | MakeLink | RemovePath


@dataclass(frozen=True, slots=True, eq=False)
class Files(Vertex):
    """Change files on a root; `needs[0]` is the root, the rest is what is copied from."""

    needs: tuple[Vertex, ...]
    actions: tuple[Action, ...]

    @property
    def inputs(self) -> tuple[Vertex, ...]:
        """Return the root and what is copied from."""
        return self.needs


@dataclass(frozen=True, slots=True, eq=False)
class Merge(Vertex):
    """The inputs' layers on top of each other."""

    needs: tuple[Vertex, ...]

    @property
    def inputs(self) -> tuple[Vertex, ...]:
        """Return what is merged, lowest first."""
        return self.needs


@dataclass(frozen=True, slots=True, eq=False)
class Diff(Vertex):
    """What the upper has more than the lower."""

    lower: Vertex
    upper: Vertex

    @property
    def inputs(self) -> tuple[Vertex, ...]:
        """Return both."""
        return (self.lower, self.upper)


def layered(vertex: Vertex) -> Vertex:
    """Return a vertex whose result is layers: files from outside that are no image are copied into one."""
    if not isinstance(vertex, Source) or vertex.identifier.startswith("docker-image://"):
        return vertex
    return Files((Scratch(), vertex), (CopyFiles(1, "/", "/", owner="=", wildcard=False),), name=f"copy {vertex.name}")
