"""Traffic control on devices: queues and filters that may take packets away, read by netlink as `tc` would.

Sources: tc(8), include/uapi/linux/{rtnetlink,pkt_sched,pkt_cls,if_ether}.h, net/sched/.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from myoverlay.errors import KernelRefused
from myoverlay.kernel.rtnetlink import Wire, attributes, members
from myoverlay.path import Does, Key, Sieve

_RTM_GETQDISC, _RTM_GETTFILTER = 38, 46
#: struct tcmsg: family, padding, interface, handle, parent, info (a filter's priority and protocol).
_HEAD = struct.Struct("=BxxxiIII")
_KIND, _OPTIONS, _CHAIN = 1, 2, 11
_ROOT, _INGRESS = 0xFFFFFFFF, 0xFFFF0000
#: Where the filters of `clsact` hang.
_CLSACT = {"ingress": 0xFFFFFFF2, "egress": 0xFFFFFFF3}
#: What an action decides (TC_ACT_*): go on, accept, drop; taken elsewhere; see the table of `_gact`.
_UNSPEC, _OK, _SHOT = -1, 0, 2
#: Where a filter of each kind has its actions, and its keys.
_ACTIONS = {"u32": 7, "matchall": 2, "flower": 3, "bpf": 1, "basic": 3, "fw": 4, "route": 6, "flow": 9, "cgroup": 1}
_FLOWER_KEYS = {4: (-14, 5, 6), 6: (-8, 7, 6), 8: (-2, 0, 2), 9: (9, 0, 1), 10: (12, 11, 4), 12: (16, 13, 4),
                20: (20, 37, 2), 21: (22, 38, 2)}  # fmt: skip
#: Flower's other attributes that match nothing: class, actions, the keys' masks, flags, where hardware has it.
_FLOWER_SILENT = {1, 3, 5, 7, 11, 13, 22, 37, 38, 86}
#: u32's that say more than its keys do: another table, an interface, a mark.
_U32_MORE = {3, 8, 10}
#: A filter of flower has more attributes than other messages: none of its keys may be overlooked.
_MANY = 256
#: A program of cls_bpf that decides by what it returns (TCA_BPF_FLAG_ACT_DIRECT).
_DIRECT = 1
_NS = 1_000_000_000


def read(wire: Wire, names: dict[int, str]) -> tuple[Sieve, ...]:
    """What lies on the devices of these numbers, in the order in which packets meet it. Raises KernelRefused."""
    found: list[Sieve] = []
    for body in wire.dump(_RTM_GETQDISC, _HEAD.pack(0, 0, 0, 0, 0)):
        if len(body) < _HEAD.size:
            continue
        index, handle, parent = _HEAD.unpack_from(body)[1:4]
        given = attributes(body, _HEAD.size)
        if index not in names:
            continue
        kind = _word(given.get(_KIND))
        if kind == "clsact":
            for way, place in _CLSACT.items():
                found += _filters(wire, index, names[index], way, place)
        elif kind == "ingress":
            found += _filters(wire, index, names[index], "ingress", _INGRESS)
        elif parent == _ROOT:
            found += [sieve] if (sieve := queue(names[index], kind, given.get(_OPTIONS, b""))) is not None else []
            if handle:
                found += _filters(wire, index, names[index], "egress", handle)
    return tuple(found)


def queue(device: str, kind: str, options: bytes) -> Sieve | None:
    """What a device's own queue takes away whatever comes; None where it only orders and delays."""
    find = f"qdisc del dev {device} root"
    if kind == "blackhole":
        return Sieve(device, "egress", "qdisc blackhole", find, Does.DROPS)
    if kind == "netem" and len(options) >= 12:
        lost = struct.unpack_from("=III", options)[2]
        share = f"qdisc netem, which loses {lost / 0xFFFFFFFF:.0%}"
        return Sieve(device, "egress", share, find, Does.DROPS if lost == 0xFFFFFFFF else Does.MAYBE) if lost else None
    if kind == "tbf":
        told = attributes(options, 0).get(1, b"")
        if len(told) < 36:
            return None
        rate, buffer = struct.unpack_from("=I", told, 8)[0], struct.unpack_from("=I", told, 28)[0]
        fast = attributes(options, 0).get(4, b"")
        rate = struct.unpack("=Q", fast)[0] if len(fast) == 8 else rate
        most = rate * (buffer << 6) // _NS  # ticks of 64 ns (include/net/pkt_sched.h)
        return Sieve(
            device, "egress", f"qdisc tbf, which drops what is longer than {most} bytes", find, Does.DROPS, most
        )
    if kind in ("bfifo", "pfifo") and len(options) >= 4:
        (limit,) = struct.unpack_from("=I", options)
        most = limit if kind == "bfifo" else (1 << 32 if limit else 0)
        return Sieve(device, "egress", f"qdisc {kind} limit {limit}", find, Does.DROPS, most)
    return None


