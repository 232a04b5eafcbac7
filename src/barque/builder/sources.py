"""Files from outside the engine: images, URLs, repositories, and the contexts that a client brings."""

import asyncio
import base64
import hashlib
import json
import os
import re
import shutil
import subprocess
import time
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from barque.base.errors import BarqueError, InvalidInputError, NotFoundError
from barque.builder.folder_tree import FolderTree
from barque.builder.graph import Source
from barque.builder.results import Result
from barque.builder.solver import Emit, Session
from barque.images.model import Image
from barque.oci import platform as platforms
from barque.oci.reference import parse

if TYPE_CHECKING:
    from barque.engine.engine import Engine

Json = dict[str, Any]
_SCP_LIKE = re.compile(r"(?:[\w.-]+@)?[\w.-]+:(?!//)[^\s]+")
_GIT_HOSTS = ("github.com/",)
_TIMEOUT_S = 300
_LARGEST_NAME = 255


class Sources:
    """Brings in what `Source` steps name; `folder` holds what lives as long as a build."""

    def __init__(self, engine: "Engine", folder: str) -> None:
        self._engine = engine
        self._folder = folder
        shutil.rmtree(folder, ignore_errors=True)
        os.makedirs(folder, mode=0o700)

    async def get(self, step: Source, session: Session, emit: Emit) -> Result:
        """Return a source's files.

        Raises:
            InvalidInputError: it cannot be had.
        """
        scheme, _, rest = step.identifier.partition("://")
        attributes = dict(step.attributes)
        if scheme == "local":
            found = session.trees.get(rest)
            if found is not None:
                return found
            if "locals" not in session.options:
                raise InvalidInputError("missing build context")
            brought: Result = await session.options["locals"](rest, attributes, step)
            return brought
        if scheme == "from" and "from" in session.options:
            named: Result = await session.options["from"](rest, attributes.get("platform", ""))
            return named
        if scheme == "docker-image":
            image = await self.image(rest, attributes.get("platform", ""), pull=attributes.get("pull", ""),
                                     session=session)  # fmt: skip
            return result_of(image)
        if scheme in ("http", "https"):
            return await self._download(step.identifier, attributes, session)
        if scheme == "git":
            return await self._clone(rest, attributes, session)
        raise InvalidInputError(f"unsupported source {step.identifier}")

    async def image(self, ref: str, platform: str = "", *, pull: str = "", session: Session | None = None) -> Image:
        """Return an image, pulled where it is not here; pull "always" asks the registry again.

        Raises:
            NotFoundError: there is none.
        """
        store = self._engine.image_store
        wanted = platforms.parse(platform) if platform else None
        if pull != "always":
            try:
                return store.resolve_platform(ref, wanted) if wanted else store.resolve(ref)
            except NotFoundError:
                pass
        tell = session.options.get("tell") if session is not None else None
        auth = session.options.get("auth") or {} if session is not None else {}
        reference = parse(ref).with_default_tag()
        try:
            asked = session.options.get("auth_header") if session is not None else None
            header = await asked(reference.domain) if asked is not None else credentials_for(reference.domain, auth)
            tag = reference.digest or reference.tag
            async for message in self._engine.registries.pull(reference.name, tag, platform=platform, auth=header):
                if tell is not None:
                    await tell(message)
        except BarqueError:
            if pull != "always":
                raise
            # Newer is wished for, not needed.
            store.resolve(ref)
        return store.resolve_platform(ref, wanted) if wanted else store.resolve(ref)

    def temporary(self) -> str:
        """Return a new empty folder."""
        path = f"{self._folder}/{os.urandom(8).hex()}"
        os.mkdir(path, 0o700)
        return path

    async def _download(self, url: str, attributes: dict[str, str], session: Session) -> Result:
        folder = self.temporary()
        session.folders.append(folder)
        content = f"{folder}/content"
        os.mkdir(content)
        headers, _ = await fetch(url, f"{folder}/body")
        name = attributes.get("filename") or file_name(url, headers)
        if not is_file_name(name):
            raise InvalidInputError(f"cannot determine filename for source {url}")
        path = f"{content}/{name}"
        os.rename(f"{folder}/body", path)
        os.chmod(path, 0o600)
        seconds = _modified(headers)
        os.utime(path, (seconds, seconds))
        digest = await asyncio.to_thread(_digest, path)
        wanted = attributes.get("checksum", "")
        if wanted and wanted != f"sha256:{digest}":
            raise InvalidInputError(f"digest mismatch sha256:{digest}: {wanted}")
        return _folder_result(content, session, digest)

    async def _clone(self, rest: str, attributes: dict[str, str], session: Session) -> Result:
        folder = self.temporary()
        session.folders.append(folder)
        remote, _, fragment = rest.partition("#")
        commit = await clone(
            attributes.get("remote") or remote, attributes.get("ref") or fragment.partition(":")[0],
            f"{folder}/content", keep_git=attributes.get("keep_git") == "true",
        )  # fmt: skip
        wanted = attributes.get("checksum", "")
        if wanted and not commit.startswith(wanted):
            raise InvalidInputError(f"expected checksum to match {wanted}, got {commit}")
        below = attributes.get("subdir") or fragment.partition(":")[2]
        content = confined(f"{folder}/content", below)
        return _folder_result(content, session, f"{commit}:{below}")


def _folder_result(path: str, session: Session, identity: str) -> Result:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    session.descriptors.append(fd)
    return Result(tree=FolderTree(fd, path), identity=identity, created_ns=time.time_ns())


def result_of(image: Image) -> Result:
    """Return an image's layers."""
    return Result(tuple(zip(image.chain, image.diff_ids, strict=True)), image.created_ns)


