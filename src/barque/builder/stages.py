"""A stage's instructions, one after another, as changes of an image's config and vertices of the graph."""

import copy
import json
import posixpath
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from barque.base.errors import InvalidInputError
from barque.builder import graph
from barque.builder.mounts import mount_of
from barque.builder.shown import shown_health
from barque.builder.sources import is_git, is_url
from barque.dockerfile import instructions as of
from barque.dockerfile.lines import heredoc_of
from barque.dockerfile.patterns import has_wildcards
from barque.dockerfile.run_config import configure, environment_of, ports_of, shell_of
from barque.dockerfile.scope import Scope
from barque.dockerfile.text import quoted_list
from barque.dockerfile.words import Rules, expand

Json = dict[str, Any]
_DEFAULT_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Step(NamedTuple):
    """What an instruction came to: for the history, for people, and for the solver.

    `vertex` is None where only the config changed. `comment` is what the history says; `shell` tells
    that it is a command line of a RUN. `arguments` are the ARG values that the command was given; `shown`
    is what BuildKit's history says of all arguments, or of ports.
    """

    instruction: of.Instruction
    comment: str
    vertex: graph.Vertex | None = None
    shell: bool = False
    arguments: tuple[str, ...] = ()
    note: str = ""
    shown: tuple[str, ...] = ()


@dataclass(slots=True)
class StageState:
    """A stage under way: its image config, its root, its arguments."""

    config: Json
    root: graph.Vertex
    scope: Scope
    author: str = ""
    cmd_set: bool = False
    platform: Json = field(default_factory=dict)
    triggers: list[str] = field(default_factory=list)

    def fork(self, scope: Scope) -> "StageState":
        """Return the state of a stage that starts from this one."""
        return StageState(copy.deepcopy(self.config), self.root, scope, self.author, False, dict(self.platform))


class Environment(NamedTuple):
    """What a stage's instructions need of the build.

    `context` is the vertex of the build context, `source_of` gives the vertex that a --from names,
    `lenient` lets a wildcard match nothing.
    """

    context: graph.Vertex
    source_of: Callable[[str], graph.Vertex]
    escape: str = "\\"
    no_cache: bool = False
    lenient: bool = False
    network: str = graph.DEFAULT_NETWORK
    cache_namespace: str = ""
    time_ns: int | None = None


def begin(config: Json, root: graph.Vertex, scope: Scope, platform: Json) -> StageState:
    """Return the state of a stage that starts from an image.

    Args:
        config: the image's run config.
        root: its layers.
        scope: the stage's arguments.
        platform: os, architecture, variant of its image config.
    """
    made = copy.deepcopy(config)
    triggers = made.pop("OnBuild", None) or []
    env = list(made.get("Env") or [])
    if not any(entry.startswith("PATH=") for entry in env):
        env.append(_DEFAULT_PATH)
    made["Env"] = env
    return StageState(made, root, scope, platform=platform, triggers=list(triggers))


