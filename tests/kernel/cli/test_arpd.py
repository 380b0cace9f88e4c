"""`myoverlay arpd` on hosts that were made by hand with the tutorial's commands, and a store that can be away."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from myoverlay.cli.resolver import Resolver, follow_once
from myoverlay.cli.resolving import Arpd
from myoverlay.cli.tunnel import Tunnel
from myoverlay.cli.within import Stop
from myoverlay.cli.within import tunnel as find_tunnel
from myoverlay.errors import Refused, Unknown
from myoverlay.kernel import netns, observe
from myoverlay.kernel.neigh import Tables
from myoverlay.kernel.netns import Namespace
from myoverlay.kernel.rtnetlink import Wire
from myoverlay.plan.rows import Rows
from myoverlay.store.index import Index
from myoverlay.store.pooled import MARK
from myoverlay.values import Address, Fdb, Neigh
from tests.kernel.cli.conftest import Hand
from tests.kernel.host.hosts import ByHand, Container, Hosts
from tests.kernel.host.tools import ip, left_behind, run_in, until
from tests.kernel.host.view import StoreView

#: The first contact with a miss on both sides: four look-ups, two ARP replies.
FIRST = 0.02


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Hosts]:
    before = left_behind()
    with Hosts(tmp_path) as laboratory:
        yield laboratory
    assert left_behind()["links"] <= before["links"]


@pytest.fixture
def two(hosts: Hosts) -> tuple[ByHand, ByHand]:
    return hosts.by_hand("demo-1"), hosts.by_hand("demo-1")


class Running:
    """An `arpd` of one host, in threads of this process."""

    def __init__(self, host: ByHand, on_miss_only: bool = False, mine: Rows = Rows()) -> None:  # noqa: B008
        self.view = StoreView(host.hosts.store)
        self.index = Index(self.view, "demo-1")  # type: ignore[arg-type]
        self.stop = Stop()
        self.tunnel = open_tunnel(host)
        self.resolver = Resolver(self.tunnel, mine)
        self.arpd = Arpd(self.tunnel, self.resolver, self.index, self.stop, on_miss_only)
        self.failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.arpd.run(self.view.close)
        except BaseException as error:  # noqa: BLE001 - looked at by the test
            self.failure = error

    def ended(self) -> bool:
        return not self._thread.is_alive()

    def end(self) -> None:
        self.stop.set()
        self._thread.join(10)
        assert self.ended()
        self.tunnel.close()
        self.stop.close()


def open_tunnel(host: ByHand) -> Tunnel:
    with contextlib.closing(Wire(host.overlay)) as wire:
        links = observe.links(wire)
    return host.ns.call(lambda: Tunnel(host.overlay, links["vxlan1"], links["br0"]))


@contextmanager
def running(*hosts: ByHand, on_miss_only: bool = False) -> Iterator[list[Running]]:
    arpds = [Running(host, on_miss_only) for host in hosts]
    try:
        yield arpds
    finally:
        for arpd in arpds:
            arpd.end()
            assert arpd.failure is None


def rows(host: ByHand) -> set[Neigh | Fdb]:
    with contextlib.closing(Wire(host.overlay)) as wire:
        index = observe.links(wire)["vxlan1"].index
    with Tables(host.overlay, index) as tables:
        neigh, fdb = tables.dump()
    return {*neigh, *fdb}


def talking(two: tuple[ByHand, ByHand], *, put: bool = True) -> tuple[Container, Container]:
    """A container on each host, with its keys."""
    one, other = two[0].run("192.168.0.2"), two[1].run("192.168.0.3")
    for host, container in zip(two, (one, other), strict=True):
        if put:
            host.put(container)
    return one, other


def test_rows_are_there_before_anybody_asks(two: tuple[ByHand, ByHand]) -> None:
    """Eager: the keys' rows are written, pings flow at once, and rows of what lives here are not written."""
    one, other = talking(two)
    with running(*two):
        until(lambda: rows(two[0]) == set(other.rows) and rows(two[1]) == set(one.rows))
        trips = one.ping(other.address, count=3)
        assert None not in trips
        assert max(filter(None, trips)) < FIRST


def test_rows_follow_their_keys(hosts: Hosts, two: tuple[ByHand, ByHand]) -> None:
    """A key that moves is followed and told to the containers here, one that goes takes its rows along."""
    _, other = talking(two)
    with running(two[0]):
        until(lambda: rows(two[0]) == set(other.rows))
        hosts.put(f"demo-1/fib/{other.mac}", "172.30.0.99")
        until(lambda: rows(two[0]) == {other.rows[0], Fdb(mac=other.mac, vtep=Address("172.30.0.99"))})
        two[1].put(other)
        until(lambda: rows(two[0]) == set(other.rows))
        hosts.drop(f"demo-1/arp/{other.address}")
        until(lambda: rows(two[0]) == set())


