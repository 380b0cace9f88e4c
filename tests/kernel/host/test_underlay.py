"""The host's own underlay address changes while containers run: another lease by DHCP, a renumbered network."""

from __future__ import annotations

import logging

import pytest

from myoverlay.values import Address, decoder, encode
from myoverlay.values import Network as Value
from tests.kernel.host.hosts import Container, Host, Hosts
from tests.kernel.host.tools import ip, until

OLD, NEW = Address("172.30.0.1"), Address("172.30.0.101")
#: A round, the work, the store, the other host's watch.
SOON = 10.0


def renumber(host: Host, new: Address = NEW) -> None:
    """The machine gives up its address and has another on the same interface."""
    ip(host.ns, f"addr del {host.vtep}/24 dev eth0", f"addr add {new}/24 dev eth0")
    ip(host.ns, "route replace default via 172.30.0.254")
    host.vtep = new


def talking(two: tuple[Host, Host]) -> tuple[Container, Container]:
    here, there = two
    a, b = here.run(), there.run()
    until(lambda: here.knows(b) and there.knows(a))
    return a, b


def reach(a: Container, b: Container) -> bool:
    return not a.reaches(b, timeout=0.3) and not b.reaches(a, timeout=0.3)


def test_another_address_on_the_same_interface(hosts: Hosts, two: tuple[Host, Host]) -> None:
    """Both directions work again within seconds; device, journal, list, index, members and announcement all follow."""
    here, there = two
    a, b = talking(two)
    renumber(here)
    until(lambda: there.knows(a) and here.knows(b) and reach(a, b), SOON)
    assert here.local().network.vtep == NEW
    assert [network.vtep for network in here.daemon.journal.networks.all()] == [NEW]
    assert here.count("underlay", "moved") == 1
    me = here.daemon.records.me
    until(lambda: here.daemon.records.members(here.local().network.overlay)[me].vtep == NEW)
    until(lambda: {entry.value.decode() for entry in hosts.list("myoverlay/alive/")} and _announced(hosts, me))
    fib = {entry.key: entry.value.decode() for entry in hosts.list("myoverlay/overlays/10.5.0.0-24/records/fib/")}
    assert next(vtep for key, vtep in fib.items() if key.endswith(a.mac)) == NEW


def _announced(hosts: Hosts, me: str) -> bool:
    entry = hosts.store.get(f"myoverlay/alive/{me}")
    return entry is not None and NEW.encode() in entry.value


def test_the_other_side_changes_during_traffic(two: tuple[Host, Host]) -> None:
    """Seen from the host that did not change: its rows follow, and new containers on both are reached too."""
    here, there = two
    a, b = talking(two)
    with b.pinging(a) as out:
        until(out.flows)
        renumber(here)
        until(lambda: there.knows(a), SOON)
        until(lambda: out.flows(20), SOON)
    c = here.run()
    until(lambda: there.knows(c) and reach(c, b), SOON)


def test_a_start_finds_another_address(two: tuple[Host, Host]) -> None:
    """The address changed while the plugin was not running: it is taken at start, and the host for no clone."""
    here, there = two
    a, b = talking(two)
    here.stop()
    renumber(here)
    here.start()
    assert here.local().network.vtep == NEW
    until(lambda: there.knows(a) and here.knows(b) and reach(a, b), SOON)
    assert here.daemon.liveness.announced.is_set()


def test_an_address_that_was_named_and_is_gone(hosts: Hosts, caplog: pytest.LogCaptureFixture) -> None:
    """`-o vtep=172.30.0.1` means that address: one clear error, counted once, and everything is left as it is."""
    here, there = hosts.host(), hosts.host()
    here.create_network(vtep=OLD)
    there.create_network()
    a, b = talking((here, there))
    rows = here.rows()
    with caplog.at_level(logging.ERROR):
        renumber(here)
        for _ in range(3):
            here.daemon.reconciler.compare()
    assert caplog.text.count("is no address of this host any more") == 1
    assert here.count("underlay", "lost") == 1
    assert here.local().network.vtep == OLD
    assert here.rows() == rows
    ip(here.ns, f"addr add {OLD}/24 dev eth0")
    here.daemon.reconciler.compare()
    assert here.count("underlay", "found") == 1
    until(lambda: reach(a, b))


def test_an_interface_that_was_named_gives_the_next(hosts: Hosts) -> None:
    """`-o vtep=eth0` means whatever address that has, though the default route goes elsewhere."""
    here, there = hosts.host(), hosts.host()
    here.create_network(vtep="eth0")
    there.create_network()
    a, b = talking((here, there))
    renumber(here)
    until(lambda: there.knows(a) and reach(a, b), SOON)
    assert here.local().network.asked == "eth0"


def test_a_flapping_link_moves_nobody(two: tuple[Host, Host]) -> None:
    """An answer on another interface must still be the answer a round later."""
    here, _ = two
    ip(here.ns, "link add eth9 type bridge", "addr add 192.0.2.9/24 dev eth9", "link set eth9 up")
    here.daemon.reconciler.stop(3.0)
    ip(here.ns, f"addr del {OLD}/24 dev eth0", "route replace default via 192.0.2.254")
    here.daemon.reconciler.compare()
    assert here.local().network.vtep == OLD
    ip(here.ns, f"addr add {OLD}/24 dev eth0")
    here.daemon.reconciler.compare()
    ip(here.ns, f"addr del {OLD}/24 dev eth0")
    here.daemon.reconciler.compare()
    assert here.local().network.vtep == OLD
    here.daemon.reconciler.compare()
    assert here.local().network.vtep == "192.0.2.9"


def test_a_journal_of_before_is_read(two: tuple[Host, Host]) -> None:
    """A network written without what was asked is one that follows the setting."""
    here, _ = two
    network = here.local().network
    raw = encode(network)
    assert b"asked" not in raw
    assert decoder(Value)(raw) == network
