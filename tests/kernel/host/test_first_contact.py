"""Two containers that never met: from the first packet on."""

from __future__ import annotations

import hashlib
import secrets
import socket
import threading
from collections import Counter
from itertools import pairwise

import pytest

from tests.kernel.host.hosts import Container, Host, Hosts
from tests.kernel.host.tools import in_parallel, run_in, until

IP_MTU_DISCOVER, IP_PMTUDISC_DO = 10, 2


def test_the_first_ping_between_two_hosts_is_answered_at_once(two: tuple[Host, Host]) -> None:
    """Rows are there before anybody asks, so first contact takes under 5 ms in both directions and loses nothing."""
    first, second = two
    a, b = first.run(), second.run()
    until(lambda: first.knows(b) and second.knows(a), 1.0)
    there, back = a.ping(b.address), b.ping(a.address)
    assert None not in there + back
    assert max(filter(None, there + back)) < 0.005
    assert first.count("misses", "late") == second.count("misses", "late") == 0


def test_each_direction_alone_is_a_first_contact(two: tuple[Host, Host]) -> None:
    """The second host may speak first; several packets sent at once all arrive."""
    first, second = two
    a, b, c = first.run(), second.run(), first.run()
    until(lambda: first.knows(b) and second.knows(a, c), 1.0)
    assert None not in b.ping(a.address, count=5, gap=0.0)
    assert None not in c.ping(b.address, count=5, gap=0.0)


def test_rows_are_programmed_soon_after_join(two: tuple[Host, Host]) -> None:
    """What Join told the store is in the other host's kernel before a container's first process could start."""
    first, second = two
    a = first.run()
    until(lambda: second.local().listed.is_set() or True)
    second.run()
    until(lambda: second.knows(a), 0.5)
    b = first.run()
    until(lambda: second.knows(b), 0.3)


def _transfer(sender: Container, receiver: Container, size: int) -> tuple[str, str, int]:
    """Send so many random bytes by TCP; the digests at both ends, and the largest segment's payload."""
    data = secrets.token_bytes(size)
    got = hashlib.sha256()
    with receiver.socket(socket.SOCK_STREAM, 5001) as listener:
        listener.listen()

        def receive() -> None:
            connection, _ = listener.accept()
            with connection:
                while chunk := connection.recv(1 << 16):
                    got.update(chunk)

        thread = threading.Thread(target=receive)
        thread.start()
        with sender.socket(socket.SOCK_STREAM) as connection:
            connection.connect((receiver.address, 5001))
            connection.sendall(data)
            segment = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG)
        thread.join(20)
    return hashlib.sha256(data).hexdigest(), got.hexdigest(), segment


def test_tcp_carries_full_segments_both_ways(two: tuple[Host, Host]) -> None:
    """Four megabytes arrive as they were sent, in segments of the whole MTU of 1450."""
    a, b = two[0].run(), two[1].run()
    until(lambda: two[0].knows(b) and two[1].knows(a))
    for sender, receiver in ((a, b), (b, a)):
        sent, got, segment = _transfer(sender, receiver, 4 << 20)
        assert sent == got
        assert segment == 1450 - 40 - 12


def test_udp_of_the_full_mtu_arrives_unfragmented(two: tuple[Host, Host]) -> None:
    """1,400 and 1,422 bytes with DF set pass; one byte more is refused by the sender's own interface."""
    a, b = two[0].run(), two[1].run()
    until(lambda: two[0].knows(b) and two[1].knows(a))
    for sender, receiver in ((a, b), (b, a)):
        with receiver.socket(socket.SOCK_DGRAM, 5002) as inbox, sender.socket(socket.SOCK_DGRAM) as outbox:
            outbox.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DO)
            for size in (1400, 1422):
                data = secrets.token_bytes(size)
                outbox.sendto(data, (receiver.address, 5002))
                assert inbox.recv(2048) == data
            with pytest.raises(OSError, match="Message too long"):
                outbox.sendto(bytes(1423), (receiver.address, 5002))


def test_forty_containers_started_at_once_reach_each_other(hosts: Hosts, two: tuple[Host, Host]) -> None:
    """Parallel starts on both hosts give distinct addresses and a full mesh, and removing them all leaves nothing."""
    containers = in_parallel(*[host.run for host in two for _ in range(20)])
    counts = Counter(container.address for container in containers)
    assert len(counts) == 40
    assert set(hosts.leases()) == set(counts)
    by_host = {host: [c for c in containers if c.host is host] for host in two}
    until(lambda: two[0].knows(*by_host[two[1]]) and two[1].knows(*by_host[two[0]]))
    for place, container in enumerate(containers):
        assert not container.reaches(*[other for other in containers if other is not container])
        if place % 8 == 7:
            # All namespaces of a kernel share one ARP table of 1,024 entries (gc_thresh3); a mesh of 40 fills 1,560.
            in_parallel(*[lambda c=c: run_in(c.ns, "ip", "neigh", "flush", "dev", "eth0") for c in containers])
    in_parallel(*[lambda c=c: c.host.remove(c) for c in containers])
    for host in two:
        until(lambda host=host: not host.rows() and not host.ports())
        assert not host.daemon.journal.endpoints.all()
    until(lambda: not hosts.keys("/records/") and not hosts.leases())
    assert all(b'"records"' not in entry.value for entry in hosts.list("myoverlay/hosts/"))
    assert len(hosts.leases("reserve")) == 14
    assert two[0].count("bugs", "watch") == two[1].count("bugs", "watch") == 0


def test_addresses_go_round_among_containers(two: tuple[Host, Host]) -> None:
    """Containers that come and go one after the other leave neither rows nor failures to write them."""
    first, second = two
    anchor = first.run()
    for one, other in pairwise([second.run() for _ in range(4)]):
        second.remove(one)
        until(lambda one=one: not set(one.rows) & first.rows())
        assert anchor.ping(other.address) != [None]
    assert first.count("row_failures", "fdb") == first.count("row_failures", "neigh") == 0
