"""The exporters that bring a build's files to its client, as a folder or as an archive, without an image around them."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import ExitStack, aclosing

from barque.base.errors import UnsupportedError
from barque.builder.buildkit import attestations
from barque.builder.buildkit.builds import Build
from barque.builder.buildkit.sending import joined, send_stream, send_tree, split, with_files
from barque.builder.caches.exports import true_of
from barque.builder.folder_tree import FolderTree
from barque.builder.results import Result, opened
from barque.builder.trees import Tree
from barque.engine.pumps import stream_of
from barque.oci import platform as platforms
from barque.storage.archive.tar import FOLDER
from barque.storage.archive.write import END, file, header, tree as members
from barque.storage.snapshots import Snapshotter


async def to_folder(
    snapshots: Snapshotter, build: Build, results: dict[str, Result], attributes: dict[str, str], number: int
) -> None:
    """Write the files of results, and what is said of them, into the client's folder.

    Raises:
        UnsupportedError: an option is not known.
        BarqueError: the client refused.
    """
    _check(attributes, "local")
    with build.report.work("exporting to client directory") as step, step.part("copying files"), ExitStack() as stack:
        trees = {name: stack.enter_context(opened(snapshots, one)) for name, one in results.items()}
        if _is_split(trees, attributes):
            named = _by_folder(trees, build)
            said = {f"{folder}/": one for folder, one in zip(named, await _said(build, trees), strict=True)}
            await send_tree(build.need_client(), with_files(split(named), said), number)
        else:
            files = await _said(build, trees, joined_up=True)
            await send_tree(build.need_client(), with_files(joined(trees), dict.fromkeys([""], _merged(files))), number)



async def to_tar(
    snapshots: Snapshotter, build: Build, results: dict[str, Result], attributes: dict[str, str], number: int
) -> None:
    """Send an archive of the files of results, and of what is said of them, to the client.

    Raises:
        UnsupportedError: an option is not known.
        BarqueError: the client refused.
    """
    _check(attributes, "tar")
    with build.report.work("exporting to client tarball") as step, step.part("sending tarball"), ExitStack() as stack:
        trees = {name: stack.enter_context(opened(snapshots, one)) for name, one in results.items()}
        is_split = _is_split(trees, attributes)
        if not is_split:
            joined(trees)
        listed = list(_by_folder(trees, build).items()) if is_split else [("", tree) for tree in trees.values()]
        said = await _said(build, trees, joined_up=not is_split)
        chunks = _tar_of([(prefix, tree, files) for (prefix, tree), files in zip(listed, said, strict=True)])
        await send_stream(build.need_client(), chunks, number, {})



async def _said(build: Build, trees: dict[str, Tree], *, joined_up: bool = False) -> list[dict[str, bytes]]:
    """Return the files with what is said of each tree, in the order of their names."""
    made = []
    for name, tree in sorted(trees.items()):
        suffix = name.replace("/", "_") if joined_up and name else ""
        wanted = build.predicates.get(name, [])
        made.append(await asyncio.to_thread(attestations.written, wanted, tree, suffix))
    return made


def _check(attributes: dict[str, str], kind: str) -> None:
    """Refuse what would otherwise be passed over."""
    for key, value in attributes.items():
        # What is there is left there, as clients call it, by copying.
        if key not in ("dest", "platform-split") and (key, value) != ("mode", "copy"):
            raise UnsupportedError(f"exporter {kind}: option {key} is not supported; leave it out")


def _is_split(trees: dict[str, Tree], attributes: dict[str, str]) -> bool:
    """Tell whether each platform's files go into a folder of their own: where there are several, or by the option."""
    return true_of(attributes, "platform-split", default=set(trees) != {""})


def _by_folder(trees: dict[str, Tree], build: Build) -> dict[str, Tree]:
    wanted = build.options.get("platform", "") if "" in trees else ""
    only = str(platforms.usual(platforms.parse(wanted) if wanted else platforms.host()))
    return {(name or only).replace("/", "_"): tree for name, tree in sorted(trees.items())}


def _merged(files: list[dict[str, bytes]]) -> dict[str, bytes]:
    return {name: data for one in files for name, data in one.items()}


async def _tar_of(trees: list[tuple[str, Tree, dict[str, bytes]]]) -> AsyncGenerator[bytes, None]:
    for prefix, tree, files in trees:
        start = f"{prefix}/".encode() if prefix else b""
        # Nothing at all has no folder on disk.
        if prefix and (isinstance(tree, FolderTree) or files):
            yield header(start, kind=FOLDER, mode=0o755)
        if isinstance(tree, FolderTree):
            root = tree.root
            async with aclosing(stream_of(lambda root=root, start=start: members(root, prefix=start))) as chunks:  # type: ignore[misc]
                async for chunk in chunks:
                    yield chunk
        for name, data in files.items():
            yield file(start + name.encode(), data, mode=0o600)
    yield END
