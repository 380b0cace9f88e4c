"""What a host holds against what the store says of it: written again, corrected, named, and vouched for afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from myoverlay.errors import Late, Refused, Unavailable
from myoverlay.host.audit import SLOW, Audit
from myoverlay.host.converge import Converger
from myoverlay.host.epoch import Epoch
from myoverlay.host.overlays import Overlays
from myoverlay.host.pools import RELEASED
from myoverlay.host.underlay import Underlay
from myoverlay.kernel.links import Links
from myoverlay.store.records import Member
from myoverlay.store.sqlite import SqliteStore
from myoverlay.values import Address, Lease, LocalLease, Network, OverlayName, PoolUse, Subnet, encode
from tests.pure.kit import PREFIX, Clock, Host, every, put, soon

SECOND = "10.6.0.0/24"


class Kernelless(Converger):
    """There is no kernel's side to build: the overlays are known all the same."""

    def __init__(self) -> None:
        pass

    def overlay(self, *_: Any, **__: Any) -> Any:
        raise Refused("there is no kernel here")

    def sweep(self, *_: Any, **__: Any) -> Any:
        raise Refused("there is no kernel here")


class Still(Underlay):
    """A host whose address stays where it is."""

    def __init__(self) -> None:
        pass

    def follow(self, *_: Any, **__: Any) -> None:
        pass


class Holder:
    """A host with overlays and what it holds of them, and its audit. `distrusted`: what is published anew."""

    def __init__(self, host: Host, vtep: str) -> None:
        self.host = host
        self.vtep = Address(vtep)
        self.clock = Clock(0.0)
        self.distrusted: list[str] = []
        self.uses: dict[str, PoolUse] = {}
        self.epoch = Epoch(host.journal, host.presence, host.tally, 60.0, self.clock)
        self.epoch.look()
        self.overlays = Overlays(
            host.journal,
            host.records,
            self.epoch,
            host.pools,
            host.leases,
            cast(Links, None),
            Kernelless(),
            Still(),
            self._member,
            vtep,
            4789,
            1000,
        )
        self.audit = Audit(
            host.journal,
            self.epoch,
            self.overlays,
            host.pools,
            host.leases,
            host.holdings,
            self.distrusted.append,
            host.tally,
            self.clock,
        )
        self.epoch.on_doubt = self.audit.want

    def _member(self, vtep: Address) -> Member:
        return Member(name=self.host.name, vtep=vtep)

    def join(self, subnet: str = "10.5.0.0/24", overlay: str = "demo", vni: int = 5) -> Network:
        """As `docker network create` leaves it: pool with gateway, definition, member, the network in the journal."""
        use = self.uses[overlay] = self.host.pool(subnet)
        self.host.pools.gateway(use.pool, None, soon())
        on = self.host.network(use, overlay, vtep=self.vtep)
        on = msgspec.structs.replace(on, definition=msgspec.structs.replace(on.definition, vni=vni))
        self.host.journal.networks.put(on.network, on)
        self.overlays.restore(soon())
        held = self.host.records.definition(on.overlay)
        member = self._member(self.vtep)
        if held is None:
            assert self.host.records.found(on.definition, member) is None
        else:
            assert self.host.records.join(held, member)
        return on

    def container(self, on: Network, asked: str | None = None) -> Address:
        """A container with an address of the overlay."""
        address = self.host.claim(self.uses[on.overlay], asked)
        self.host.container(on, address)
        return address

    def aux(self, overlay: str, address: str) -> None:
        """`--aux-address`, asked for before the network exists."""
        self.host.leases.claim_aux(self.uses[overlay].subnet, Address(address), soon())

    def settle(self) -> None:
        self.audit.settle(soon())


@pytest.fixture
def holder(host: Callable[[str], Host]) -> Callable[[str, str], Holder]:
    return lambda name, vtep: Holder(host(name), vtep)


Make = Callable[[str, str], Holder]


@pytest.fixture
def ann(holder: Make) -> Holder:
    return holder("ann", "192.0.2.1")


@pytest.fixture
def bob(holder: Make) -> Holder:
    return holder("bob", "192.0.2.2")


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(tmp_path / "empty.db")
    yield store
    store.close()


