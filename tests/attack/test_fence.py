"""The guard's table itself, on both families of the underlay: which datagrams a socket in the host's namespace gets."""

from __future__ import annotations

import itertools
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from myoverlay.fence import At, Fence, Pair, Way
from myoverlay.kernel.fence import FenceTable
from myoverlay.kernel.netns import Namespace
from myoverlay.kernel.path import rules
from myoverlay.plan.firewall import Blocked, Gate, Packet, Ruleset
from myoverlay.values import Address, Mac
from tests.attack.board import Board
from tests.attack.datagrams import Ear, frame, packet, send, send_raw, udp, vxlan
from tests.kernel.host.tools import ip, run_in, until

PAIR, OTHERS = Pair(4789, 0x700001), 4097
HOST, FRIEND, STRANGER = "192.0.2.1", "192.0.2.2", "192.0.2.3"
HOST6, FRIEND6, STRANGER6 = "2001:db8::1", "2001:db8::2", "2001:db8::3"
FAMILIES = {4: (socket.AF_INET, HOST, FRIEND, STRANGER), 6: (socket.AF_INET6, HOST6, FRIEND6, STRANGER6)}
OURS = vxlan(PAIR.vni, b"frame of an overlay")
FENCE = Fence(
    frozenset({PAIR.port}),
    frozenset({PAIR}),
    frozenset({"eth0"}),
    frozenset({At(PAIR, Address(HOST)), At(PAIR, Address(HOST6))}),
    frozenset({At(PAIR, Address(FRIEND)), At(PAIR, Address(FRIEND6))}),
    frozenset({Way(PAIR, Address(FRIEND), Address(HOST), "eth0"), Way(PAIR, Address(FRIEND6), Address(HOST6), "eth0")}),
)
#: Who asks for the state of connections makes the kernel track them.
TRACKING = """
table inet tracking {
    chain arrives { type filter hook input priority 0; ct state new counter; }
    chain leaves { type filter hook output priority 0; ct state new counter; }
}
"""
#: Every datagram is asked about one by one.
ASKED = msgspec.structs.replace(FENCE, ways=frozenset())


class Scene:
    """A host, a friend and a stranger on one switch. The table is laid by `guard`."""

    def __init__(self, spaces: Callable[[str], Namespace]) -> None:
        self.switch = spaces("switch")
        ip(self.switch, "link add br0 type bridge", "link set br0 up")
        self.host, self.friend, self.stranger = (
            self.machine(spaces(name), name, *addresses)
            for name, *addresses in (
                ("host", HOST, HOST6),
                ("friend", FRIEND, FRIEND6),
                ("stranger", STRANGER, STRANGER6),
            )
        )
        self.table = FenceTable(lambda: self.host)

    def machine(self, ns: Namespace, name: str, v4: str, v6: str) -> Namespace:
        ip(self.switch, f"link add {name} type veth peer name eth0 netns {ns.path}", f"link set {name} master br0 up")
        ip(ns, f"addr add {v4}/24 dev eth0", f"addr add {v6}/64 dev eth0 nodad", "link set eth0 up", "link set lo up")
        return ns

    def guard(self, fence: Fence = FENCE) -> None:
        self.table.lay(fence)


@pytest.fixture
def scene(spaces: Callable[[str], Namespace]) -> Iterator[Scene]:
    made = Scene(spaces)
    yield made
    made.table.close()


def gets(scene: Scene, version: int, act: Callable[[], object], port: int = PAIR.port) -> bool:
    family, host, *_ = FAMILIES[version]
    with Ear(scene.host, host, port, family) as ear:
        act()
        return ear.hears(0.4)


@pytest.mark.parametrize("fence", [FENCE, ASKED], ids=["straight", "asked"])
@pytest.mark.parametrize("version", [4, 6])
def test_who_is_heard(scene: Scene, board: Board, version: int, fence: Fence) -> None:
    """A friend's of our pair, and anybody's with another VNI, are got; a stranger's and our own process's are not."""
    _, host, _, _ = FAMILIES[version]
    other = vxlan(OTHERS, b"frame of Swarm's")
    until(lambda: gets(scene, version, lambda: send(scene.stranger, host, other)), 10, "the way")
    for name, ns in (("an unknown machine", scene.stranger), ("a process, to its own host", scene.host)):
        assert gets(scene, version, lambda ns=ns: send(ns, host, OURS))
        scene.guard(fence)
        assert not gets(scene, version, lambda ns=ns: send(ns, host, OURS))
        if fence is FENCE:
            board.write(f"VXLAN over IPv{version} from {name}", "got", "dropped")
        scene.table.remove()
    scene.guard(fence)
    assert gets(scene, version, lambda: send(scene.friend, host, OURS))
    for ns in (scene.friend, scene.stranger, scene.host):
        assert gets(scene, version, lambda ns=ns: send(ns, host, other))
    send(scene.stranger, host, OURS)
    assert send(scene.host, host, OURS) == "EPERM"
    until(lambda: scene.table.dropped().unknown, 5, "the count")
    counted = scene.table.dropped()
    assert (counted.unknown, counted.local) == (3, 1)


