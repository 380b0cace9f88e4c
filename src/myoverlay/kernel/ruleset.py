"""What a namespace's packet filter does with a UDP port, and at the forward hook. Read by netlink; nothing is changed.

iptables-nft writes the same rules. Sources: include/uapi/linux/netfilter/{nf_tables,nfnetlink,xt_tcpudp}.h.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from myoverlay.errors import KernelRefused
from myoverlay.kernel.netns import Namespace
from myoverlay.kernel.nft import HEAD, NETLINK_NETFILTER, word
from myoverlay.kernel.rtnetlink import Wire, attributes, members

_SUBSYSTEM = 10 << 8
_GETCHAIN, _GETRULE = _SUBSYSTEM | 4, _SUBSYSTEM | 7
#: Chains: table, name, hook (number), policy. Rules: table, chain, handle, expressions (name, data).
_TABLE, _NAME, _HOOK, _POLICY = 1, 3, 4, 5
_CHAIN, _HANDLE, _EXPRESSIONS = 2, 3, 4
_EXPRESSION_NAME, _EXPRESSION_DATA = 1, 2
_HOOK_NUMBER = 1
_DROP = 0
#: A port's place in a transport header.
_TRANSPORT, _DESTINATION = 2, 2
FAMILIES = {1: "inet", 2: "ip", 5: "netdev", 7: "bridge", 10: "ip6", 3: "arp"}
HOOKS = ("prerouting", "input", "forward", "output", "postrouting", "ingress")


class Chain(NamedTuple):
    """`hook`: its name, empty for a chain that others jump to. `drops`: policy drop. `rules`: how many it has."""

    family: str
    table: str
    name: str
    hook: str
    drops: bool
    rules: int


class Dropping(NamedTuple):
    """A rule that drops or rejects UDP datagrams to a port."""

    family: str
    table: str
    chain: str
    handle: int
    port: int


class Ruleset(NamedTuple):
    chains: tuple[Chain, ...]
    dropping: tuple[Dropping, ...]


def read(ns: Namespace, ports: Collection[int]) -> Ruleset:
    """All chains of the namespace, and what drops one of the ports. Raises KernelRefused.

    A kernel without nf_tables, and a namespace that never had a rule, have none.
    """
    wire = Wire(ns, NETLINK_NETFILTER)
    try:
        chains = [*_dump(wire, _GETCHAIN)]
        rules = [*_dump(wire, _GETRULE)]
    finally:
        wire.close()
    counts: dict[tuple[int, str, str], int] = {}
    dropping = []
    for family, found in rules:
        table, chain = word(found.get(_TABLE)), word(found.get(_CHAIN))
        counts[family, table, chain] = counts.get((family, table, chain), 0) + 1
        handle = int.from_bytes(found.get(_HANDLE, b""), "big")
        for port in ports:
            if drops_port(found.get(_EXPRESSIONS, b""), port):
                dropping.append(Dropping(FAMILIES.get(family, str(family)), table, chain, handle, port))
    return Ruleset(tuple(_chain(family, found, counts) for family, found in chains), tuple(dropping))


def _dump(wire: Wire, kind: int) -> Iterator[tuple[int, dict[int, bytes]]]:
    try:
        bodies = wire.dump(kind, HEAD.pack(socket.AF_UNSPEC, 0, 0))
    except KernelRefused as said:
        if said.code not in (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOENT):  # no nf_tables in this kernel
            raise
        return
    for body in bodies:
        if len(body) >= HEAD.size:
            yield body[0], attributes(body, HEAD.size)


def _chain(family: int, found: dict[int, bytes], counts: dict[tuple[int, str, str], int]) -> Chain:
    table, name = word(found.get(_TABLE)), word(found.get(_NAME))
    hook = ""
    if _HOOK in found:
        number = int.from_bytes(attributes(found[_HOOK], 0).get(_HOOK_NUMBER, b"\xff"), "big")
        hook = HOOKS[number] if number < len(HOOKS) else "?"
    drops = bool(hook) and int.from_bytes(found.get(_POLICY, b"\1"), "big") == _DROP
    return Chain(FAMILIES.get(family, str(family)), table, name, hook, drops, counts.get((family, table, name), 0))


def drops_port(expressions: bytes, port: int) -> bool:
    """Does a rule of these expressions name that UDP port as the destination, and end in drop or reject?"""
    loaded = named = ended = False
    for raw in members(expressions):
        expression = attributes(raw, 0)
        name, data = word(expression.get(_EXPRESSION_NAME)), attributes(expression.get(_EXPRESSION_DATA, b""), 0)
        if name == "payload":
            loaded = _numbers(data, 2, 3, 4) in (
                (_TRANSPORT, _DESTINATION, 2),
                (_TRANSPORT, 0, 4),  # both ports at once
            )
        elif name == "cmp" and loaded:
            value = attributes(data.get(3, b""), 0).get(1, b"")
            named = named or (_numbers(data, 2) == (0,) and value[-2:] == struct.pack("!H", port))
        elif name == "match":
            named = named or (word(data.get(1)) == "udp" and _udp_match(data.get(3, b""), port))
        elif name == "immediate":
            verdict = attributes(attributes(data.get(2, b""), 0).get(2, b""), 0).get(1)
            ended = ended or (verdict is not None and int.from_bytes(verdict, "big") == _DROP)
        elif name == "reject" or (name == "target" and word(data.get(1)) in ("DROP", "REJECT")):
            ended = True
    return named and ended


def _udp_match(info: bytes, port: int) -> bool:
    """struct xt_udp: source ports from, to, destination ports from, to, which are meant the other way round."""
    if len(info) < 9:
        return False
    _from, _to, first, last, inverted = struct.unpack_from("=HHHHB", info)
    return bool((first <= port <= last) != bool(inverted & 2)) and (first, last) != (0, 0xFFFF)


def _numbers(data: dict[int, bytes], *kinds: int) -> tuple[int, ...]:
    return tuple(int.from_bytes(data.get(kind, b""), "big") for kind in kinds)


def legacy(ns: Namespace) -> tuple[str, ...]:
    """Tables that the iptables before nft has there: `filter`, `nat` and so on. Raises Late."""
    return ns.call(legacy_here)


def legacy_here() -> tuple[str, ...]:
    """Those of the calling thread's namespace. nft does not list them (net/netfilter/x_tables.c)."""
    found: list[str] = []
    for table in ("ip_tables_names", "ip6_tables_names"):
        with contextlib.suppress(OSError):  # the module was never loaded
            found += Path(f"/proc/thread-self/net/{table}").read_text().split()
    return tuple(found)
