"""Rules as `nft -j` lists them, judged for one VXLAN packet: true, false, and what cannot be told."""

from __future__ import annotations

import json
from typing import Any

import pytest

from myoverlay.plan.firewall import RULES, Blocked, Gate, Packet, Ruleset

VNI = 0x700001
OUT = [Gate(("ip", "inet"), "output"), Gate(("ip", "inet"), "postrouting"), Gate(("netdev",), "egress", "eth0")]
PACKET = Packet(
    frozenset(("ip", "udp")),
    {("ip", "saddr"): "192.0.2.1", ("ip", "daddr"): "192.0.2.2", ("ip", "protocol"): "udp", ("udp", "dport"): 4789},
    {"l4proto": "udp", "protocol": "ip", "nfproto": "ipv4", "oifname": "eth0", "oif": "eth0", "iifname": ""},
    bytes(8) + b"\x08\0\0\0" + (VNI << 8).to_bytes(4, "big"),
)


def match(left: Any, right: Any, op: str = "==") -> dict[str, Any]:
    return {"match": {"op": op, "left": left, "right": right}}


def payload(protocol: str, field: str) -> dict[str, Any]:
    return {"payload": {"protocol": protocol, "field": field}}


def meta(key: str) -> dict[str, Any]:
    return {"meta": {"key": key}}


DROP, ACCEPT = {"drop": None}, {"accept": None}
PORT = payload("udp", "dport")
TO = payload("ip", "daddr")
ODD = {"limit": {"rate": 1, "per": "second"}}


def listed(*rules: list[dict[str, Any]], **chain: Any) -> str:
    """A table with one base chain of these rules, and a chain `other` beside it."""
    base = {"family": "inet", "table": "t", "name": "c", "handle": 1, "type": "filter", "hook": "output", "prio": 0,
            "policy": "accept"} | chain  # fmt: skip
    objects: list[dict[str, Any]] = [
        {"metainfo": {"version": "1.0.6"}},
        {"table": {"family": "inet", "name": "t"}},
        {
            "set": {
                "family": "inet",
                "table": "t",
                "name": "s",
                "elem": ["192.0.2.2", {"range": ["10.0.0.1", "10.0.0.9"]}],
            }
        },
        {"map": {"family": "inet", "table": "t", "name": "m", "elem": [[4789, {"drop": None}]]}},
        {"chain": base},
        {"chain": {"family": "inet", "table": "t", "name": "other", "handle": 2}},
        {"rule": {"family": "inet", "table": "t", "chain": "other", "handle": 90, "expr": [match(PORT, 4789), DROP]}},
        *(
            {"rule": {"family": base["family"], "table": "t", "chain": "c", "handle": 10 + i, "expr": expr}}
            for i, expr in enumerate(rules)
        ),
    ]
    return json.dumps({"nftables": objects})


def judge(text: str, packet: Packet = PACKET, devices: str = "") -> Blocked | None:
    return Ruleset.read(text, devices).blocks(packet, OUT)


