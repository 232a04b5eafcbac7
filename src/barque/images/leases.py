"""Leases: what an action that is under way needs, kept from being removed until it is done.

A lease names blobs by digest and layers by chain id. It lives in memory: what an interrupted daemon
leaves behind belongs to nobody, and the next one removes it when it opens the store.
"""

import threading


class Lease:
    """Blobs and layers that one action holds; safe to use from several threads."""

    def __init__(self, lock: threading.RLock) -> None:
        self._lock = lock
        self.blobs: set[str] = set()
        self.chains: set[str] = set()

    def hold_blob(self, digest: str) -> None:
        """Hold a blob, which need not be there yet."""
        with self._lock:
            self.blobs.add(digest)

    def hold_chain(self, chain_id: str) -> None:
        """Hold a layer, which need not be there yet."""
        with self._lock:
            self.chains.add(chain_id)
