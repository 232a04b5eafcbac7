"""The build context of the classic API: an archive in the request's body, a URL, a repository."""

import asyncio
import os
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import NamedTuple

from barque.base.errors import BarqueError, InvalidInputError, NotFoundError
from barque.base.files import write_all
from barque.builder.folder_tree import FolderTree
from barque.builder.repositories import clone, repository_of
from barque.builder.results import Result
from barque.builder.solver import Session
from barque.builder.sources import confined, fetch, is_git, is_url
from barque.builder.tar_tree import TarTree
from barque.builder.trees import FILE, Tree, resolve
from barque.dockerfile.patterns import Matcher, read_ignore
from barque.storage.compression import plain
from barque.storage.content import ContentStore
from barque.storage.mapping import mapped

DEFAULT_NAME = "Dockerfile"
LARGEST_DOCKERFILE = 16 << 20


class Context(NamedTuple):
    """A context: its files (None where only a Dockerfile was given) and the Dockerfile's text."""

    result: Result | None
    text: str


def of_archive(chunks: Iterable[bytes], content: ContentStore, stack: ExitStack, name: str) -> Context:
    """Return the context in an archive, compressed or not; blocking.

    Args:
        chunks: its bytes.
        content: where they are kept meanwhile.
        stack: lets go of them at the build's end.
        name: the Dockerfile's path.

    Raises:
        InvalidInputError: a broken archive, or no Dockerfile in it.
    """
    file = stack.enter_context(content.temporary())
    for chunk in plain(chunks):
        write_all(file.fileno(), chunk)
    tree = TarTree(stack.enter_context(mapped(file)))
    text = read_dockerfile(tree, name)
    hide_ignored(tree, name)
    return Context(Result(tree=tree, identity="context"), text)


async def of_remote(
    url: str, name: str, content: ContentStore, stack: ExitStack, session: Session, temporary: Callable[[], str]
) -> Context:
    """Return the context that a URL or a repository is.

    Raises:
        InvalidInputError: it is neither, or cannot be had.
    """
    folder = temporary()
    session.folders.append(folder)
    if is_git(url):
        repository = repository_of(url)
        await clone(repository, f"{folder}/content", keep_git=False)
        root = confined(f"{folder}/content", repository.subdir)
        fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        session.descriptors.append(fd)
        tree = FolderTree(fd, root)
        return Context(Result(tree=tree, identity="context"), read_dockerfile(tree, name))
    if not is_url(url):
        raise BarqueError(f"remoteURL ({url}) could not be recognized as URL")
    _, kind = await fetch(url, f"{folder}/body")
    if kind == "text/plain":
        with open(f"{folder}/body", encoding="utf-8", errors="surrogateescape") as text:
            return Context(None, text.read(LARGEST_DOCKERFILE))

    def work() -> Context:
        with open(f"{folder}/body", "rb") as file:
            return of_archive(iter(lambda: file.read(1 << 20), b""), content, stack, name)

    return await asyncio.to_thread(work)


def read_dockerfile(tree: Tree, name: str) -> str:
    """Return a Dockerfile's text; links to it are followed inside the context.

    Raises:
        BarqueError: there is none.
        InvalidInputError: it is empty or too large.
    """
    wanted = name or DEFAULT_NAME
    real = resolve(tree, wanted)
    node = tree.lstat(real)
    if node is None and wanted == DEFAULT_NAME:
        real = resolve(tree, wanted.lower())
        node = tree.lstat(real)
    if node is None or node.kind != FILE:
        raise BarqueError(f"Cannot locate specified Dockerfile: {wanted}")
    if node.size == 0:
        raise InvalidInputError(f"the Dockerfile ({wanted}) cannot be empty")
    if node.size > LARGEST_DOCKERFILE:
        raise InvalidInputError(f"the Dockerfile ({wanted}) is larger than {LARGEST_DOCKERFILE} bytes")
    data = b"".join(bytes(chunk) for chunk in tree.read(real))
    return data.decode("utf-8", "surrogateescape")


async def included(result: Result | None, context: str, path: str) -> str:
    """Return the text of a file that a Dockerfile includes.

    Raises:
        BarqueError: there is none, or it can be no Dockerfile.
    """
    if context:
        raise InvalidInputError(f"the context {context} is unknown: contexts with names need BuildKit (docker buildx build, barque build)")
    if result is None or result.tree is None:
        raise NotFoundError("a Dockerfile without a context can include nothing")
    return await asyncio.to_thread(fragment_text, result.tree, path)


def fragment_text(tree: Tree, path: str) -> str:
    """Return the text of a file to be included; links to it are followed inside the context; blocking.

    Raises:
        NotFoundError: there is none.
        InvalidInputError: it is no regular file, or too large.
    """
    real = resolve(tree, path)
    node = tree.lstat(real)
    if node is None:
        raise NotFoundError("no such file in the context (is it ignored?)" if real == path else f"no such file in the context: it leads to {real}")
    if node.kind != FILE:
        raise InvalidInputError("no regular file")
    if node.size > LARGEST_DOCKERFILE:
        raise InvalidInputError(f"larger than {LARGEST_DOCKERFILE >> 20} MiB")
    return b"".join(bytes(chunk) for chunk in tree.read(real)).decode("utf-8", "replace")


def hide_ignored(tree: TarTree, name: str) -> None:
    """Take the Dockerfile and .dockerignore out of an archive where the ignore file names them.

    The client sends both for the engine's sake, whatever the ignore file says.
    """
    node = tree.lstat(".dockerignore")
    if node is None or node.kind != FILE or node.size > LARGEST_DOCKERFILE:
        return
    text = b"".join(bytes(chunk) for chunk in tree.read(".dockerignore")).decode("utf-8", "surrogateescape")
    matcher = Matcher(read_ignore(text))
    for path in (".dockerignore", resolve(tree, name or DEFAULT_NAME)):
        if matcher.matches(path):
            tree.hide(path)