def sees(store: SqliteStore, *holders: Holder) -> None:
    """The hosts find another store behind their wires."""
    for one in holders:
        one.host.wire.inner = store


def kept(store: SqliteStore) -> dict[str, bytes]:
    """What the audit answers for: all but the incarnation and the hosts' sessions."""
    return {
        key: value for key, value in every(store).items() if "/alive/" not in key and not key.endswith("/incarnation")
    }


def lease_of(one: Holder, address: Address | str, subnet: str = "10.5.0.0/24") -> Lease | None:
    held = one.host.records.lease(Subnet(subnet), Address(address))
    return held.value if held else None


# -- an emptied store ----------------------------------------------------------------------------------------------


def test_an_emptied_store_gets_everything_again(
    ann: Holder, bob: Holder, store: SqliteStore, empty: SqliteStore
) -> None:
    """Definitions, VNIs, members, pools with their gateways, leases of every use: as they were."""
    for one in (ann, bob):
        on = one.join()
        one.aux("demo", "10.5.0.77")
        one.container(on)
        one.container(on, f"10.5.0.{one.vtep.number % 256 + 100}")
        one.host.settle()
    ann.join(SECOND, "second", 6)
    ann.host.settle()
    whole = kept(store)
    assert len([key for key in whole if "/pools/" in key]) > 15
    sees(empty, ann, bob)
    for one in (ann, bob):
        one.epoch.look()
        one.settle()
    assert kept(empty) == whole
    assert ann.host.tally.get("contradictions") == bob.host.tally.get("contradictions") == 0


def test_a_store_that_lost_nothing_is_left_alone(ann: Holder, bob: Holder, store: SqliteStore) -> None:
    """The audit after a start, and each that is due later, writes nothing where all is well."""
    on = ann.join()
    bob.join()
    ann.container(on)
    ann.aux("demo", "10.5.0.77")
    ann.host.settle()
    before, commits = every(store), ann.host.wire.count("commit")
    for _ in range(3):
        ann.settle()
        ann.clock.now += SLOW
    assert every(store) == before
    assert ann.host.wire.count("commit") == commits


def test_what_only_this_host_lost_is_written_beside_the_others(ann: Holder, bob: Holder, store: SqliteStore) -> None:
    """Buried by mistake, or its keys deleted by hand: it becomes a holder, a user and a lessee again."""
    on = ann.join()
    bob.join()
    address = ann.container(on)
    whole = kept(store)
    records = ann.host.records
    held, pool = records.definition(on.overlay), records.pool(on.subnet)
    assert held is not None
    assert pool is not None
    assert records.leave(held)
    assert records.write_pool(pool, msgspec.structs.replace(pool.value, users=(bob.host.me,)))
    assert records.release(on.subnet, address)
    assert kept(store) != whole
    ann.settle()
    assert kept(store) == whole


def test_a_vtep_that_was_not_told_before_the_end_is_told(ann: Holder, bob: Holder, store: SqliteStore) -> None:
    """The run that moved to another address ended before the members' list said so: the next one writes it."""
    on, moved = ann.join(), Address("192.0.2.77")
    bob.join()
    ann.settle()
    ann.host.journal.networks.put(on.network, msgspec.structs.replace(on, vtep=moved))
    ann.overlays.restore(soon())
    ann.audit.want()
    ann.settle()
    vteps = {host: member.vtep for host, member in ann.host.records.members(on.overlay).items()}
    assert vteps == {ann.host.me: moved, bob.host.me: bob.vtep}
    before = ann.host.wire.count("commit")
    ann.audit.want()
    ann.settle()
    assert ann.host.wire.count("commit") == before


# -- a rolled-back store -------------------------------------------------------------------------------------------


