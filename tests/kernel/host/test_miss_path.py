"""What happens when somebody talks to an address whose rows are not there."""

from __future__ import annotations

import time
from collections.abc import Callable

from myoverlay.kernel.neigh import Tables
from myoverlay.values import Fdb, Neigh
from tests.kernel.host.hosts import Container, Host, Hosts
from tests.kernel.host.tools import in_parallel, run_in, until

#: A repaired contact may take so long, seconds: one turn through the daemon and the answer of the asked.
SOON = 0.02


def _erase(host: Host, *rows: Neigh | Fdb) -> None:
    """Take rows away behind the daemon's back."""
    with host.tables() as tables:
        assert tables.unset(rows) == []


def _write(host: Host, *rows: Neigh | Fdb) -> None:
    with host.tables() as tables:
        assert tables.set(rows) == []


def _stop_watching(host: Host) -> None:
    """From here on the host hears of nothing: its watch has ended."""
    watch = host.daemon.discovery.watch_of(host.local())
    assert watch is not None
    watch.cancel()
    host.view.interrupt()
    watch.join(2.0)


def test_rows_that_are_gone_are_written_at_the_next_contact(two: tuple[Host, Host]) -> None:
    """Both rows deleted by hand: the asker's first five packets are all delivered, within 20 ms, counted `late`."""
    here, there = two
    asker, peer = here.run(), there.run()
    until(lambda: here.knows(peer) and there.knows(asker))
    _erase(here, *peer.rows)
    trips = asker.ping(peer.address, count=5, gap=0.0)
    assert None not in trips
    assert max(filter(None, trips)) < SOON
    assert here.knows(peer)
    until(lambda: here.count("misses", "late") >= 1)
    assert here.view.asked("get_many", f"/arp/{peer.address}") == 0


def test_a_forwarding_row_that_is_gone_is_written_under_a_warm_cache(two: tuple[Host, Host]) -> None:
    """The asker knows the MAC, the tunnel does not know where: the packet that asks is lost, the next arrives."""
    here, there = two
    asker, peer = here.run(), there.run()
    until(lambda: here.knows(peer) and there.knows(asker))
    assert None not in asker.ping(peer.address)
    _erase(here, peer.rows[1])
    trips = asker.ping(peer.address, count=5, gap=0.05, timeout=0.2)
    assert trips[1:].count(None) == 0
    until(lambda: here.count("misses", "late") >= 1)


def test_a_forwarding_row_that_is_wrong_is_put_right_by_the_comparison(two: tuple[Host, Host]) -> None:
    """No miss tells of a row that leads astray: the reconciler's round does."""
    here, there = two
    asker, peer = here.run(), there.run()
    until(lambda: here.knows(peer) and there.knows(asker))
    _write(here, Fdb(mac=peer.mac, vtep=here.vtep))
    assert asker.ping(peer.address, timeout=0.1) == [None]
    here.daemon.reconciler.compare()
    assert asker.ping(peer.address) != [None]


def test_a_record_nobody_was_told_of_is_found_in_the_store(two: tuple[Host, Host]) -> None:
    """The watch is stopped: the first ping is held until the look-up is done, and answered; none is lost."""
    here, there = two
    asker = here.run()
    _stop_watching(here)
    peer = there.run()
    until(lambda: there.knows(asker))
    assert not here.knows(peer)
    trips = asker.ping(peer.address, count=3, gap=0.0)
    assert None not in trips
    assert max(filter(None, trips)) < 0.1
    until(lambda: here.count("misses", "asked") == here.count("misses", "found") == 1)
    assert here.knows(peer)


def test_an_outsiders_record_is_found_in_the_store(hosts: Hosts) -> None:
    """The same for a key that nobody of ours owns."""
    host, hand = hosts.host(), hosts.by_hand("demo-1")
    host.create_network("192.168.0.0/24", gateway="192.168.0.1", overlay="demo", records="demo-1", vni=42)
    ours, outsider = host.run(), hand.run("192.168.0.203")
    host.view.interrupt()
    hand.put(outsider)
    hand.learn()
    assert None not in ours.ping(outsider.address)
    until(lambda: host.count("misses", "found") == 1)


def test_above_the_eager_limit_rows_are_pulled(hosts: Hosts) -> None:
    """Nothing is programmed beforehand; what is talked to is, counted `pull`, and stays."""
    here, there = hosts.host(eager_limit=0), hosts.host()
    for host in (here, there):
        host.create_network()
    asker, peer, unused = here.run(), there.run(), there.run()
    until(lambda: there.knows(asker) and len(here.local().view.peers) == 2)
    assert here.rows() == set()
    trips = asker.ping(peer.address, count=3, gap=0.0)
    assert None not in trips
    assert max(filter(None, trips)) < SOON
    assert here.rows() == set(peer.rows)
    until(lambda: here.count("misses", "pull") >= 1)
    assert here.count("misses", "late") == 0
    here.daemon.reconciler.compare()
    assert here.rows() == set(peer.rows)
    assert unused.ping(asker.address) != [None]


