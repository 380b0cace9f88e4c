"""The names in linux/{netlink,rtnetlink,neighbour,if_link}.h, as tables: what numbers of the wire are called."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeAlias

#: Names and struct codes; a field without a name is padding.
Fields: TypeAlias = tuple[tuple[str, str], ...]
Reader: TypeAlias = Callable[[int], str]


class Row(NamedTuple):
    """An attribute's name, how its payload is read (None: as bytes), and the table of what is inside, if it is a nest.

    A reader answers None where the payload has not the form it should.
    """

    name: str
    read: Callable[[bytes], str | None] | None = None
    inside: Mapping[int, Row] | None = None


Table: TypeAlias = Mapping[int, Row]


class Shape(NamedTuple):
    """The struct behind the header, what its numbers are called, and the attributes by the family it names."""

    struct: str
    fields: Fields
    texts: Mapping[str, Reader]
    attributes: Callable[[int], Table]


def _bits(table: Mapping[int, str]) -> Reader:
    """A reader of bits; what has no name stays a number."""

    def read(value: int) -> str:
        found = [name for bit, name in table.items() if value & bit]
        left = value & ~sum(table)
        return "|".join([*found, *([f"{left:#x}"] if left or not found else [])])

    return read


def _one(table: Mapping[int, str]) -> Reader:
    return lambda value: table.get(value, str(value))


# Payloads


def _string(raw: bytes) -> str:
    text = raw.rstrip(b"\0").decode("utf-8", "replace")
    return text if text.isprintable() else repr(text)


def _number(raw: bytes) -> str | None:
    return str(int.from_bytes(raw, sys.byteorder)) if len(raw) in (1, 2, 4, 8) else None


def _big(raw: bytes) -> str | None:
    """A number in network order, as ports are."""
    return str(int.from_bytes(raw, "big")) if len(raw) in (2, 4) else None


def _ip(raw: bytes) -> str | None:
    if len(raw) not in (4, 16):
        return None
    return socket.inet_ntop(socket.AF_INET if len(raw) == 4 else socket.AF_INET6, raw)


def _link_address(raw: bytes) -> str | None:
    return raw.hex(":") if len(raw) == 6 else None


KINDS = {
    1: "NLMSG_NOOP", 2: "NLMSG_ERROR", 3: "NLMSG_DONE", 4: "NLMSG_OVERRUN",
    16: "RTM_NEWLINK", 17: "RTM_DELLINK", 18: "RTM_GETLINK", 19: "RTM_SETLINK",
    20: "RTM_NEWADDR", 21: "RTM_DELADDR", 22: "RTM_GETADDR",
    24: "RTM_NEWROUTE", 25: "RTM_DELROUTE", 26: "RTM_GETROUTE",
    28: "RTM_NEWNEIGH", 29: "RTM_DELNEIGH", 30: "RTM_GETNEIGH",
}  # fmt: skip
_FLAGS = {
    1: "NLM_F_REQUEST", 2: "NLM_F_MULTI", 4: "NLM_F_ACK", 8: "NLM_F_ECHO",
    0x10: "NLM_F_DUMP_INTR", 0x20: "NLM_F_DUMP_FILTERED",
}  # fmt: skip
_GET_FLAGS = _FLAGS | {0x100: "NLM_F_ROOT", 0x200: "NLM_F_MATCH", 0x400: "NLM_F_ATOMIC"}
_NEW_FLAGS = _FLAGS | {0x100: "NLM_F_REPLACE", 0x200: "NLM_F_EXCL", 0x400: "NLM_F_CREATE", 0x800: "NLM_F_APPEND"}
_by_verb = {"NEW": _bits(_NEW_FLAGS), "GET": _bits(_GET_FLAGS)}
_plain_flags = _bits(_FLAGS)


def flags(kind: int, bits: int) -> str:
    """The same bits mean different things by the message's verb."""
    return _by_verb.get(KINDS.get(kind, "")[4:7], _plain_flags)(bits)


_family = _one({0: "AF_UNSPEC", socket.AF_INET: "AF_INET", socket.AF_INET6: "AF_INET6", socket.AF_BRIDGE: "AF_BRIDGE"})

# Neighbours: ndmsg

