"""The probe device: whose kernel answers, whose does not, and who may say so."""

from __future__ import annotations

import select
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from myoverlay.errors import Clash, Unavailable
from myoverlay.kernel import frames, netns
from myoverlay.kernel.linkforms import Tunnel
from myoverlay.kernel.links import Links
from myoverlay.kernel.netns import Namespace
from myoverlay.kernel.pins import Pins
from myoverlay.kernel.probe import DEVICE, IFF_LOWER_UP, PIN, PROBE_VNI, Heard, Prober, probe_address, probe_mac
from myoverlay.values import VNI_FIRST, VNI_LAST, Address, HostId, OverlayName
from tests.kernel.conftest import library, soon, until

PORT = 4790
NONCE = b"\x12\x34\x56\x78"


class Host:
    """A namespace on the underlay, with a probe device or not."""

    def __init__(self, lab: Lab, number: int, vtep: str, mtu: int) -> None:
        self.lab = lab
        self.id = HostId(f"{number:010x}{'0' * 16}{number:06x}")
        self.home = lab.make(f"h{number}")
        self.vtep = Address(vtep)
        self.links = lab.stack.enter_context(Links(self.home))
        self.pins = Pins(lab.folder / f"pins{number}")
        self.vteps: tuple[Address, ...] = (self.vtep,)
        self.port = PORT
        with library(lab.switch) as switch:
            peer = {"ifname": "eth0", "net_ns_fd": self.home.fd}
            switch.link("add", ifname=f"p{number}", kind="veth", peer=peer)
            (bridge,) = switch.link_lookup(ifname="br0")
            (self.plug,) = switch.link_lookup(ifname=f"p{number}")
            switch.link("set", index=self.plug, master=bridge, mtu=mtu, state="up")
        with library(self.home) as home:
            (self.eth0,) = home.link_lookup(ifname="eth0")
            home.link("set", index=self.eth0, mtu=mtu, state="up")
            self.give(self.vtep)
        self.prober = self.opened()

    def give(self, address: Address) -> None:
        with library(self.home) as home:
            flags = {"IFA_FLAGS": 2} if address.version == 6 else {}
            home.addr(
                "add", index=self.eth0, address=address, prefixlen=64 if address.version == 6 else 24, **flags
            )  # fmt: skip

    def carrier(self) -> bool:
        with library(self.home) as home:
            (link,) = home.get_links(self.eth0)
            return bool(link["flags"] & IFF_LOWER_UP)

    def lose(self, address: Address) -> None:
        """Only this one: others of its network stay."""
        self.home.sysctl("net/ipv4/conf/eth0/promote_secondaries", "1")
        with library(self.home) as home:
            home.addr("del", index=self.eth0, address=address, prefixlen=24)

    def opened(self) -> Prober:
        prober = Prober(self.links, self.pins, self.id, self.port, lambda: self.vteps, home=self.home)
        self.lab.stack.callback(prober.close)
        return prober

    def ensure(self) -> bool:
        return self.prober.ensure(soon())

    def space(self) -> Namespace:
        """The device's namespace."""
        return netns.open_path(self.pins.path(PIN))

    def index(self) -> int | None:
        with self.space() as ns:
            return self.links.ifindex(ns, DEVICE, deadline=soon())

    def hears(self, *others: Host, seconds: float = 1.0, at: Address | None = None) -> set[HostId]:
        """Ask others once; those that answered in time."""
        targets = {other.id: at or other.vtep for other in others}
        self.prober.know(targets)
        missing = self.prober.ask(targets)
        heard: set[HostId] = set()
        while missing - heard and select.select(self.prober.sockets(), (), (), seconds)[0]:
            heard |= {one.host for one in self.prober.read().heard}
        return heard

    def sends(self, *raw: bytes) -> None:
        """Frames out of the device, as whoever is root on the host may send them."""
        with self.space() as ns, ns.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
            sock.bind((DEVICE, 0))
            for frame in raw:
                sock.send(frame)

    def neighbours(self) -> set[str]:
        with self.space() as ns, library(ns) as inside:
            return {message.get("NDA_DST") for message in inside.get_neighbours(family=socket.AF_INET)}