def test_a_plugin_hosts_keys_are_followed_too(hosts: Hosts, two: tuple[ByHand, ByHand]) -> None:
    """The mark of our own hosts makes no difference to who knows nothing but the keys."""
    _, other = talking(two, put=False)
    hosts.put(f"demo-1/arp/{other.address}", other.mac, MARK)
    hosts.put(f"demo-1/fib/{other.mac}", two[1].vtep, MARK)
    with running(two[0]):
        until(lambda: rows(two[0]) == set(other.rows))


def test_on_miss_only_the_first_ping_is_answered(two: tuple[ByHand, ByHand]) -> None:
    """Nothing is written beforehand; of the first packets none is lost, ten times; the first takes 20 ms at most."""
    one, other = talking(two)
    firsts = []
    with running(*two, on_miss_only=True) as arpds:
        for _ in range(10):
            forget(two, one, other)
            for arpd in arpds:
                assert not arpd.view.asked("wait", "demo-1")
            assert rows(two[0]) == rows(two[1]) == set()
            trips = one.ping(other.address, count=3, gap=0.002)
            assert None not in trips, trips
            firsts.append(trips[0] or 9.0)
        # Not one question more than the tutorial: the address's key and its MAC's, for each miss.
        assert arpds[0].view.asked("get", f"arp/{other.address}") == 10
        assert rows(two[0]) == set(other.rows)
    print(f"first pings, on miss only: {sorted(round(first * 1000, 2) for first in firsts)} ms")
    assert sorted(firsts)[4] < FIRST


def forget(two: tuple[ByHand, ByHand], *containers: Container) -> None:
    """Neither tunnels, nor bridges, nor containers know anybody, as at the very first contact."""
    for host in two:
        run_in(host.overlay, "ip", "neigh", "flush", "nud", "all", "dev", "vxlan1")
        ip(host.overlay, "link set vxlan1 down", "link set vxlan1 up")
        for row in rows(host):
            if isinstance(row, Fdb):
                run_in(host.overlay, "bridge", "fdb", "del", row.mac, "dev", "vxlan1", "self", "dst", row.vtep)
    for container in containers:
        run_in(container.ns, "ip", "neigh", "flush", "nud", "all")


def test_misses_are_the_way_where_nothing_can_be_watched(two: tuple[ByHand, ByHand]) -> None:
    """A store that answers single questions only, as to a token with few rights: each miss is looked up."""
    one, other = talking(two)
    with running(two[1]), running(two[0]) as (arpd,):
        arpd.view.interrupt()
        forget(two[:1], one)
        run_in(two[0].overlay, "ip", "neigh", "flush", "nud", "permanent", "dev", "vxlan1")
        assert None not in one.ping(other.address, count=3)


def test_a_row_that_was_deleted_is_written_at_the_next_contact(two: tuple[ByHand, ByHand]) -> None:
    """Eager: a miss is answered from memory, without a question to the store."""
    one, other = talking(two)
    with running(*two) as (arpd, _):
        until(lambda: rows(two[0]) == set(other.rows) and rows(two[1]) == set(one.rows))
        forget(two[:1], one)
        assert None not in one.ping(other.address, count=3, gap=0.002)
        assert arpd.view.asked("get", "demo-1") == 0
        assert rows(two[0]) == set(other.rows)


def test_an_away_store_leaves_traffic_alone(two: tuple[ByHand, ByHand], caplog: pytest.LogCaptureFixture) -> None:
    """While Consul is away rows stay and one sentence is logged; when it is back what changed meanwhile is followed."""
    one, other = talking(two)
    with caplog.at_level(logging.INFO, "myoverlay"), running(*two) as (arpd, _):
        until(lambda: rows(two[0]) == set(other.rows) and rows(two[1]) == set(one.rows))
        caplog.clear()
        arpd.view.away = True
        until(lambda: "cannot be reached: rows stay as they are" in caplog.text)
        third = two[1].run("192.168.0.4")
        two[1].put(third)
        assert None in one.ping(third.address, timeout=0.1)
        assert None not in one.ping(other.address, count=3)
        assert rows(two[0]) == set(other.rows)
        assert caplog.text.count("cannot be reached") == 1
        arpd.view.away = False
        until(lambda: rows(two[0]) == {*other.rows, *third.rows}, 10)
        until(lambda: "the store answers again" in caplog.text)


def test_nobody_is_asked_for_again_and_again(two: tuple[ByHand, ByHand]) -> None:
    """An address without a record costs one question in two seconds, however many packets ask for it."""
    one, _ = talking(two)
    with running(two[0], on_miss_only=True) as (arpd,):
        one.ping("192.168.0.77", count=20, timeout=1.3, gap=0.01)
        assert arpd.view.asked("get", "arp/192.168.0.77") == 1


