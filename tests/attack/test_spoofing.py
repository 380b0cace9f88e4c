"""A container that speaks under names that are not its own: heard with the binding off, not with it on."""

from __future__ import annotations

import itertools
import secrets
import socket
import struct
from collections.abc import Callable

from myoverlay.values import Address
from tests.attack.board import Board
from tests.attack.datagrams import PORT, Ear, checksum, packet, udp
from tests.kernel.host.hosts import Container, Host, Hosts
from tests.kernel.host.tools import ip, run_in, until

_subnets = itertools.count(60)
_BROADCAST = b"\xff" * 6
#: The attacker, whom it claims to be, who hears it, and a few bytes to know the frame by: the frame.
Forgery = Callable[[Container, Container, Container, bytes], bytes]


def scene(hosts: Hosts, spoof: str) -> tuple[Host, Host, Container, Container, Container]:
    """Two hosts; on the first the attacker and a victim, on the second the container that it claims to be."""
    subnet = f"10.{next(_subnets)}.0.0/24"
    one, two = hosts.host(spoof=spoof), hosts.host(spoof=spoof)
    for host in (one, two):
        host.create_network(subnet)
    attacker, victim, other = one.run(), one.run(), two.run()
    until(lambda: one.knows(other) and two.knows(attacker, victim), what="the rows")
    return one, two, attacker, victim, other


def arp(operation: int, sender: tuple[bytes, bytes], target: tuple[bytes, bytes], tail: bytes) -> bytes:
    return b"\x08\x06" + struct.pack("!HHBBH", 1, 0x0800, 6, 4, operation) + sender[0] + sender[1] + target[0] + target[1] + tail  # fmt: skip # noqa: E501


def false_arp(me: Container, other: Container, _victim: Container, mark: bytes) -> bytes:
    return _BROADCAST + me.mac.packed + arp(1, (me.mac.packed, other.address.packed), (bytes(6), other.address.packed), mark)  # fmt: skip # noqa: E501


def false_reply(me: Container, other: Container, victim: Container, mark: bytes) -> bytes:
    return victim.mac.packed + me.mac.packed + arp(2, (me.mac.packed, other.address.packed), (victim.mac.packed, victim.address.packed), mark)  # fmt: skip # noqa: E501


def false_sender(me: Container, other: Container, victim: Container, mark: bytes) -> bytes:
    """The frame is the attacker's own, and what ARP in it says is another's."""
    return victim.mac.packed + me.mac.packed + arp(2, (other.mac.packed, me.address.packed), (victim.mac.packed, victim.address.packed), mark)  # fmt: skip # noqa: E501


def false_ip(me: Container, other: Container, victim: Container, mark: bytes) -> bytes:
    inner = packet(other.address, victim.address, udp(PORT, PORT, mark), socket.IPPROTO_UDP)
    return victim.mac.packed + me.mac.packed + b"\x08\0" + inner


def false_mac(me: Container, other: Container, victim: Container, mark: bytes) -> bytes:
    inner = packet(me.address, victim.address, udp(PORT, PORT, mark), socket.IPPROTO_UDP)
    return victim.mac.packed + other.mac.packed + b"\x08\0" + inner


def strange_protocol(_me: Container, other: Container, victim: Container, mark: bytes) -> bytes:
    return victim.mac.packed + other.mac.packed + b"\x88\xb5" + mark


def icmp6(source: Address, target: Address, body: bytes) -> bytes:
    pseudo = source.packed + target.packed + struct.pack("!II", len(body), 58)
    body = body[:2] + struct.pack("!H", checksum(pseudo + body)) + body[4:]
    return b"\x86\xdd" + struct.pack("!IHBB", 6 << 28, len(body), 58, 255) + source.packed + target.packed + body


def false_neighbour(me: Container, _other: Container, victim: Container, mark: bytes) -> bytes:
    claimed = Address("fd00::1").packed
    body = struct.pack("!BBHI", 136, 0, 0, 0x20000000) + claimed + b"\x02\x01" + me.mac.packed + b"\xfd\x02" + mark.ljust(14, b"\0")  # fmt: skip # noqa: E501
    return victim.mac.packed + me.mac.packed + icmp6(Address("fe80::1"), Address("ff02::1"), body)


def false_router(me: Container, _other: Container, victim: Container, mark: bytes) -> bytes:
    body = struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, 1800, 0, 0) + b"\xfd\x02" + mark.ljust(14, b"\0")
    return victim.mac.packed + me.mac.packed + icmp6(Address("fe80::1"), Address("ff02::1"), body)


FORGERIES: list[tuple[str, Forgery]] = [
    ("ARP announcement of another's address", false_arp),
    ("ARP reply for another's address", false_reply),
    ("ARP reply with another's MAC in it", false_sender),
    ("IP packet from another's address", false_ip),
    ("frame from another's MAC", false_mac),
    ("frame of another protocol from another's MAC", strange_protocol),
    ("IPv6 neighbour advertisement of another's address", false_neighbour),
    ("IPv6 router advertisement", false_router),
]


