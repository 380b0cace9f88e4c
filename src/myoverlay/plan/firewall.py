"""What nftables rules would do to one packet: read from `nft -j list ruleset`, and judged with three answers.

A match that is understood is true or false; one that is not (a rate, a mark, an old iptables module) is neither, and
what hangs on it is said to be so instead of guessed. Source: libnftables-json(5), nft(8).
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, NamedTuple, TypeAlias

#: True, False, or None for what cannot be told.
Told: TypeAlias = bool | None
#: A VXLAN flow's answers have other ports: to connection tracking each packet of it is new.
NEW, UNTRACKED = "new", "untracked"
#: How deep chains are followed, and how many rules are looked at: a ruleset of somebody's may be a loop or endless.
DEPTH, RULES = 16, 20_000
_NUMBERS = {"tcp": 6, "udp": 17, "icmp": 1, "ip": 0x0800, "ip6": 0x86DD, "arp": 0x0806, "ipv4": 2, "ipv6": 10}
_VERDICTS = ("accept", "drop", "reject", "return", "jump", "goto", "queue")
#: What a packet whose transport is not said may have.
_TRANSPORTS = {"th", "tcp", "udp", "icmp", "icmpv6", "sctp", "udplite", "dccp"}
#: Statements that neither match nor decide.
_SILENT = {"counter", "log", "comment", "mangle", "set", "notrack", "meter_", "nftrace", "ct helper", "flow", "dup"}
_DEVICE = re.compile(
    r"\b(table|chain) (\S+)(?: (\S+))? \{|\bhook \w+ device[s]? (?:= )?(?:\"([^\"]+)\"|\{([^}]*)\}|(\S+))"
)


class Packet(NamedTuple):
    """What a packet looks like to the rules: `fields` by (protocol, field) and `meta` by key; what is missing in both
    is unknown. `layers` are its protocols: of any other a rule's payload match is false. `raw` is the transport header
    and what follows, as far as it is known."""

    layers: frozenset[str]
    fields: Mapping[tuple[str, str], str | int]
    meta: Mapping[str, str | int]
    raw: bytes = b""


class Gate(NamedTuple):
    """A place where rules are asked: nft's families there, the hook, and for `netdev` the device."""

    families: tuple[str, ...]
    hook: str
    device: str = ""


class Blocked(NamedTuple):
    """What takes a packet away. `sure` is false where it depends on what could not be told."""

    where: str
    rule: str
    sure: bool


@dataclass
class _Chain:
    family: str
    table: str
    name: str
    hook: str = ""
    prio: int = 0
    policy: str = "accept"
    devices: tuple[str, ...] | None = None
    rules: list[Mapping[str, Any]] = field(default_factory=list)


