"""The Dockerfiles of tests/data/dockerfiles.txt: how they are built, and what is compared of the images."""

import hashlib
import io
import json
import os
import re
import subprocess
import tarfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

CORPUS = Path(__file__).parent / "data" / "dockerfiles.txt"
OLD_S = 1_577_836_800
"""The time of everything in the context."""
Tree = dict[str, tuple[Any, ...]]
# What only one builder writes, and says nothing of the image.
_NOT_COMPARED = ("Hostname", "Domainname", "Image", "AttachStdin", "AttachStdout", "AttachStderr", "Tty", "OpenStdin",
                 "StdinOnce", "ArgsEscaped")  # fmt: skip


class Case(NamedTuple):
    """A Dockerfile with the flags that it is built with and the files beside it."""

    name: str
    buildkit: bool
    flags: tuple[str, ...]
    files: dict[str, str]


class Made(NamedTuple):
    """What is compared of an image."""

    config: dict[str, Any]
    tree: Tree
    filled: list[bool]
    """Of each entry of the history, whether it has a layer."""


def cases() -> list[Case]:
    """Return all cases of the corpus."""
    found = []
    for section in re.split(r"^## ", CORPUS.read_text(), flags=re.MULTILINE)[1:]:
        title, _, body = section.partition("\n")
        name, *words = title.split()
        buildkit = words[:1] == ["buildkit"]
        text, *others = re.split(r"^%% ", body, flags=re.MULTILINE)
        files = {"Dockerfile": text} | {path: rest for path, _, rest in (other.partition("\n") for other in others)}
        if name == "no-newline-at-end":
            files["Dockerfile"] = text.rstrip("\n")
        found.append(Case(name, buildkit, tuple(words[buildkit:]), files))
    return found


def write_context(root: Path, case: Case) -> Path:
    """Write the context of a case below `root`, everything in it of one old time; return its folder."""
    folder = root / case.name
    files = {
        "a.txt": ("alpha\n", 0o644), "b.txt": ("beta\n", 0o600), "script.sh": ("#!/bin/sh\n", 0o755),
        "dir/one": ("1\n", 0o644), "dir/sub/two": ("2\n", 0o640), "dir/.hidden": ("h\n", 0o644), "sp ace.txt": ("s\n", 0o644),
        "ü.txt": ("u\n", 0o644), "README.md": ("r\n", 0o644), "docs/x.md": ("x\n", 0o644), "data.json": ("{}\n", 0o644),
        "fake.tar.gz": ("no tar\n", 0o644),
    }  # fmt: skip
    files |= {path: (text, 0o644) for path, text in case.files.items()}
    for path, (text, mode) in files.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        target.chmod(mode)
    (folder / "dir/empty").mkdir()
    (folder / "link").symlink_to("a.txt")
    (folder / "dir/up").symlink_to("../a.txt")
    (folder / "arc.tar.gz").write_bytes(_archive())
    for place, folders, names in os.walk(folder, topdown=False):
        for name in [*names, *folders]:
            os.utime(f"{place}/{name}", (OLD_S, OLD_S), follow_symlinks=False)
    os.utime(folder, (OLD_S, OLD_S))
    return folder


def _archive() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, kind, mode, link in (("in", tarfile.DIRTYPE, 0o750, ""), ("in/file", tarfile.REGTYPE, 0o640, ""),
                                       ("in/soft", tarfile.SYMTYPE, 0o777, "file"), ("in/hard", tarfile.LNKTYPE, 0o640, "in/file")):  # fmt: skip
            info = tarfile.TarInfo(name)
            info.type, info.mode, info.linkname, info.mtime = kind, mode, link, OLD_S
            info.uid, info.gid, info.size = 5, 6, 4 if kind == tarfile.REGTYPE else 0
            tar.addfile(info, io.BytesIO(b"arc\n"))
    return out.getvalue()


def build_all(
    chosen: list[Case], folders: Mapping[str, Path], command: Callable[[Case, str], list[str]], kind: str,
    environment: dict[str, str], workers: int = 4,
) -> dict[str, str]:  # fmt: skip
    """Build cases side by side as `case-<kind>:<name>`; return what was said of those that failed."""

    def build(case: Case) -> tuple[str, str]:
        words = [*command(case, f"case-{kind}:{case.name}"), *case.flags, str(folders[case.name])]
        done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=120)
        return case.name, "" if done.returncode == 0 else done.stdout[-700:] + done.stderr[-700:]

    with ThreadPoolExecutor(workers) as pool:
        return {name: error for name, error in pool.map(build, chosen) if error}


