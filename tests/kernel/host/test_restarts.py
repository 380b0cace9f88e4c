"""The daemon ends and begins again, with or without the store, with or without its containers."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from myoverlay.host import leases
from myoverlay.kernel import netns
from myoverlay.kernel.rtnetlink import HEADER
from tests.kernel.host.hosts import Host, Hosts, Refusal
from tests.kernel.host.tools import in_parallel, ip, link_names, until

RTM_NEWNEIGH, RTM_DELNEIGH, RTM_NEWLINK, RTM_DELLINK = 28, 29, 16, 17
_GROUPS = 1 | 4  # links, neighbours


class Changes:
    """What the kernel tells of links and of rows of vxlan1 in a namespace, apart from questions."""

    def __init__(self, sock: socket.socket, ifindex: int) -> None:
        self._socket, self._ifindex = sock, ifindex

    def seen(self) -> list[int]:
        kinds = []
        while True:
            try:
                raw = self._socket.recv(1 << 16)
            except BlockingIOError:
                return kinds
            _, kind, _, _, _ = HEADER.unpack_from(raw)
            (index,) = struct.unpack_from("=i", raw, HEADER.size + 4)
            if kind in (RTM_NEWLINK, RTM_DELLINK) or (kind in (RTM_NEWNEIGH, RTM_DELNEIGH) and index == self._ifindex):
                kinds.append(kind)


@contextmanager
def _changes(host: Host) -> Iterator[Changes]:
    with (
        host.overlay() as ns,
        ns.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as sock,
    ):
        sock.bind((0, _GROUPS))
        sock.setblocking(False)
        yield Changes(sock, ns.call(lambda: socket.if_nametoindex("vxlan1")))


def test_traffic_flows_through_a_restart_and_nothing_is_rewritten(two: tuple[Host, Host]) -> None:
    """No ping is lost, no link and no row is touched, and no other host hears of it."""
    here, there = two
    a, b = here.run(), there.run()
    until(lambda: here.knows(b) and there.knows(a))
    before, rounds = here.rows(), there.count("watch_rounds", "change")
    ours = here.hosts.store.get(f"myoverlay/hosts/{here.daemon.records.me}/overlays/10.5.0.0-24")
    with _changes(here) as changes, a.pinging(b) as out, b.pinging(a) as back:
        until(lambda: out.flows() and back.flows())
        here.restart()
        until(lambda: here.local().listed.is_set() and here.daemon.liveness.announced.is_set())
        here.daemon.reconciler.compare()
        until(lambda: out.flows(30) and back.flows(30))
        assert changes.seen() == []
    assert out.lost() == back.lost() == []
    assert here.rows() == before
    assert here.count("repairs", "missing row") == here.count("repairs", "surplus row") == 0
    assert here.count("session", "renewed") == 1
    assert there.count("watch_rounds", "change") == rounds
    assert ours == here.hosts.store.get(f"myoverlay/hosts/{here.daemon.records.me}/overlays/10.5.0.0-24")


def test_after_a_restart_containers_start_and_stop(two: tuple[Host, Host]) -> None:
    """New ones come up and meet the old, old ones can be removed."""
    here, there = two
    old, far = here.run(), there.run()
    here.restart()
    new = here.run()
    assert new.address != old.address
    until(lambda: there.knows(old, new) and here.knows(far))
    assert not new.reaches(old, far)
    here.remove(old)
    until(lambda: not set(old.rows) & there.rows() and len(here.ports()) == 1)
    here.remove(new)
    here.delete_network()
    assert here.pins() == []


def test_what_changed_meanwhile_is_caught_up(hosts: Hosts) -> None:
    """Containers that came, went and moved while the daemon was down: rows follow, warm caches are told."""
    here, there, third = in_parallel(*[hosts.host] * 3)
    for host in (here, there, third):
        host.create_network()
    asker, mover, gone = here.run(), there.run("10.5.0.77", "02:42:aa:00:00:01"), there.run()
    until(lambda: here.knows(mover, gone) and there.knows(asker))
    assert asker.ping(mover.address) != [None]
    here.stop()
    there.remove(mover)
    there.remove(gone)
    moved, new = third.run("10.5.0.77", "02:42:aa:00:00:02"), third.run()
    here.start()
    until(lambda: here.knows(moved, new))
    until(lambda: not set(gone.rows) & here.rows() and not set(mover.rows) & here.rows())
    with asker.pinging(moved) as pinging:
        until(pinging.flows, 1.0)


def test_an_outsider_that_moved_meanwhile_is_caught_up(hosts: Hosts) -> None:
    """The same for one that only has keys."""
    host, hand = hosts.host(), hosts.by_hand("demo-1")
    host.create_network("192.168.0.0/24", gateway="192.168.0.1", overlay="demo", records="demo-1", vni=42)
    outsider, ours = hand.run("192.168.0.203", "02:42:aa:00:00:01"), host.run()
    hand.put(outsider)
    until(lambda: host.knows(outsider))
    hand.learn()
    assert ours.ping(outsider.address) != [None]
    host.stop()
    outsider.die()
    again = hand.run("192.168.0.203", "02:42:aa:00:00:02")
    hand.put(again)
    host.start()
    until(lambda: host.knows(again))
    hand.learn()
    with ours.pinging(again) as pinging:
        until(pinging.flows, 1.0)


def test_containers_that_died_meanwhile_are_buried(
    hosts: Hosts, two: tuple[Host, Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their veth went with their namespace: endpoint and record go, the lease too in the end, the others stay."""
    here, there = two
    monkeypatch.setattr(leases, "OWED", 3.0)
    dead, living, far = here.run(), here.run(), there.run()
    until(lambda: there.knows(dead, living))
    here.stop()
    dead.die()
    until(lambda: _ports_without_daemon(here, 1))
    here.start()
    until(lambda: not set(dead.rows) & there.rows())
    assert dead.address in hosts.leases(), "Docker may be about to give it back"
    until(lambda: dead.address not in hosts.leases(), 12.0)
    assert living.address in hosts.leases()
    assert far.ping(living.address) != [None]
    assert not hosts.keys(f"/arp/{dead.address}")
    here.forget(dead)
    again = here.run(dead.address)
    until(lambda: there.knows(again))


