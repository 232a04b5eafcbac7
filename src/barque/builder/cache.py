"""Records of solved steps: key to layer, kept with the layers themselves until they are pruned."""

import json
import sqlite3
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from barque.base.errors import BarqueError
from barque.builder.file_digests import FileDigests
from barque.images.store import ImageStore

_SCHEMA = """
CREATE TABLE IF NOT EXISTS record (
    key TEXT PRIMARY KEY, chain TEXT NOT NULL, diff TEXT NOT NULL, parent TEXT NOT NULL, kind TEXT NOT NULL,
    description TEXT NOT NULL, created_ns INTEGER NOT NULL, used_ns INTEGER NOT NULL, uses INTEGER NOT NULL,
    size INTEGER NOT NULL, facts TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS folder (
    name TEXT PRIMARY KEY, description TEXT NOT NULL, uses INTEGER NOT NULL, created_ns INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS digest (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS file_digests (folder TEXT PRIMARY KEY, packed BLOB NOT NULL);
"""
_DIGESTS_KEPT = 50_000


@dataclass(slots=True)
class Record:
    """One solved step. An empty diff: it has no layer, as it changed nothing, and its chain is its parent's.

    `facts` says what the key was made of, so that a miss can be explained.
    """

    key: str
    chain: str
    diff: str
    parent: str
    kind: str
    description: str
    created_ns: int
    used_ns: int = 0
    uses: int = 0
    size: int = 0
    facts: dict[str, Any] = field(default_factory=dict)