def test_a_lease_that_a_snapshot_brought_back_is_freed(ann: Holder, store: SqliteStore, empty: SqliteStore) -> None:
    """What the store says this host has, and it has not, goes; what it has stays."""
    on = ann.join()
    ann.host.settle()
    gone = ann.container(on)
    for entry in store.list(f"{PREFIX}/").entries:
        put(empty, entry.key, entry.value, entry.flags)
    for one in ann.host.journal.endpoints.all():
        ann.host.journal.endpoints.drop(one.endpoint)
    ann.host.leases.release(ann.uses["demo"].pool, gone)
    ann.host.telling.settle(soon())
    sees(empty, ann)
    assert lease_of(ann, gone) is not None
    ann.settle()
    assert lease_of(ann, gone) is None
    assert set(ann.host.records.leases(on.subnet)) == {one.address for one in ann.host.journal.leases.all()}


def test_an_old_use_is_corrected(ann: Holder, store: SqliteStore, empty: SqliteStore) -> None:
    """An address that the snapshot has in reserve is a container's by now: nobody takes it under pressure."""
    on = ann.join()
    ann.host.settle()
    for entry in store.list(f"{PREFIX}/").entries:
        put(empty, entry.key, entry.value, entry.flags)
    address = ann.container(on)
    sees(empty, ann)
    old = lease_of(ann, address)
    assert old is not None
    assert old.use == "reserve"
    ann.settle()
    assert lease_of(ann, address) == Lease(address=address, use="endpoint", hosts=(ann.host.me,))


def test_another_hosts_leases_are_not_strays(ann: Holder, bob: Holder, store: SqliteStore) -> None:
    """Only what names this host is its to free; of a shared `--aux-address` only its own part."""
    ann.join()
    on = bob.join()
    bob.container(on)
    bob.aux("demo", "10.5.0.77")
    ann.aux("demo", "10.5.0.77")
    ann.host.journal.leases.drop("10.5.0.0-24/10.5.0.77")
    ann.settle()
    assert lease_of(bob, "10.5.0.77") == Lease(address=Address("10.5.0.77"), use="aux", hosts=(bob.host.me,))
    assert len(ann.host.records.leases(on.subnet)) == 2


def test_many_strays_wait_for_a_person(ann: Holder, store: SqliteStore) -> None:
    """Were the journal at fault and not the store, all would go: more than half is braked, and freed by a word."""
    on = ann.join()
    for last in range(10, 16):
        stray = Lease(address=Address(f"10.5.0.{last}"), use="endpoint", hosts=(ann.host.me,))
        put(store, f"{PREFIX}/pools/10.5.0.0-24/10.5.0.{last}", encode(stray))
    ann.settle()
    assert len(ann.host.records.leases(on.subnet)) == 6
    ann.host.leftovers.let_go()
    ann.audit.want()
    ann.settle()
    assert ann.host.records.leases(on.subnet) == {}


# -- what cannot be put right --------------------------------------------------------------------------------------


def test_an_address_that_another_host_has_by_now_is_named(
    ann: Holder, bob: Holder, store: SqliteStore, caplog: pytest.LogCaptureFixture
) -> None:
    """Both run; a person is told which host has it as well, and the other leases are written all the same."""
    on = ann.join()
    addresses = [ann.container(on) for _ in range(3)]
    for address in addresses:
        assert ann.host.records.release(on.subnet, address)
    taken = Lease(address=addresses[1], use="endpoint", hosts=(bob.host.me,))
    put(store, f"{PREFIX}/pools/10.5.0.0-24/{addresses[1]}", encode(taken))
    ann.settle()
    assert lease_of(ann, addresses[1]) == taken
    assert f"{addresses[1]} is in use here, but leased to host bob" in caplog.text
    assert ann.host.tally.get("contradictions") == 1
    for address in (addresses[0], addresses[2]):
        assert lease_of(ann, address) == Lease(address=address, use="endpoint", hosts=(ann.host.me,))
    assert bob.host.records.release(on.subnet, addresses[1])
    ann.host.upkeep.settle(soon())  # and not with the next audit, minutes later, when others may have been given it
    assert lease_of(ann, addresses[1]) == Lease(address=addresses[1], use="endpoint", hosts=(ann.host.me,))
    assert not any(one.promised for one in ann.host.journal.leases.all())


