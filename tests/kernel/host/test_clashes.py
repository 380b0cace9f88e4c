"""What cannot be is refused in one sentence that names who has it, and leaves nothing behind."""

from __future__ import annotations

import shutil
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from myoverlay.errors import Refused
from myoverlay.host.converge import Converger
from myoverlay.host.journal import Journal
from myoverlay.host.leftovers import Leftovers
from myoverlay.host.local import LocalOverlay
from myoverlay.kernel.pins import Pins
from myoverlay.plan import shape
from myoverlay.tally import Tally
from myoverlay.values import Address, Endpoint, Mac
from tests.kernel.host.hosts import Host, Hosts, Refusal
from tests.kernel.host.tools import ip, link_names, until


def _nothing(hosts: Hosts, host: Host, overlay: str) -> None:
    """No namespace, no link, no key of the overlay."""
    assert overlay not in [pin.name for pin in host.pins()]
    assert not [name for name in link_names(host.ns) if name.startswith(("mo", "vxlan1"))]
    until(lambda: not hosts.keys(f"/{overlay}") and not hosts.keys(f"overlays/{overlay}/"))


def test_a_vni_held_by_a_device_made_by_hand_is_named(hosts: Hosts) -> None:
    """The kernel says no more than `file exists`; we say who has it. Another VNI works then."""
    host = hosts.host()
    ip(host.ns, "link add vx-old type vxlan id 4711 dstport 4789 local 172.30.0.1")
    with pytest.raises(Refusal, match="VNI 4711 on UDP port 4789 is taken on this host by device vx-old") as said:
        host.create_network(vni=4711, overlay="demo")
    assert said.value.status == 409
    assert "-o vni=" in said.value.sentence
    _nothing(hosts, host, "demo")
    until(lambda: not hosts.keys("vni/"))
    host.create_network(vni=4712, overlay="demo")


def test_a_vni_of_another_overlay_is_named(hosts: Hosts) -> None:
    """Two overlays with one VNI would be one wire."""
    host = hosts.host()
    host.create_network("10.5.0.0/24", overlay="first", vni=4711)
    with pytest.raises(Refusal, match="VNI 4711 is taken by overlay first"):
        host.create_network("10.6.0.0/24", overlay="second", vni=4711)
    _nothing(hosts, host, "second")


def test_a_second_network_on_one_overlay_is_refused(hosts: Hosts) -> None:
    """Under our IPAM by its pool, under Docker's by its name; the first is named each time, and goes on."""
    host = hosts.host()
    first = host.create_network("10.5.0.0/24", overlay="demo")
    with pytest.raises(Refusal, match=rf"overlay demo, which network {first.id[:12]} of this host has already joined"):
        host.create_network("10.5.0.0/24", overlay="demo")
    with pytest.raises(Refusal, match=rf"overlay demo is joined already by network {first.id[:12]} of this host"):
        host.create_network("10.5.0.0/24", ipam=False, overlay="demo")
    a, b = host.run(), host.run()
    assert a.ping(b.address) != [None]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"subnet": "10.6.0.0/24"}, "is defined with subnet 10.5.0.0/24, this host asks for 10.6.0.0/24"),
        ({"gateway": "10.5.0.9"}, "is defined with gateway 10.5.0.1, this host asks for 10.5.0.9"),
        ({"vni": 4712}, "is defined with vni 4711, this host asks for 4712"),
        ({"mtu": 1300}, "is defined with mtu 1400, this host asks for 1300"),
        ({"port": 4790}, "is defined with port 4789, this host asks for 4790"),
        ({"records": "elsewhere"}, "is defined with records none, this host asks for elsewhere"),
    ],
    ids=lambda value: "".join(value) if isinstance(value, dict) else "",
)
def test_a_host_that_contradicts_the_definition_is_refused(hosts: Hosts, changed: dict[str, str], words: str) -> None:
    """One sentence with both values; the first host's overlay is as before."""
    wanted = {"subnet": "10.5.0.0/24", "overlay": "demo", "vni": 4711, "mtu": 1400}
    hosts.host().create_network(ipam=False, **wanted)
    before = hosts.definition("demo")
    second = hosts.host()
    with pytest.raises(Refusal) as said:
        second.create_network(ipam=False, **(wanted | changed))
    assert words in said.value.sentence
    assert second.pins() == []
    assert hosts.definition("demo") == before


def test_a_host_may_leave_out_what_is_defined(hosts: Hosts) -> None:
    """`--ipam-opt overlay=` alone is enough: subnet, gateway, VNI and MTU come from the definition."""
    first, second = hosts.host(), hosts.host()
    first.create_network("10.5.0.0/24", overlay="demo", vni=4711, mtu=1400)
    network = second.create_network("", ipam_overlay="demo")
    assert (network.subnet, network.gateway) == ("10.5.0.0/24", "10.5.0.1")
    a, b = first.run(), second.run()
    until(lambda: first.knows(b) and second.knows(a))
    assert a.ping(b.address) != [None]