@pytest.mark.parametrize("version", [4, 6])
def test_the_straight_way(scene: Scene, version: int) -> None:
    """Who is live passes to this host's VTEP by its interface, without another question; not a stranger, nor else."""
    _, host, friend, stranger = FAMILIES[version]
    bare = msgspec.structs.replace(FENCE, own=frozenset(), doors=frozenset())

    def passes(sender: Namespace, *ways: Way) -> bool:
        scene.guard(msgspec.structs.replace(bare, ways=frozenset(ways)))
        return gets(scene, version, lambda: send(sender, host, OURS))

    until(lambda: gets(scene, version, lambda: send(scene.friend, host, OURS)), 10, "the way")
    right = Way(PAIR, Address(friend), Address(host), "eth0")
    assert passes(scene.friend, right)
    assert not passes(scene.stranger, right)
    assert not passes(scene.friend, right._replace(source=Address(stranger)))
    assert not passes(scene.friend, right._replace(door="eth1"))
    assert not passes(scene.friend, right._replace(vtep=Address(friend)))
    assert not passes(scene.friend, right._replace(pair=Pair(PAIR.port, OTHERS)))


def test_an_interface_made_anew_is_another(scene: Scene) -> None:
    """Its index is another: the table is not as laid, and laid again it lets the friend pass; one that is gone, nobody.

    A table that another run of ours laid is read as it was, but for the ways of an interface that is gone.
    """
    bare = msgspec.structs.replace(FENCE, own=frozenset(), doors=frozenset())
    until(lambda: gets(scene, 4, lambda: send(scene.friend, HOST, OURS)), 10, "the way")
    scene.guard(bare)
    assert scene.table.is_untouched()
    ip(scene.host, "link del eth0")
    assert not scene.table.is_untouched()
    assert scene.table.look() is None
    assert not scene.table.stands()
    anew = FenceTable(lambda: scene.host)
    assert anew.held() == msgspec.structs.replace(bare, ways=frozenset())
    anew.close()
    scene.guard(bare)
    assert scene.table.is_untouched()
    assert (scene.table.look(), scene.table.held()) == (bare, bare)
    scene.table.change(Fence(), Fence(ways=bare.ways))
    assert scene.table.held().ways == frozenset()
    ip(scene.host, "link add spare type veth peer name spare1")
    scene.machine(scene.host, "host", HOST, HOST6)
    ip(scene.friend, "neigh flush dev eth0")
    assert not scene.table.is_untouched()
    scene.guard(bare)
    assert scene.table.look() == bare
    until(lambda: gets(scene, 4, lambda: send(scene.friend, HOST, OURS)), 10, "the way")
    anew = FenceTable(lambda: scene.host)
    assert anew.held() == bare
    anew.close()


def _connections(ns: Namespace) -> int:
    """Those to our port that the kernel tracks."""
    listed = ns.call(lambda: Path("/proc/thread-self/net/nf_conntrack").read_text())
    return sum(f" dport={PAIR.port} " in line for line in listed.splitlines())


@pytest.mark.parametrize("version", [4, 6])
def test_what_passes_is_not_tracked(scene: Scene, version: int) -> None:
    """A live VTEP's datagrams fill no table of connections; those of a VNI of others, and before the guard, do."""
    _, host, _, _ = FAMILIES[version]
    run_in(scene.host, "nft", "-f", "-", text=TRACKING)
    ports = itertools.count(20001)  # the kernel gives none of these by itself

    def tracked(data: bytes) -> int:
        """Each time from another port, so it is another connection."""
        before = _connections(scene.host)
        assert gets(scene, version, lambda: send(scene.friend, host, data, source=next(ports)))
        return _connections(scene.host) - before

    until(lambda: gets(scene, version, lambda: send(scene.friend, host, OURS)), 10, "the way")
    assert tracked(OURS) == 1
    scene.guard()
    assert tracked(OURS) == 0
    assert tracked(vxlan(OTHERS, b"frame of Swarm's")) == 1