def test_a_reserved_address_that_another_host_has_by_now_is_his(ann: Holder, bob: Holder, store: SqliteStore) -> None:
    """Nobody here uses it: it is not in reserve any more, and another one takes its place."""
    on = ann.join()
    ann.host.settle()
    first = ann.host.held("reserve")[0]
    taken = Lease(address=first, use="endpoint", hosts=(bob.host.me,))
    put(store, f"{PREFIX}/pools/10.5.0.0-24/{first}", encode(taken))
    ann.settle()
    ann.host.settle()
    assert first not in ann.host.held("reserve")
    assert len(ann.host.held("reserve")) == 7
    held = ann.host.records.lease(on.subnet, first)
    assert held is not None
    assert held.value == taken


def test_an_address_set_aside_that_a_container_has_keeps_nothing_else_back(
    ann: Holder, bob: Holder, store: SqliteStore, caplog: pytest.LogCaptureFixture
) -> None:
    """An `--aux-address` that another host's container got meanwhile is named; the leases after it are written."""
    on = ann.join()
    ann.aux("demo", "10.5.0.3")
    after = ann.container(on, "10.5.0.4")
    assert ann.host.records.release(on.subnet, after)
    taken = Lease(address=Address("10.5.0.3"), use="endpoint", hosts=(bob.host.me,))
    put(store, f"{PREFIX}/pools/10.5.0.0-24/10.5.0.3", encode(taken))
    ann.settle()
    assert lease_of(ann, after) == Lease(address=after, use="endpoint", hosts=(ann.host.me,))
    assert "10.5.0.3 is in use by a container on host bob" in caplog.text
    assert lease_of(ann, "10.5.0.3") == taken


def test_one_overlays_trouble_keeps_nobody(
    ann: Holder, store: SqliteStore, empty: SqliteStore, caplog: pytest.LogCaptureFixture
) -> None:
    """In the new store one overlay is defined otherwise: that is named and counted, and the other one is written."""
    first = ann.join()
    second = ann.join(SECOND, "second", 6)
    address = ann.container(second)
    sees(empty, ann)
    other = msgspec.structs.replace(first.definition, subnet=Subnet("10.9.0.0/24"), gateway=None, vni=99)
    assert ann.host.records.found(other, Member(name="x", vtep=Address("192.0.2.9"))) is None
    ann.epoch.look()
    ann.settle()
    assert ann.host.tally.get("contradictions") == 1
    assert "10.9.0.0/24" in caplog.text
    assert "10.5.0.0/24" in caplog.text
    assert lease_of(ann, address, SECOND) is not None
    assert ann.host.records.definition(OverlayName("second")) is not None
    held = ann.host.records.definition(first.overlay)
    assert held is not None
    assert held.value == other


def test_a_vni_that_another_overlay_took_is_named(
    ann: Holder, empty: SqliteStore, caplog: pytest.LogCaptureFixture
) -> None:
    """The overlay is not written under a VNI that is somebody else's in the new store."""
    on = ann.join()
    sees(empty, ann)
    put(empty, f"{PREFIX}/vni/5", b'{"overlay":"thief","subnet":"10.9.0.0/24"}')
    ann.settle()
    assert ann.host.tally.get("contradictions") == 1
    assert "thief" in caplog.text
    assert ann.host.records.definition(on.overlay) is None


# -- when, and what it vouches for ---------------------------------------------------------------------------------


def test_it_vouches_only_when_all_is_there(ann: Holder, empty: SqliteStore) -> None:
    """Until the last lease is written the lists name the old incarnation; then all overlays are published anew."""
    on = ann.join()
    ann.join(SECOND, "second", 6)
    ann.container(on)
    ann.settle()
    old = ann.epoch.id
    assert ann.epoch.vouched == old
    ann.distrusted.clear()
    sees(empty, ann)
    ann.epoch.look()
    seen = []
    ann.host.wire.before = lambda _name, _what: seen.append((ann.epoch.vouched, tuple(ann.distrusted)))
    ann.settle()
    assert set(seen) == {(old, ())}
    assert ann.epoch.vouched == ann.epoch.id != old
    assert sorted(ann.distrusted) == ["demo", "second"]


