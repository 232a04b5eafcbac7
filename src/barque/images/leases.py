"""Leases: what an action that is under way needs, kept from being removed until it is done.

A lease names blobs by digest and layers by chain id. It lives in memory: what an interrupted daemon
leaves behind belongs to nobody, and the next one removes it when it opens the store.
"""

import threading
from collections.abc import Iterable, Set as AbstractSet

from barque.storage.content import Lease as ContentLease


class Lease:
    """Blobs and layers that one action holds; safe to use from several threads.

    Args:
        lock: guards what is held.
        content: the store's own lease, which holds each blob that the action's thread stores.
    """

    def __init__(self, lock: threading.RLock, content: ContentLease) -> None:
        self._lock = lock
        self._content = content
        self.chains: set[str] = set()

    @property
    def blobs(self) -> AbstractSet[str]:
        """Return the digests of the blobs that are held."""
        return frozenset(self._content.held)

    def discard(self, unused: Iterable[str]) -> None:
        """Remove blobs that nobody needs once this lease has ended (see ContentStore.discard)."""
        self._content.discard(unused)

    def hold_blob(self, digest: str) -> None:
        """Hold a blob, which need not be there yet."""
        self._content.hold(digest)

    def hold_chain(self, chain_id: str) -> None:
        """Hold a layer, which need not be there yet."""
        with self._lock:
            self.chains.add(chain_id)
