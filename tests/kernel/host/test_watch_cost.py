"""What a change among many hosts costs one that watches."""

from __future__ import annotations

from myoverlay.plan.rows import newest
from myoverlay.store.records import Member, Published, Records
from myoverlay.store.rings import Ring
from myoverlay.store.typed import Held
from myoverlay.values import Address, HostId, HostList, Mac, OverlayName, Record
from tests.kernel.host.hosts import Host, Hosts
from tests.kernel.host.tools import in_parallel, until

OVERLAY = OverlayName("10.5.0.0-16")
HOSTS = 200


class Simulated:
    """A host that only writes its list, on the shared store."""

    def __init__(self, hosts: Hosts, number: int) -> None:
        self.records = Records(hosts.store, "myoverlay", HostId.random())
        self.number, self.vtep = number, Address(f"172.30.{1 + number // 250}.{1 + number % 250}")
        self.listed: Held[HostList] | None = None

    def enter(self) -> None:
        held = self.records.definition(OVERLAY)
        assert held is not None
        assert self.records.join(held, Member(name=f"sim{self.number}", vtep=self.vtep))

    def publish(self, count: int) -> None:
        """A list of so many endpoints, with its place in the ring."""
        definition = self.records.definition(OVERLAY)
        assert definition is not None
        addresses = [Address(f"10.5.{self.number + 10}.{n}") for n in range(1, count + 1)]
        listed = tuple(Record(address=a, mac=Mac.of(a), generation=1) for a in addresses)
        new = HostList(host=self.records.me, overlay=OVERLAY, vtep=self.vtep, records=listed)
        while True:
            ring: Held[Ring] = self.records.ring(OVERLAY)
            done = self.records.publish(definition.value, new, self.listed, ring, (), ())
            if isinstance(done, Published):
                self.listed = done.listed
                return


def _watching(hosts: Hosts) -> tuple[Host, list[Simulated]]:
    """A real host among many simulated ones, with all their lists in its kernel."""
    host = hosts.host()
    host.create_network("10.5.0.0/16", mtu=1400)
    simulated = [Simulated(hosts, number) for number in range(HOSTS)]
    for one in simulated:
        one.enter()
        one.publish(2)
    host.run()
    until(lambda: len(host.local().view.peers) == 2 * HOSTS)
    return host, simulated


def _lists_read(host: Host, since: int) -> list[str]:
    return [key for name, keys in host.view.calls[since:] if name == "get_many" for key in keys if "/hosts/" in key]


def test_only_the_lists_of_changed_hosts_are_read(hosts: Hosts) -> None:
    """Ten of two hundred hosts change: ten lists are read, nothing is listed, and all of it is in the kernel."""
    host, simulated = _watching(hosts)
    assert len(host.rows()) == 4 * HOSTS
    me, since = host.daemon.records.me, len(host.view.calls)
    listings = host.count("watch_rounds", "listing")
    for one in simulated[:10]:
        one.publish(3)
    until(lambda: len(host.local().view.peers) == 2 * HOSTS + 10)
    read = [key for key in _lists_read(host, since) if me not in key]
    assert {key.split("/")[2] for key in read} == {one.records.me for one in simulated[:10]}
    assert len(read) <= 10 + host.count("watch_rounds", "change")
    assert host.count("watch_rounds", "listing") == listings
    assert not [keys for name, keys in host.view.calls[since:] if name == "keys"]
    until(lambda: len(host.rows()) == 4 * HOSTS + 20)


def test_more_changes_than_the_ring_remembers_are_not_missed(hosts: Hosts) -> None:
    """While the watch could not read, every host changed several times: it lists everything, once."""
    host, simulated = _watching(hosts)
    host.view.away = True
    for count in (3, 4):
        in_parallel(*[lambda part=part, count=count: [one.publish(count) for one in part]
                      for part in (simulated[:100], simulated[100:])])  # fmt: skip
    host.view.away = False
    until(lambda: len(host.local().view.peers) == 4 * HOSTS, 8.0)
    view = host.local().view
    assert view.lists is not None
    assert newest(view.peers.values()) == view.peers
    until(lambda: len(host.rows()) == 8 * HOSTS)