@pytest.mark.parametrize("version", [4, 6])
def test_what_the_kernel_sends_is_not_tracked(scene: Scene, version: int) -> None:
    """Neither are the datagrams of this host's own VXLAN device; those of another's VNI are."""
    _, host, friend, _ = FAMILIES[version]
    run_in(scene.host, "nft", "-f", "-", text=TRACKING)
    for name, vni in (("ours", PAIR.vni), ("theirs", OTHERS)):
        ip(
            scene.host,
            f"link add {name} type vxlan id {vni} local {host} remote {friend} dstport {PAIR.port} nolearning",
        )
        scene.host.sysctl(f"net/ipv6/conf/{name}/disable_ipv6", "1")  # it speaks of itself
        ip(scene.host, f"link set {name} up")

    def tracked(name: str, number: int) -> int:
        """A frame of another flow each time, for which VXLAN takes another port."""
        before = _connections(scene.host)
        with scene.host.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
            sock.bind((name, 0))
            sock.send(frame(Mac("02:00:00:00:00:01"), f"198.51.100.{number}", Address("198.51.100.200")))
        return _connections(scene.host) - before

    until(lambda: gets(scene, version, lambda: send(scene.friend, host, b"way", port=7000), 7000), 10, "the way")
    assert tracked("ours", 1) == 1
    scene.guard()
    assert tracked("ours", 2) == 0
    assert tracked("theirs", 3) == 1


def test_what_hides_its_vni_is_dropped(scene: Scene, board: Board) -> None:
    """What has its VNI in a second fragment, or none, is not got from a stranger; a friend's whole datagram is."""
    whole = udp(4789, PAIR.port, OURS)
    pieces = (
        packet(STRANGER, HOST, whole[:8], socket.IPPROTO_UDP, 7, 0, True),
        packet(STRANGER, HOST, whole[8:], socket.IPPROTO_UDP, 7, 8),
    )
    until(lambda: gets(scene, 4, lambda: send(scene.stranger, HOST, b"way")), 10, "the way")
    assert gets(scene, 4, lambda: send_raw(scene.stranger, HOST, *pieces))
    scene.guard()
    assert not gets(scene, 4, lambda: send_raw(scene.stranger, HOST, *pieces))
    assert not gets(scene, 4, lambda: send(scene.stranger, HOST, b"short"))
    board.write("VXLAN in fragments, the VNI in the second", "got", "dropped")
    assert gets(scene, 4, lambda: send(scene.friend, HOST, OURS))


@pytest.mark.parametrize("version", [4, 6])
def test_trace_understands_it(scene: Scene, version: int) -> None:
    """As `trace` reads the rules, a stranger's packet is surely dropped by the guard, and a friend's by nobody."""
    _, host, friend, stranger = FAMILIES[version]
    more = {one._replace(pair=Pair(PAIR.port, PAIR.vni + 1)) for one in FENCE.ways}  # nft sorts what it lists
    scene.guard(msgspec.structs.replace(FENCE, ways=FENCE.ways | more))
    ruleset = Ruleset.read(rules(scene.host, 10.0).listed)
    ip_, kind = ("ip", "ipv4") if version == 4 else ("ip6", "ipv6")
    meta = {"l4proto": "udp", "protocol": ip_, "nfproto": kind, "fib daddr type": "local"}
    meta |= {"iifname": "eth0", "iif": "eth0"}

    def judged(source: str, vni: int) -> Blocked | None:
        fields = {(ip_, "saddr"): source, (ip_, "daddr"): host, ("udp", "dport"): PAIR.port}
        packet = Packet(frozenset((ip_, "udp")), fields, meta, bytes(8) + vxlan(vni, b""))
        return ruleset.blocks(packet, [Gate((ip_, "inet"), "prerouting"), Gate((ip_, "inet"), "input")])

    blocked = judged(stranger, PAIR.vni)
    assert blocked is not None
    assert (blocked.where, blocked.sure) == ("inet myoverlay", True)
    assert judged(friend, PAIR.vni) is None
    assert judged(stranger, OTHERS) is None


def test_a_container_sends_to_no_vtep(scene: Scene, spaces: Callable[[str], Namespace]) -> None:
    """VXLAN of our pair from a container is routed nowhere, whoever it is for; with another VNI it passes."""
    inside = spaces("inside")
    ip(
        scene.host,
        f"link add gw type veth peer name eth0 netns {inside.path}",
        "addr add 172.18.0.1/24 dev gw",
        "link set gw up",
    )
    ip(inside, "addr add 172.18.0.2/24 dev eth0", "link set eth0 up", "route add default via 172.18.0.1")
    scene.host.sysctl("net/ipv4/ip_forward", "1")
    with Ear(scene.friend, FRIEND, PAIR.port) as ear:

        def arrives(data: bytes) -> bool:
            send(inside, FRIEND, data)
            heard = ear.hears()
            while ear.hears(0.1):
                pass
            return heard

        until(lambda: arrives(OURS), 10, "the way")
        scene.guard()
        assert not arrives(OURS)
        assert arrives(vxlan(OTHERS, b"frame of Swarm's"))
