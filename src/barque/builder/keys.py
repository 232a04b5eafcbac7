"""Cache keys: what a step is made of, as facts that can be compared, and their digest."""

import hashlib
import json
from collections import OrderedDict
from dataclasses import asdict
from itertools import islice
from typing import Any, Protocol

from barque.base.errors import NotFoundError
from barque.builder.checksum import DETAILED, checksum
from barque.builder.graph import Action, CopyFiles, Exec, ExecOutput, Files, MakeFile, Mount
from barque.builder.results import Result, opened
from barque.builder.trees import FOLDER, Tree, matching, resolve
from barque.dockerfile.patterns import Matcher
from barque.storage.snapshots import Snapshotter

Facts = dict[str, Any]
_FORMAT = "1"
_STATES_KEPT = 64


def key_of(facts: Facts) -> str:
    """Return the digest of facts; `detail` only explains them."""
    counted = {name: value for name, value in facts.items() if name != "detail"}
    text = json.dumps([_FORMAT, counted], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def files_facts(step: Files, inputs: list[Result], snapshots: Snapshotter, digests: "Digests") -> Facts:
    """Return what a Files step is made of; blocking: it reads what is copied.

    Raises:
        NotFoundError: a source does not exist.
    """
    actions: list[Any] = []
    detail: dict[str, str] = {}
    for action in step.actions:
        if isinstance(action, CopyFiles):
            actions.append(copy_facts(action, inputs[action.input], snapshots, digests, detail))
        else:
            actions.append(action_facts(action))
    return {"kind": "files", "root": inputs[0].top, "actions": actions, "detail": detail}


def action_facts(action: Action) -> Any:
    """Return what an action is made of that copies nothing."""
    if isinstance(action, MakeFile):
        return ["file", {**asdict(action), "data": hashlib.sha256(action.data).hexdigest()}]
    return [type(action).__name__, asdict(action)]


def exec_facts(step: Exec, inputs: list[Result], snapshots: Snapshotter, digests: "Digests") -> Facts:
    """Return what an Exec step is made of; blocking: it reads what is mounted out of contexts."""
    mounts = [_mount_facts(mount, inputs, snapshots, digests) for mount in step.mounts]
    return command_facts(step, inputs[0].top, mounts)


def command_facts(step: Exec, root: str, mounts: list[Any]) -> Facts:
    """Return what an Exec step is made of, given what stands for its root and for its mounts."""
    return {
        "kind": "exec", "root": root, "args": list(step.args), "env": list(step.env), "cwd": step.cwd,
        "user": step.user, "network": step.network, "security": step.security, "hosts": list(step.hosts),
        "hostname": step.hostname, "shell": list(step.shell), "files": [[f.name, f.data, f.expands] for f in step.files],
        "mounts": mounts, **{name: value for name, value in _rare(step).items() if value},
    }  # fmt: skip


def _rare(step: Exec) -> Facts:
    """Return what few commands have, and what says nothing where it is empty."""
    return {
        "ulimits": [list(one) for one in step.ulimits], "exit_codes": list(step.exit_codes),
        "devices": [one.name for one in step.devices], "readonly_root": step.readonly_root,
    }  # fmt: skip


def output_facts(step: ExecOutput, inputs: list[Result], snapshots: Snapshotter, digests: "Digests") -> Facts:
    """Return what tells the output of a mount apart, given the results of its inputs; blocking."""
    return {"kind": "output", "command": key_of(exec_facts(step.command, inputs[1:], snapshots, digests)), "mount": step.mount.target}


def _mount_facts(mount: Mount, inputs: list[Result], snapshots: Snapshotter, digests: "Digests") -> Any:
    facts = mount_facts(mount)
    if mount.input > 0 and mount.type == "bind":
        source = inputs[mount.input]
        facts["content"] = digests.of(source, mount.selector, snapshots, owners=True)
    return facts


def mount_facts(mount: Mount) -> Facts:
    """Return what a mount is made of besides its source."""
    return {key: value for key, value in asdict(mount).items() if key != "input" and (value or key != "output")}


def copy_facts(
    action: CopyFiles, source: Result, snapshots: Snapshotter, digests: "Digests", detail: dict[str, str]
) -> Any:
    """Return what a copy is made of; blocking: it reads what is copied.

    Raises:
        NotFoundError: a source does not exist.
    """
    facts: Facts = {key: value for key, value in asdict(action).items() if key != "input"}
    owners = action.owner == "="
    taken: dict[str, str] = {}
    with opened(snapshots, source) as tree:
        for path in sources(tree, action):
            taken[path] = digests.of_tree(source, tree, path, action, owners=owners, detail=detail)
    facts["taken"] = taken
    return ["copy", facts]


def sources(tree: Tree, action: CopyFiles) -> list[str]:
    """Return the paths that a copy takes, as written or as its wildcards match them.

    Raises:
        NotFoundError: none is there.
    """
    for path in action.required:
        if tree.lstat(resolve(tree, path)) is None:
            raise NotFoundError(f'"{"/" + path.lstrip("/")}": not found')
    paths = matching(tree, action.source) if action.wildcard else [action.source.strip("/")]
    found = [path for path in paths if tree.lstat(resolve(tree, path, last=action.follow)) is not None]
    if not found and not action.optional:
        raise NotFoundError(f'"{"/" + action.source.lstrip("/")}": not found')
    return found


class Digests:
    """Digests of parts of trees; those of layers are kept, as layers never change, and the last ones of known trees.

    `find` and `keep` reach where they are kept.
    """

    def __init__(self, kept: "DigestStore") -> None:
        self._kept = kept
        self._of_states: OrderedDict[str, tuple[str, dict[str, str]]] = OrderedDict()

    def of(self, source: Result, path: str, snapshots: Snapshotter, *, owners: bool) -> str:
        """Return the digest of what lies at path of a result."""
        action = CopyFiles(0, path or "/", "/")
        if source.tree is None and not path.strip("/"):
            return source.top
        with opened(snapshots, source) as tree:
            return self.of_tree(source, tree, path, action, owners=owners)

    def of_tree(
        self, source: Result, tree: Tree, path: str, action: CopyFiles, *, owners: bool,
        detail: dict[str, str] | None = None,
    ) -> str:  # fmt: skip
        """Return the digest of what a copy takes at path."""
        real = resolve(tree, path, last=action.follow)
        name = json.dumps([source.top if source.tree is None else source.state, real, owners, action.excludes, action.includes])
        if source.tree is None:
            known = self._kept.digest(name)
            if known is not None:
                return known
        elif source.state and (found_before := self._of_states.get(name)) is not None:
            _add(detail, found_before[1])
            return found_before[0]
        node = tree.lstat(real)
        if node is None:
            raise NotFoundError(f'"{"/" + path}": not found')
        plain = node.kind != FOLDER
        parts: dict[str, str] = {}
        found = checksum(
            tree, real, owners=owners,
            excludes=Matcher(action.excludes) if action.excludes and not plain else None,
            includes=Matcher(action.includes) if action.includes and not plain else None, detail=parts,
        )  # fmt: skip
        _add(detail, parts)
        if source.tree is None:
            self._kept.keep_digest(name, found)
        elif source.state:
            self._of_states[name] = found, parts
            if len(self._of_states) > _STATES_KEPT:
                self._of_states.popitem(last=False)
        return found


def _add(detail: dict[str, str] | None, parts: dict[str, str]) -> None:
    """Add what stands for files to what can be told, as far as there is room."""
    if detail is not None:
        detail |= dict(islice(parts.items(), max(DETAILED - len(detail), 0)))


class DigestStore(Protocol):
    """Where digests of layers' parts are kept."""

    def digest(self, key: str) -> str | None:
        """Return a kept digest."""
        ...

    def keep_digest(self, key: str, value: str) -> None:
        """Keep a digest."""
        ...