def test_a_pulled_row_follows_its_container(hosts: Hosts) -> None:
    """Above the eager limit too a moved container is reached, and rows of one that is gone go."""
    here, old, new = in_parallel(lambda: hosts.host(eager_limit=0), hosts.host, hosts.host)
    for host in (here, old, new):
        host.create_network()
    asker, mover = here.run(), old.run("10.5.0.77", "02:42:aa:00:00:01")
    until(lambda: mover.address in here.local().view.peers and old.knows(asker))
    with asker.pinging(mover) as pinging:
        until(pinging.flows)
        old.remove(mover)
        moved = new.run("10.5.0.77", "02:42:aa:00:00:02")
        at = time.time()
        until(pinging.flows, 2.0)
        answered = pinging.answered_after(at)
        assert answered is not None
        assert answered - at < 1.0
    assert here.rows() == set(moved.rows)
    new.remove(moved)
    until(lambda: here.rows() == set())


def test_an_unknown_address_is_asked_for_once(two: tuple[Host, Host]) -> None:
    """Many containers that talk to nobody cost the store one question in two seconds, and get no answer."""
    here, _ = two
    askers = in_parallel(*[here.run] * 8)
    assert here.view.asked("get_many", "/records/arp/10.5.0.200") == 0
    trips = in_parallel(*[lambda c=c: c.ping("10.5.0.200", count=3, timeout=0.6) for c in askers])
    assert trips == [[None] * 3] * 8
    assert here.view.asked("get_many", "/records/arp/10.5.0.200") == 1
    assert here.count("misses", "asked") == 1
    assert here.count("misses", "unknown") >= 1
    assert here.count("misses", "limited") >= 7
    assert here.rows() == set()


def test_many_misses_of_one_address_are_one_question(two: tuple[Host, Host]) -> None:
    """Eight containers ask at once for what only the store knows: one look-up, and all are answered."""
    here, there = two
    askers = in_parallel(*[here.run] * 8)
    _stop_watching(here)
    peer = there.run()
    until(lambda: there.knows(*askers))
    trips = in_parallel(*[lambda c=c: c.ping(peer.address) for c in askers])
    assert [None] not in trips
    assert here.view.asked("get_many", f"/records/arp/{peer.address}") == 1


def test_a_local_address_is_noise(two: tuple[Host, Host]) -> None:
    """The bridge floods a local ARP to the tunnel too: counted `local`, never answered, never asked in the store."""
    here, _ = two
    a, b = here.run(), here.run()
    before = here.count("announcements", "miss")
    assert None not in a.ping(b.address, count=2)
    assert None not in a.ping("10.5.0.1")
    until(lambda: here.count("misses", "local") >= 2)
    assert here.count("announcements", "miss") == before
    assert here.count("misses", "asked") == here.count("misses", "late") == 0


def test_with_the_store_away_misses_of_what_is_known_are_answered(two: tuple[Host, Host]) -> None:
    """Memory serves while the store cannot be asked; what only the store knows stays unanswered."""
    here, there = two
    asker, peer = here.run(), there.run()
    until(lambda: here.knows(peer) and there.knows(asker))
    here.view.away = True
    _erase(here, *peer.rows)
    assert asker.ping(peer.address) != [None]
    assert asker.ping("10.5.0.200", timeout=0.1) == [None]
    here.view.away = False
    assert here.count("bugs", "lookup") == 0


def test_a_storm_of_misses_is_outlived(two: tuple[Host, Host]) -> None:
    """Thousands of frames for nobody at once: the store is asked at most as often as allowed, good traffic flows."""
    here, there = two
    asker, peer = here.run(), there.run()
    until(lambda: here.knows(peer) and there.knows(asker))
    assert asker.ping(peer.address) != [None]
    storm: list[Callable[[], None]] = [lambda n=n: _flood(asker, n) for n in range(2)]
    started = time.monotonic()
    with asker.pinging(peer) as pinging:
        in_parallel(*storm)
        until(pinging.flows)
    allowed = 100 + 100 * (time.monotonic() - started)
    assert pinging.lost() == []
    assert here.view.asked("get", "/records/fib/") <= allowed
    assert here.count("bugs", "misses") == here.count("bugs", "lookup") == 0


def _flood(container: Container, number: int) -> None:
    """2,000 unicast frames for MACs that nobody has."""
    import socket

    source = container.mac.packed
    with container.ns.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sock:
        sock.bind(("eth0", 0))
        for n in range(2000):
            sock.send(bytes((2, 0x66, 0, number, n >> 8, n & 255)) + source + b"\x88\xb5" + bytes(46))


def test_tables_say_what_ip_says(two: tuple[Host, Host]) -> None:
    """The rows, as people look at them: `ip neigh` and `bridge fdb` show them permanent, on vxlan1."""
    here, there = two
    peer = there.run()
    here.run()
    until(lambda: here.knows(peer))
    with here.overlay() as ns:
        assert f"{peer.address} dev vxlan1 lladdr {peer.mac} PERMANENT" in run_in(ns, "ip", "neigh", "show")
        shown = run_in(ns, "bridge", "fdb", "show", "dev", "vxlan1")
    assert f"{peer.mac} dst {there.vtep} " in shown
    with here.tables() as tables:
        assert isinstance(tables, Tables)
