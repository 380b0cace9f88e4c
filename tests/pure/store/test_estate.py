"""What another host has in the store is taken away in its place, unless it is there again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from myoverlay.store.estate import Estate
from myoverlay.store.presence import Presence
from myoverlay.store.records import Claim, Member, Published, Records
from myoverlay.store.sqlite import SqliteStore
from myoverlay.values import Address, Alive, HostId, HostList, Lease, OverlayName, Pool, Subnet
from tests.pure.kit import ANN, BOB, DEMO, EVE, SUBNET, Switch, definition, every, put, record

VTEPS = {ANN: Address("192.0.2.1"), BOB: Address("192.0.2.2"), EVE: Address("192.0.2.3")}
OTHER = OverlayName("other")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(tmp_path / "store.db")
    yield store
    store.close()


def records(store: Any, me: HostId) -> Records:
    return Records(store, "myoverlay", me)


def estate(store: Any, me: HostId = ANN, of: HostId = BOB) -> Estate:
    return Estate(records(store, me), Presence(store, "myoverlay", me), of)


def takes_part(store: SqliteStore, host: HostId, *addresses: str, overlay: OverlayName = DEMO, vni: int = 5) -> None:
    """The host is a member of the overlay and has containers there."""
    own, vtep = records(store, host), VTEPS[host]
    of = definition(overlay=overlay, vni=vni, holders=(host,))
    member = Member(name=host[:3], vtep=vtep)
    held = own.definition(overlay)
    assert (own.found(of, member) is None) if held is None else own.join(held, member)
    new = HostList(host=host, overlay=overlay, vtep=vtep, records=tuple(map(record, addresses)), incarnation="one")
    claims = [Claim(one) for one in new.records]
    assert isinstance(own.publish(of, new, None, own.ring(overlay), claims, []), Published)


def leases(store: SqliteStore, host: HostId, **uses: str) -> None:
    """The host uses the pool and has leases of it: last number of the address → use."""
    own = records(store, host)
    pool = own.pool(SUBNET)
    old = pool.value if pool else Pool(subnet=SUBNET, overlay=DEMO)
    assert own.write_pool(pool, msgspec.structs.replace(old, users=(*old.users, host)))
    for last, use in uses.items():
        address = Address(f"10.5.0.{last.removeprefix('a')}")
        held = own.lease(SUBNET, address)
        hosts = (*held.value.hosts, host) if held else (host,)
        assert own.write_lease(SUBNET, held, Lease(address=address, use=use, hosts=hosts))


def comes_back(store: SqliteStore, host: HostId) -> None:
    presence = Presence(store, "myoverlay", host)
    session = store.open_session("bob", 10.0)
    assert presence.announce(Alive(host=host, name="bob", vteps=(VTEPS[host],)), session, None)


def before(store: SqliteStore, name: str, happens: Callable[[], None]) -> Switch:
    """The store as it is used, where something happens once before the first call of that name."""
    wire = Switch(store)

    def watch(called: str, _: object) -> None:
        if called == name:
            wire.before = lambda _name, _what: None
            happens()

    wire.before = watch
    return wire


# -- overlays ------------------------------------------------------------------------------------------------------


def test_what_a_host_has_is_found(store: SqliteStore) -> None:
    """Its overlays are those that it has a list for, its pools those that it uses; others' are not its own."""
    takes_part(store, BOB, "10.5.0.3")
    takes_part(store, ANN, overlay=OTHER, vni=6)
    leases(store, BOB)
    assert records(store, ANN).write_pool(None, Pool(subnet=Subnet("10.6.0.0/24"), users=(ANN,)))
    assert estate(store).overlays() == {DEMO}
    assert estate(store).pools() == [SUBNET]
    assert estate(store, of=EVE).overlays() == set()
    assert estate(store, of=EVE).pools() == []


def test_leaving_in_its_place_takes_what_is_its_own(store: SqliteStore) -> None:
    """List, index keys, member and holder go, and the ring says who changed; another host's stay byte for byte."""
    takes_part(store, ANN, "10.5.0.2")
    own = every(store)
    takes_part(store, BOB, "10.5.0.3", "10.5.0.4")
    ring = records(store, BOB).ring(DEMO).value.last
    assert estate(store).leave(DEMO, "two")
    after = every(store)
    assert not [key for key in after if BOB in key or "10.5.0.3" in key or "10.5.0.4" in key]
    assert {key: after[key] for key in own if "/changes/" not in key} == {
        key: value for key, value in own.items() if "/changes/" not in key
    }
    held = records(store, ANN).definition(DEMO)
    assert held is not None
    assert held.value.holders == (ANN,)
    told = records(store, BOB).ring(DEMO).value
    assert told.since(ring) == (BOB,)