class BuildCache:
    """Records of one data root; blocking, safe to use from several threads.

    New records live in memory at once and on disk after `flush`, which writes out their layers first.
    """

    def __init__(self, path: str, store: ImageStore) -> None:
        self._store = store
        self._lock = threading.RLock()
        self._flushing = threading.Lock()
        self._records: dict[str, Record] = {}
        self._digests: dict[str, str] = {}
        self._fresh: dict[str, Record] = {}
        self._fresh_digests: dict[str, str] = {}
        self._touched: set[str] = set()
        self._folders: dict[str, tuple[str, int, int]] = {}
        self._fresh_folders: set[str] = set()
        self._file_digests: dict[str, FileDigests] = {}
        try:
            self._database = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute("PRAGMA synchronous=NORMAL")
            self._database.executescript(_SCHEMA)
            self._read()
        except sqlite3.Error as error:
            raise BarqueError(f"build cache {path}: {error}") from None

    def close(self) -> None:
        """Close the file."""
        with self._flushing:
            self._database.close()

    def find(self, key: str) -> Record | None:
        """Return the record of a key whose layer is still here, and note its use."""
        with self._lock:
            record = self._records.get(key)
            if record is None:
                return None
            if record.chain and not self._store.layers.has(record.chain):
                del self._records[key]
                return None
            record.used_ns = time.time_ns()
            record.uses += 1
            self._touched.add(key)
            return record

    def peek(self, key: str) -> Record | None:
        """Return the record of a key, and note nothing."""
        return self._records.get(key)

    def add(self, record: Record) -> None:
        """Take a new record."""
        with self._lock:
            record.used_ns = record.used_ns or time.time_ns()
            record.uses = record.uses or 1
            self._records[record.key] = record
            self._fresh[record.key] = record

    def folder(self, name: str) -> tuple[str, int, int]:
        """Return what a folder of the cache is for, how often it was used, and when it was made (nanoseconds)."""
        with self._lock:
            return self._folders.get(name, ("", 0, 0))

    def note_folder(self, name: str, description: str) -> None:
        """Note a use of a folder."""
        with self._lock:
            _, uses, created_ns = self._folders.get(name, ("", 0, 0))
            self._folders[name] = description, uses + 1, created_ns or time.time_ns()
            self._fresh_folders.add(name)

    def forget_folder(self, name: str) -> None:
        """Forget a folder that is gone."""
        with self._flushing, self._lock:
            self._folders.pop(name, None)
            self._fresh_folders.discard(name)
            self._file_digests.pop(name, None)
            self._execute("DELETE FROM folder WHERE name = ?", [(name,)])
            self._execute("DELETE FROM file_digests WHERE folder = ?", [(name,)])

    def file_digests(self, name: str) -> FileDigests:
        """Return what is known of the files of a folder of the cache; what is added to it is kept from the next `flush` on."""
        with self._lock:
            return self._file_digests.setdefault(name, FileDigests(lambda: self._packed_digests(name)))

    def _packed_digests(self, name: str) -> bytes:
        with self._lock:
            row = self._database.execute("SELECT packed FROM file_digests WHERE folder = ?", (name,)).fetchone()
        return row[0] if row is not None else b""

    def records(self) -> list[Record]:
        """Return all records, the oldest first."""
        with self._lock:
            return sorted(self._records.values(), key=lambda r: r.created_ns)

    def latest(self, kind: str, description: str) -> Record | None:
        """Return the last record of a step that reads the same."""
        with self._lock:
            same = [r for r in self._records.values() if r.kind == kind and r.description == description]
        return max(same, key=lambda r: r.created_ns, default=None)

    def digest(self, key: str) -> str | None:
        """Return a digest that was computed of something that never changes."""
        return self._digests.get(key)

    def keep_digest(self, key: str, value: str) -> None:
        """Keep such a digest."""
        with self._lock:
            self._digests[key] = value
            self._fresh_digests[key] = value

    def flush(self, images: Iterable[tuple[bytes, str]] = ()) -> list[str]:
        """Write new layers, images and records out, in this order; return the images' ids.

        Args:
            images: configs and parents' ids, parents first.

        Raises:
            BarqueError: the database refused.
            OSError: the disk is full.
        """
        with self._flushing:
            with self._lock:
                fresh, self._fresh = self._fresh, {}
                digests, self._fresh_digests = self._fresh_digests, {}
                touched, self._touched = self._touched, set()
                rows = [self._row(self._records[key]) for key in {*fresh, *touched} if key in self._records]
                folders = [(name, *self._folders[name]) for name in self._fresh_folders if name in self._folders]
                self._fresh_folders = set()
                known, self._file_digests = self._file_digests, {}
            layers = [(r.chain, r.diff) for r in fresh.values() if r.diff]
            try:
                made = self._store.register_all(list(images), layers)
                self._write(rows, digests)
                self._execute("INSERT OR REPLACE INTO folder VALUES (?, ?, ?, ?)", folders)
                packed = [(name, one.packed()) for name, one in known.items() if one.fresh]
                self._execute("INSERT OR REPLACE INTO file_digests VALUES (?, ?)", packed)
            except BaseException:
                with self._lock:
                    self._fresh = {**fresh, **self._fresh}
                raise
            return [image.id for image in made]

    def remove(self, keys: Iterable[str]) -> None:
        """Forget records and let their layers go."""
        with self._flushing, self._lock:
            gone = [r for key in keys if (r := self._records.pop(key, None)) is not None]
            for record in gone:
                self._fresh.pop(record.key, None)
            kept = {r.chain for r in self._records.values()}
            self._execute("DELETE FROM record WHERE key = ?", [(r.key,) for r in gone])
            self._store.let_go(r.chain for r in gone if r.diff and r.chain not in kept)

    def _write(self, rows: list[tuple[Any, ...]], digests: dict[str, str]) -> None:
        self._execute("INSERT OR REPLACE INTO record VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
        self._execute("INSERT OR REPLACE INTO digest VALUES (?, ?)", list(digests.items()))

    def _execute(self, statement: str, rows: list[tuple[Any, ...]]) -> None:
        if not rows:
            return
        try:
            self._database.execute("BEGIN")
            self._database.executemany(statement, rows)
            self._database.execute("COMMIT")
        except sqlite3.Error as error:
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")
            raise BarqueError(f"build cache: {error}") from None

    def _row(self, record: Record) -> tuple[Any, ...]:
        return (record.key, record.chain, record.diff, record.parent, record.kind, record.description,
                record.created_ns, record.used_ns, record.uses, record.size, json.dumps(record.facts))  # fmt: skip

    def _read(self) -> None:
        for row in self._database.execute("SELECT * FROM record"):
            values = (*row[:10], json.loads(row[10]))
            record = Record(*values)
            self._records[record.key] = record
        self._folders = {row[0]: (row[1], row[2], row[3]) for row in self._database.execute("SELECT * FROM folder")}
        count = self._database.execute("SELECT count(*) FROM digest").fetchone()[0]
        if count > _DIGESTS_KEPT:
            self._database.execute("DELETE FROM digest")
        self._digests = dict(self._database.execute("SELECT key, value FROM digest"))