class Lab:
    """An underlay of one switch."""

    def __init__(self, make: Callable[[str], Namespace], folder: Path, stack: ExitStack) -> None:
        self.make, self.folder, self.stack = make, folder, stack
        self.hosts: list[Host] = []
        self.switch = make("switch")
        with library(self.switch) as switch:
            switch.link("add", ifname="br0", kind="bridge")
            (index,) = switch.link_lookup(ifname="br0")
            switch.link("set", index=index, state="up")

    def host(self, vtep: str | None = None, mtu: int = 1500) -> Host:
        number = len(self.hosts) + 1
        self.hosts.append(Host(self, number, vtep or f"192.0.2.{number}", mtu))
        return self.hosts[-1]

    def pair(self) -> tuple[Host, Host]:
        pair = self.host(), self.host()
        for one in pair:
            assert one.ensure()
        return pair


@pytest.fixture
def lab(spaces: Callable[[str], Namespace], tmp_path: Path) -> Iterator[Lab]:
    with ExitStack() as stack:
        lab = Lab(spaces, tmp_path, stack)
        yield lab
        for host in lab.hosts:
            host.prober.close()
            with Links(host.home) as links, closing(Prober(links, host.pins, host.id, PORT, tuple)) as prober:
                prober.remove(soon())


def test_the_vni_is_no_overlays() -> None:
    """It lies outside of those that overlays get by themselves, and the pin's name is no overlay's."""
    assert not VNI_FIRST <= PROBE_VNI <= VNI_LAST
    with pytest.raises(ValueError, match="no overlay name"):
        OverlayName(PIN)


def test_a_kernel_answers(lab: Lab) -> None:
    """Both ways, and the answering kernel keeps no neighbour entry of the asker: the machine's table is small."""
    a, b = lab.pair()
    assert a.hears(b) == {b.id}
    assert b.hears(a) == {a.id}
    assert a.neighbours() == b.neighbours() == set()


def test_a_kernel_answers_without_its_plugin_also_who_came_later(lab: Lab) -> None:
    """Nothing of a host runs any more; a host that it never heard of gets its answer all the same."""
    a, b = lab.pair()
    b.prober.close()
    b.links.stop(5)
    late = lab.host()
    late.ensure()
    assert late.hears(b) == {b.id}
    assert a.hears(b) == {b.id}


def test_a_kernel_without_a_plugin_answers_an_asker_that_moved(lab: Lab) -> None:
    """The asker's underlay address changes while the other's plugin is away, which had asked it before."""
    a, b = lab.pair()
    assert b.hears(a) == {a.id}
    b.prober.close()
    a.give(Address("192.0.2.77"))
    a.vteps = (Address("192.0.2.77"),)
    assert a.ensure(), "the device is another"
    assert not a.ensure()
    assert a.hears(b) == {b.id}
    a.lose(a.vtep)
    assert a.hears(b) == {b.id}


def test_who_moved_is_asked_at_its_new_address(lab: Lab) -> None:
    """The row follows the address that is asked at."""
    a, b = lab.pair()
    assert a.hears(b) == {b.id}
    moved = Address("192.0.2.78")
    b.give(moved)
    b.vteps = (moved,)
    b.ensure()
    b.lose(b.vtep)
    assert a.hears(b, seconds=0.2) == set()
    assert a.hears(b, at=moved) == {b.id}


def test_a_host_with_two_vteps_is_heard_by_either(lab: Lab) -> None:
    """Asked at its second VTEP it answers from its first, and is heard: no row makes its frames fall silent."""
    a, b = lab.pair()
    b.give(Address("192.0.2.79"))
    assert a.hears(b, at=Address("192.0.2.79")) == {b.id}
    assert a.hears(b, at=Address("192.0.2.79")) == {b.id}


def test_hosts_hear_each_other_over_ipv6(lab: Lab) -> None:
    """The device's own addresses have nothing to do with the underlay's."""
    a, b = lab.host("2001:db8::1"), lab.host("2001:db8::2")
    for one in (a, b):
        one.ensure()
    assert a.hears(b) == {b.id}
    assert full(a, b)


def test_other_ports_are_not_heard(lab: Lab) -> None:
    """Hosts whose setting `port` differs do not hear each other."""
    a, b = lab.host(), lab.host()
    b.port = PORT + 1
    b.prober = b.opened()
    a.ensure()
    b.ensure()
    assert a.hears(b, seconds=0.2) == set()


