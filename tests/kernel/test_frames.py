"""Announcements: scapy reads what we write, and the kernel believes it."""

from __future__ import annotations

import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet6 import ICMPv6ND_NA, ICMPv6NDOptDstLLAddr, IPv6
from scapy.layers.l2 import ARP, Ether

from myoverlay.errors import KernelRefused
from myoverlay.kernel.frames import Announcer, announcement, arp_announcement, neighbour_advertisement
from myoverlay.kernel.netns import Namespace
from myoverlay.values import Address, Mac

from .conftest import Host, library, until
from .given import macs, v4, v6


@given(v4, macs)
def test_arp_announcements_read_back(address: Address, mac: Mac) -> None:
    """To everybody, a reply, and the sender is its own target: what the kernel takes for gratuitous."""
    frame = Ether(arp_announcement(address, mac))
    assert (frame.dst, frame.src) == ("ff:ff:ff:ff:ff:ff", mac)
    arp = frame[ARP]
    assert (arp.op, arp.hwsrc, arp.psrc) == (2, mac, address)
    assert (arp.hwdst, arp.pdst) == (mac, address)


@given(v6, macs)
def test_neighbour_advertisements_read_back(address: Address, mac: Mac) -> None:
    """To all nodes, unsolicited, overriding, with hop limit 255 and a checksum that scapy computes alike."""
    raw = neighbour_advertisement(address, mac)
    frame = Ether(raw)
    assert (frame.dst, frame.src) == ("33:33:00:00:00:01", mac)
    assert (Address(frame[IPv6].src), frame[IPv6].dst, frame[IPv6].hlim) == (address, "ff02::1", 255)
    told = frame[ICMPv6ND_NA]
    assert (told.R, told.S, told.O, Address(told.tgt)) == (0, 0, 1, address)
    assert frame[ICMPv6NDOptDstLLAddr].lladdr == mac
    checksum = told.cksum
    del told.cksum
    assert Ether(bytes(frame))[ICMPv6ND_NA].cksum == checksum


@given(st.one_of(v4, v6), macs)
def test_an_address_finds_its_own_kind_of_frame(address: Address, mac: Mac) -> None:
    """IPv4 is announced by ARP, IPv6 by ICMPv6, and the wrong encoder refuses."""
    wrong = neighbour_advertisement if address.version == 4 else arp_announcement
    assert announcement(address, mac)[12:14] == (b"\x08\x06" if address.version == 4 else b"\x86\xdd")
    with pytest.raises(ValueError, match="announced by"):
        wrong(address, mac)


def test_an_announcer_needs_its_interface(host: Namespace) -> None:
    """A missing interface is told by name and leaves no socket open."""
    with pytest.raises(KernelRefused, match="opening br7 for announcements") as told:
        Announcer(host, "br7")
    assert told.value.code == errno.ENODEV


def test_a_warm_cache_hears_of_a_moved_address(two_hosts: tuple[Host, Host]) -> None:
    """Also one that was set less than a second ago, when the kernel ignores ordinary replies (locktime)."""
    here, _ = two_hosts
    container = here.container(2)
    other, old, new = Address("10.5.0.77"), Mac("02:42:00:00:00:07"), Mac("02:42:00:00:00:08")
    with library(container.ns) as inside, Announcer(here.overlay, "br0") as announcer:
        (index,) = inside.link_lookup(ifname="eth0")
        inside.neigh("add", ifindex=index, dst=other, lladdr=old, state=0x04)
        announcer.announce(other, new)

        def learnt() -> bool:
            rows = inside.get_neighbours(ifindex=index, dst=other)
            return [row.get_attr("NDA_LLADDR") for row in rows] == [new]

        until(learnt)