def _ports_without_daemon(host: Host, count: int) -> bool:
    with netns.open_path(host.run_folder / "netns" / "10.5.0.0-24") as ns:
        return len(link_names(ns) - {"lo", "br0", "vxlan1"}) == count


def test_a_restart_needs_no_store(hosts: Hosts, two: tuple[Host, Host]) -> None:
    """With the store away the journal is enough: traffic flows, containers start from the reserve and are removed."""
    here, there = two
    a, b, doomed = here.run(), there.run(), here.run()
    until(lambda: here.knows(b) and there.knows(a, doomed) and len(hosts.leases("reserve")) == 14)
    with a.pinging(b) as pinging:
        here.stop()
        here.view.away = True
        here.start()
        new = here.run()
        assert new.address not in (a.address, b.address)
        assert new.ping(a.address) != [None]
        here.remove(doomed)
        until(lambda: len(here.ports()) == 2)
        until(pinging.flows)
    assert pinging.lost() == []
    assert here.rows() == set(b.rows)
    here.view.away = False
    until(lambda: there.knows(new) and not set(doomed.rows) & there.rows(), 12.0)
    until(lambda: doomed.address not in hosts.leases(), 12.0)
    until(lambda: hosts.leases()[new.address] == 1, 12.0)
    assert None not in new.ping(b.address) + b.ping(new.address)