def test_an_mtu_that_the_underlay_cannot_carry_is_refused(hosts: Hosts) -> None:
    """Asked for, or brought by a host with a smaller underlay: both values are named, with the remedy."""
    first, small = hosts.host(), hosts.host(mtu=1400)
    with pytest.raises(Refusal) as said:
        first.create_network(overlay="demo", mtu=9000)
    assert "overlay demo has MTU 9000, but eth0 of this host carries only 1450" in said.value.sentence
    _nothing(hosts, first, "demo")
    first.create_network(overlay="demo")
    with pytest.raises(Refusal) as said:
        small.create_network(overlay="demo")
    assert "has MTU 1450, but eth0 of this host carries only 1350" in said.value.sentence
    assert "-o mtu=1350" in said.value.sentence
    assert small.pins() == []


def test_a_route_that_carries_less_is_refused(hosts: Hosts) -> None:
    """The interface is large enough, but the way to a member is not: the member is named."""
    first, second = hosts.host(), hosts.host()
    first.create_network(overlay="demo")
    ip(second.ns, f"route add {first.vtep}/32 dev eth0 mtu 1280")
    with pytest.raises(Refusal, match=r"has MTU 1450, but the route to host h1 \(172\.30\.0\.1\) carries only 1230"):
        second.create_network(overlay="demo")
    assert second.pins() == []


def test_the_bridges_limit_is_told_in_a_sentence(hosts: Hosts, tmp_path: Path) -> None:
    """The 1,023rd endpoint is refused before anything is made; a journal of its own holds the 1,022 here."""
    host = hosts.host()
    network = host.create_network("10.5.0.0/16", overlay="demo")
    with closing(Journal(tmp_path / "full")) as journal:
        for number in range(shape.MAX_ENDPOINTS):
            address = network.subnet.at(network.subnet.first + 100 + number)
            name = f"{number:064x}"
            full = Endpoint(endpoint=name, network=network.id, address=address, mac=Mac.of(address), generation=1)
            journal.endpoints.put(name, full)
        local = LocalOverlay(
            host.local().network, journal, Converger(host.daemon.links, Pins(tmp_path), Tally(), Leftovers(Tally())), 1
        )
        with pytest.raises(Refused, match="overlay demo has 1022 endpoints on this host, as many as a bridge takes"):
            local.add_endpoint("f" * 64, Address("10.5.0.9"), None, 1, time.monotonic() + 5)
    assert host.ports() == set()


def test_a_host_with_another_ones_vtep_is_refused(hosts: Hosts) -> None:
    """Two machines with one underlay address would take each other's traffic: the second is told who has it."""
    first, second = hosts.host(), hosts.host()
    until(first.daemon.liveness.announced.is_set)
    second.stop()
    ip(second.ns, "addr add 172.30.0.1/32 dev lo")
    second._environ["MYOVERLAY_VTEP"] = "172.30.0.1"
    hosts.drop(f"myoverlay/alive/{second.daemon.records.me}")
    second.start()
    until(lambda: second.daemon.liveness.barred() is not None)
    with pytest.raises(Refusal, match=r"host h1 uses the VTEP 172\.30\.0\.1 as well"):
        second.create_network()


def test_a_clone_of_a_running_host_harms_nobody(hosts: Hosts) -> None:
    """A machine copied with its state is told so, and the original's containers, records and leases stay."""
    first, second = hosts.pair()
    original, peer = first.run(), second.run()
    until(lambda: second.knows(original))
    clone = hosts.host()
    clone.stop()
    source, target = Path(first._environ["MYOVERLAY_STATE"]), Path(clone._environ["MYOVERLAY_STATE"])
    shutil.rmtree(target)
    with closing(sqlite3.connect(source / "journal.db")) as journal:  # all of it in one file
        journal.execute("PRAGMA wal_checkpoint")
    shutil.copytree(source, target)
    before = {entry.key: entry.value for entry in hosts.list("myoverlay/hosts/")}
    clone.start()
    until(lambda: clone.daemon.liveness.barred() is not None)
    assert "if this machine was cloned, run `myoverlay host new-id`" in str(clone.daemon.liveness.barred())
    until(lambda: clone.count("published", "failed") > 0)
    assert {entry.key: entry.value for entry in hosts.list("myoverlay/hosts/")} == before
    assert hosts.leases()[original.address] == 1
    assert second.knows(original)
    assert None not in peer.ping(original.address)