def test_restart_adopts(lab: Lab) -> None:
    """A second prober finds the first one's device, leaves it, and uses it."""
    a, b = lab.pair()
    index = a.index()
    a.prober.close()
    assert b.hears(a) == {a.id}
    a.prober = a.opened()
    assert a.ensure()
    assert a.index() == index
    assert a.hears(b) == {b.id}


@pytest.mark.parametrize("harm", ["down", "mac", "address", "gone", "namespace"])
def test_ensure_corrects(lab: Lab, harm: str) -> None:
    """Whatever was done to the device, the next look at it makes it answer again."""
    a, b = lab.pair()
    assert a.hears(b) == {b.id}
    with b.space() as ns, library(ns) as inside:
        index = b.index()
        if harm == "down":
            inside.link("set", index=index, state="down")
        elif harm == "mac":
            inside.link("set", index=index, address="02:00:00:00:00:99")
        elif harm == "address":
            inside.flush_addr(index=index)
        else:
            inside.link("del", index=index)
        if harm == "namespace":
            netns.delete(b.pins.path(PIN))
    assert a.hears(b, seconds=0.2) == set()
    assert b.ensure() == (harm in ("gone", "namespace"))
    assert a.hears(b) == {b.id}
    assert b.hears(a) == {a.id}


def test_a_cut_is_silence(lab: Lab) -> None:
    """Behind a cut there is no answer, though questions leave."""
    a, b = lab.pair()
    with library(lab.switch) as switch:
        switch.link("set", index=b.plug, state="down")
    assert a.prober.ask({b.id: b.vtep}) == {b.id}
    assert a.hears(b, seconds=0.2) == set()


def test_without_a_route_nobody_is_asked(lab: Lab) -> None:
    """No route, no carrier of the underlay, no device: then no question has left, and it is said so."""
    a, b = lab.pair()
    assert a.prober.ask({b.id: Address("203.0.113.1")}) == set()
    assert a.prober.ask({b.id: b.vtep}) == {b.id}
    with library(lab.switch) as switch:
        switch.link("set", index=a.plug, state="down")
    until(lambda: not a.carrier())
    assert a.prober.ask({b.id: b.vtep}) == set()
    with library(lab.switch) as switch:
        switch.link("set", index=a.plug, state="up")
    until(lambda: a.prober.ask({b.id: b.vtep}) == {b.id})
    with a.space() as ns:
        a.links.remove(ns, DEVICE, deadline=soon())
    assert a.prober.ask({b.id: b.vtep}) == set()
    a.prober.shut()
    assert a.prober.ask({b.id: b.vtep}) == set()


def test_no_vtep_is_waited_for(lab: Lab) -> None:
    """A host that has no VTEP yet has nothing to ask from."""
    a = lab.host()
    a.vteps = ()
    with pytest.raises(Unavailable, match="no VTEP"):
        a.ensure()
    a.vteps = (a.vtep,)
    assert a.ensure()


@pytest.mark.parametrize("where", ["pinned", "home"])
def test_who_has_the_vni_is_named(lab: Lab, where: str) -> None:
    """Somebody else's device on our VNI and port is named; without it the device is made."""
    a, b = lab.host(), lab.host()
    b.ensure()
    theirs = netns.create(a.pins.path("theirs")) if where == "pinned" else a.home.dup()
    with theirs:
        device = Tunnel(name="strange", mac=b.prober.mac, vni=PROBE_VNI, port=PORT, local=a.vtep, mtu=1450)
        a.links.ensure(theirs, device, deadline=soon())
        named = r"device strange in (namespace \S+theirs|the host's namespace): remove that"
        with pytest.raises(Clash, match=rf"VNI {PROBE_VNI} on UDP port {PORT} is taken on this host by {named}"):
            a.ensure()
        assert not a.prober.ready
        a.links.remove(theirs, "strange", deadline=soon())
    if where == "pinned":
        a.pins.delete("theirs")
    assert a.ensure()
    assert a.hears(b) == {b.id}


def full(a: Host, b: Host, seconds: float = 1.0) -> bool:
    """Does a packet of full size come back?"""
    a.prober.know([b.id])
    assert a.prober.ask({b.id: b.vtep}, {b.id: NONCE}) == {b.id}
    while select.select(a.prober.sockets(), (), (), seconds)[0]:
        if Heard(b.id, NONCE) in a.prober.read().heard:
            return True
    return False