class Tap:
    """All that comes to a container's interface."""

    def __init__(self, container: Container) -> None:
        self._sock = container.ns.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        self._sock.bind(("eth0", 3))

    def hears(self, mark: bytes, seconds: float = 0.4) -> bool:
        self._sock.settimeout(seconds)
        try:
            while mark not in self._sock.recv(2048):
                pass
        except TimeoutError:
            return False
        return True

    def close(self) -> None:
        self._sock.close()


def shout(container: Container, frame: bytes) -> None:
    with container.ns.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
        sock.bind(("eth0", 0))
        sock.send(frame.ljust(60, b"\0"))


def is_heard(forge: Forgery, me: Container, other: Container, victim: Container) -> bool:
    mark, tap = secrets.token_bytes(12), Tap(victim)
    try:
        shout(me, forge(me, other, victim, mark))
        return tap.hears(mark)
    finally:
        tap.close()


def test_a_container_is_nobody_else(hosts: Hosts, board: Board) -> None:
    """Every forgery is heard on an overlay that lets its containers spoof, and none on one that does not."""
    heard: dict[str, dict[str, bool]] = {}
    for spoof in ("*", ""):
        one, two, attacker, victim, other = scene(hosts, spoof)
        heard[spoof] = {name: is_heard(forge, attacker, other, victim) for name, forge in FORGERIES}
        if not spoof:  # where it may spoof, others' caches and the bridge believe it by now
            for near, far in itertools.permutations((attacker, victim, other), 2):
                assert None not in near.ping(far.address, 3)
            until(lambda: one.count("guard", "spoofed") >= len(FORGERIES), 8, "the count")  # noqa: B023
            assert two.count("guard", "spoofed") == 0
        for host in (one, two):
            host.stop()
    words = {True: "heard", False: "dropped"}
    for name, _ in FORGERIES:
        board.write(name, words[heard["*"][name]], words[heard[""][name]])
    assert all(heard["*"].values()), heard["*"]
    assert not any(heard[""].values()), heard[""]


def test_what_a_container_may_say_of_itself_passes(hosts: Hosts) -> None:
    """An announcement of its own address, a question whether one is free, and IPv6 of its own link-local are heard."""
    _, _, me, victim, _ = scene(hosts, "")

    def announced(me: Container, _o: Container, _v: Container, mark: bytes) -> bytes:
        return _BROADCAST + me.mac.packed + arp(1, (me.mac.packed, me.address.packed), (bytes(6), me.address.packed), mark)  # fmt: skip # noqa: E501

    def asked(me: Container, other: Container, _v: Container, mark: bytes) -> bytes:
        return _BROADCAST + me.mac.packed + arp(1, (me.mac.packed, bytes(4)), (bytes(6), other.address.packed), mark)

    def solicited(me: Container, _o: Container, victim: Container, mark: bytes) -> bytes:
        body = struct.pack("!BBHI", 135, 0, 0, 0) + Address("fe80::2").packed + b"\xfd\x02" + mark.ljust(14, b"\0")
        return victim.mac.packed + me.mac.packed + icmp6(Address("fe80::1"), Address("ff02::1:ff00:2"), body)

    def other_protocol(me: Container, _o: Container, victim: Container, mark: bytes) -> bytes:
        return victim.mac.packed + me.mac.packed + b"\x88\xb5" + mark

    for forge in (announced, asked, solicited, other_protocol):
        assert is_heard(forge, me, victim, victim), forge.__name__


def test_a_named_overlay_may(hosts: Hosts) -> None:
    """MYOVERLAY_SPOOF frees the overlays it names, for keepalived, and no others."""
    host = hosts.host(spoof="free")
    free, bound = host.create_network("10.58.0.0/24", overlay="free"), host.create_network("10.59.0.0/24")
    for network, expected in ((free, True), (bound, False)):
        me, victim, other = (host.run(network=network) for _ in range(3))
        assert is_heard(false_ip, me, other, victim) is expected


def test_a_flushed_binding_is_laid_again(hosts: Hosts) -> None:
    """After `nft flush ruleset` in the overlay's namespace a forgery is dropped again within two rounds."""
    one, _, attacker, victim, other = scene(hosts, "")
    one.have_round()  # so that the next one is 3 s away
    with one.overlay() as ns:
        run_in(ns, "nft", "flush", "ruleset")
    assert is_heard(false_ip, attacker, other, victim)
    until(lambda: one.count("repairs", "binding") == 1, 8, "the repair")
    assert not is_heard(false_ip, attacker, other, victim)
    late = one.run()  # bound without another laying
    assert None not in late.ping(victim.address, 2)
    assert one.count("repairs", "binding") == 1


def test_overlays_and_the_host_are_apart(hosts: Hosts, board: Board) -> None:
    """A container reaches neither a container of another overlay nor its host, through the gateway or the bridge."""
    host = hosts.host()
    first, second = host.create_network("10.56.0.0/24"), host.create_network("10.57.0.0/24")
    inside, outside = host.run(network=first), host.run(network=second)
    ip(inside.ns, f"route add default via {first.gateway}")
    with Ear(outside.ns) as ear, inside.ns.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.sendto(b"hello", (outside.address, PORT))
        assert not ear.hears()
    assert inside.ping(outside.address) == [None]
    assert inside.ping(host.vtep) == [None]
    board.write("a way from one overlay to another, or to the host", "none (no route leads there)", "none")