def test_many_changes_without_the_store_are_told_in_the_end(two: tuple[Host, Host]) -> None:
    """More removals than fit into one commit: when the store is back the others' rows go, and the index is clean."""
    here, there = two
    many = in_parallel(*[here.run] * 18)
    there.run()
    until(lambda: there.knows(*many))
    here.view.away = True
    in_parallel(*[lambda c=c: here.remove(c) for c in many])
    here.view.away = False
    until(lambda: there.rows() == set(), 12.0)
    until(lambda: len(here.hosts.keys("/records/")) == 2, 12.0)


def test_networks_are_deleted_with_the_store_away(hosts: Hosts, two: tuple[Host, Host]) -> None:
    """Deletes succeed and are told later; the overlay lives on with the other host and goes with it."""
    here, there = two
    here.remove(here.run())
    here.view.away = True
    here.delete_network()
    assert here.pins() == []
    here.view.away = False
    until(lambda: len((hosts.definition() or {"holders": ()})["holders"]) == 1, 12.0)
    there.delete_network()
    until(lambda: not hosts.keys("myoverlay/", without=["/alive/"]), 12.0)


def test_with_the_store_away_and_no_reserve_the_refusal_is_clear(hosts: Hosts, two: tuple[Host, Host]) -> None:
    """A new overlay, and an address beyond the reserve, need the store: said so, at once, and nothing is left."""
    here, _ = two
    until(lambda: len(hosts.leases("reserve")) == 14)
    here.view.away = True
    with pytest.raises(Refusal) as said:
        here.create_network("10.6.0.0/24")
    assert said.value.status == 503
    network = here.networks[0]
    assert len({here.request_address(network) for _ in range(7)}) == 7
    with pytest.raises(Refusal) as said:
        here.request_address(network)
    assert said.value.status == 503
    here.view.away = False
    assert len(here.pins()) == 1


def test_after_a_reboot_everything_is_rebuilt(hosts: Hosts, two: tuple[Host, Host]) -> None:
    """The overlay stands again before the first call; the containers' endpoints are gone, new ones join and meet."""
    here, there = two
    before, b = here.run(), there.run()
    until(lambda: there.knows(before))
    here.reboot()
    assert [pin.name for pin in here.pins()] == ["10.5.0.0-24"]
    until(lambda: not set(before.rows) & there.rows())
    until(lambda: before.address not in hosts.leases())
    here.call("NetworkDriver.DeleteEndpoint", NetworkID=here.networks[0].id, EndpointID=before.endpoint)
    again = here.run(before.address)
    assert here.knows(b)
    until(lambda: there.knows(again))
    assert None not in again.ping(b.address) + b.ping(again.address)


def test_a_reboot_needs_no_store(two: tuple[Host, Host]) -> None:
    """The host comes up before the store does: a container starts from the reserve, and is known when it is back."""
    here, there = two
    here.run()
    b = there.run()
    until(lambda: len(here.hosts.leases("reserve")) == 14)
    here.view.away = True
    here.reboot()
    first = here.run()
    assert first.ping(b.address, timeout=0.1) == [None]
    here.view.away = False
    until(lambda: here.knows(b) and there.knows(first), 12.0)
    # Whoever asked in vain before asks again after a second (retrans_time_ms).
    assert None not in first.ping(b.address, timeout=2.5) + b.ping(first.address)


def test_after_a_reboot_a_taken_vni_does_not_stop_the_daemon(hosts: Hosts) -> None:
    """Somebody has the VNI now: the other overlay serves, this one is built as soon as it is free."""
    host = hosts.host()
    first, second = host.create_network("10.5.0.0/24", vni=777), host.create_network("10.6.0.0/24", vni=778)
    host.stop()
    host.raze()
    ip(host.ns, "link add squatter type vxlan id 777 dstport 4789")
    host.start()
    assert host.local(first).ground is None
    with pytest.raises(Refusal, match="VNI 777 on UDP port 4789 is taken on this host by device squatter"):
        host.run(network=first)
    # Which one it is is open: the reserve is being filled at the same time, from the lowest on.
    assert host.run(network=second).address in second.subnet
    ip(host.ns, "link del squatter")
    assert host.run(network=first)