def test_full_packets_come_back(lab: Lab) -> None:
    """The outer packet is as large as the underlay takes, and no router may break it into pieces."""
    a, b = lab.pair()
    with closing(b.home.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(frames.ETH_P_IP))) as tap:
        tap.bind(("eth0", frames.ETH_P_IP))
        tap.settimeout(5)
        assert full(a, b)
        assert full(a, b), "again, when the answering kernel knows its neighbour"
        seen = [tap.recv(2000) for _ in range(4)]
    outer = {(struct.unpack_from("!H", packet, 2)[0], packet[6] & 0x40) for packet in seen}
    assert (1500, 0x40) in outer
    b.prober.close()
    assert full(a, b), "without a plugin too"


def test_full_packets_do_not_pass_a_narrow_path(lab: Lab) -> None:
    """Where the path takes less than this host's interface, small questions are answered and full ones are not."""
    a, b = lab.host(), lab.host(mtu=1400)
    for one in (a, b):
        one.ensure()
    assert a.hears(b) == {b.id}
    assert not full(a, b, 0.2)
    assert full(b, a), "what b takes passes"


def test_what_is_no_answer_is_counted(lab: Lab) -> None:
    """Garbage, others' answers and forgeries are invalid; questions are the kernel's and not even seen."""
    a, b = lab.pair()
    assert a.hears(b) == {b.id}
    assert b.hears(a) == {a.id}
    stranger = HostId("9" * 32)
    mac_a, mac_b, mac_x = probe_mac(a.id), probe_mac(b.id), probe_mac(stranger)

    def reply(by: bytes, sender: bytes, address: Address, target: bytes, operation: int = 2) -> bytes:
        arp = struct.pack("!HHBBH6s4s6s4s", 1, 0x800, 6, 4, operation, sender, address.packed, target, bytes(4))
        return mac_a.packed + by + struct.pack("!H", frames.ETH_P_ARP) + arp

    own, theirs = probe_address(b.id), probe_address(stranger)
    good = reply(mac_b.packed, mac_b.packed, own, mac_a.packed)
    bad = [
        good[:30],
        good[:14] + bytes(46),
        reply(mac_x.packed, mac_x.packed, theirs, mac_a.packed),
        reply(mac_x.packed, mac_b.packed, own, mac_a.packed),
        reply(mac_b.packed, mac_b.packed, theirs, mac_a.packed),
        reply(mac_b.packed, mac_b.packed, own, mac_x.packed),
        reply(mac_b.packed, mac_b.packed, own, mac_a.packed, operation=7),
        frames.echo_request((mac_b, own), (mac_a, a.prober.address), NONCE, 100).replace(b"\x08\x00", b"\x00\x00", 2),
    ]
    b.sends(frames.arp_request(mac_b, own, mac_a, a.prober.address), *bad, good)
    heard: list[Heard] = []
    invalid = 0
    while not heard and select.select(a.prober.sockets(), (), (), 2)[0]:
        got = a.prober.read()
        heard += got.heard
        invalid += got.invalid
    assert heard == [Heard(b.id)], "the good one came, so all before it were seen"
    assert invalid >= len(bad) - 1


def test_reading_is_bounded(lab: Lab) -> None:
    """A flood is read in pieces, so that the thread comes back to its questions."""
    a, b = lab.pair()
    assert b.hears(a) == {a.id}
    frame = probe_mac(a.id).packed + probe_mac(b.id).packed + struct.pack("!H", frames.ETH_P_ARP) + b"\xff" * 46
    b.sends(*[frame] * 600)
    until(lambda: select.select(a.prober.sockets(), (), (), 0)[0])
    assert 0 < a.prober.read().invalid <= 256


def test_remove_leaves_nothing(lab: Lab) -> None:
    """Device, pin and VNI are gone; twice is no error."""
    a, b = lab.pair()
    a.prober.shut()
    a.prober.remove(soon())
    a.prober.remove(soon())
    assert a.pins.names() == set()
    assert b.hears(a, seconds=0.2) == set()
    with library(a.home) as home:
        home.link("add", ifname="free", kind="vxlan", vxlan_id=PROBE_VNI, vxlan_port=PORT, vxlan_local=a.vtep)