SURE = [
    [DROP],
    [match(PORT, 4789), DROP],
    [match(PORT, {"set": [53, 4789]}), DROP],
    [match(PORT, {"set": [{"range": [4000, 5000]}]}), DROP],
    [match(PORT, {"range": [4789, 4790]}), {"reject": {"type": "icmp"}}],
    [match(PORT, 22, "!="), DROP],
    [match(PORT, 4788, ">"), DROP],
    [match(payload("th", "dport"), 4789), DROP],
    [match(TO, {"prefix": {"addr": "192.0.2.0", "len": 24}}), DROP],
    [match(TO, "@s"), DROP],
    [match(meta("l4proto"), "udp"), match({"payload": {"base": "th", "offset": 96, "len": 24}}, VNI), DROP],
    [match(meta("l4proto"), 17), DROP],
    [match(payload("ip", "protocol"), {"set": ["tcp", "udp"]}), DROP],
    [match(meta("oifname"), "eth*"), DROP],
    [match(meta("oifname"), "lo", "!="), DROP],
    [match({"ct": {"key": "state"}}, "new"), DROP],
    [match({"ct": {"key": "state"}}, ["new", "untracked"], "in"), DROP],
    [{"counter": {"packets": 0, "bytes": 0}}, {"log": None}, match(PORT, 4789), DROP],
    [{"jump": {"target": "other"}}],
    [match(PORT, 4789), {"goto": {"target": "other"}}],
    [{"vmap": {"key": PORT, "data": {"set": [[53, ACCEPT], [4789, DROP]]}}}],
    [{"vmap": {"key": PORT, "data": "@m"}}],
    [match({"concat": [TO, PORT]}, {"set": [{"concat": ["192.0.2.2", 4789]}]}), DROP],
]
NEVER = [
    [ACCEPT],
    [match(PORT, 4790), DROP],
    [match(payload("tcp", "dport"), 4789), DROP],
    [match(payload("ip6", "daddr"), "::1"), DROP],
    [match(TO, {"prefix": {"addr": "10.0.0.0", "len": 8}}), DROP],
    [match(TO, "@s", "!="), DROP],
    [match(meta("skuid"), 0), DROP],
    [match({"payload": {"base": "th", "offset": 96, "len": 24}}, VNI + 1), DROP],
    [match({"ct": {"key": "state"}}, ["established", "related"], "in"), DROP],
    [{"vmap": {"key": {"ct": {"key": "state"}}, "data": {"set": [["invalid", DROP]]}}}],
    [match(meta("oifname"), "eth1"), {"jump": {"target": "other"}}],
    [{"jump": {"target": "nowhere"}}],
    [{"return": None}],
    [match({"concat": [TO, PORT]}, {"set": [{"concat": ["192.0.2.3", 4789]}]}), DROP],
    [ODD, ACCEPT],
]
PERHAPS = [
    [ODD, DROP],
    [{"xt": None}, DROP],
    [match(meta("mark"), 7), DROP],
    [match(payload("udp", "sport"), 40000), DROP],
    [match({"fib": {"result": "type", "flags": "daddr"}}, "local"), {"jump": {"target": "other"}}],
    [match(TO, "@gone"), DROP],
    [{"queue": {"num": 1}}],
    [{"vmap": {"key": meta("mark"), "data": {"set": [[7, DROP]]}}}, DROP],
]


@pytest.mark.parametrize("expr", SURE, ids=str)
def test_what_surely_drops(expr: list[dict[str, Any]]) -> None:
    """Each of these rules takes the packet away, and is named by its chain and handle."""
    found = judge(listed(expr))
    assert found is not None
    assert found.sure
    assert found.where == "inet t"
    assert "rule 10" in found.rule or "chain other, rule 90" in found.rule


@pytest.mark.parametrize("expr", NEVER, ids=str)
def test_what_never_drops(expr: list[dict[str, Any]]) -> None:
    """None of these takes it away."""
    assert judge(listed(expr)) is None


@pytest.mark.parametrize("expr", PERHAPS, ids=str)
def test_what_cannot_be_told(expr: list[dict[str, Any]]) -> None:
    """What hangs on a rate, a mark, an old module is said to be unsure: neither blamed nor passed over."""
    found = judge(listed(expr))
    assert found is not None
    assert not found.sure


def test_a_policy_drops_what_nobody_lets_pass() -> None:
    """The end of a chain counts, unless a rule let the packet pass; where one may have, it is unsure and named."""
    found = judge(listed([match(PORT, 53), ACCEPT], policy="drop"))
    assert found == Blocked("inet t", "chain c: policy drop", True)
    assert judge(listed([match(PORT, 4789), ACCEPT], policy="drop")) is None
    found = judge(listed([match(PORT, 4789), ODD, ACCEPT], policy="drop"))
    assert found is not None
    assert not found.sure
    assert "unless it is let pass by chain c, rule 10" in found.rule


