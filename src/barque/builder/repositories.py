"""Git repositories: what their URLs say, and checking them out."""

import asyncio
import os
import posixpath
import shlex
import shutil
import subprocess
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import parse_qs, urlsplit

from barque.base.errors import InvalidInputError
from barque.engine import process_groups

GIT_HOST = "github.com/"
"""Its repositories are named without a scheme, too."""
_FLAGS = ("keep-git-dir", "submodules", "fetch-by-commit")
_KEYS = ("ref", "tag", "branch", "subdir", "checksum", "commit", "mtime", *_FLAGS)
_SSH = (
    "ssh -F /dev/null -o BatchMode=yes -o IdentityFile=none -o LogLevel=ERROR -o GlobalKnownHostsFile=/dev/null "
    "-o StrictHostKeyChecking={strict} -o UserKnownHostsFile={known}"
)
"""As BuildKit calls it; the keys are those of the client's agent, never those of the machine's own users."""
_TRUTHS = {word: truth for truth, words in ((True, ("1", "t", "true")), (False, ("0", "f", "false"))) for word in words}


class Repository(NamedTuple):
    """What the URL of a repository names; `keep_git` is None where it does not say."""

    remote: str
    ref: str = ""
    subdir: str = ""
    checksum: str = ""
    keep_git: bool | None = None
    submodules: bool = True
    commit_times: bool = False
    """Files have the time of the commit, not of the checkout."""


def repository_of(url: str) -> Repository:
    """Return what a URL says by `#ref:subdir` and `?key=value`.

    Raises:
        InvalidInputError: a key is unknown, a value makes no sense, or two things disagree.
    """
    base, _, fragment = url.partition("#")
    remote, _, query = base.partition("?")
    ref, _, below = fragment.partition(":")
    found = _queried(query)
    for kind, place in (("tag", "refs/tags/"), ("branch", "refs/heads/")):
        if kind in found:
            name = found[kind] if found[kind].startswith(place) else place + found[kind]
            found["ref"] = _agreed("ref", found.get("ref", ""), name)
    ref = _agreed("ref", ref, found.get("ref", ""))
    checksum = _agreed("checksum", found.get("checksum", ""), found.get("commit", ""))
    if found.get("mtime", "commit") not in ("checkout", "commit"):
        raise InvalidInputError(f'invalid mtime value: {found["mtime"]!r} (must be "checkout" or "commit")')
    flags = {name: _truth(name, found[name]) for name in _FLAGS if name in found}
    if flags.get("fetch-by-commit"):
        if not checksum:
            raise InvalidInputError("fetch-by-commit needs a checksum")
        ref = checksum
    return Repository(
        remote, ref, _agreed("subdir", posixpath.normpath(f"/{below}").lstrip("/") if below else "", found.get("subdir", "")), checksum,
        flags.get("keep-git-dir"), flags.get("submodules", True), found.get("mtime") == "commit",
    )  # fmt: skip


def _queried(query: str) -> dict[str, str]:
    found = {}
    for name, values in parse_qs(query, keep_blank_values=True).items():
        if name not in _KEYS:
            raise InvalidInputError(f"unexpected query {name!r}")
        if len(values) > 1:
            raise InvalidInputError(f"query {name!r} has multiple values")
        if not values[0] and name not in _FLAGS:
            raise InvalidInputError(f"query {name!r} has no value")
        found[name] = values[0]
    return found


def _agreed(what: str, one: str, other: str) -> str:
    if one and other and one != other:
        raise InvalidInputError(f"{what} conflicts: {one!r} vs {other!r}")
    return one or other


def _truth(name: str, text: str) -> bool:
    if text and text.lower() not in _TRUTHS:
        raise InvalidInputError(f"invalid {name} value: {text!r}")
    return not text or _TRUTHS[text.lower()]


class Agent(NamedTuple):
    """How servers are spoken to by SSH: the path of an agent's socket, and of a file with the keys of known servers, if any."""

    socket: str
    known_hosts: str = ""


def needs_ssh(remote: str) -> bool:
    """Tell whether a repository is had by SSH: `ssh://` in front, or a host and a colon as scp has them."""
    scheme, slashes, _ = remote.partition("://")
    if slashes:
        return scheme in ("ssh", "git+ssh", "ssh+git")
    return not remote.startswith(GIT_HOST) and ":" in remote.partition("/")[0]


