"""`trace` on real kernel objects: faults put in by hand, each named as the first wrong hop, on either host."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest

from myoverlay.values import Address
from tests.kernel.conftest import open_fds
from tests.kernel.host.hosts import Hosts, Refusal
from tests.kernel.host.tools import ip, left_behind, until
from tests.kernel.host.tracing import (
    WRONG_MAC,
    WRONG_VTEP,
    Looked,
    Side,
    apply,
    first,
    know_each_other,
    looked_at,
    told,
    trace,
)


class Fault(NamedTuple):
    """What is done to a side of the path, what trace should name for it, and what it should have seen there.

    `undo` None: the plugin puts it right. "remedy": what trace printed does.
    """

    harm: Callable[[Side], None]
    hop: str
    seen: str
    undo: Callable[[Side], None] | str | None = None


NFT_DROP = (
    "table inet stop {{\nchain c {{\ntype filter hook {hook} priority 0; policy accept;\nudp dport 4789 drop\n}}\n}}"
)
NFT_BRIDGE = "table bridge stop {\nchain c {\ntype filter hook forward priority 0;\nether type ip drop\n}\n}"
NFT_NETDEV = (
    'table netdev stop {{\nchain c {{\ntype filter hook ingress device "eth0" priority 0; policy accept;\n'
    "@th,96,24 {vni} drop\n}}\n}}"
)


def _vni(side: Side) -> int:
    return side.host.local().network.definition.vni


FAULTS = {
    "container route": Fault(
        lambda s: s.inside("ip", "route", "del", "10.5.0.0/24"), "container route", "no route leads there", "remedy"
    ),
    "container route by a gateway": Fault(
        lambda s: s.inside("ip", "route", "add", f"{s.other.address}/32", "via", "10.5.0.1"),
        "container route",
        "via 10.5.0.1",
        lambda s: s.inside("ip", "route", "del", f"{s.other.address}/32", "via", "10.5.0.1"),
    ),
    "container neighbour": Fault(
        lambda s: s.inside("ip", "neigh", "replace", s.other.address, "lladdr", WRONG_MAC, "dev", "eth0"),
        "container neighbour",
        WRONG_MAC,
        "remedy",
    ),
    "container link down": Fault(
        lambda s: s.inside("ip", "link", "set", "eth0", "down"), "container link", "down", "remedy"
    ),
    "container MTU": Fault(
        lambda s: s.inside("ip", "link", "set", "eth0", "mtu", "9000"), "container link", "MTU 9000", "remedy"
    ),
    "veth down": Fault(lambda s: s.below("ip", "link", "set", s.port, "down"), "veth", "down"),
    "veth MTU": Fault(lambda s: s.below("ip", "link", "set", s.port, "mtu", "1000"), "veth", "MTU 1000"),
    "veth not in the bridge": Fault(
        lambda s: s.below("ip", "link", "set", s.port, "nomaster"), "bridge port", "in no bridge"
    ),
    "bridge down": Fault(lambda s: s.below("ip", "link", "set", "br0", "down"), "bridge", "down"),
    "bridge row": Fault(
        lambda s: s.below("bridge", "fdb", "del", s.own.mac, "dev", s.port, "master"), "bridge row", "at no port"
    ),
    "the other's MAC at a port here": Fault(
        lambda s: s.below("bridge", "fdb", "replace", s.other.mac, "dev", s.port, "master", "static"),
        "bridge row",
        "which is elsewhere",
    ),
    "overlay firewall": Fault(
        lambda s: s.nft("below", NFT_BRIDGE),
        "overlay firewall",
        "ether type ip drop",
        lambda s: s.below("nft", "delete", "table", "bridge", "stop"),
    ),
    "VXLAN down": Fault(lambda s: s.below("ip", "link", "set", "vxlan1", "down"), "VXLAN port", "down"),
    "VXLAN not in the bridge": Fault(
        lambda s: s.below("ip", "link", "set", "vxlan1", "nomaster"), "VXLAN port", "in no bridge"
    ),
    "VXLAN MTU": Fault(lambda s: s.below("ip", "link", "set", "vxlan1", "mtu", "1000"), "VXLAN port", "MTU 1000"),
    "VXLAN gone": Fault(lambda s: s.below("ip", "link", "del", "vxlan1"), "VXLAN port", "no VXLAN device"),
    "neighbour row": Fault(
        lambda s: s.below("ip", "neigh", "del", s.other.address, "dev", "vxlan1"), "neighbour row", "none"
    ),
    "neighbour row of another MAC": Fault(
        lambda s: s.below(
            "ip", "neigh", "replace", s.other.address, "lladdr", WRONG_MAC, "dev", "vxlan1", "nud", "permanent"
        ),
        "neighbour row",
        WRONG_MAC,
    ),
    "FDB row": Fault(
        lambda s: s.below("bridge", "fdb", "del", s.other.mac, "dev", "vxlan1", "self", "dst", s.other.host.vtep),
        "FDB row",
        "none",
    ),
    "FDB row to a wrong VTEP": Fault(
        lambda s: s.below(
            "bridge", "fdb", "replace", s.other.mac, "dev", "vxlan1", "self", "permanent", "dst", WRONG_VTEP
        ),
        "FDB row",
        WRONG_VTEP,
    ),
    "FDB row with a VNI of its own": Fault(
        lambda s: s.below(
            "bridge",
            "fdb",
            "replace",
            s.other.mac,
            "dev",
            "vxlan1",
            "self",
            "permanent",
            "dst",
            s.other.host.vtep,
            "vni",
            "77",
        ),
        "FDB row",
        "of its own",
    ),
    "VNI": Fault(lambda s: s.device(_vni(s) + 1, 4789), "VXLAN device", "VNI"),
    "UDP port": Fault(lambda s: s.device(_vni(s), 4790), "VXLAN device", "UDP port 4790"),
    "host firewall, out": Fault(
        lambda s: s.nft("home", NFT_DROP.format(hook="output")),
        "host firewall",
        "udp dport 4789 drop",
        lambda s: s.home("nft", "delete", "table", "inet", "stop"),
    ),
    "host firewall, in": Fault(
        lambda s: s.nft("home", NFT_DROP.format(hook="input")),
        "host firewall",
        "udp dport 4789 drop",
        lambda s: s.home("nft", "delete", "table", "inet", "stop"),
    ),
    "host firewall, this VNI alone, on the device": Fault(
        lambda s: s.nft("home", NFT_NETDEV.format(vni=_vni(s))),
        "host firewall",
        "@th,96,24",
        lambda s: s.home("nft", "delete", "table", "netdev", "stop"),
    ),
    "traffic control in the container": Fault(
        lambda s: s.inside("tc", "qdisc", "add", "dev", "eth0", "root", "bfifo", "limit", "100"),
        "container link",
        "qdisc bfifo limit 100 on eth0 (egress)",
        "remedy",
    ),
    "traffic control at the cable": Fault(
        lambda s: (
            s.below("tc", "qdisc", "add", "dev", s.port, "clsact"),
            s.below("tc", "filter", "add", "dev", s.port, "ingress", "pref", "3", "bpf", "da", "bytecode", "1,6 0 0 2"),
        )[0],
        "overlay firewall",
        "filter bpf pref 3, a program on p",
        lambda s: s.below("tc", "qdisc", "del", "dev", s.port, "clsact"),
    ),
    "traffic control on the underlay, of VXLAN alone": Fault(
        lambda s: (
            s.home("tc", "qdisc", "add", "dev", "eth0", "clsact"),
            s.home(
                "tc",
                "filter",
                "add",
                "dev",
                "eth0",
                "egress",
                "protocol",
                "ip",
                "pref",
                "7",
                "u32",
                "match",
                "ip",
                "dport",
                "4789",
                "0xffff",
                "action",
                "mirred",
                "egress",
                "redirect",
                "dev",
                "lo",
            ),
        )[0],
        "host firewall",
        "filter u32 pref 7, action mirred redirect on eth0 (egress)",
        lambda s: s.home("tc", "qdisc", "del", "dev", "eth0", "clsact"),
    ),
    "underlay route": Fault(
        lambda s: s.home("ip", "route", "add", "blackhole", f"{s.other.host.vtep}/32"),
        "underlay route",
        "blackhole",
        lambda s: s.home("ip", "route", "del", "blackhole", f"{s.other.host.vtep}/32"),
    ),
    "underlay MTU": Fault(
        lambda s: s.home("ip", "route", "add", f"{s.other.host.vtep}/32", "dev", "eth0", "mtu", "1000"),
        "underlay route",
        "MTU 1000",
        lambda s: (s.home("ip", "route", "del", f"{s.other.host.vtep}/32"), s.forget_mtu())[0],
    ),
}


@pytest.fixture(autouse=True)
def nothing_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """In place of the common one: hosts that live through many tests open this and that late; `sides` looks itself."""
    fds, threads = open_fds(), threading.active_count()
    yield
    if "sides" not in request.fixturenames:
        until(lambda: open_fds() <= fds and threading.active_count() <= threads)


@pytest.fixture(scope="module")
def sides(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Side, Side]]:
    """Two hosts, a container on each, and nothing wrong; what a test spoils it puts right; nothing is left."""
    fds, threads, before = open_fds(), threading.active_count(), left_behind()
    with Hosts(tmp_path_factory.mktemp("trace")) as hosts:
        near, far = looked_at(hosts)
        a, b = near.run(), far.run()
        both = Side(near, a, b), Side(far, b, a)
        know_each_other(*both)
        until(lambda: trace(near, a, b)["whole"], 15, "the first trace")
        yield both
    until(lambda: open_fds() <= fds and threading.active_count() <= threads)
    assert left_behind() == before


def between(sides: tuple[Side, Side]) -> dict[str, Any]:
    near, _far = sides
    return trace(near.host, near.own, near.other)


@pytest.mark.parametrize("where", ["near", "far"])
@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_named(sides: tuple[Side, Side], name: str, where: str) -> None:
    """The hop that was spoilt is the first wrong one, on its host; then the plugin, or what was printed, repairs it."""
    fault, side = FAULTS[name], sides[where == "far"]
    fault.harm(side)
    try:
        found = between(sides)
        named = first(found)
        assert (named.get("host"), named.get("hop")) == (side.host.name, fault.hop), told(found)
        assert fault.seen in named["saw"], named
        assert named["wanted"] != named["saw"]
        assert named["remedy"]
        assert not found["whole"]
        assert named["heals"] == (fault.undo is None)
        if fault.undo == "remedy":
            apply(named["remedy"])
    finally:
        if fault.undo is None:
            side.host.daemon.reconciler.compare()
        elif callable(fault.undo):
            fault.undo(side)
    # A port forwards a moment after its other end came up; a first reconciling may make a device anew.
    until(lambda: between(sides)["whole"], 5, f"{name}: the healed path: {told(between(sides))}")
    assert None not in sides[0].own.ping(sides[1].own.address, timeout=2)


TWICE = [
    (("near", "container route"), ("near", "FDB row")),
    (("near", "neighbour row"), ("far", "container link down")),
    (("far", "bridge row"), ("near", "host firewall, out")),
    (("far", "FDB row"), ("far", "container route")),
    (("far", "container MTU"), ("far", "veth not in the bridge")),
]
#: Of each pair the one that a packet from the near container meets first.
NEARER = [0, 0, 1, 0, 1]


@pytest.mark.parametrize("number", range(len(TWICE)))
def test_of_two_faults_the_nearer_is_named(sides: tuple[Side, Side], number: int) -> None:
    """Two hops are wrong at once: the one that a packet meets first is named, and then the other."""
    pair = [(sides[where == "far"], FAULTS[name]) for where, name in TWICE[number]]
    order = pair if NEARER[number] == 0 else pair[::-1]

    def undo(side: Side, fault: Fault, named: dict[str, Any]) -> None:
        if fault.undo is None:
            side.host.daemon.reconciler.compare()
        elif callable(fault.undo):
            fault.undo(side)
        else:
            apply(named["remedy"])

    for side, fault in pair:
        fault.harm(side)
    for side, fault in order:
        found = between(sides)
        named = first(found)
        try:
            assert (named.get("host"), named.get("hop")) == (side.host.name, fault.hop), told(found)
        finally:
            undo(side, fault, named)
    until(lambda: between(sides)["whole"], 5)


def test_it_names_nothing_where_nothing_is_wrong(sides: tuple[Side, Side]) -> None:
    """Both ways the path is whole, every hop of both hosts was seen, and it took no second."""
    near, far = sides
    for asker, a, b in (
        (near.host, near.own, near.other),
        (far.host, near.own, near.other),
        (far.host, far.own, near.own),
    ):
        found = trace(asker, a, b)
        assert found["whole"], told(found)
        assert {step["state"] for step in found["steps"]} == {"right"}, told(found)
        assert len(found["steps"]) == 29
    took = [ms for method, ms in near.host.took if method == "Control.Trace"]
    print(f"trace of a whole path over two hosts: {min(took):.0f} ms")
    assert min(took) < 1000


def test_nothing_is_changed_by_looking(sides: tuple[Side, Side]) -> None:
    """Rows, links and counters of repair are the same after a trace of a spoilt path."""
    near, _ = sides
    FAULTS["FDB row"].harm(near)
    before, repairs = near.host.rows(), near.host.count("repairs", "missing row")
    try:
        assert first(between(sides))["hop"] == "FDB row"
        assert near.host.rows() == before
        assert near.host.count("repairs", "missing row") == repairs
    finally:
        near.host.daemon.reconciler.compare()


def test_a_question_leaves_nothing_in_the_store(sides: tuple[Side, Side]) -> None:
    """Question and answers are taken back."""
    assert between(sides)["whole"]
    assert sides[0].host.hosts.keys("path") == []


# -- other shapes of a path ------------------------------------------------------------------------------------------


def test_two_containers_of_one_host(hosts: Hosts) -> None:
    """The path goes over the bridge alone: spoilt at either end it is named, and nothing of a tunnel is asked."""
    (host,) = looked_at(hosts, 1)
    a, b = host.run(), host.run()
    found = until(lambda: (seen := trace(host, a, b))["whole"] and seen)
    assert [step["hop"] for step in found["steps"]] == [
        "container route", "container neighbour", "container link", "veth", "bridge port", "bridge row",
        "bridge", "overlay firewall",
        "bridge row", "bridge port", "veth", "container link", "container neighbour", "container route",
    ]  # fmt: skip
    side = Side(host, b, a)
    side.below("bridge", "fdb", "del", b.mac, "dev", side.port, "master")
    named = first(trace(host, a, b))
    assert (named["hop"], named["heals"]) == ("bridge row", True)
    assert str(b.mac) in named["saw"]
    host.daemon.reconciler.compare()
    assert trace(host, a, b)["whole"]


def test_a_third_host_asks_both(hosts: Hosts) -> None:
    """Neither container is here: both hosts are asked, and the fault of one of them is named."""
    near, far, third = looked_at(hosts, 3)
    a, b = near.run(), far.run()
    third.run()
    until(lambda: third.knows(a, b) and near.knows(b) and far.knows(a))
    until(lambda: trace(third, a, b)["whole"], 15)
    Side(far, b, a).below("bridge", "fdb", "del", a.mac, "dev", "vxlan1", "self", "dst", near.vtep)
    named = first(trace(third, a, b))
    assert (named["host"], named["hop"]) == (far.name, "FDB row")


def test_a_host_that_does_not_answer_is_named(hosts: Hosts) -> None:
    """The other plugin is down: this half is shown, that one is named, and the path is not called whole."""
    near, far = looked_at(hosts)
    a, b = near.run(), far.run()
    know_each_other(Side(near, a, b))
    until(lambda: trace(near, a, b)["whole"], 15)
    far.stop()
    found = trace(near, a, b)
    assert found["first"] is None
    assert found["silent"] == [far.name]
    assert not found["whole"]
    assert found["steps"][-1]["hop"] == "host"
    assert "did not answer within" in found["steps"][-1]["saw"]


def test_without_the_store_the_own_half_is_shown(hosts: Hosts) -> None:
    """The store is away: what is wrong here is named all the same, and why the other was not asked is said."""
    near, far = looked_at(hosts)
    a, b = near.run(), far.run()
    side = Side(near, a, b)
    know_each_other(side)
    near.view.away = True
    found = trace(near, a, b)
    assert found["silent"] == [far.name]
    assert found["trouble"]
    FAULTS["FDB row"].harm(side)
    assert first(trace(near, a, b))["hop"] == "FDB row"


def test_who_believes_what_was_is_named(hosts: Hosts) -> None:
    """A host that no longer hears the store sends to where the container was: that record is the first wrong hop."""
    near, far, third = looked_at(hosts, 3)
    a, b = near.run(), far.run()
    third.run()
    until(lambda: near.knows(b) and third.knows(a, b))
    watch = near.daemon.discovery.watch_of(near.local())
    assert watch is not None
    near.daemon.discovery.drop(near.local())  # near hears of no change any more
    address = b.address
    far.remove(b)
    moved = third.run(ip=str(address), mac="02:42:0a:05:77:77")
    until(lambda: third.local().endpoints()[-1].joined)
    found = third.call("Control.Trace", a=str(a.address), b=str(moved.address))
    named = first(found)
    assert (named.get("host"), named.get("hop")) == (near.name, "record"), told(found)
    assert "02:42:0a:05:77:77" in named["wanted"]


def test_words_that_mean_nobody_are_refused(hosts: Hosts) -> None:
    """Unknown names, the gateway, the same container twice, an overlay that is not here: one sentence each."""
    (host,) = looked_at(hosts, 1)
    a, b = host.run(), host.run()
    for words, sentence in (
        (
            (str(a.address), "nobody"),
            "nobody is no container's name, address or endpoint id on 10.5.0.0-24, nor",
        ),
        ((str(a.address), "10.5.0.1"), "10.5.0.1 is the gateway"),
        ((str(a.address), a.endpoint[:12]), "are the same container"),
    ):
        with pytest.raises(Refusal, match=sentence):
            host.call("Control.Trace", a=words[0], b=words[1])
    with pytest.raises(Refusal, match="no container's name, address or endpoint id on blue of any host"):
        host.call("Control.Trace", a=str(a.address), b=str(b.address), overlay="blue")
    assert host.call("Control.Trace", a=a.endpoint[:12], b=str(b.address))["source"]["address"] == a.address


def test_words_of_other_hosts_are_asked_for(hosts: Hosts) -> None:
    """An endpoint's id there, and containers of an overlay that this host is not on: by name, address and id."""
    near, far = looked_at(hosts)
    a, b = near.run(), far.run()
    know_each_other(Side(near, a, b), Side(far, b, a))
    until(lambda: trace(near, a, b)["whole"], 15)
    found = near.call("Control.Trace", a=str(a.address), b=b.endpoint[:12])
    assert found["whole"], told(found)
    assert (found["target"]["host"], found["target"]["address"]) == (far.name, b.address)
    third = hosts.admit(lambda number: Looked(hosts, number, 1500, {}))
    until(lambda: len(third.daemon.peers.known.present or ()) == 2, 15)
    for words in ((str(a.address), str(b.address)), (a.endpoint, b.endpoint[:8])):
        found = until(
            lambda words=words: (seen := third.call("Control.Trace", a=words[0], b=words[1]))["whole"] and seen
        )
        assert (found["source"]["host"], found["target"]["host"]) == (near.name, far.name), told(found)
    with pytest.raises(Refusal, match="nobody is no container's name, address or endpoint id on any overlay"):
        third.call("Control.Trace", a=str(a.address), b="nobody")
    assert hosts.keys("seek") == hosts.keys("path") == []