NUD = {
    0x01: "NUD_INCOMPLETE", 0x02: "NUD_REACHABLE", 0x04: "NUD_STALE", 0x08: "NUD_DELAY",
    0x10: "NUD_PROBE", 0x20: "NUD_FAILED", 0x40: "NUD_NOARP", 0x80: "NUD_PERMANENT",
}  # fmt: skip
_NUD_TEXT = _bits(NUD)
_NTF = {
    0x01: "NTF_USE", 0x02: "NTF_SELF", 0x04: "NTF_MASTER", 0x08: "NTF_PROXY",
    0x10: "NTF_EXT_LEARNED", 0x20: "NTF_OFFLOADED", 0x40: "NTF_STICKY", 0x80: "NTF_ROUTER",
}  # fmt: skip
_NDA: Table = {
    1: Row("NDA_DST", _ip), 2: Row("NDA_LLADDR", _link_address), 3: Row("NDA_CACHEINFO"), 4: Row("NDA_PROBES", _number),
    5: Row("NDA_VLAN", _number), 6: Row("NDA_PORT", _big), 7: Row("NDA_VNI", _number), 8: Row("NDA_IFINDEX", _number),
    9: Row("NDA_MASTER", _number), 10: Row("NDA_LINK_NETNSID", _number), 11: Row("NDA_SRC_VNI", _number),
    12: Row("NDA_PROTOCOL", _number), 13: Row("NDA_NH_ID", _number), 14: Row("NDA_FDB_EXT_ATTRS"),
    15: Row("NDA_FLAGS_EXT", _number),
}  # fmt: skip
_NDMSG: Fields = (
    ("ndm_family", "B"), ("", "3x"), ("ndm_ifindex", "i"), ("ndm_state", "H"), ("ndm_flags", "B"), ("ndm_type", "B"),
)  # fmt: skip

# Links: ifinfomsg

IFF = {
    0x1: "IFF_UP", 0x2: "IFF_BROADCAST", 0x8: "IFF_LOOPBACK", 0x10: "IFF_POINTOPOINT", 0x40: "IFF_RUNNING",
    0x80: "IFF_NOARP", 0x100: "IFF_PROMISC", 0x200: "IFF_ALLMULTI", 0x400: "IFF_MASTER", 0x800: "IFF_SLAVE",
    0x1000: "IFF_MULTICAST", 0x10000: "IFF_LOWER_UP", 0x20000: "IFF_DORMANT",
}  # fmt: skip
_IFINFOMSG: Fields = (
    ("ifi_family", "B"), ("", "x"), ("ifi_type", "H"), ("ifi_index", "i"), ("ifi_flags", "I"), ("ifi_change", "I"),
)  # fmt: skip
_INFO: Table = {
    1: Row("IFLA_INFO_KIND", _string), 2: Row("IFLA_INFO_DATA"), 3: Row("IFLA_INFO_XSTATS"),
    4: Row("IFLA_INFO_SLAVE_KIND", _string), 5: Row("IFLA_INFO_SLAVE_DATA"),
}  # fmt: skip
_IFLA: Table = {
    1: Row("IFLA_ADDRESS", _link_address), 2: Row("IFLA_BROADCAST", _link_address), 3: Row("IFLA_IFNAME", _string),
    4: Row("IFLA_MTU", _number), 5: Row("IFLA_LINK", _number), 6: Row("IFLA_QDISC", _string), 7: Row("IFLA_STATS"),
    10: Row("IFLA_MASTER", _number), 12: Row("IFLA_PROTINFO"), 13: Row("IFLA_TXQLEN", _number), 14: Row("IFLA_MAP"),
    16: Row("IFLA_OPERSTATE", _number), 17: Row("IFLA_LINKMODE", _number), 18: Row("IFLA_LINKINFO", None, _INFO),
    20: Row("IFLA_IFALIAS", _string), 21: Row("IFLA_NUM_VF", _number), 23: Row("IFLA_STATS64"),
    26: Row("IFLA_AF_SPEC"), 27: Row("IFLA_GROUP", _number), 28: Row("IFLA_NET_NS_FD", _number),
    30: Row("IFLA_PROMISCUITY", _number), 31: Row("IFLA_NUM_TX_QUEUES", _number),
    32: Row("IFLA_NUM_RX_QUEUES", _number), 33: Row("IFLA_CARRIER", _number),
    35: Row("IFLA_CARRIER_CHANGES", _number), 37: Row("IFLA_LINK_NETNSID", _number),
    39: Row("IFLA_PROTO_DOWN", _number), 40: Row("IFLA_GSO_MAX_SEGS", _number), 41: Row("IFLA_GSO_MAX_SIZE", _number),
    43: Row("IFLA_XDP"), 44: Row("IFLA_EVENT", _number), 47: Row("IFLA_CARRIER_UP_COUNT", _number),
    48: Row("IFLA_CARRIER_DOWN_COUNT", _number), 50: Row("IFLA_MIN_MTU", _number), 51: Row("IFLA_MAX_MTU", _number),
    54: Row("IFLA_PERM_ADDRESS", _link_address), 61: Row("IFLA_ALLMULTI", _number),
}  # fmt: skip