def test_a_promise_is_kept_before_it_vouches(ann: Holder, empty: SqliteStore) -> None:
    """An address given out while the store was away is this host's too: others must find it taken by then."""
    ann.join()
    ann.host.settle()
    ann.host.wire.off = True
    address = ann.host.claim(ann.uses["demo"])
    ann.host.wire.off = False
    sees(empty, ann)
    ann.epoch.look()
    ann.settle()
    assert ann.epoch.vouched == ann.epoch.id
    assert lease_of(ann, address) == Lease(address=address, use="endpoint", hosts=(ann.host.me,))
    assert not any(lease.promised for lease in ann.host.journal.leases.all())


def test_it_is_wanted_again_when_the_store_is_away(ann: Holder, empty: SqliteStore) -> None:
    """At whichever call the store goes away: nothing is vouched for, and it is done again."""
    on = ann.join()
    ann.container(on)
    ann.settle()
    old = ann.epoch.vouched
    sees(empty, ann)
    ann.epoch.look()
    for after in range(200):
        left = [after]

        def fail(_name: str, _what: object, left: list[int] = left) -> None:
            left[0] -= 1
            if left[0] < 0:
                raise Unavailable("the store went away")

        ann.host.wire.before = fail
        try:
            ann.settle()
        except Unavailable:
            assert ann.epoch.vouched == old
            continue
        break
    ann.host.wire.before = lambda _name, _what: None
    assert after >= 3
    assert ann.epoch.vouched == ann.epoch.id
    assert ann.host.records.lease(on.subnet, ann.host.held("endpoint")[0]) is not None


def test_it_is_late_rather_than_endless(ann: Holder) -> None:
    """A deadline that is over ends it, and it stays wanted."""
    ann.join()
    with pytest.raises((Late, Unavailable)):
        ann.audit.settle(soon(-1.0))
    assert ann.epoch.vouched == ""
    ann.settle()
    assert ann.epoch.vouched == ann.epoch.id


def test_it_is_done_when_it_is_wanted_or_due(ann: Holder) -> None:
    """At start, when somebody wants it, and each SLOW seconds; else it costs the store nothing."""
    ann.join()

    def costs() -> bool:
        before = len(ann.host.wire.calls)
        ann.settle()
        return len(ann.host.wire.calls) > before

    assert [costs(), costs()] == [True, False]
    ann.audit.want()
    assert ann.host.leases.wanted.is_set()
    assert [costs(), costs()] == [True, False]
    ann.clock.now += SLOW - 1
    assert not costs()
    ann.clock.now += 1
    assert [costs(), costs()] == [True, False]


def test_a_loss_found_meanwhile_is_not_vouched_for(ann: Holder, empty: SqliteStore) -> None:
    """The store lost something while the audit ran: it is done again, under the new incarnation."""
    on = ann.join()
    ann.container(on)

    def lose(name: str, _: object) -> None:
        ann.host.wire.before = lambda _name, _what: None
        sees(empty, ann)
        ann.epoch.look()

    ann.host.wire.before = lose
    ann.settle()
    assert ann.epoch.vouched != ann.epoch.id
    ann.settle()
    assert ann.epoch.vouched == ann.epoch.id


def test_a_pool_that_docker_released_is_not_written_again(ann: Holder, empty: SqliteStore) -> None:
    """What is on its way out stays out: neither its leases nor its use come back."""
    ann.join()
    ann.host.settle()
    use = ann.uses["demo"]
    ann.host.journal.uses.put(use.pool, msgspec.structs.replace(use, at=RELEASED))
    sees(empty, ann)
    ann.settle()
    assert not [key for key in every(empty) if "/pools/" in key or "/subnets/" in key]


def test_what_is_being_released_is_not_written_again(ann: Holder, empty: SqliteStore) -> None:
    """A lease that Docker gave back while the store was away needs no key in a new one."""
    on = ann.join()
    address = ann.container(on)
    lease = ann.host.journal.leases.get(f"10.5.0.0-24/{address}")
    assert isinstance(lease, LocalLease)
    ann.host.leases.mark(lease, "releasing")
    sees(empty, ann)
    ann.settle()
    assert lease_of(ann, address) is None
