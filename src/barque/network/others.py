"""Firewalls of other programs that drop what ours lets through, and what their users can tell them.

A packet is forwarded only where every base chain of that hook lets it pass: our accept does not outvote the drop of
another table, and rules that are not ours are never changed. So all that can be done is to say which chain it is.
"""

from collections.abc import Iterable, Sequence
from contextlib import closing
from typing import NamedTuple

from barque.kernel import nft
from barque.kernel.netlink.connection import NETLINK_NETFILTER, Connection

# Its chain has no policy of dropping, but a last rule that rejects.
_FIREWALLD = "firewalld"
_FAMILIES = {1: "inet", 2: "ip", 10: "ip6"}
# Chains by which a program is known that works in the tables of iptables, and how it is told to let a bridge be.
_WAYS = {
    "ufw-before-forward": "ufw route allow out on {0}; ufw route allow in on {0}",
    "ufw6-before-forward": "ufw route allow out on {0}; ufw route allow in on {0}",
    "DOCKER-USER": "{1} -I DOCKER-USER -o {0} -j ACCEPT; {1} -I DOCKER-USER -i {0} -j ACCEPT",
}
_FIREWALLD_WAY = "firewall-cmd --permanent --zone=trusted --add-interface={0}; firewall-cmd --reload"


class Dropping(NamedTuple):
    """A chain of somebody else that drops what no rule of its table accepts.

    `way` is what allows a bridge, with a place for its name; `rules` are those of the table as the kernel tells them.
    """

    family: str
    table: str
    chain: str
    way: str
    rules: Sequence[bytes] = ()

    @property
    def closes_ports(self) -> bool:
        """Tell whether published ports are dropped, too: firewalld lets through what is led elsewhere."""
        return self.table != _FIREWALLD

    def knows(self, bridge: str) -> bool:
        """Tell whether a rule names the bridge: somebody has decided what it lets through."""
        return any(f"{bridge}\0".encode() in rule for rule in self.rules)


def dropping(ours: str) -> list[Dropping]:
    """Return the chains that drop what is forwarded, without that of our own table.

    Raises:
        KernelError: the kernel does not tell.
    """
    with closing(Connection(NETLINK_NETFILTER)) as connection:
        chains = [nft.read_chain(payload) for payload in connection.dump(*nft.ask_chains())]
        return [
            Dropping(_FAMILIES[chain.family], chain.table, chain.name, _way(chain, chains),
                     connection.dump(*nft.ask_rules(chain.table, chain.family)))
            for chain in chains
            if chain.hook == nft.HOOK_FORWARD and chain.family in _FAMILIES and chain.table != ours
            and (chain.policy == nft.NF_DROP or chain.table == _FIREWALLD)
        ]  # fmt: skip


def _way(dropping_chain: nft.Chain, chains: Iterable[nft.Chain]) -> str:
    if dropping_chain.table == _FIREWALLD:
        return _FIREWALLD_WAY
    beside = {item.name for item in chains if (item.family, item.table) == (dropping_chain.family, dropping_chain.table)}
    known = next((way for name, way in _WAYS.items() if name in beside), "let it accept what comes from and goes to {0}")
    return known.replace("{1}", "ip6tables" if _FAMILIES[dropping_chain.family] == "ip6" else "iptables")


def warning(chain: Dropping, bridges: Sequence[str], *, forwarded: bool) -> str:
    """Return what is to be said of a chain that does not know some bridges. Pure.

    Args:
        chain: the chain.
        bridges: at least one.
        forwarded: whether published ports are forwarded, and not carried by the proxy.
    """
    closed = ", and other machines their published ports," if forwarded and chain.closes_ports else ""
    more = f"; so for {', '.join(bridges[1:])}" if bridges[1:] else ""
    return (
        f"the chain {chain.chain} of the table {chain.family} {chain.table} drops forwarded packets unless its own rules "
        f"accept them: containers of {bridges[0]} reach other machines{closed} only as these rules allow "
        f"({chain.way.format(bridges[0])}{more})"
    )
