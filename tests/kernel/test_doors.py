"""The resolver's sockets: born in another namespace, with room for questions, or refused in words."""

from __future__ import annotations

import socket

import pytest

from myoverlay.errors import Clash
from myoverlay.kernel.doors import open_doors
from myoverlay.kernel.netns import Namespace
from myoverlay.values import Address
from tests.kernel.conftest import library

LOOPBACK = Address("127.0.0.1")


def wake(ns: Namespace) -> None:
    with library(ns) as ipr:
        ipr.link("set", ifname="lo", state="up")


def test_a_burst_waits_for_who_is_busy(overlay: Namespace) -> None:
    """A thousand questions that come while nobody reads are all there afterwards."""
    wake(overlay)
    udp, tcp = open_doors(overlay, LOOPBACK)
    with udp, tcp, overlay.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
        for number in range(1000):
            asker.sendto(number.to_bytes(40, "big"), (LOOPBACK, 53))
        udp.setblocking(False)
        assert [int.from_bytes(udp.recv(64), "big") for _ in range(1000)] == list(range(1000))


def test_who_has_the_port_is_in_the_way(overlay: Namespace) -> None:
    """It is said so, and nothing stays open."""
    wake(overlay)
    with overlay.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind((LOOPBACK, 53))
        with pytest.raises(Clash, match="53"):
            open_doors(overlay, LOOPBACK)