class StageBuilder:
    """Applies instructions to a state."""

    def __init__(self, state: StageState, around: Environment) -> None:
        self.state = state
        self._around = around

    def apply(self, instruction: of.Instruction) -> Step:
        """Change the state as an instruction says.

        Raises:
            InvalidInputError: the instruction cannot be carried out.
        """
        values = self.values()
        escape = of.escape_of(instruction, self._around.escape)
        made = instruction.expanded(lambda word: expand(word, values, Rules(escape)).text)
        if isinstance(made, of.Files):
            raw = Rules(escape, raw_quotes=True, plain_quotes=True)
            made = made.with_inline(lambda text: expand(text, values, raw).text)
        step: Step = _APPLY[type(made)](self, made)
        return step

    def values(self) -> dict[str, str]:
        """Return the variables that instructions can use now."""
        env = environment_of(self.state.config)
        return {**self.state.scope.values(env), **env}

    def _env(self, made: of.Env) -> Step:
        configure(self.state.config, made)
        return Step(made, "ENV " + " ".join(map(str, made.pairs)))

    def _maintainer(self, made: of.Maintainer) -> Step:
        self.state.author = made.text
        return Step(made, f"MAINTAINER {made.text}")

    def _label(self, made: of.Label) -> Step:
        configure(self.state.config, made)
        return Step(made, "LABEL " + " ".join(map(str, made.pairs)))

    def _arg(self, made: of.Arg) -> Step:
        shown = []
        for key, value in made.args:
            self.state.scope.declare(key, value)
            shown.append(key if value is None else f"{key}={value}")
        return Step(made, "ARG " + " ".join(shown), shown=tuple(self._shown_argument(key) for key, _ in made.args))

    def _shown_argument(self, key: str) -> str:
        value = self.state.scope.value(key)
        return key if value is None else f"{key}={value}"

    def _workdir(self, made: of.Workdir) -> Step:
        configure(self.state.config, made)
        path = self.state.config["WorkingDir"]
        vertex = None
        if path != "/":
            action = graph.MakeFolder(path, owner=self.state.config.get("User") or "", time_ns=self._around.time_ns)
            vertex = self._files((self.state.root,), (action,), made)
        return Step(made, f"WORKDIR {path}", vertex)

    def _files(self, needs: tuple[graph.Vertex, ...], actions: tuple[graph.Action, ...], made: of.Instruction) -> graph.Vertex:
        self.state.root = graph.Files(needs, actions, name=made.code, no_cache=self._around.no_cache)
        return self.state.root

    def _copy(self, made: of.Copy) -> Step:
        source = self._around.source_of(made.source) if made.source else self._around.context
        for path in made.sources:
            if is_url(path) or is_git(path):
                raise InvalidInputError("source can't be a URL for COPY")
        owner = made.chown or ("=" if made.source else "")
        needs, actions = self._taken(made, source, owner, unpack=False, parents=made.parents)
        return self._copied(made, "COPY", needs, actions)

    def _add(self, made: of.Add) -> Step:
        if made.checksum:
            if len(made.sources) != 1:
                raise InvalidInputError("checksum can't be specified for multiple sources")
            if not (is_url(made.sources[0]) or is_git(made.sources[0])):
                raise InvalidInputError("checksum requires HTTP(S) or Git sources")
        unpack = True if made.unpack is None else made.unpack
        needs, actions = self._taken(made, self._around.context, made.chown, unpack=unpack, parents=False)
        return self._copied(made, "ADD", needs, actions)

    def _taken(
        self, made: of.Files, source: graph.Vertex, owner: str, *, unpack: bool, parents: bool
    ) -> tuple[list[graph.Vertex], list[graph.CopyFiles]]:
        """Return what a COPY or ADD copies from, and how; the root is put before it later."""
        target = self._target(made.target)
        if len(made.sources) + len(made.inline) > 1 and not target.endswith("/"):
            name = "COPY" if isinstance(made, of.Copy) else "ADD"
            raise InvalidInputError(f"When using {name} with more than one source file, the destination must be a "
                                    "directory and end with a /")  # fmt: skip
        needs: list[graph.Vertex] = [self.state.root]
        actions: list[graph.CopyFiles] = []
        for path in made.sources:
            common = graph.CopyFiles(len(needs), path, target, owner=owner, mode=made.chmod,
                                     excludes=made.excludes, time_ns=self._around.time_ns)  # fmt: skip
            if isinstance(made, of.Add) and (is_git(path) or is_url(path)):
                needs.append(_remote(path, made))
                # The file's name is known only after its download: the folder it lies in is copied whole.
                into = is_git(path) or (target.endswith("/") and not made.unpack)
                actions.append(replace(common, source="/" if into else "/*", unpack=made.unpack is True))
                continue
            needs.append(source)
            missing = isinstance(made, of.Copy) and made.optional
            optional = missing or (self._around.lenient and has_wildcards(path))
            actions.append(_local(common, path, parents=parents, unpack=unpack, optional=optional, missing=missing))
        for file in made.inline:
            write = graph.MakeFile(f"/{file.name}", file.data.encode("utf-8", "surrogateescape"))
            needs.append(graph.Files((graph.Scratch(),), (write,), name="preparing inline document"))
            actions.append(graph.CopyFiles(len(needs) - 1, f"/{file.name}", target, owner=owner, mode=made.chmod,
                                           wildcard=False, time_ns=self._around.time_ns))  # fmt: skip
        return needs, actions

    def _target(self, path: str) -> str:
        if path.startswith("/"):
            return path
        joined = posixpath.normpath(posixpath.join("/", self.state.config.get("WorkingDir") or "/", path))
        joined = "/" + joined.lstrip("/")
        return joined + "/" if path.endswith(("/", "/.")) or (path in (".", "") and joined != "/") else joined

    def _copied(self, made: of.Files, name: str, needs: list[graph.Vertex], actions: list[graph.CopyFiles]) -> Step:
        if made.link and not made.chmod:
            # Alone on nothing, then put on top: it is the same layer whatever lies below.
            needs[0] = graph.Scratch()
            alone = graph.Files(tuple(needs), tuple(actions), name=made.code, no_cache=self._around.no_cache)
            self.state.root = graph.Merge((self.state.root, alone), name=f"LINK {made.code}")
        else:
            self._files(tuple(needs), tuple(actions), made)
        words = [name]
        if isinstance(made, of.Copy) and made.parents:
            words.append("--parents")
        words += [f"--{flag}={value}" for flag, value in (("chown", made.chown), ("chmod", made.chmod)) if value]
        words += [*made.sources, *(f"<<{file.name}" for file in made.inline), made.target]
        return Step(made, " ".join(words), self.state.root)

    def _run(self, made: of.Run) -> Step:
        needs: list[graph.Vertex] = [self.state.root]
        folder = self.state.config.get("WorkingDir") or "/"
        mounts = [mount_of(request, needs, self._around, folder) for request in made.mounts]
        words = list(made.words)
        if made.files:
            words = [self._with_heredocs(made, needs, mounts)]
        command = [*shell_of(self.state.config), *(words or [""])] if made.shell else words
        env = list(self.state.config.get("Env") or [])
        extra = self.state.scope.values(environment_of(self.state.config))
        counted = {key: value for key, value in extra.items() if self.state.scope.counts(key)}
        arguments = tuple(f"{key}={value}" for key, value in sorted(counted.items()))
        hidden = tuple(f"{key}={value}" for key, value in extra.items() if key not in counted)
        network = made.network if made.network != graph.DEFAULT_NETWORK else self._around.network
        self.state.root = graph.Exec(
            tuple(needs), tuple(command), (*env, *arguments), self.state.config.get("WorkingDir") or "/",
            self.state.config.get("User") or "", tuple(mounts), network, made.security, hidden,
            devices=made.devices, name=made.code, no_cache=self._around.no_cache,
        )  # fmt: skip
        values = self.values()
        shown = tuple(f"{key}={values.get(key, '')}" for key in self.state.scope.declared())
        return Step(made, " ".join(command), self.state.root, shell=True, arguments=arguments, shown=shown)

    def _with_heredocs(self, made: of.Run, needs: list[graph.Vertex], mounts: list[graph.Mount]) -> str:
        """Return the command of a RUN with heredocs: a script alone, or a command that reads them."""
        command = made.words[0]
        if len(made.words) != 1 or not made.shell:
            raise InvalidInputError(f"parsing produced an invalid run command: {list(made.words)}")
        if heredoc_of(command) is None:
            return "\n".join([command, *(file.raw + file.name for file in made.files)])
        first = made.files[0]
        if not first.data.startswith("#!"):
            return first.data
        write = graph.MakeFile(f"/{first.name}", first.data.encode("utf-8", "surrogateescape"), 0o755)
        needs.append(graph.Files((graph.Scratch(),), (write,), name="preparing inline document"))
        mounts.append(graph.Mount("/dev/pipes", input=len(needs) - 1))
        return f"/dev/pipes/{first.name}"

    def _cmd(self, made: of.Cmd) -> Step:
        configure(self.state.config, made)
        self.state.cmd_set = self.state.cmd_set or bool(made.words)
        return Step(made, f"CMD {quoted_list(self.state.config['Cmd'])}")

    def _entrypoint(self, made: of.Entrypoint) -> Step:
        configure(self.state.config, made)
        if not self.state.cmd_set:
            self.state.config.pop("Cmd", None)
        return Step(made, f"ENTRYPOINT {quoted_list(self.state.config['Entrypoint'] or [])}")

    def _healthcheck(self, made: of.Healthcheck) -> Step:
        before = (self.state.config.get("Healthcheck") or {}).get("Test") or []
        note = ""
        if before and before[0] != "NONE":
            note = f"Note: overriding previous HEALTHCHECK: [{' '.join(before)}]\n"
        configure(self.state.config, made)
        return Step(made, f"HEALTHCHECK {shown_health(made.health)}", note=note)

    def _expose(self, made: of.Expose) -> Step:
        values = self.values()
        words = [w for port in made.ports for w in expand(port, values, Rules(of.escape_of(made, self._around.escape))).words]
        configure(self.state.config, replace(made, ports=tuple(words)))
        return Step(made, "EXPOSE " + " ".join(words), shown=tuple(port for word in words for port in ports_of(word)))

    def _user(self, made: of.User) -> Step:
        configure(self.state.config, made)
        return Step(made, f"USER {made.user}")

    def _volume(self, made: of.Volume) -> Step:
        configure(self.state.config, made)
        return Step(made, f"VOLUME [{' '.join(made.paths)}]")

    def _stopsignal(self, made: of.StopSignal) -> Step:
        configure(self.state.config, made)
        return Step(made, f"STOPSIGNAL {made.signal}")

    def _onbuild(self, made: of.Onbuild) -> Step:
        configure(self.state.config, made)
        return Step(made, f"ONBUILD {made.expression}")

    def _set_shell(self, made: of.Shell) -> Step:
        configure(self.state.config, made)
        return Step(made, f"SHELL [{' '.join(made.words)}]")


