"""Which images there are, what they are called and which manifests they came with: maps over SQLite."""

import os
import re
import sqlite3
import threading
import time
from collections.abc import Iterable
from typing import Any

from barque.base.errors import BarqueError, InvalidInputError, NotFoundError
from barque.images.model import Image, PackedLayer
from barque.oci.reference import Reference, parse

_HEX = re.compile(r"(?:sha256:)?([0-9a-f]{1,64})")
_SCHEMA = """
CREATE TABLE IF NOT EXISTS image (
    id TEXT PRIMARY KEY, parent TEXT NOT NULL, size INTEGER NOT NULL, tagged_ns INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS name (ref TEXT PRIMARY KEY, image TEXT NOT NULL REFERENCES image(id));
CREATE TABLE IF NOT EXISTS target (ref TEXT PRIMARY KEY, digest TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS manifest (digest TEXT PRIMARY KEY, image TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS held (chain TEXT PRIMARY KEY, blob TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS packed (
    diff_id TEXT NOT NULL, digest TEXT NOT NULL, size INTEGER NOT NULL, media_type TEXT NOT NULL,
    repository TEXT NOT NULL, PRIMARY KEY (diff_id, digest, repository));
"""


class Catalogue:
    """Images by id and name; blocking, safe to use from several threads.

    A name means one image, and perhaps the manifest or the index that it was pulled by: its target.
    `packed` keeps in which compressed forms layers came from, or went to, which repositories, and which are kept here.
    """

    def __init__(self, data_root: str) -> None:
        # Guards the maps; held for moments only.
        self.lock = threading.RLock()
        self._images: dict[str, Image] = {}
        self._names: dict[str, str] = {}
        self._targets: dict[str, str] = {}
        self._manifests: dict[str, str] = {}
        self._held: dict[str, str] = {}
        self._kept: dict[str, set[str]] = {}
        if os.statvfs(data_root).f_flag & os.ST_RDONLY:
            raise BarqueError(f"data root {data_root} is on a read-only file system")
        self._database = sqlite3.connect(f"{data_root}/images.db", check_same_thread=False, isolation_level=None)
        try:
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.executescript(_SCHEMA)
        except sqlite3.Error as error:
            self._database.close()
            raise BarqueError(f"image database in {data_root}: {error}") from None

    def close(self) -> None:
        """Close the database."""
        with self.lock:
            self._database.close()

    # Finding.

    def resolve(self, ref: str) -> Image:
        """Return the image that a name, `name:tag`, `name@digest`, id or id prefix means.

        Raises:
            InvalidInputError: ref is malformed, or a prefix of several ids.
            NotFoundError: there is none.
        """
        with self.lock:
            named = self._names.get(self._full_name(ref), "")
            if named:
                return self._images[named]
            match = _HEX.fullmatch(ref)
            if match:
                found = [i for i in self._images if i.startswith(f"sha256:{match[1]}")]
                if len(found) == 1:
                    return self._images[found[0]]
                if found:
                    raise InvalidInputError(f"multiple IDs found with provided prefix: {ref}")
            if re.fullmatch(r"sha256:[0-9a-f]{64}|[0-9a-f]{64}", ref):
                raise NotFoundError(f"No such image: {ref}")
            raise NotFoundError(f"No such image: {parse(ref).with_default_tag().familiar}")

    def images(self) -> list[Image]:
        """Return all images, newest first."""
        with self.lock:
            return sorted(self._images.values(), key=lambda i: i.created_ns, reverse=True)

    def name_of(self, ref: str) -> str:
        """Return the full name by which ref finds an image, empty where it is an id."""
        with self.lock:
            return self._full_name(ref)

    def names(self) -> dict[str, str]:
        """Return the image id of every full name."""
        with self.lock:
            return dict(self._names)

    def children(self, image_id: str) -> list[str]:
        """Return the ids of the images made from this one."""
        with self.lock:
            return [i.id for i in self._images.values() if i.parent == image_id]

    def target(self, full_name: str) -> str:
        """Return the digest of the manifest or index that a full name was pulled by, empty if by none."""
        with self.lock:
            return self._targets.get(full_name, "")

    def manifests_of(self, image_id: str) -> list[str]:
        """Return the digests of the manifests that the image came with."""
        with self.lock:
            return [d for d, i in self._manifests.items() if i == image_id]

    def image_of_manifest(self, digest: str) -> str:
        """Return the id of the image that a manifest describes, empty if none is here."""
        with self.lock:
            return self._manifests.get(digest, "")

    # Changing.

    def set_name(self, reference: Reference, image_id: str, target: str = "") -> None:
        """Let a whole reference (tag or digest) mean the image, durably.

        Args:
            reference: the name.
            image_id: the image.
            target: digest of the manifest or index by which it was pulled; one that is gone meanwhile is left out.
        """
        now = time.time_ns()
        with self.lock:
            if image_id not in self._images:
                raise NotFoundError(f"No such image: {image_id}")
            target = target if target in self._manifests else ""
            ref = str(reference)
            before = self._names.get(ref)
            # Where only the time changes, a machine that loses power may lose it.
            anew = before != image_id or self._targets.get(ref, "") != target
            with self._transaction(durable=anew) as database:
                database.execute("INSERT OR REPLACE INTO name VALUES (?, ?)", (ref, image_id))
                database.execute("UPDATE image SET tagged_ns = ? WHERE id = ?", (now, image_id))
                database.execute("DELETE FROM target WHERE ref = ?", (ref,))
                if target:
                    database.execute("INSERT INTO target VALUES (?, ?)", (ref, target))
            self._names[ref] = image_id
            self._targets.pop(ref, None)
            if target:
                self._targets[ref] = target
            self._images[image_id] = self._images[image_id]._replace(tagged_ns=now)
            self._refresh(image_id, before)

    def add_manifest(self, digest: str, image_id: str) -> None:
        """Remember that a manifest describes an image; an index describes none ("")."""
        with self.lock:
            with self._transaction() as database:
                database.execute("INSERT OR REPLACE INTO manifest VALUES (?, ?)", (digest, image_id))
            self._manifests[digest] = image_id

    def integrity(self) -> list[str]:
        """Return what the database finds wrong with itself and with its references."""
        with self.lock:
            rows = self._database.execute("PRAGMA integrity_check").fetchall()
            lost = self._database.execute("PRAGMA foreign_key_check").fetchall()
        found = [str(row[0]) for row in rows if row[0] != "ok"]
        return found + [f"a row of {row[0]} refers to a missing {row[2]}" for row in lost]

    def set_size(self, image_id: str, size: int) -> None:
        """Correct the size, in bytes, that an image's row tells."""
        with self.lock:
            with self._transaction() as database:
                database.execute("UPDATE image SET size = ? WHERE id = ?", (size, image_id))
            self._images[image_id] = self._images[image_id]._replace(size=size)

    def packed(self, diff_id: str) -> list[PackedLayer]:
        """Return in which compressed forms a layer is known, the latest first."""
        with self.lock:
            rows = self._database.execute(
                "SELECT digest, size, media_type, repository FROM packed WHERE diff_id = ? ORDER BY rowid DESC",
                (diff_id,),
            ).fetchall()
        return [PackedLayer(*row) for row in rows]

    def add_packed(self, diff_id: str, forms: Iterable[PackedLayer]) -> None:
        """Remember compressed forms of a layer."""
        with self.lock, self._transaction() as database:
            for form in forms:
                database.execute("INSERT OR REPLACE INTO packed VALUES (?, ?, ?, ?, ?)", (diff_id, *form))
                if not form.repository:
                    self._kept.setdefault(diff_id, set()).add(form.digest)

    def kept_forms(self, diff_ids: Iterable[str]) -> set[str]:
        """Return the digests of the compressed forms of layers that are kept in this store."""
        with self.lock:
            return {digest for diff_id in diff_ids for digest in self._kept.get(diff_id, ())}

    def forget_packed(self, digest: str, repository: str | None = None) -> None:
        """Forget that a repository has a compressed layer, or all about it; its blob here then goes with the next sweep.

        Args:
            digest: of the compressed layer.
            repository: which; None for this store and all repositories.
        """
        with self.lock, self._transaction() as database:
            if repository is not None:
                database.execute("DELETE FROM packed WHERE digest = ? AND repository = ?", (digest, repository))
                return
            database.execute("DELETE FROM packed WHERE digest = ?", (digest,))
            for kept in self._kept.values():
                kept.discard(digest)

    def _remove_name(self, full_name: str) -> str:
        with self.lock:
            image_id = self._names[full_name]
            with self._transaction() as database:
                database.execute("DELETE FROM name WHERE ref = ?", (full_name,))
                database.execute("DELETE FROM target WHERE ref = ?", (full_name,))
            del self._names[full_name]
            self._targets.pop(full_name, None)
            self._refresh(image_id)
            return image_id

    def _insert(self, image: Image) -> Image:
        with self.lock:
            with self._transaction() as database:
                row = (image.id, image.parent, image.size, 0)
                database.execute("INSERT INTO image VALUES (?, ?, ?, ?)", row)
            self._images[image.id] = image
            return image

    def hold(self, layers: Iterable[tuple[str, str]]) -> None:
        """Hold layers (chain id, diffID) that no image has, from now on; `insert_all` makes it last."""
        with self.lock:
            self._held |= dict(layers)

    def let_go(self, chains: Iterable[str]) -> None:
        """Hold layers no longer; those that no image has are removed by `sweep`."""
        gone = list(chains)
        with self.lock:
            with self._transaction() as database:
                database.executemany("DELETE FROM held WHERE chain = ?", [(chain,) for chain in gone])
            for chain in gone:
                self._held.pop(chain, None)

    def insert_all(self, images: Iterable[Image], layers: Iterable[tuple[str, str]]) -> None:
        """Add images, parents first, and hold layers, in one step."""
        with self.lock:
            fresh = [image for image in images if image.id not in self._images]
            rows = list(layers)
            with self._transaction() as database:
                database.executemany("INSERT INTO image VALUES (?, ?, ?, 0)", [(i.id, i.parent, i.size) for i in fresh])
                database.executemany("INSERT OR REPLACE INTO held VALUES (?, ?)", rows)
            self._images |= {image.id: image for image in fresh}
            self._held |= dict(rows)

    def _forget(self, image: Image) -> list[str]:
        """Remove an image's row; return the digests of the manifests and compressed layers that went with it."""
        with self.lock:
            gone = self.manifests_of(image.id)
            packed: list[str] = []
            with self._transaction() as database:
                database.execute("DELETE FROM manifest WHERE image = ?", (image.id,))
                database.execute("DELETE FROM image WHERE id = ?", (image.id,))
                kept = {d for i in self._images.values() if i.id != image.id for d in i.diff_ids}
                for diff_id in set(image.diff_ids) - kept:
                    database.execute("DELETE FROM packed WHERE diff_id = ?", (diff_id,))
                    packed += self._kept.pop(diff_id, ())
            del self._images[image.id]
            for digest in gone:
                del self._manifests[digest]
            return [*gone, *packed]

    def _forget_manifests(self, gone: Iterable[str]) -> None:
        with self.lock:
            with self._transaction() as database:
                database.executemany("DELETE FROM manifest WHERE digest = ?", [(d,) for d in gone])
            for digest in gone:
                self._manifests.pop(digest, None)

    def _full_name(self, ref: str) -> str:
        try:
            reference = parse(ref).with_default_tag()
        except InvalidInputError:
            # A whole id is no name, but it is a way to say which image.
            if _HEX.fullmatch(ref):
                return ""
            raise
        if reference.digest:
            text = str(reference._replace(tag=""))
            if text in self._names:
                return text
            # Local images have no manifest digest of a registry; their config's will do.
            for name, image_id in self._names.items():
                if image_id == reference.digest and name.startswith(reference.name + ":"):
                    return name
            return ""
        return str(reference) if str(reference) in self._names else ""

    def _transaction(self, *, durable: bool = True) -> "_Transaction":
        return _Transaction(self._database, durable=durable)

    def _refresh(self, *image_ids: str | None) -> None:
        for image_id in image_ids:
            if image_id is None or image_id not in self._images:
                continue
            refs = sorted(r for r, i in self._names.items() if i == image_id)
            self._images[image_id] = self._images[image_id]._replace(
                names=tuple(r for r in refs if "@" not in r),
                digests=tuple(r for r in refs if "@" in r),
            )

    def _rows(self) -> list[tuple[str, str, int, int]]:
        for ref, digest in self._database.execute("SELECT ref, digest FROM target"):
            self._targets[ref] = digest
        for digest, image_id in self._database.execute("SELECT digest, image FROM manifest"):
            self._manifests[digest] = image_id
        for ref, image_id in self._database.execute("SELECT ref, image FROM name"):
            self._names[ref] = image_id
        self._held = dict(self._database.execute("SELECT chain, blob FROM held"))
        for diff_id, digest in self._database.execute("SELECT diff_id, digest FROM packed WHERE repository = ''"):
            self._kept.setdefault(diff_id, set()).add(digest)
        return self._database.execute("SELECT id, parent, size, tagged_ns FROM image").fetchall()


class _Transaction:
    def __init__(self, database: sqlite3.Connection, *, durable: bool) -> None:
        self._database = database
        self._durable = durable

    def __enter__(self) -> sqlite3.Connection:
        try:
            self._database.execute(f"PRAGMA synchronous={'FULL' if self._durable else 'NORMAL'}")
            self._database.execute("BEGIN IMMEDIATE")
        except sqlite3.Error as error:
            raise BarqueError(f"image database: {error}") from None
        return self._database

    def __exit__(self, kind: Any, error: BaseException | None, *rest: Any) -> None:
        if kind is None:
            try:
                self._database.execute("COMMIT")
                return
            except sqlite3.Error as refused:
                error = refused
        if self._database.in_transaction:
            self._database.execute("ROLLBACK")
        if isinstance(error, sqlite3.Error):
            # A full disk speaks through the database too.
            raise BarqueError(f"image database: {error}") from None