# Routes: rtmsg

ROUTE_TYPES = {
    0: "RTN_UNSPEC", 1: "RTN_UNICAST", 2: "RTN_LOCAL", 3: "RTN_BROADCAST", 4: "RTN_ANYCAST", 5: "RTN_MULTICAST",
    6: "RTN_BLACKHOLE", 7: "RTN_UNREACHABLE", 8: "RTN_PROHIBIT",
}  # fmt: skip
_RTMSG: Fields = (
    ("rtm_family", "B"), ("rtm_dst_len", "B"), ("rtm_src_len", "B"), ("rtm_tos", "B"), ("rtm_table", "B"),
    ("rtm_protocol", "B"), ("rtm_scope", "B"), ("rtm_type", "B"), ("rtm_flags", "I"),
)  # fmt: skip
_RTA: Table = {
    1: Row("RTA_DST", _ip), 2: Row("RTA_SRC", _ip), 3: Row("RTA_IIF", _number), 4: Row("RTA_OIF", _number),
    5: Row("RTA_GATEWAY", _ip), 6: Row("RTA_PRIORITY", _number), 7: Row("RTA_PREFSRC", _ip), 8: Row("RTA_METRICS"),
    9: Row("RTA_MULTIPATH"), 11: Row("RTA_FLOW", _number), 12: Row("RTA_CACHEINFO"), 15: Row("RTA_TABLE", _number),
    16: Row("RTA_MARK", _number), 18: Row("RTA_VIA"), 20: Row("RTA_PREF", _number), 30: Row("RTA_NH_ID", _number),
}  # fmt: skip

_LINK = Shape(
    "ifinfomsg", _IFINFOMSG, {"ifi_family": _family, "ifi_flags": _bits(IFF), "ifi_type": _one({1: "ARPHRD_ETHER"})},
    lambda _: _IFLA,
)  # fmt: skip
_ROUTE = Shape(
    "rtmsg", _RTMSG,
    {
        "rtm_family": _family,
        "rtm_type": _one(ROUTE_TYPES),
        "rtm_table": _one({253: "RT_TABLE_DEFAULT", 254: "RT_TABLE_MAIN", 255: "RT_TABLE_LOCAL"}),
        "rtm_protocol": _one({1: "RTPROT_REDIRECT", 2: "RTPROT_KERNEL", 3: "RTPROT_BOOT", 4: "RTPROT_STATIC"}),
        "rtm_scope": _one({0: "RT_SCOPE_UNIVERSE", 200: "RT_SCOPE_SITE", 253: "RT_SCOPE_LINK", 254: "RT_SCOPE_HOST"}),
    },
    lambda _: _RTA,
)  # fmt: skip
_NEIGH = Shape(
    "ndmsg", _NDMSG,
    {"ndm_family": _family, "ndm_state": _NUD_TEXT, "ndm_flags": _bits(_NTF), "ndm_type": _one(ROUTE_TYPES)},
    lambda _: _NDA,
)  # fmt: skip
#: By the number of the message.
SHAPES: Mapping[int, Shape] = (
    dict.fromkeys((16, 17, 18, 19), _LINK) | dict.fromkeys((24, 25, 26), _ROUTE) | dict.fromkeys((28, 29, 30), _NEIGH)
)