def test_order_and_hooks() -> None:
    """A rule before decides; another hook's, another family's and another device's chain say nothing."""
    assert judge(listed([ACCEPT], [DROP])) is None
    assert judge(listed([DROP], hook="input")) is None
    assert judge(listed([DROP], family="ip6")) is None
    assert judge(listed([DROP], hook="postrouting")) is not None
    assert judge(listed([DROP], family="netdev", hook="egress", dev="eth1")) is None
    found = judge(listed([DROP], family="netdev", hook="egress", dev="eth0"))
    assert found is not None
    assert found.sure


STATE = {"ct": {"key": "state"}}
SPARED = [match(PORT, 4789), {"notrack": None}]


def test_what_is_not_tracked_is_not_new() -> None:
    """A rule spares it connection tracking: later chains let nothing in as new; where it may do so, it is unsure."""
    let_in = {"rules": [[match(STATE, ["new", "established"], "in"), ACCEPT]], "policy": "drop"}

    def both(first: list[dict[str, Any]], rules: list[list[dict[str, Any]]], policy: str) -> Blocked | None:
        later = listed(*rules, policy=policy, hook="postrouting").replace('"t"', '"later"')
        return judge(json.dumps({"nftables": json.loads(listed(first))["nftables"] + json.loads(later)["nftables"]}))

    assert both([match(PORT, 53), {"notrack": None}], **let_in) is None
    assert both(SPARED, **let_in) == Blocked("inet later", "chain c: policy drop", True)
    assert both(SPARED, [[match(STATE, ["new", "untracked"], "in"), ACCEPT]], "drop") is None
    assert both(SPARED, [[match(STATE, "untracked"), DROP]], "accept") is not None
    found = both([match(PORT, 4789), ODD, {"notrack": None}], **let_in)
    assert found is not None
    assert not found.sure


def test_whose_a_chain_is_is_read_from_the_other_list() -> None:
    """nft 1.0.6 leaves the device out of its JSON: it is taken from its own language, and unknown it is unsure."""
    text = listed([DROP], family="netdev", hook="egress")
    found = judge(text)
    assert found is not None
    assert not found.sure
    form = "table netdev t {{\n\tchain c {{\n\t\ttype filter hook egress {} priority filter; policy accept;\n\t}}\n}}\n"
    for mine in ('device "eth0"', "device eth0", "devices = { eth0, eth1 }", 'devices = { "eth7", "eth0" }'):
        found = judge(text, devices=form.format(mine))
        assert found is not None
        assert found.sure, mine
    assert judge(text, devices=form.format('device "eth1"')) is None


def test_loops_and_endless_rules_end() -> None:
    """A chain that calls itself, and more rules than are looked at, end in a doubt and not in a hang."""
    assert judge(listed([{"jump": {"target": "c"}}])) is None
    assert judge(listed(*[[match(PORT, 1), DROP]] * (RULES + 10), policy="drop")) is None


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"nftables": 7}', '{"nftables": [7]}', '{"nftables": [{"chain": {}}]}']
)
def test_what_is_no_ruleset_is_refused(text: str) -> None:
    """Another program's words raise one ValueError."""
    with pytest.raises(ValueError, match=r"not understood|Expecting"):
        Ruleset.read(text)


def test_a_packet_whose_transport_is_not_said() -> None:
    """Of an inner packet only addresses are known: a rule about its ports is unsure, one about another address not."""
    inner = Packet(frozenset(("ether", "ip")), {("ip", "daddr"): "10.5.0.3", ("ether", "type"): "ip"}, {})
    found = judge(listed([match(PORT, 4789), DROP]), inner)
    assert found is not None
    assert not found.sure
    assert judge(listed([match(TO, "10.5.0.4"), match(PORT, 4789), DROP]), inner) is None
