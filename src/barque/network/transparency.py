"""Keeping a client's address where the proxy carries a port: what containers answer to it comes back to the proxy.

The proxy's sockets speak as the client (IP_TRANSPARENT) and bear a mark. What comes for a socket with this mark gets
a mark itself, and packets with that one are routed to this machine. The table, the rule and the routes are there
only while published ports obey the host's rules; nothing of other programs is touched.
"""

import errno
import hashlib
import logging

from barque.base.errors import KernelError
from barque.kernel import nft
from barque.kernel.netlink import policy
from barque.kernel.netlink.connection import NETLINK_NETFILTER, Connection

log = logging.getLogger(__name__)

_MANGLE = -150
_GONE = (errno.ESRCH, errno.ENOENT, errno.EAFNOSUPPORT, errno.ENODEV)


class Transparency:
    """The way back of one engine's proxy."""

    def __init__(self, table: str, connection: Connection) -> None:
        """Remember; open() changes the machine."""
        self._table = f"{table}_proxy"
        self._links = connection
        self._rules = Connection(NETLINK_NETFILTER)
        number = int.from_bytes(hashlib.sha256(table.encode()).digest()[:3], "big")
        # The socket's own mark must not be the packets': what it sends goes to the container.
        self._packets, self.mark = 0x62000000 | number << 1 & 0xFFFFFF, 0x62000001 | number << 1 & 0xFFFFFF

    def open(self) -> bool:
        """Make the way back; return whether this kernel can."""
        try:
            for family in policy.FAMILIES:
                self._links.attempt(policy.keep_marked(family, self._packets, self._packets), errno.EEXIST, errno.EAFNOSUPPORT)
            self.rebuild()
        except KernelError as error:
            log.warning("published ports do not show containers the address of clients: %s", error)
            self._undo()
            return False
        return True

    def rebuild(self) -> None:
        """Make the table anew, in one step.

        Raises:
            KernelError: the kernel refused.
        """
        mark, packets = (value.to_bytes(4, "little") for value in (self.mark, self._packets))
        self._rules.transact([
            nft.add_table(self._table), nft.remove_table(self._table), nft.add_table(self._table),
            nft.add_chain(self._table, "returning", "filter", nft.HOOK_PREROUTING, _MANGLE),
            nft.add_rule(self._table, "returning", nft.socket_mark(1), nft.compare(1, mark), nft.load(1, packets), nft.set_mark(1)),
        ])  # fmt: skip

    def is_whole(self) -> bool:
        """Tell whether the table is as it should be."""
        try:
            return len(self._rules.dump(*nft.ask_rules(self._table))) == 1
        except KernelError as error:
            if error.errno == errno.ENOENT:
                return False
            raise

    def _undo(self) -> None:
        self._rules.transact([nft.add_table(self._table), nft.remove_table(self._table)])
        for family in policy.FAMILIES:
            self._links.attempt(policy.pass_marked(family, self._packets, self._packets), *_GONE)

    def close(self, *, remove: bool) -> None:
        """Close the socket; with remove take the way back away."""
        if remove:
            self._undo()
        self._rules.close()
