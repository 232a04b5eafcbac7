"""One compressed blob from a registry to the content store in one pass.

What comes is kept in the store's partial file, hashed, and given on to be inflated and stored under
the digest of its plain bytes. A connection that breaks is continued where it broke, in the same
inflating pass; a transfer that ended with its daemon is continued from the partial file.
"""

import os
import time
from collections.abc import Iterator
from typing import BinaryIO

from barque.base.errors import BarqueError, InvalidInputError
from barque.distribution.errors import RegistryError, TransportError
from barque.distribution.progress import Progress
from barque.distribution.registry import Repository
from barque.distribution.settings import Settings
from barque.distribution.transport import PIECE_BYTES, Answer
from barque.oci.manifest import Descriptor
from barque.storage.content import ContentStore
from barque.storage.hashing import Hasher
from barque.storage.unfinished import WritingAhead


class Download:
    """The verified bytes of one blob; made and read in one thread.

    Args:
        repository: where the blob is.
        content: keeps what has come so far.
        blob: digest and size.
        settings: tries and waits.
        progress: is told.
        shown: the id in progress messages.
    """

    def __init__(
        self, repository: Repository, content: ContentStore, blob: Descriptor, settings: Settings, progress: Progress,
        *, shown: str,
    ) -> None:  # fmt: skip
        self._repository = repository
        self._content = content
        self._blob = blob
        self._settings = settings
        self._progress = progress
        self._shown = shown
        self._calls = repository.registry.transport.calls
        self._kept = 0

    @property
    def was_continued(self) -> bool:
        """Whether the bytes began with what an earlier transfer had left."""
        return self._kept > 0

    def chunks(self) -> Iterator[bytes]:
        """Yield the blob's bytes; it ends well only if their size and digest were right.

        Raises:
            InvalidInputError: what was kept, or what the registry sends, is something else.
            RegistryError: the registry refuses.
            TransportError: it broke off too often.
        """
        hasher = Hasher()
        try:
            with self._content.partial(self._blob.digest) as file:
                for data in self._bytes(file):
                    hasher.update(data)
                    yield data
            self._progress.step(self._shown, "Verifying Checksum")
            if "sha256:" + hasher.finish() != self._blob.digest:
                raise InvalidInputError(f"filesystem layer verification failed for digest {self._blob.digest}")
            self._progress.step(self._shown, "Download complete")
        finally:
            hasher.stop()

    def _bytes(self, file: BinaryIO) -> Iterator[bytes]:
        """Yield what is kept, then what the registry sends, keeping it."""
        done = 0
        self._kept = min(os.fstat(file.fileno()).st_size, self._blob.size)
        file.truncate(self._kept)
        while done < self._kept:
            data = file.read(min(PIECE_BYTES, self._kept - done))
            if not data:
                break
            self._calls.check()
            done += len(data)
            yield data
        attempt = 0
        kept = WritingAhead(file.fileno(), done)
        while done < self._blob.size or (not self._blob.size and not attempt):
            attempt += 1
            before = done
            try:
                for data in self._from(done):
                    done += len(data)
                    kept.write(data)
                    self._progress.bar(self._shown, "Downloading", done, self._blob.size)
                    yield data
                if done < self._blob.size:
                    raise TransportError("unexpected EOF")
            except (TransportError, RegistryError) as error:
                if done > before:
                    attempt = 1
                self._wait(error, attempt)

    def _wait(self, error: BarqueError, attempt: int) -> None:
        """Wait before the next try, or give up."""
        if isinstance(error, RegistryError) and error.is_final and error.code != "TOOMANYREQUESTS":
            raise error
        if attempt >= self._settings.attempts:
            raise error
        delay_s = self._settings.retry_delay_s * 2 ** (attempt - 1)
        if isinstance(error, RegistryError) and error.retry_after_s:
            delay_s = error.retry_after_s
        until = time.monotonic() + delay_s
        while (left := until - time.monotonic()) > 0:
            seconds = int(left) + 1
            self._progress.step(self._shown, f"Retrying in {seconds} second{'s' if seconds != 1 else ''}")
            self._calls.wait(min(1.0, left))

    def _from(self, start: int) -> Iterator[bytes]:
        """Yield the registry's bytes from a position on, never more than the blob has."""
        answer = self._repository.blob(self._blob.digest, start)
        try:
            skip = self._skipped(answer, start)
            left = self._blob.size - start
            for data in answer.pieces():
                if skip:
                    data, skip = data[skip:], max(0, skip - len(data))
                if len(data) > left:
                    raise InvalidInputError(
                        f"the registry sends more than the {self._blob.size} bytes of {self._blob.digest}"
                    )
                left -= len(data)
                if data:
                    yield data
        finally:
            answer.close()

    def _skipped(self, answer: Answer, start: int) -> int:
        """Return how many bytes of an answer were had before."""
        length, size = answer.length, self._blob.size
        if answer.status == 416:
            answer.text(1 << 20)
            raise InvalidInputError(f"the registry has fewer bytes of {self._blob.digest} than are kept here")
        if answer.status == 206:
            told = answer.headers.get("Content-Range", "")
            if not told.startswith(f"bytes {start}-"):
                raise InvalidInputError(
                    f"the registry answers with another range of {self._blob.digest}: {told[:80]!r}"
                )
            wanted = size - start
        else:
            wanted = size
        if length is not None and length != wanted:
            raise InvalidInputError(
                f"unexpected size of {self._blob.digest}: the registry sends {length} bytes, the manifest says {wanted}"
            )
        return start if answer.status == 200 else 0

