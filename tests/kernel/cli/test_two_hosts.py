"""The tutorial's way on two hosts, by the commands alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from myoverlay.kernel import netns
from myoverlay.kernel.netns import Namespace
from myoverlay.values import Address, Mac
from tests.kernel.cli.conftest import Hand, answers, keyboard
from tests.kernel.conftest import library, until
from tests.kernel.host.echo import Echo


def underlay(first: Namespace, second: Namespace) -> None:
    with library(first) as one, library(second) as other:
        one.link("add", ifname="eth0", kind="veth", peer={"ifname": "eth0", "net_ns_fd": second.fd})
        for ipr, address in ((one, "192.0.2.1"), (other, "192.0.2.2")):
            (index,) = ipr.link_lookup(ifname="eth0")
            ipr.link("set", index=index, state="up")
            ipr.addr("add", index=index, address=address, prefixlen=24)


def test_rows_written_by_hand_join_two_hosts(
    hand: Hand, spaces: Callable[[str], Namespace], containers: Callable[[str], str], tmp_path: Path
) -> None:
    """Without rows the ping fails; with an ARP and an FDB row on each side all pings are answered."""
    here, there = containers("c1"), containers("c2")
    with keyboard(spaces("second"), tmp_path / "second") as other:
        underlay(hand.home, other.home)
        for host, path, address in ((hand, here, "192.168.0.10"), (other, there, "192.168.0.11")):
            host("overlay", "create", "--local", "eth0")
            host("attach", path, address)
        with netns.open_path(Path(here)) as ns:
            until(lambda: answers(ns, "192.168.0.1", 1))
            assert _unanswered(ns, "192.168.0.11")
            for host, far, vtep in ((hand, "192.168.0.11", "192.0.2.2"), (other, "192.168.0.10", "192.0.2.1")):
                host("arp", "add", far)
                host("fdb", "add", Mac.of(Address(far)), vtep)
            until(lambda: answers(ns, "192.168.0.11", 1), 20)
            assert answers(ns, "192.168.0.11", 10) == 10
            other("fdb", "del", Mac.of(Address("192.168.0.10")))
            # The device has learned the MAC from the frames that came (`--learning`), or asks: both are the lesson.
            assert {row["state"] for row in other.json("fdb", "ls")} <= {"learned"}
        other("overlay", "delete")


def _unanswered(ns: Namespace, address: str) -> bool:
    echo = Echo(ns)
    try:
        echo.send(Address(address), 0)
        return echo.receive(0.3) is None
    finally:
        echo.close()


def test_an_overlay_of_ipv6(hand: Hand, containers: Callable[[str], str]) -> None:
    """An IPv6 bridge address makes an overlay of IPv6; rows of both kinds are written and shown in normal form."""
    hand("overlay", "create", "six", "--vni", "44", "--address", "FD00:6::1/64")
    path = containers("c")
    hand("attach", path, "fd00:6:0::10", "--overlay", "six")
    assert "attached already" in hand("attach", path, "fd00:6::10/64", "--overlay", "six")
    assert hand.json("overlay", "show", "six")["cables"][0]["address"] == "fd00:6::10"
    hand("arp", "add", "fd00:6::11", "--overlay", "six")
    assert [row["address"] for row in hand.json("arp", "ls", "--overlay", "six")] == ["fd00:6::11"]
    with netns.open_path(Path(path)) as ns, library(ns) as ipr:
        (index,) = ipr.link_lookup(ifname="eth0")
        assert "fd00:6::10" in {one.get_attr("IFA_ADDRESS") for one in ipr.get_addr(index=index)}
