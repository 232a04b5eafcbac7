"""The engine's rows on disk: SQLite with one writer thread that commits all that waits at once.

What a full or read-only disk refuses is tried again until it is written: the engine goes on with what it knows.
"""

import asyncio
import json
import logging
import queue
import sqlite3
import threading
from typing import Any

from barque.base.errors import BarqueError

Json = dict[str, Any]
log = logging.getLogger(__name__)
_AGAIN_S = 1.0
_encode = json.JSONEncoder(separators=(",", ":")).encode
_SCHEMA = """
CREATE TABLE IF NOT EXISTS container (key TEXT PRIMARY KEY, data TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS volume (key TEXT PRIMARY KEY, data TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS network (key TEXT PRIMARY KEY, data TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS secret (key TEXT PRIMARY KEY, data TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS engine (key TEXT PRIMARY KEY, data TEXT NOT NULL);
"""
_Item = tuple[str, str, str | None, "asyncio.Future[None] | None"]


class Database:
    """Rows by kind and key. Reading happens once, before the first write."""

    def __init__(self, path: str) -> None:
        """Open or make the file.

        Raises:
            sqlite3.Error: the disk is full or read-only, or the file is no database.
        """
        self._connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=FULL")
        self._connection.executescript(_SCHEMA)
        self._queue: queue.SimpleQueue[_Item | None] = queue.SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._unwritten: dict[tuple[str, str], str | None] = {}
        self.failed: sqlite3.Error | None = None
        self._thread = threading.Thread(target=self._run, name="state", daemon=True)
        self._thread.start()

    def load(self, kind: str) -> dict[str, Json]:
        """Return all rows of a kind."""
        found = self._connection.execute(f"SELECT key, data FROM {kind}")
        return {key: json.loads(data) for key, data in found}

    def put(self, kind: str, key: str, row: Json) -> None:
        """Write a row soon."""
        self._queue.put((kind, key, _encode(row), None))

    def delete(self, kind: str, key: str) -> None:
        """Remove a row soon."""
        self._queue.put((kind, key, None, None))

    async def flush(self) -> None:
        """Wait until all that was written before is on disk.

        Raises:
            BarqueError: it could not be written.
        """
        future: asyncio.Future[None] = self._loop.create_future()
        self._queue.put(("", "", None, future))
        try:
            await future
        except sqlite3.Error as error:
            raise BarqueError(f"cannot write the engine's state: {error}") from error

    def close(self) -> None:
        """Write what waits and close."""
        self._queue.put(None)
        self._thread.join()
        self._connection.close()

    def _run(self) -> None:
        while True:
            batch = self._batch()
            error = self._commit([item for item in batch if item is not None])
            if error is not None and self.failed is None:
                log.error("cannot write the engine's state, which is tried again: %s", error)
            self.failed = error
            for item in batch:
                if item is not None and item[3] is not None:
                    self._loop.call_soon_threadsafe(_settle, item[3], error)
            if None in batch:
                return

    def _batch(self) -> list[_Item | None]:
        """Wait for something to write; return all that waits, nothing where it is time to try again."""
        try:
            batch = [self._queue.get(timeout=_AGAIN_S if self._unwritten else None)]
        except queue.Empty:
            return []
        while not self._queue.empty():
            batch.append(self._queue.get())
        return batch

    def _commit(self, batch: list[_Item]) -> sqlite3.Error | None:
        # Only the last word on a row counts.
        last = {**self._unwritten, **{(kind, key): data for kind, key, data, _ in batch if kind}}
        if not last:
            return None
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            for (kind, key), data in last.items():
                if data is None:
                    self._connection.execute(f"DELETE FROM {kind} WHERE key = ?", (key,))
                else:
                    self._connection.execute(f"REPLACE INTO {kind} VALUES (?, ?)", (key, data))
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            self._unwritten = last
            return error
        self._unwritten = {}
        return None


def _settle(future: "asyncio.Future[None]", error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)