def test_what_is_local_gets_no_row(hosts: Hosts, two: tuple[ByHand, ByHand]) -> None:
    """A MAC that the bridge has on its own side is reached over the bridge, whatever a key says of it."""
    one, neighbour = two[0].run("192.168.0.2"), two[0].run("192.168.0.5")
    assert None not in one.ping(neighbour.address)  # so that the bridge has learned both
    two[0].put(neighbour, vtep=two[1].vtep)
    two[0].put(one)
    hosts.put("demo-1/arp/192.168.0.1", "02:42:c0:a8:00:99")
    hosts.put("demo-1/fib/02:42:c0:a8:00:99", two[1].vtep)
    far = two[1].run("192.168.0.3")
    two[1].put(far)
    with running(two[0]):
        until(lambda: rows(two[0]) == set(far.rows))
        assert None not in one.ping(neighbour.address, count=3)


def test_rows_of_others_stay(two: tuple[ByHand, ByHand]) -> None:
    """What somebody wrote by hand is neither taken away nor forgotten at the end; ours stay when it ends."""
    _, other = talking(two)
    ip(two[0].overlay, "neigh add 192.168.0.50 lladdr 02:42:00:00:00:50 dev vxlan1")
    with running(two[0]):
        until(lambda: set(other.rows) <= rows(two[0]))
    assert {str(row) for row in rows(two[0])} == {*map(str, other.rows), "192.168.0.50 lladdr 02:42:00:00:00:50"}


def test_once_and_adopt(hosts: Hosts, two: tuple[ByHand, ByHand]) -> None:
    """One listing makes the rows; the next run takes those for its own if told, and withdraws what has no record."""
    _, other = talking(two)
    index = Index(StoreView(hosts.store), "demo-1")  # type: ignore[arg-type]
    with contextlib.closing(open_tunnel(two[0])) as tunnel:
        follow_once(Resolver(tunnel, Rows()), index)
        assert rows(two[0]) == set(other.rows)
        hosts.drop(f"demo-1/arp/{other.address}", f"demo-1/fib/{other.mac}")
        follow_once(Resolver(tunnel, Rows()), index)
        assert rows(two[0]) == set(other.rows)
        follow_once(Resolver(tunnel, tunnel.rows()), index)
        assert rows(two[0]) == set()


@pytest.mark.parametrize("what", ["device", "namespace"])
def test_it_ends_with_its_tunnel(hosts: Hosts, two: tuple[ByHand, ByHand], what: str) -> None:
    """Device or namespace taken away: it ends with a sentence, so that its sockets keep nothing alive."""
    arpd = Running(two[0])
    if what == "device":
        ip(two[0].overlay, "link del vxlan1")
    else:
        assert two[0].overlay.path is not None
        netns.delete(two[0].overlay.path)
    until(arpd.ended)
    arpd.end()
    assert isinstance(arpd.failure, Unknown)
    assert "was taken away" in str(arpd.failure)


def test_devices_that_will_not_do_are_named(two: tuple[ByHand, ByHand]) -> None:
    """A device that is missing or of another kind: the sentence says which VXLAN devices there are."""
    with contextlib.closing(Wire(two[0].overlay)) as wire:
        links = observe.links(wire)
    with pytest.raises(Unknown, match="no device vxlan7 in overlay-ns; VXLAN devices there: vxlan1"):
        find_tunnel(links, "vxlan7", "overlay-ns")
    with pytest.raises(Refused, match="br0 in overlay-ns is a bridge device, no VXLAN one"):
        find_tunnel(links, "br0", "overlay-ns")


def test_refusals_are_one_sentence(hand: Hand, spaces: Callable[[str], Namespace]) -> None:
    """No Consul, no namespace, no device, no bridge, no place: each is said in a sentence, with its exit code."""
    consul = ("--consul", "127.0.0.1:1")
    assert "which Consul?" in hand("arpd", code=1)
    assert "there is no namespace overlay-ns" in hand("arpd", *consul, code=1)
    hand("overlay", "create")
    assert "there is no device vxlan7 in overlay-ns" in hand("arpd", *consul, "--device", "vxlan7", code=1)
    assert "there is no device br9" in hand("arpd", *consul, "--bridge", "br9", code=1)
    assert "no place for records" in hand("arpd", *consul, "--records", "/", code=2)
    hand("arpd", *consul, "--once", "--on-miss-only", code=2)
    assert "127.0.0.1:1" in hand("arpd", *consul, "--once", code=1)
    hand("overlay", "create", "--replace", "--no-miss")
    assert "was made without l2miss, l3miss: only rows" in hand("arpd", *consul, "--once", code=1)
    with hand.namespace() as ns:
        ip(ns, "link set vxlan1 nomaster")
    assert "no port of a bridge" in hand("arpd", *consul, code=1)