def test_a_watcher_sees_it_withdrawn_first(store: SqliteStore) -> None:
    """Before the list goes it is written without endpoints, under the store's present id: that withdraws them."""
    takes_part(store, ANN, "10.5.0.2")
    takes_part(store, BOB, "10.5.0.3")
    seen: list[HostList] = []
    wire = Switch(store)

    def watch(name: str, _: object) -> None:
        if name == "commit":
            held = records(store, ANN).lists(DEMO, [BOB]).get(BOB)
            seen.extend([held.value] if held else [])

    wire.before = watch
    assert estate(wire).leave(DEMO, "two")
    assert (seen[-1].records, seen[-1].incarnation) == ((), "two")


def test_the_last_one_takes_the_overlay_along(store: SqliteStore) -> None:
    """When nobody else holds the overlay its definition, VNI and rings go as they do when a host leaves by itself."""
    takes_part(store, BOB, "10.5.0.3")
    assert estate(store).leave(DEMO, "one")
    assert every(store) == {}
    assert estate(store).leave(DEMO, "one")


def test_who_left_before_is_left_alone(store: SqliteStore) -> None:
    """A host that is no holder any more: what else there is of the overlay stays."""
    takes_part(store, ANN, "10.5.0.2")
    whole = every(store)
    assert estate(store).leave(DEMO, "one")
    assert every(store) == whole


@pytest.mark.parametrize("call", ["commit", "get_many"])
def test_a_host_that_is_back_keeps_its_overlay(store: SqliteStore, call: str) -> None:
    """However late it comes back, nothing that was written after that moment was taken away."""
    takes_part(store, ANN, "10.5.0.2")
    takes_part(store, BOB, "10.5.0.3", "10.5.0.4")
    whole = every(store)
    wire = before(store, call, lambda: comes_back(store, BOB))
    assert not estate(wire).leave(DEMO, "one")
    now = every(store)
    assert now.pop(f"myoverlay/alive/{BOB}")
    assert now == whole


# -- pools and leases ----------------------------------------------------------------------------------------------


def test_leaving_a_pool_frees_all_leases(store: SqliteStore) -> None:
    """Leases of every use go, a shared `--aux-address` stays with the others, and the pool with its other users."""
    leases(store, ANN, a9="endpoint", a20="aux")
    own = every(store)
    leases(store, BOB, a3="endpoint", a4="reserve", a20="aux", a21="aux")
    assert estate(store).leave_pool(SUBNET)
    assert every(store) == own
    assert estate(store).leave_pool(SUBNET)
    assert every(store) == own


def test_the_last_user_takes_the_pool_along(store: SqliteStore) -> None:
    """Nothing is left of a pool that nobody uses."""
    leases(store, BOB, a3="endpoint")
    assert estate(store).leave_pool(SUBNET)
    assert every(store) == {}


@pytest.mark.parametrize("after", [0, 1, 2])
def test_a_host_that_is_back_keeps_its_leases(store: SqliteStore, after: int) -> None:
    """It comes back after so many writes: the leases that were not freed until then stay, and so does its use."""
    leases(store, ANN)
    leases(store, BOB, a3="endpoint", a4="endpoint", a5="endpoint")
    wire = Switch(store)
    left = [after]

    def watch(name: str, _: object) -> None:
        if name == "commit":
            left[0] -= 1
            if left[0] == -1:
                comes_back(store, BOB)

    wire.before = watch
    assert not estate(wire).leave_pool(SUBNET)
    assert len(records(store, ANN).leases(SUBNET)) == 3 - after
    pool = records(store, ANN).pool(SUBNET)
    assert pool is not None
    assert BOB in pool.value.users


def test_an_address_that_somebody_took_meanwhile_is_his(store: SqliteStore) -> None:
    """A lease that changed hands between the reading and the freeing is not freed."""
    leases(store, ANN)
    leases(store, BOB, a3="reserve")

    def taken() -> None:
        own = records(store, ANN)
        held = own.lease(SUBNET, Address("10.5.0.3"))
        assert own.write_lease(SUBNET, held, Lease(address=Address("10.5.0.3"), use="endpoint", hosts=(ANN,)))

    wire = before(store, "commit", taken)
    assert not estate(wire).leave_pool(SUBNET)
    assert estate(wire).leave_pool(SUBNET)
    held = records(store, ANN).lease(SUBNET, Address("10.5.0.3"))
    assert held is not None
    assert held.value.hosts == (ANN,)


def test_an_outsiders_key_stays(store: SqliteStore) -> None:
    """A key that somebody put over the host's own in the index is not the host's to take."""
    takes_part(store, ANN)
    takes_part(store, BOB, "10.5.0.3")
    place = "myoverlay/overlays/demo/records"
    put(store, f"{place}/arp/10.5.0.3", "02:00:00:00:00:99")
    assert estate(store).leave(DEMO, "one")
    assert {key for key in every(store) if key.startswith(place)} == {f"{place}/arp/10.5.0.3"}