async def clone(
    repository: Repository, folder: str, *, keep_git: bool, authorization: str = "", agent: Agent | None = None
) -> str:
    """Check a repository out into a new folder; return the commit.

    Args:
        repository: which.
        folder: where to.
        keep_git: leave `.git` there, unless the URL says otherwise.
        authorization: header for the server, empty for none.
        agent: for servers that are spoken to by SSH.

    Raises:
        InvalidInputError: git is missing, or it failed.
    """
    remote, ref = repository.remote, repository.ref
    if remote.startswith(GIT_HOST):
        remote = f"https://{remote}"
    if remote.startswith("-") or ref.startswith("-"):
        raise InvalidInputError(f"invalid repository or reference: {remote} {ref}")
    if shutil.which("git") is None:
        raise InvalidInputError("unable to find 'git': install git on the machine that the engine runs on")
    if agent is not None and shutil.which("ssh") is None:
        raise InvalidInputError("unable to find 'ssh': install OpenSSH's client on the machine that the engine runs on")
    more = _header(remote, authorization) if authorization else {}
    more |= _by_ssh(agent) if agent is not None else {}
    await _git("init", "--quiet", folder)
    await _git("-C", folder, "remote", "add", "origin", remote)
    try:
        await _git("-C", folder, "fetch", "--quiet", "--depth", "1", "origin", ref or "HEAD", more=more)
        wanted = "FETCH_HEAD"
    except InvalidInputError:
        # A short commit, or a server that gives no single commits: the whole history has it.
        await _git("-C", folder, "fetch", "--quiet", "--tags", "origin", "+refs/heads/*:refs/remotes/origin/*", "+HEAD:refs/remotes/origin/HEAD",
                   more=more)  # fmt: skip
        wanted = ref.replace("refs/heads/", "refs/remotes/origin/") if ref else "refs/remotes/origin/HEAD"
    await _git("-C", folder, "checkout", "--quiet", wanted)
    commit = (await _git("-C", folder, "rev-parse", "HEAD")).strip()
    if repository.submodules:
        await _git("-C", folder, "submodule", "update", "--quiet", "--init", "--recursive", "--depth=1", more=more)
    seconds = int(await _git("-C", folder, "log", "-1", "--format=%ct"))
    if not (keep_git if repository.keep_git is None else repository.keep_git):
        await asyncio.to_thread(shutil.rmtree, f"{folder}/.git")
    if repository.commit_times:
        await asyncio.to_thread(_date, folder, seconds)
    return commit


def _header(remote: str, authorization: str) -> dict[str, str]:
    """Return the variables by which git sends a header to a repository's server, and to no other."""
    parts = urlsplit(remote)
    key = f"http.{parts.scheme}://{parts.netloc.rpartition('@')[2]}/.extraheader"
    return {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": key, "GIT_CONFIG_VALUE_0": f"Authorization: {authorization}"}


def _by_ssh(agent: Agent) -> dict[str, str]:
    """Return the variables by which git speaks SSH; a server that the client does not know is believed, as by BuildKit."""
    strict = "yes" if agent.known_hosts else "no"
    command = _SSH.format(strict=strict, known=shlex.quote(agent.known_hosts or "/dev/null"))
    return {"SSH_AUTH_SOCK": agent.socket, "GIT_SSH_COMMAND": command}


def _date(folder: str, seconds: int) -> None:
    for place, folders, names in os.walk(folder, topdown=False):
        for name in (*names, *folders):
            os.utime(f"{place}/{name}", (seconds, seconds), follow_symlinks=False)


async def _git(*arguments: str, more: Mapping[str, str] | None = None) -> str:
    environment = {
        **{name: value for name, value in os.environ.items() if name not in ("SSH_AUTH_SOCK", "GIT_SSH", "GIT_SSH_COMMAND")}, "GIT_TERMINAL_PROMPT": "0", "GIT_CONFIG_NOSYSTEM": "1", "HOME": "/dev/null",
        "GIT_PROTOCOL_FROM_USER": "0", "GIT_ALLOW_PROTOCOL": "git:http:https:ssh", **(more or {}),
    }  # fmt: skip
    process = await asyncio.create_subprocess_exec(
        "git", "-c", "maintenance.auto=false", *arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment,
        start_new_session=True,
    )  # fmt: skip
    try:
        out, err = await process.communicate()
    finally:
        # What git started to speak with the server waits for that and not for git.
        await process_groups.end(process)
    if process.returncode:
        text = err.decode(errors="replace").strip()
        raise InvalidInputError(f"failed to run git {arguments[-1]}: {text}")
    return out.decode(errors="replace")
