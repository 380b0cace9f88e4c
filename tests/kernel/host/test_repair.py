"""Rows that somebody changed by hand are put right within one round."""

from __future__ import annotations

from myoverlay.host.reconcile import Reconciler
from myoverlay.values import Address, Fdb, Mac, Neigh
from tests.kernel.host.hosts import Host
from tests.kernel.host.tools import run_in, until


def test_missing_altered_and_surplus_rows_are_put_right(two: tuple[Host, Host]) -> None:
    """Whatever was done to neighbours and FDB, one comparison restores it, counted by reason."""
    here, there = two
    here.run()
    gone, bent, kept = there.run(), there.run(), there.run()
    until(lambda: here.knows(gone, bent, kept))
    right = here.rows()
    with here.tables() as tables:
        tables.unset(gone.rows)
        tables.set([Neigh(address=bent.address, mac=Mac("02:42:66:66:66:66"))])
        tables.set([Fdb(mac=bent.mac, vtep=Address("172.30.0.99"))])
        tables.set([Neigh(address=Address("10.5.0.250"), mac=Mac("02:42:66:66:66:67"))])
        tables.set([Fdb(mac=Mac("02:42:66:66:66:67"), vtep=Address("172.30.0.99"))])
    here.daemon.reconciler.compare()
    assert here.rows() == right
    assert here.count("repairs", "missing row") == 4
    assert here.count("repairs", "surplus row") == 2
    here.daemon.reconciler.compare()
    assert here.count("repairs", "missing row") == 4


def test_rows_made_by_hand_in_another_state_are_written_over(two: tuple[Host, Host]) -> None:
    """A reachable neighbour and a dynamic FDB row in place of ours count as missing."""
    here, there = two
    here.run()
    peer = there.run()
    until(lambda: here.knows(peer))
    with here.overlay() as ns:
        run_in(ns, "ip", "neigh", "replace", peer.address, "lladdr", peer.mac, "dev", "vxlan1", "nud", "stale")
    assert not here.knows(peer)
    here.daemon.reconciler.compare()
    assert here.knows(peer)


def test_the_loop_does_it_by_itself(two: tuple[Host, Host]) -> None:
    """Nobody calls `compare`: a loop whose time has come puts the rows back."""
    here, there = two
    here.run()
    peer = there.run()
    until(lambda: here.knows(peer))
    with here.tables() as tables:
        tables.unset(peer.rows)
    daemon = here.daemon
    loop = Reconciler(daemon.overlays, daemon.underlay, daemon.leftovers, daemon.tally)
    loop.start()
    loop.wake()
    until(lambda: here.knows(peer))
    loop.stop(3.0)


def test_an_incomplete_picture_removes_nothing(two: tuple[Host, Host]) -> None:
    """Before the peers were listed once, a comparison takes nothing away."""
    here, there = two
    here.run()
    peer = there.run()
    until(lambda: here.knows(peer))
    here.stop()
    here.view.away = True
    here.start()
    here.daemon.reconciler.compare()
    assert here.knows(peer)
