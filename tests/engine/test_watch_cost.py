"""What one change costs a watching host, measured on a real Consul."""

from __future__ import annotations

import statistics

from myoverlay.store.consul import ConsulStore
from myoverlay.store.records import Member, Published, Records
from myoverlay.store.typed import Held
from myoverlay.values import Address, Definition, HostId, HostList, Mac, OverlayName, Record, Subnet
from tests.engine.conftest import Cluster

HOSTS, ENDPOINTS, BOUND = 200, 10, 16 * 1024
OVERLAY = OverlayName("crowd")


def _list(number: int, host: HostId, endpoints: int) -> HostList:
    records = tuple(
        Record(address=Address(f"10.77.{number}.{k + 1}"), mac=Mac(f"02:77:00:00:{number:02x}:{k:02x}"))
        for k in range(endpoints)
    )
    return HostList(host=host, overlay=OVERLAY, vtep=Address(f"172.31.1.{number + 1}"), records=records)


def test_one_change_costs_a_watcher_16_kb_and_a_list(cluster: Cluster) -> None:
    """200 hosts write; a watcher that blocks on the changes receives at most 16 kB plus the changed host's list."""
    definition = Definition(overlay=OVERLAY, subnet=Subnet("10.77.0.0/16"), vni=7777, mtu=1450)
    costs = cluster.h3.inside(lambda: _measure(cluster.consul.url, definition))
    print(f"bytes a change: median {statistics.median(costs):.0f}, most {max(costs)}; bound {BOUND} + list")
    assert len(costs) == 20
    assert max(costs) <= BOUND + 2 * ENDPOINTS * 80


def _measure(url: str, definition: Definition) -> list[int]:
    store, watching = ConsulStore(url), ConsulStore(url)
    writers = []
    for number in range(HOSTS):
        host = HostId.random()
        records = Records(store, "crowd-test", host)
        if number == 0:
            assert records.found(definition, Member(name="s0", vtep=Address("172.31.1.1"))) is None
        new = _list(number, host, ENDPOINTS)
        done = records.publish(definition, new, None, records.ring(OVERLAY), (), ())
        assert isinstance(done, Published)
        writers.append((number, records, done.listed))
    watcher = Records(watching, "crowd-test", HostId.random())
    costs = []
    for number, records, listed in writers[:20]:
        costs.append(_one_change(watcher, watching, definition, number, records, listed))
    for key in store.keys("crowd-test/").keys:
        entry = store.get(key)
        if entry is not None:
            records.clear([entry])
    store.close()
    watching.close()
    return costs


def _one_change(
    watcher: Records, store: ConsulStore, definition: Definition, number: int, writer: Records, listed: Held[HostList]
) -> int:
    """Bytes that the watcher received for one change of one host."""
    start = watcher.changes(OVERLAY, 0, timeout=5)
    before = store.bytes_received
    new = _list(number, writer.me, ENDPOINTS + 1)
    assert isinstance(writer.publish(definition, new, listed, writer.ring(OVERLAY), (), ()), Published)
    seen = watcher.changes(OVERLAY, start.index, timeout=5)
    changed = {
        host
        for name, ring in seen.rings.items()  # type: ignore[union-attr]
        for host in ring.since(start.rings[name].last) or ()  # type: ignore[union-attr]
    }
    assert changed == {writer.me}
    assert watcher.lists(OVERLAY, changed)[writer.me].value == new
    return store.bytes_received - before