def _filters(wire: Wire, index: int, device: str, way: str, parent: int) -> Iterator[Sieve]:
    try:
        bodies = wire.dump(_RTM_GETTFILTER, _HEAD.pack(0, index, 0, parent, 0))
    except KernelRefused:  # a queue of a kind that takes no filters
        return
    where = way if parent in (*_CLSACT.values(), _INGRESS) else f"parent {parent >> 16:x}:"
    for body in bodies:
        sieve = decode(body, device, way, where)
        if sieve is not None:
            yield sieve


def decode(body: bytes, device: str, way: str, where: str) -> Sieve | None:
    """One filter; None for a line that holds others together, and for one that only sorts."""
    if len(body) < _HEAD.size:
        return None
    info, given = _HEAD.unpack_from(body)[4], attributes(body, _HEAD.size)
    kind, options = _word(given.get(_KIND)), attributes(given.get(_OPTIONS, b""), 0, _MANY)
    if not options:
        return None
    priority, protocol = info >> 16, struct.unpack("=H", struct.pack("!H", info & 0xFFFF))[0]
    does, what = _actions(options.get(_ACTIONS.get(kind, 0), b""))
    keys: tuple[Key, ...] | None = ()
    if kind == "u32":
        if 5 not in options:
            return None  # a hash table
        keys = u32_keys(options[5]) if not _U32_MORE & options.keys() else None
        does, what = (Does.MAYBE, "police") if 6 in options else (does, what)
    elif kind == "flower":
        keys = _flower_keys(options)
    elif kind == "bpf":
        if len(options.get(8, b"")) == 4 and struct.unpack("=I", options[8])[0] & _DIRECT:
            does, what, keys = program(options.get(5, b"")), "a program", ()
        else:
            keys = None
    elif kind != "matchall":
        keys = None
    if given.get(_CHAIN, b"\0\0\0\0") != b"\0\0\0\0":
        keys = None  # reached from elsewhere alone
    said = f"filter {kind} pref {priority}" + (f", {what}" if what else "")
    find = f"filter del dev {device} {where} pref {priority}"
    return Sieve(device, way, said, find, does, 0, protocol, keys)


def u32_keys(selector: bytes) -> tuple[Key, ...] | None:
    """struct tc_u32_sel and its keys; None where places in the packet are reckoned from what the packet says."""
    if len(selector) < 16:
        return None
    count = selector[2]
    keys = []
    if len(selector) < 16 + 16 * count:
        return None
    for number in range(count):
        mask, value, at, moved = struct.unpack_from("=4s4sii", selector, 16 + 16 * number)
        if moved:
            return None
        keys.append(Key(at, mask, value))
    return tuple(keys)


def _flower_keys(options: dict[int, bytes]) -> tuple[Key, ...] | None:
    keys = []
    for kind, raw in options.items():
        if kind in _FLOWER_KEYS:
            at, mask, size = _FLOWER_KEYS[kind]
            keys.append(Key(at, options.get(mask, b"\xff" * size)[:size] if mask else b"\xff" * size, raw[:size]))
        elif kind not in _FLOWER_SILENT:
            return None
    return tuple(keys)


def program(code: bytes) -> Does:
    """What a classic BPF program that decides by itself may answer: by all of its constant returns."""
    if not code or len(code) % 8:
        return Does.MAYBE  # eBPF, or none that is understood
    steps = [struct.unpack_from("=HBBI", code, start) for start in range(0, len(code), 8)]
    ends = [(step[0], step[3]) for step in steps if step[0] & 7 == 6]
    if not ends or any(op != 6 for op, _ in ends):  # it returns what it reckons
        return Does.MAYBE
    told = {_gact(value if value < 1 << 31 else value - (1 << 32)) for _, value in ends}
    return told.pop() if len(told) == 1 else Does.MAYBE


def _gact(verdict: int) -> Does:
    if verdict == _SHOT:
        return Does.DROPS
    return {_UNSPEC: Does.NOTHING, _OK: Does.PASSES, 1: Does.PASSES, 3: Does.NOTHING}.get(verdict, Does.MAYBE)


def _actions(raw: bytes) -> tuple[Does, str]:
    """What a filter's actions do in the end, and the word for it."""
    for one in members(raw):
        given = attributes(one, 0)
        kind, options = _word(given.get(1)), attributes(given.get(2, b""), 0)
        told = options.get(2, b"")
        if kind == "gact" and len(told) >= 12:
            does = _gact(struct.unpack_from("=i", told, 8)[0])
            if does is not Does.NOTHING:
                return does, {Does.DROPS: "action drop", Does.PASSES: "action pass"}.get(does, "action gact")
        elif kind == "mirred" and len(told) >= 28:
            way = struct.unpack_from("=i", told, 20)[0]
            if way in (1, 3):
                return Does.DROPS, "action mirred redirect"
        elif kind not in ("skbedit", "sample", "mirred"):
            return Does.MAYBE, f"action {kind}"
    return Does.NOTHING, ""


def _word(raw: bytes | None) -> str:
    word = (raw or b"").split(b"\0", 1)[0].decode("ascii", "replace")
    return word if word.isprintable() else "?"
