"""Who sees what on a host, and an address that goes elsewhere while others talk to it."""

from __future__ import annotations

import time
from contextlib import ExitStack, closing

import pytest

from tests.kernel.host.echo import Pinging
from tests.kernel.host.hosts import Container, Host, Hosts
from tests.kernel.host.tools import in_parallel, ip, until


def test_a_third_container_sees_no_unicast_of_others(hosts: Hosts, two: tuple[Host, Host]) -> None:
    """Neither at the start nor long after the bridge's ageing time do frames between two reach a third."""
    here, there = two
    with here.overlay() as ns:
        ip(ns, "link set br0 type bridge ageing_time 10")  # hundredths of a second
    witness, a, b, far = here.run(), here.run(), here.run(), there.run()
    until(lambda: here.knows(far) and there.knows(a, b, witness))
    with closing(witness.sniff()) as sniffer:
        assert None not in a.ping(b.address, count=2) + a.ping(far.address, count=2) + far.ping(b.address, count=2)
        assert sniffer.foreign() == []
        started = time.monotonic()
        with a.pinging(b) as near, far.pinging(a) as distant:
            until(lambda: time.monotonic() - started > 0.4 and near.flows(20) and distant.flows(20))
        assert near.lost() == distant.lost() == []
        assert sniffer.foreign() == []
    assert hosts.leases()[witness.address] == 1


def _recovered(pinging: Pinging, at: float) -> float:
    """Seconds from `at` until the answers flow again, each and every one."""
    until(pinging.flows, 3.0, "an answer after the move")
    answered = pinging.answered_after(at)
    assert answered is not None
    return answered - at


@pytest.mark.parametrize("same_mac", [False, True], ids=["new mac", "same mac"])
def test_an_address_that_moves_is_reached_within_a_second(hosts: Hosts, same_mac: bool) -> None:
    """A third host, the old host and the new host, pinging every 10 ms, reach it at once where it went."""
    old, new, third = in_parallel(*[hosts.host] * 3)
    for host in (old, new, third):
        host.create_network(overlay="demo", subnet="10.5.0.0/24")
    mover = old.run("10.5.0.77", "02:42:aa:00:00:01")
    askers = {host: host.run() for host in (old, new, third)}
    until(lambda: new.knows(mover, askers[old]) and third.knows(mover) and old.knows(askers[new], askers[third]))
    with ExitStack() as stack:
        running = {host: stack.enter_context(asker.pinging(mover)) for host, asker in askers.items()}
        until(lambda: all(pinging.flows() for pinging in running.values()))
        old.remove(mover)
        moved = new.run("10.5.0.77", "02:42:aa:00:00:01" if same_mac else "02:42:aa:00:00:02")
        at = time.time()
        took = {host.name: _recovered(pinging, at) for host, pinging in running.items()}
        assert max(took.values()) < 1.0, took
        until(lambda: all(pinging.flows(30) for pinging in running.values()))
    assert moved.ping(askers[third].address) != [None]
    for host in (old, third):
        assert host.knows(moved)
    assert not set(moved.rows) & new.rows()


def test_an_address_that_comes_back_is_reached_again(hosts: Hosts) -> None:
    """There and back again with a new MAC each time, seen from a host that only watches."""
    old, new, third = in_parallel(*[hosts.host] * 3)
    for host in (old, new, third):
        host.create_network(overlay="demo", subnet="10.5.0.0/24")
    asker = third.run()
    mover = old.run("10.5.0.77", "02:42:aa:00:00:01")
    until(lambda: third.knows(mover))
    with asker.pinging(mover) as pinging:
        for turn, host in enumerate((new, old, new), start=2):
            until(pinging.flows)
            mover.host.remove(mover)
            mover = host.run("10.5.0.77", f"02:42:aa:00:00:0{turn}")
            assert _recovered(pinging, time.time()) < 1.0


def test_a_local_successor_with_another_mac_is_reached(two: tuple[Host, Host]) -> None:
    """A container that is replaced on its own host, new MAC and same address, is reached from both hosts."""
    here, there = two
    first, near, far = here.run("10.5.0.77", "02:42:aa:00:00:01"), here.run(), there.run()
    until(lambda: there.knows(first) and here.knows(far))
    with near.pinging(first) as one, far.pinging(first) as other:
        until(lambda: one.flows() and other.flows())
        here.remove(first)
        second: Container = here.run("10.5.0.77", "02:42:aa:00:00:02")
        at = time.time()
        assert _recovered(one, at) < 1.0
        assert _recovered(other, at) < 1.0
    assert there.knows(second)