def credentials_for(domain: str, auth: Json) -> str:
    """Return the header with the credentials for a registry out of those a build was given; empty without."""
    names = [domain, f"https://{domain}", f"https://{domain}/v2/", f"https://{domain}/v1/"]
    if domain == "docker.io":
        names += ["https://index.docker.io/v1/", "index.docker.io"]
    for name in names:
        if isinstance(auth.get(name), dict):
            return base64.urlsafe_b64encode(json.dumps(auth[name]).encode()).decode()
    return ""


def is_url(text: str) -> bool:
    """Tell whether text names a file to download."""
    return text.startswith(("http://", "https://"))


def is_git(text: str) -> bool:
    """Tell whether text names a repository."""
    if text.startswith(("git://", "ssh://")) or text.startswith(_GIT_HOSTS):
        return True
    base = text.partition("#")[0]
    if is_url(text):
        return urlsplit(base).path.endswith(".git")
    return "@" in base and _SCP_LIKE.fullmatch(base) is not None


def file_name(url: str, headers: "dict[str, str]") -> str:
    """Return the name of a downloaded file, empty where nothing tells it."""
    path = unquote(urlsplit(url).path)
    name = path.rpartition("/")[2]
    if not name:
        match = re.search(r'filename="?([^";]+)"?', headers.get("content-disposition", ""))
        name = match[1].rpartition("/")[2] if match else ""
    return name if is_file_name(name) else ""


def is_file_name(name: str) -> bool:
    """Tell whether a file in a folder can have this name."""
    is_plain = name not in ("", ".", "..") and not set(name) & set("/\0")
    return is_plain and len(name.encode("utf-8", "surrogateescape")) <= _LARGEST_NAME


def _modified(headers: "dict[str, str]") -> float:
    try:
        return parsedate_to_datetime(headers["last-modified"]).timestamp()
    except (KeyError, ValueError, TypeError):
        return 0.0


def _digest(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


async def fetch(url: str, path: str) -> "tuple[dict[str, str], str]":
    """Download a URL into a new file; return the answer's headers in lower case and its content type.

    Raises:
        BarqueError: it cannot be had.
    """
    import aiohttp

    timeout = aiohttp.ClientTimeout(total=None, sock_connect=30, sock_read=_TIMEOUT_S)
    try:
        async with aiohttp.ClientSession(timeout=timeout, trust_env=True) as client, client.get(url) as answer:
            if answer.status >= 400:
                raise InvalidInputError(f"invalid response status {answer.status}")
            with open(path, "xb") as file:
                async for chunk in answer.content.iter_chunked(1 << 18):
                    file.write(chunk)
            return {name.lower(): value for name, value in answer.headers.items()}, answer.content_type
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        raise BarqueError(f"failed to GET {url}: {error}") from None


async def clone(remote: str, ref: str, folder: str, *, keep_git: bool) -> str:
    """Check a repository out into a new folder; return the commit.

    Raises:
        InvalidInputError: git is missing, or it failed.
    """
    if remote.startswith(_GIT_HOSTS):
        remote = f"https://{remote}"
    if remote.startswith("-") or ref.startswith("-"):
        raise InvalidInputError(f"invalid repository or reference: {remote} {ref}")
    if shutil.which("git") is None:
        raise InvalidInputError("unable to find 'git': install git on the machine that the engine runs on")
    await _git("init", "--quiet", folder)
    await _git("-C", folder, "remote", "add", "origin", remote)
    try:
        await _git("-C", folder, "fetch", "--quiet", "--depth", "1", "origin", ref or "HEAD")
        wanted = "FETCH_HEAD"
    except InvalidInputError:
        if not ref:
            raise
        # A short commit, or a server that gives no single commits: the whole history has it.
        await _git("-C", folder, "fetch", "--quiet", "--tags", "origin", "+refs/heads/*:refs/remotes/origin/*")
        wanted = ref
    await _git("-C", folder, "checkout", "--quiet", wanted)
    commit = (await _git("-C", folder, "rev-parse", "HEAD")).strip()
    await _git("-C", folder, "submodule", "update", "--quiet", "--init", "--recursive", "--depth=1")
    if not keep_git:
        await asyncio.to_thread(shutil.rmtree, f"{folder}/.git")
    return commit


async def _git(*arguments: str) -> str:
    environment = {
        **os.environ, "GIT_TERMINAL_PROMPT": "0", "GIT_CONFIG_NOSYSTEM": "1", "HOME": "/dev/null",
        "GIT_PROTOCOL_FROM_USER": "0", "GIT_ALLOW_PROTOCOL": "git:http:https:ssh",
    }  # fmt: skip
    process = await asyncio.create_subprocess_exec(
        "git", *arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    )
    try:
        out, err = await process.communicate()
    except asyncio.CancelledError:
        process.kill()
        await process.wait()
        raise
    if process.returncode:
        text = err.decode(errors="replace").strip()
        raise InvalidInputError(f"failed to run git {arguments[-1]}: {text}")
    return out.decode(errors="replace")


def confined(root: str, below: str) -> str:
    """Return a folder below root, links followed inside it.

    Raises:
        InvalidInputError: it is no folder.
    """
    from barque.builder.trees import FOLDER, resolve

    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        tree = FolderTree(fd)
        real = resolve(tree, below)
        node = tree.lstat(real)
        tree.close()
    finally:
        os.close(fd)
    if node is None or node.kind != FOLDER:
        raise InvalidInputError(f"error setting build context, {below!r} is not a directory")
    return f"{root}/{real}".rstrip("/")