def test_an_address_nobody_answers_at(hosts: Hosts) -> None:
    """The other machine is off the underlay: its VTEP is silent, and the underlay is named."""
    near, far = looked_at(hosts)
    a, b = near.run(), far.run()
    know_each_other(Side(near, a, b), Side(far, b, a))
    until(lambda: trace(near, a, b)["whole"], 15)
    ip(hosts.switch, f"link set p{far.number} down")
    near.ns.call(lambda: None)
    found = trace(near, a, b)
    named = first(found)
    assert named["hop"] in ("underlay", "underlay route"), told(found)
    assert Address(far.vtep) in named["saw"] + named["wanted"]


def test_an_outsider_is_seen_from_this_side_alone(hosts: Hosts) -> None:
    """Nobody can be asked on an outsider's host: what leaves for it and what arrives from it is judged here."""
    (host,) = [hosts.admit(lambda number: Looked(hosts, number, 1500, {}))]
    host.create_network(gateway="192.168.0.1", overlay="demo", records="demo-1", vni=42, subnet="192.168.0.0/24")
    hand = hosts.by_hand("demo-1")
    ours, outsider = host.run(), hand.run("192.168.0.203")
    hand.put(outsider)
    until(lambda: host.knows(outsider))
    host.daemon.reconciler.stop(5)
    for a, b, count in ((ours, outsider, 15), (outsider, ours, 14)):
        found = trace(host, a, b)
        assert found["whole"], told(found)
        assert found["silent"] == []
        assert len(found["outsiders"]) == 1
        assert len(found["steps"]) == count
        assert {step["state"] for step in found["steps"] if step["hop"] != "underlay"} == {"right"}, told(found)
    with host.tables() as tables:
        tables.unset([outsider.rows[1]])
    assert first(trace(host, ours, outsider))["hop"] == "FDB row"
    with pytest.raises(Refusal, match="are the same container"):
        trace(host, outsider, outsider)