_APPLY: dict[type, Callable[[StageBuilder, Any], Step]] = {
    of.Env: StageBuilder._env, of.Maintainer: StageBuilder._maintainer, of.Label: StageBuilder._label,
    of.Arg: StageBuilder._arg, of.Workdir: StageBuilder._workdir, of.Copy: StageBuilder._copy,
    of.Add: StageBuilder._add, of.Run: StageBuilder._run, of.Cmd: StageBuilder._cmd,
    of.Entrypoint: StageBuilder._entrypoint, of.Healthcheck: StageBuilder._healthcheck,
    of.Expose: StageBuilder._expose, of.User: StageBuilder._user, of.Volume: StageBuilder._volume,
    of.StopSignal: StageBuilder._stopsignal, of.Onbuild: StageBuilder._onbuild, of.Shell: StageBuilder._set_shell,
}  # fmt: skip


def _remote(path: str, made: of.Add) -> graph.Source:
    checksum = (("checksum", made.checksum),) if made.checksum else ()
    if is_git(path):
        attributes = (("keep_git", "true" if made.keep_git else "false"), ("remote", path.partition("#")[0]), *checksum)
        return graph.Source(f"git://{path}", tuple(sorted(attributes)), name=made.code)
    name = posixpath.basename(path.partition("?")[0].partition("#")[0].partition("://")[2].partition("/")[2])
    return graph.Source(path, (*checksum, *((("filename", name),) if name else ())), name=made.code)


def _local(
    action: graph.CopyFiles, path: str, *, parents: bool, unpack: bool, optional: bool, missing: bool
) -> graph.CopyFiles:  # fmt: skip
    if not parents:
        return replace(action, source=path, unpack=unpack, optional=optional)
    pivot, has_pivot, pattern = path.partition("/./")
    if not has_pivot:
        pivot, pattern = "/", path
    pattern = posixpath.normpath("/" + pattern).lstrip("/")
    pivot = pivot or "/"
    plain = not has_wildcards(pivot) and not has_wildcards(pattern)
    required = (posixpath.join(pivot, pattern),) if plain and not missing else ()
    return replace(action, source=pivot, includes=(pattern,), required=required, optional=True,
                   target=action.target.rstrip("/") + "/")  # fmt: skip


def config_bytes(config: Json) -> bytes:
    """Return an image config's bytes."""
    return json.dumps(config, separators=(",", ":")).encode("utf-8", "surrogateescape")