def images_of(kind: str, names: list[str], environment: dict[str, str], folder: Path) -> dict[str, Made]:
    """Return what was built, by the names of the cases."""
    archive = folder / f"{kind}.tar"
    words = ["docker", "save", "-o", str(archive), *(f"case-{kind}:{name}" for name in names)]
    subprocess.run(words, env=environment, check=True, timeout=300, capture_output=True)
    found = {}
    with tarfile.open(archive) as tar:
        layers: dict[str, list[tuple[str, tuple[Any, ...]]]] = {}
        for entry in json.loads(_member(tar, "manifest.json")):
            tree: Tree = {}
            for name in entry["Layers"]:
                real = _real(tar, name)
                if real not in layers:
                    layers[real] = list(_entries(_member(tar, real)))
                _apply(tree, layers[real])
            config = json.loads(_member(tar, entry["Config"]))
            for tag in entry["RepoTags"]:
                filled = [not one.get("empty_layer") for one in config["history"]]
                assert sum(filled) == len(entry["Layers"]), tag
                found[tag.partition(":")[2]] = Made(_compared(config), tree, filled)
    archive.unlink()
    return found


def _real(tar: tarfile.TarFile, name: str) -> str:
    info = tar.getmember(name)
    return os.path.normpath(os.path.join(os.path.dirname(name), info.linkname)) if info.issym() else info.linkname or name


def _member(tar: tarfile.TarFile, name: str) -> bytes:
    file = tar.extractfile(name)
    assert file is not None, name
    return file.read()


def _entries(data: bytes) -> Iterator[tuple[str, tuple[Any, ...]]]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        for info in tar:
            content = ""
            if info.isreg():
                file = tar.extractfile(info)
                content = hashlib.sha256(file.read() if file else b"").hexdigest()[:16]
            # A time is defined where it came with a file; everything else is of now.
            when = int(info.mtime) if info.mtime < OLD_S + 86400 and not info.isdir() else 0
            link = info.linkname if info.issym() or info.islnk() else ""
            yield os.path.normpath(info.name), (info.type.decode(), oct(info.mode & 0o7777), info.uid, info.gid, content, link, when)


def _apply(tree: Tree, entries: list[tuple[str, tuple[Any, ...]]]) -> None:
    for path, _ in entries:
        place, name = os.path.split(path)
        if name == ".wh..wh..opq":
            _drop(tree, place, keep=True)
        elif name.startswith(".wh."):
            _drop(tree, os.path.join(place, name.removeprefix(".wh.")), keep=False)
    for path, facts in entries:
        if os.path.basename(path).startswith(".wh.") or path == ".":
            continue
        if facts[0] == "1":
            # A hard link is its target under one more name.
            facts = tree.get(os.path.normpath(facts[5]), facts)
        if facts[0] != "5" and path in tree and tree[path][0] == "5":
            _drop(tree, path, keep=False)
        tree[path] = facts


def _drop(tree: Tree, path: str, *, keep: bool) -> None:
    for name in [n for n in tree if n.startswith(f"{path}/") or (n == path and not keep)]:
        del tree[name]


def _compared(config: dict[str, Any]) -> dict[str, Any]:
    run = {k: v for k, v in config["config"].items() if v not in (None, "", [], {}, False) and k not in _NOT_COMPARED}
    return {"run": run, **{key: config.get(key) for key in ("os", "architecture")}}


def differences(one: Made, other: Made) -> list[str]:
    """Return what is not the same in two images, a line each."""
    found = []
    for key in sorted({*one.config["run"], *other.config["run"]}):
        values = [made.config["run"].get(key) for made in (one, other)]
        if values[0] != values[1]:
            found.append(f"config {key}: {values[0]} | {values[1]}")
    for path in sorted({*one.tree, *other.tree}):
        if one.tree.get(path) != other.tree.get(path):
            found.append(f"{path}: {one.tree.get(path)} | {other.tree.get(path)}")
    return found
