"""Files from outside the engine: images, URLs, repositories, and the contexts that a client brings."""

import asyncio
import base64
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from email.utils import parsedate_to_datetime
from io import FileIO
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from barque.base.errors import BarqueError, InvalidInputError, NotFoundError
from barque.base.files import write_all
from barque.builder.folder_tree import FolderTree
from barque.builder.graph import Source
from barque.builder.repositories import GIT_HOST, Agent, clone, needs_ssh, repository_of
from barque.builder.results import Result
from barque.builder.shown import without_passwords
from barque.builder.solver import Emit, Session
from barque.images.model import Image
from barque.oci import platform as platforms
from barque.oci.reference import parse
from barque.storage.bounds import check_disk

if TYPE_CHECKING:
    import aiohttp

    from barque.engine.engine import Engine

Json = dict[str, Any]
_SCP_LIKE = re.compile(r"(?:[\w.-]+@)?[\w.-]+:(?!//)[^\s]+")
_BASIC, _BEARER = "basic", "Bearer"
_TIMEOUT_S = 300
_LARGEST_NAME = 255
_DISK_LOOKED_AT_BYTES = 32 << 20


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
            async with aclosing(self._engine.registries.pull(reference.name, tag, platform=platform, auth=header)) as messages:
                async for message in messages:
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
        host = urlsplit(url).hostname or ""
        header = attributes.get("http.authheadersecret")
        secrets = [(header, "")] if header else [(f"HTTP_AUTH_HEADER_{host}", ""), (f"HTTP_AUTH_TOKEN_{host}", _BEARER)]
        headers, _ = await fetch(url, f"{folder}/body", await _authorization(session, secrets))
        name = attributes.get("filename") or file_name(url, headers)
        if not is_file_name(name):
            raise InvalidInputError(f"cannot determine filename for source {without_passwords(url)}")
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
        fragment = rest.partition("#")[2]
        url = attributes.get("remote") or rest
        repository = repository_of(f"{url}#{fragment}" if fragment and "#" not in url else url)
        names = [attributes.get(f"git.auth{kind}secret", f"GIT_AUTH_{kind.upper()}") for kind in ("header", "token")]
        host = urlsplit(repository.remote).netloc.rpartition("@")[2]
        secrets = [(f"{names[0]}.{host}", ""), (f"{names[1]}.{host}", _BASIC), (names[0], ""), (names[1], _BASIC)]
        authorization = await _authorization(session, secrets) if is_url(repository.remote) else ""
        keep_git = attributes.get("keep_git") == "true"
        async with self._agent(repository.remote, attributes, session) as agent:
            commit = await clone(repository, f"{folder}/content", keep_git=keep_git, authorization=authorization, agent=agent)
        for wanted in (attributes.get("checksum", ""), repository.checksum):
            if not commit.startswith(wanted):
                raise InvalidInputError(f"expected checksum to match {wanted}, got {commit}")
        below = attributes.get("subdir") or repository.subdir
        content = confined(f"{folder}/content", below)
        return _folder_result(content, session, f"{commit}:{below}")


    @asynccontextmanager
    async def _agent(self, remote: str, attributes: dict[str, str], session: Session) -> AsyncIterator[Agent | None]:
        """Give the client's agent where a repository is had by SSH.

        Raises:
            InvalidInputError: the client gives none.
        """
        if not needs_ssh(remote):
            yield None
            return
        name = attributes.get("git.mountsshsock") or "default"
        # Sockets have short paths.
        folder = f"{self._engine.config.exec_root}/builder/{os.urandom(4).hex()}"
        os.makedirs(folder, mode=0o700)
        try:
            provider = session.options.get("secrets")
            socket = await provider.agent(name, folder) if provider is not None else None
            if socket is None:
                raise InvalidInputError(f"unset ssh forward key {name}: {remote} is had by SSH, build with --ssh {name}")
            hosts = attributes.get("git.knownsshhosts", "")
            if hosts:
                with open(f"{folder}/known_hosts", "x") as file:
                    file.write(hosts)
            yield Agent(socket, f"{folder}/known_hosts" if hosts else "")
        finally:
            shutil.rmtree(folder, ignore_errors=True)


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
    if text.startswith(("git://", "ssh://", GIT_HOST)):
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


async def _authorization(session: Session, secrets: "list[tuple[str, str]]") -> str:
    """Return the header that a secret of the client's gives, empty where it has none of them.

    Args:
        session: of the build.
        secrets: names, the first that exists counts, and how a token becomes a header ("" for a header as it is).
    """
    provider = session.options.get("secrets")
    for name, scheme in secrets:
        data = await provider.secret(name) if provider is not None else None
        if data is None:
            continue
        text = data.decode("utf-8", "replace").strip()
        if scheme == _BASIC:
            return f"{_BASIC} {base64.b64encode(f'x-access-token:{text}'.encode()).decode()}"
        return f"{scheme} {text}" if scheme else text
    return ""


async def fetch(url: str, path: str, authorization: str = "") -> "tuple[dict[str, str], str]":
    """Download a URL into a new file; return the answer's headers in lower case and its content type.

    Args:
        url: where from.
        path: of the file.
        authorization: header for its server, empty for none; where the server sends us elsewhere, it does not go along.

    Raises:
        BarqueError: it cannot be had.
    """
    import aiohttp

    timeout = aiohttp.ClientTimeout(total=None, sock_connect=30, sock_read=_TIMEOUT_S)
    given = {"Authorization": authorization} if authorization else {}
    try:
        async with aiohttp.ClientSession(timeout=timeout, trust_env=True) as client, client.get(url, headers=given) as answer:
            if answer.status >= 400:
                raise InvalidInputError(f"invalid response status {answer.status}")
            with open(path, "xb", buffering=0) as file:
                await _written(answer, file, url)
            return {name.lower(): value for name, value in answer.headers.items()}, answer.content_type
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        raise BarqueError(f"failed to GET {without_passwords(url)}: {without_passwords(str(error))}") from None


async def _written(answer: "aiohttp.ClientResponse", file: FileIO, url: str) -> None:
    """Write an answer's body, of whatever size, as long as the disk has room for it and for others."""
    total = looked = 0
    async for chunk in answer.content.iter_chunked(1 << 18):
        try:
            write_all(file.fileno(), chunk)
        except OSError as error:
            raise BarqueError(f"failed to keep {without_passwords(url)}: {(error.strerror or str(error)).lower()}") from None
        total += len(chunk)
        if total - looked >= _DISK_LOOKED_AT_BYTES:
            looked = total
            check_disk(os.path.dirname(str(file.name)), f"{without_passwords(url)} has more than {total} bytes")


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