class Ruleset:
    """The rules of one namespace."""

    def __init__(self, chains: Mapping[tuple[str, str, str], _Chain], sets: Mapping[tuple[str, str, str], Any]) -> None:
        self._chains = chains
        self._sets = sets

    @classmethod
    def read(cls, listed: str, devices: str = "") -> Ruleset:
        """What `nft -j list ruleset` printed, and `nft list chains netdev`. Raises ValueError for anything else."""
        chains: dict[tuple[str, str, str], _Chain] = {}
        sets: dict[tuple[str, str, str], Any] = {}
        try:
            objects = json.loads(listed)["nftables"]
            for one in objects:
                for kind, said in one.items():
                    _take(kind, said, chains, sets)
        except (KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(f"nft listed something that is not understood: {error!r}") from None
        for key, names in _devices(devices).items():
            if key in chains:
                chains[key].devices = names
        return cls(chains, sets)

    def blocks(self, packet: Packet, gates: Sequence[Gate]) -> Blocked | None:
        """What takes the packet away first on its way through these gates; what is sure before what may be."""
        unsure: Blocked | None = None
        state: str | None = NEW
        for gate in gates:
            for chain in self._at(gate):
                walk = _Walk(self._chains, self._sets, packet, state)
                found = walk.through(chain, self._elsewhere(chain, gate))
                state = walk.state
                if found is not None and found.sure:
                    return found
                unsure = unsure or found
        return unsure

    def _at(self, gate: Gate) -> list[_Chain]:
        there = [one for one in self._chains.values() if one.family in gate.families and one.hook == gate.hook]
        if gate.device:
            there = [one for one in there if one.devices is None or gate.device in one.devices]
        return sorted(there, key=lambda one: (one.prio, one.table, one.name))

    @staticmethod
    def _elsewhere(chain: _Chain, gate: Gate) -> bool:
        """May the chain be another device's? Some versions of nft do not list whose it is."""
        return bool(gate.device) and chain.devices is None


def _take(kind: str, said: Any, chains: dict[tuple[str, str, str], _Chain], sets: dict[Any, Any]) -> None:
    if kind == "chain":
        given = said.get("dev")
        devices = None if given is None else ((given,) if isinstance(given, str) else tuple(given))
        chains[said["family"], said["table"], said["name"]] = _Chain(
            said["family"], said["table"], said["name"], said.get("hook", ""), int(said.get("prio", 0)),
            said.get("policy", "accept"), devices,
        )  # fmt: skip
    elif kind == "rule" and (said["family"], said["table"], said["chain"]) in chains:
        chains[said["family"], said["table"], said["chain"]].rules.append(said)
    elif kind in ("set", "map"):
        sets[said["family"], said["table"], said["name"]] = said.get("elem", [])


def _devices(listed: str) -> dict[tuple[str, str, str], tuple[str, ...]]:
    """Whose each chain of family netdev is, from nft's own language."""
    found: dict[tuple[str, str, str], tuple[str, ...]] = {}
    family = table = chain = ""
    for match in _DEVICE.finditer(listed):
        if match[1] == "table":
            family, table = match[2], match[3] or ""
        elif match[1] == "chain":
            chain = match[2]
        else:
            text = match[4] or match[5] or match[6] or ""
            found[family, table, chain] = tuple(name.strip(' "') for name in text.split(",") if name.strip(' "'))
    return found


class _Walk:
    """One packet's way through one base chain and those it calls."""

    def __init__(
        self, chains: Mapping[Any, _Chain], sets: Mapping[Any, Any], packet: Packet, state: str | None
    ) -> None:
        self._chains, self._sets, self._packet = chains, sets, packet
        #: What it is to connection tracking; None where a rule that may match takes it out of that.
        self.state = state
        self._left = RULES
        #: A rule that may have let the packet pass, or may have dropped it, and could not be judged.
        self._doubt = ""
        self._maybe: Blocked | None = None

    def through(self, chain: _Chain, elsewhere: bool) -> Blocked | None:
        verdict, rule = self._chain(chain, DEPTH)
        where = f"{chain.family} {chain.table}"
        if verdict == "drop":
            return Blocked(where, self._said(rule), not self._doubt and not elsewhere)
        if verdict == "end" and chain.policy == "drop":
            said = self._said(f"chain {chain.name}: policy drop")
            return Blocked(where, said, not self._doubt and not elsewhere)
        return self._maybe

    def _said(self, rule: str) -> str:
        return f"{rule} (unless it is let pass by {self._doubt})" if self._doubt else rule

    def _chain(self, chain: _Chain, depth: int) -> tuple[str, str]:
        """What became of it there: `drop`, `accept`, `return`, or `end` where no rule decided."""
        for rule in chain.rules:
            self._left -= 1
            if self._left < 0 or depth < 0:
                self._doubt = self._doubt or "more rules than are looked at"
                return "accept", ""
            verdict, said = self._rule(chain, rule, depth)
            if verdict in ("drop", "accept"):
                return verdict, said
            if verdict == "return":
                return "end", ""
        return "end", ""

    def _rule(self, chain: _Chain, rule: Mapping[str, Any], depth: int) -> tuple[str, str]:
        sure = True
        name = f"chain {chain.name}, rule {rule.get('handle', '?')}"
        for one in rule.get("expr", ()):
            for kind, said in one.items():
                told, verdict, target = self._statement(chain, kind, said)
                if told is False:
                    return "", ""
                sure = sure and told is True
                if kind == "notrack":
                    self.state = UNTRACKED if sure else None
                if verdict:
                    return self._decided(chain, verdict, target, sure, f"{name}: {_text(rule)}", depth)
        return "", ""

    def _statement(self, chain: _Chain, kind: str, said: Any) -> tuple[Told, str, str]:
        """Whether it matches, and what it decides."""
        if kind == "match":
            return self._match(chain, said), "", ""
        if kind in _VERDICTS:
            return True, kind, said.get("target", "") if isinstance(said, Mapping) else ""
        if kind == "vmap":
            return self._mapped(chain, said)
        return (True if kind in _SILENT else None), "", ""

    def _decided(self, chain: _Chain, verdict: str, target: str, sure: bool, name: str, depth: int) -> tuple[str, str]:
        if verdict in ("jump", "goto"):
            called = self._chains.get((chain.family, chain.table, target))
            if called is None:
                return "", ""
            before = self._doubt
            if not sure:
                self._doubt = self._doubt or name
            got, said = self._chain(called, depth - 1)
            if not sure:
                if got == "drop":
                    self._maybe = self._maybe or Blocked(f"{chain.family} {chain.table}", said, False)
                self._doubt = self._doubt if got == "accept" else before
                return "", ""
            return (got, said) if got != "end" else (("return", "") if verdict == "goto" else ("", ""))
        drops = verdict in ("drop", "reject")
        if not sure:
            if drops:
                self._maybe = self._maybe or Blocked(f"{chain.family} {chain.table}", name, False)
            else:
                self._doubt = self._doubt or name
            return "", ""
        if verdict == "queue":
            self._maybe = self._maybe or Blocked(f"{chain.family} {chain.table}", name, False)
            return "accept", name
        return "drop" if drops else verdict, name

    def _mapped(self, chain: _Chain, said: Any) -> tuple[Told, str, str]:
        data = said.get("data")
        pairs = self._elements(chain, data)
        if pairs is None:
            return None, "", ""
        for pair in pairs:
            if not isinstance(pair, list) or len(pair) != 2 or not isinstance(pair[1], Mapping):
                continue
            told = self._compare(chain, "==", said.get("key"), pair[0])
            if told is None:
                return None, "", ""
            if told:
                verdict, inner = next(iter(pair[1].items()))
                return True, verdict, inner.get("target", "") if isinstance(inner, Mapping) else ""
        return False, "", ""

    def _elements(self, chain: _Chain, data: Any) -> list[Any] | None:
        if isinstance(data, str) and data.startswith("@"):
            found = self._sets.get((chain.family, chain.table, data[1:]))
            return list(found) if isinstance(found, list) else None
        if isinstance(data, Mapping) and isinstance(data.get("set"), list):
            return list(data["set"])
        return None

    # -- matches ---------------------------------------------------------------------------------------------------

    def _match(self, chain: _Chain, said: Any) -> Told:
        return self._compare(chain, said.get("op", "=="), said.get("left"), said.get("right"))

    def _compare(self, chain: _Chain, op: str, left: Any, right: Any) -> Told:
        if isinstance(left, Mapping) and "concat" in left:
            return self._concat(chain, op, left["concat"], right)
        value = self._value(left)
        if value is False:
            return False  # the packet has no such header: nft ends the rule
        if value is None:
            return None
        if op in ("<", ">", "<=", ">="):
            return _ordered(op, value, right)
        told = self._is_in(chain, value, right)
        return told if told is None or op != "!=" else not told

    def _concat(self, chain: _Chain, op: str, left: Any, right: Any) -> Told:
        elements = self._elements(chain, right) or ([right] if isinstance(right, Mapping) else None)
        if elements is None or not isinstance(left, list):
            return None
        unknown = False
        for element in elements:
            parts = element.get("concat") if isinstance(element, Mapping) else None
            if not isinstance(parts, list) or len(parts) != len(left):
                return None
            told = [self._compare(chain, "==", one, part) for one, part in zip(left, parts, strict=True)]
            if all(one is True for one in told):
                return op != "!="
            unknown = unknown or all(one is not False for one in told)
        return None if unknown else op == "!="

    def _value(self, left: Any) -> str | int | bool | None:
        """What the packet has there; None: not known, False: it has no such thing."""
        if not isinstance(left, Mapping):
            return None
        if "payload" in left:
            return self._payload(left["payload"])
        if "meta" in left:
            key = left["meta"].get("key", "")
            return False if key in ("skuid", "skgid", "cgroup") else self._packet.meta.get(key)
        if "fib" in left:
            asked = left["fib"]
            flags = asked.get("flags")
            if asked.get("result") == "type" and flags in ("daddr", ["daddr"]):
                return self._packet.meta.get("fib daddr type")
            return None
        if "ct" in left and left["ct"].get("key") == "state":
            return self.state
        return None

    def _payload(self, said: Mapping[str, Any]) -> str | int | bool | None:
        if "base" in said:
            if said["base"] != "th":
                return None
            start, bits = int(said.get("offset", 0)), int(said.get("len", 0))
            raw = self._packet.raw
            if bits <= 0 or start + bits > 8 * len(raw) or start < 64:
                return None  # what is before it (ports, length) is asked for by name
            return int.from_bytes(raw, "big") >> (8 * len(raw) - start - bits) & (1 << bits) - 1
        protocol = said.get("protocol", "")
        if protocol == "th" and "udp" in self._packet.layers:
            protocol = "udp"
        if protocol not in self._packet.layers:
            return None if protocol in _TRANSPORTS and not self._packet.raw else False
        return self._packet.fields.get((protocol, said.get("field", "")))

    def _is_in(self, chain: _Chain, value: str | int, right: Any) -> Told:
        if isinstance(right, str) and right.startswith("@"):
            elements = self._elements(chain, right)
            return None if elements is None else self._any(chain, value, elements)
        if isinstance(right, Mapping):
            if "set" in right:
                return self._any(chain, value, right["set"])
            if "elem" in right:
                return self._is_in(chain, value, right["elem"].get("val"))
            if "prefix" in right:
                return _in_prefix(value, right["prefix"])
            if "range" in right:
                low, high = right["range"]
                above, below = _ordered(">=", value, low), _ordered("<=", value, high)
                return None if above is None or below is None else above and below
            return None
        if isinstance(right, list):
            return self._any(chain, value, right)
        return _same(value, right)

    def _any(self, chain: _Chain, value: str | int, elements: Any) -> Told:
        if not isinstance(elements, list):
            elements = [elements]
        told = [self._is_in(chain, value, one[0] if isinstance(one, list) else one) for one in elements]
        return True if True in told else (None if None in told else False)


def _same(value: str | int, right: Any) -> Told:
    if not isinstance(right, str | int):
        return None
    if isinstance(value, str) and isinstance(right, str):
        if right.endswith("*"):
            return fnmatchcase(value, right)
        return value == right or _NUMBERS.get(value, value) == _NUMBERS.get(right, right)
    left, other = _number(value), _number(right)
    return None if left is None or other is None else left == other


def _number(value: Any) -> int | None:
    """As a number that can be ordered: of a number, of an address, of a protocol's name."""
    if isinstance(value, int):
        return value
    if value in _NUMBERS:
        return _NUMBERS[value]
    try:
        return int(ipaddress.ip_address(value))
    except ValueError:
        return None


def _ordered(op: str, value: Any, right: Any) -> Told:
    left, other = _number(value), _number(right)
    if left is None or other is None:
        return None
    return {"<": left < other, ">": left > other, "<=": left <= other, ">=": left >= other}[op]


def _in_prefix(value: Any, prefix: Any) -> Told:
    try:
        net = ipaddress.ip_network((prefix["addr"], prefix["len"]), strict=False)
        return ipaddress.ip_address(value) in net
    except (ValueError, KeyError, TypeError):
        return None


def _text(rule: Mapping[str, Any]) -> str:
    """The rule in short, near nft's own language, for a person who looks for it by its handle."""
    words = list(_words(rule.get("expr", ())))
    if rule.get("comment"):
        words.append(f'comment "{rule["comment"]}"')
    return " ".join(words)


def _words(expr: Any) -> Iterator[str]:
    for one in expr:
        for kind, said in one.items():
            if kind == "match":
                op = said.get("op", "==")
                sign = "" if op in ("==", "in") else f"{op} "
                yield f"{_side(said.get('left'))} {sign}{_side(said.get('right'))}"
            elif kind == "vmap":
                yield f"{_side(said.get('key'))} vmap …"
            elif kind in ("jump", "goto"):
                yield f"{kind} {said.get('target', '')}"
            elif kind in _VERDICTS or kind == "xt":
                yield kind


def _side(side: Any) -> str:
    if isinstance(side, Mapping):
        kind: str
        said: Any
        kind, said = next(iter(side.items()), ("", ""))
        if kind == "payload":
            if "base" in said:
                return f"@{said['base']},{said.get('offset')},{said.get('len')}"
            return f"{said.get('protocol')} {said.get('field')}"
        if kind in ("meta", "ct"):
            key = str(said.get("key"))
            return key if key in ("iifname", "oifname", "iif", "oif") else f"{kind} {key}"
        if kind == "set":
            return "{ " + ", ".join(_side(one) for one in said[:8]) + (", … }" if len(said) > 8 else " }")
        if kind == "prefix":
            return f"{said.get('addr')}/{said.get('len')}"
        if kind == "range":
            return "-".join(map(str, said))
        return "…"
    if isinstance(side, list):
        return ",".join(_side(one) for one in side[:8])
    return str(side)