def test_rows_above_the_eager_limit(hosts: Hosts) -> None:
    """Rows that nobody asked for yet are not missing; once asked for, one that goes is named."""
    near, far = looked_at(hosts, MYOVERLAY_EAGER_LIMIT="0")
    a, b = near.run(), far.run()
    until(lambda: near.local().view.peers and far.local().view.peers)
    found = until(lambda: (seen := trace(near, a, b))["whole"] and seen, 15)
    assert not near.knows(b)
    pulled = [step for step in found["steps"] if "above the eager limit" in step["saw"]]
    assert [(step["host"], step["hop"]) for step in pulled] == [
        ("h1", "neighbour row"), ("h1", "FDB row"), ("h2", "FDB row"), ("h2", "neighbour row"),
    ]  # fmt: skip
    assert None not in a.ping(b.address, timeout=2)
    FAULTS["FDB row"].harm(Side(near, a, b))
    assert first(trace(near, a, b))["hop"] == "FDB row"


def test_what_happens_is_followed(hosts: Hosts) -> None:
    """The recorder of a real daemon: calls with their overlay, what the store told, what the kernel asked."""
    near, far = looked_at(hosts)
    a = near.run()
    begun = near.call("Control.Watch")
    b = far.run()
    until(lambda: near.knows(b))
    a.ping("10.5.0.77", timeout=0.2)
    near.run()

    def notes(kind: str) -> list[dict[str, Any]]:
        asked = {"after": begun["last"], "run": begun["run"], "kinds": [kind], "overlay": "10.5.0.0-24"}
        return list(near.call("Control.Watch", **asked)["notes"])

    came = until(lambda: [note for note in notes("store") if note["change"] == "came"])
    assert (came[0]["host"], came[0]["address"], came[0]["mac"]) == (far.name, b.address, b.mac)
    missed = until(lambda: [note for note in notes("miss") if note.get("address") == "10.5.0.77"])
    assert missed[0]["layer"] == 3
    until(lambda: any(note["outcome"] == "unknown" for note in notes("miss")))
    assert [note["method"] for note in notes("call")] == [
        "IpamDriver.RequestAddress", "NetworkDriver.CreateEndpoint", "NetworkDriver.Join",
    ]  # fmt: skip
    assert near.call("Control.Watch", after=begun["last"], run=begun["run"], overlay="blue")["notes"] == []
