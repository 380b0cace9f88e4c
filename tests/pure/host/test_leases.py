"""Pools and addresses of two and three hosts on one store: nothing is given out twice, nothing stays behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from myoverlay.errors import Clash, Late, Refused, Unavailable, Unknown, Unreadable
from myoverlay.host import awaiting
from myoverlay.host.holdings import ABANDONED
from myoverlay.host.leases import OWED
from myoverlay.host.pools import CREATING
from myoverlay.networks import NetworkPlan, fresh_id
from myoverlay.store.networks import NetworkRecords
from myoverlay.store.pooled import MARK
from myoverlay.store.records import Changes, Member
from myoverlay.store.sqlite import SqliteStore
from myoverlay.values import Address, HostId, Lease, LocalLease, Network, OverlayName, Pool, PoolUse, Subnet, encode
from tests.pure.kit import DEMO, EVE, PREFIX, Clock, Host, definition, every, put, soon, together, until


class Elsewhere:
    """What a test says is known of other hosts."""

    def __init__(
        self, reason: Callable[[Network], str | None] = lambda _: None, others: Collection[Address] = ()
    ) -> None:
        self.held_back = reason
        self._others = others

    def addresses(self, network: Network) -> Collection[Address]:
        return self._others

    def listed(self, network: Network) -> Collection[Address]:
        return self._others

    def has(self, network: Network, address: Address) -> bool:
        return address in self._others

    def remedy(self, host: HostId) -> str:
        return ""


Make = Callable[..., Host]
SMALL = "10.5.0.0/29"  # six hosts, no reserve
GATEWAY = Address("10.5.0.1")


def ready(one: Host, subnet: str = "10.5.0.0/24", **changes: Any) -> tuple[PoolUse, Network]:
    """The host has a network of the pool, as after `docker network create --subnet`, and is alive."""
    use = one.pool(subnet, changes.pop("within", None))
    one.pools.gateway(use.pool, None, soon())
    on = one.network(use, **changes)
    one.live()
    return use, on


@contextmanager
def consenting(one: Host) -> Iterator[None]:
    """The host hears what is asked of it, and settles, meanwhile."""
    over = threading.Event()

    def answer() -> None:
        while not over.wait(0.02):
            for use in one.journal.uses.all():
                one.ceding.asked(use.subnet)
            one.ceding.settle(soon())

    thread = threading.Thread(target=answer)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def leased(store: SqliteStore) -> set[str]:
    """The addresses that have a lease in the store."""
    return {key.rpartition("/")[2] for key in store.keys(f"{PREFIX}/pools/").keys}


def nothing_left(store: SqliteStore) -> bool:
    return not store.keys(f"{PREFIX}/pools/").keys and not store.keys(f"{PREFIX}/subnets/").keys


# -- pools ---------------------------------------------------------------------------------------------------------


def test_the_same_question_gets_the_same_answer(host: Make, store: SqliteStore) -> None:
    """A RequestPool whose answer was lost is repeated, and is one pool with one user."""
    ann = host("ann")
    assert ann.pool() == ann.pool()
    assert ann.pool("10.6.0.0/24", "10.6.0.128/25") == ann.pool("10.6.0.0/24", "10.6.0.128/25")
    held = ann.records.pool(Subnet("10.5.0.0/24"))
    assert held is not None
    assert held.value.users == (ann.me,)
    assert len(ann.journal.uses.all()) == 2


def test_a_pool_is_used_by_many_hosts(host: Make) -> None:
    """Each host that asks is entered, also when all ask at once, and the pool goes with the last of them."""
    hosts = [host(name) for name in ("ann", "bob", "eve")]
    uses = together(*[one.pool for one in hosts])
    assert {use.pool for use in uses} == {"10.5.0.0-24"}
    held = hosts[0].records.pool(Subnet("10.5.0.0/24"))
    assert held is not None
    assert set(held.value.users) == {one.me for one in hosts}
    for one, use in zip(hosts, uses, strict=True):
        assert one.records.pool(use.subnet) is not None
        one.pools.release(use.pool)
        one.settle()
    assert hosts[0].records.pool(Subnet("10.5.0.0/24")) is None


@pytest.mark.parametrize("subnet", ["10.5.0.0/16", "10.5.0.128/25"])
def test_an_overlapping_pool_is_refused_naming_the_overlay(host: Make, subnet: str) -> None:
    """Larger or smaller: a pool that overlaps another overlay's names that overlay, on any host."""
    ann, bob = host("ann"), host("bob")
    ann.network(ann.pool())
    with pytest.raises(Clash, match=f"pool {subnet} overlaps 10.5.0.0/24 of overlay demo"):
        bob.pool(subnet)
    assert bob.journal.uses.all() == ()


def test_a_pool_belongs_to_one_overlay(host: Make) -> None:
    """An equal pool for another overlay is refused, when it is asked for and when it is bound."""
    ann, bob = host("ann"), host("bob")
    ann.network(ann.pool())
    with pytest.raises(Clash, match=r"pool 10.5.0.0/24 belongs to overlay demo, not to other"):
        bob.pool(overlay="other")
    use = bob.pool()
    with pytest.raises(Clash, match=r"pool 10.5.0.0/24 belongs to overlay demo, not to other"):
        bob.network(use, "other")


def test_a_host_joins_a_pool_once(host: Make) -> None:
    """A pool that a network of this host has already is refused naming both."""
    ann = host("ann")
    ann.network(ann.pool())
    with pytest.raises(Clash, match=r"overlay demo, which network demo-ann.* of this host has already joined"):
        ann.pool()


def test_a_range_lies_inside_its_pool(host: Make, store: SqliteStore) -> None:
    """An `--ip-range` beside the `--subnet` is refused, and nothing is written."""
    with pytest.raises(Refused, match=r"range 10\.6\.0\.0/25 is outside the pool 10\.5\.0\.0/24"):
        host("ann").pool("10.5.0.0/24", "10.6.0.0/25")
    assert nothing_left(store)


def test_automatic_pools_avoid_routes_overlays_and_each_other(host: Make, store: SqliteStore) -> None:
    """What this host routes, what any overlay has, what a pool has, and what a network of this host has is avoided."""
    base = "10.128.0.0/20"
    ann, bob = host("ann", "10.128.0.0/24", "10.128.5.128/25", "192.0.2.0/24", base=base), host("bob", base=base)
    ann.network(ann.pool("10.128.1.0/24"))
    put(store, f"{PREFIX}/vni/9", b'{"overlay":"far","subnet":"10.128.2.0/23"}')
    first, second = ann.pool(None), ann.pool(None)
    assert (first.subnet, second.subnet) == ("10.128.4.0/24", "10.128.6.0/24")
    assert not first.written
    assert bob.pool(None).subnet == "10.128.0.0/24"
    put(store, f"{PREFIX}/vni/10", b'{"overlay":"wide","subnet":"10.128.0.0/16"}')
    with pytest.raises(Refused, match=r"no /24 of 10\.128\.0\.0/20 is free"):
        ann.pool(None)


def test_an_automatic_pool_avoids_networks_that_no_host_has_made_yet(host: Make, store: SqliteStore) -> None:
    """What is defined for all hosts has its subnet from the start; a plan of the same overlay takes nothing from it."""
    ann = host("ann", base="10.128.0.0/20")
    for name, subnet in (("web", "10.128.0.0/24"), ("demo", "10.128.1.0/24")):
        plan = NetworkPlan(name=OverlayName(name), id=fresh_id(), subnet=Subnet(subnet))
        assert NetworkRecords(store, PREFIX, EVE).write(None, plan)
    assert ann.pool(None, overlay="demo").subnet == "10.128.1.0/24"
    assert ann.pool(None).subnet == "10.128.2.0/24"


def test_two_hosts_at_once_get_different_automatic_pools(host: Make) -> None:
    """Of hosts that choose the same pool in one moment the second takes another (or is told of the clash by name)."""
    hosts = [host(f"h{number}") for number in range(4)]
    for one in hosts:
        for round_ in range(3):
            use = one.pool(None)
            one.network(use, f"o-{one.name}-{round_}")
    subnets = [use.subnet for one in hosts for use in one.journal.uses.all()]
    assert len(set(subnets)) == len(subnets) == 12


def test_an_overlay_brings_its_subnet(host: Make) -> None:
    """`--ipam-opt overlay=demo` needs no `--subnet` where the overlay is defined."""
    ann, bob = host("ann"), host("bob")
    of = definition(holders=(ann.me,), subnet=Subnet("10.77.0.0/24"), gateway=None)
    assert ann.records.found(of, Member(name="ann", vtep=Address("192.0.2.1"))) is None
    use = bob.pool(None, overlay="demo")
    assert (use.subnet, use.overlay, use.written) == ("10.77.0.0/24", "demo", False)


def test_the_pool_of_a_new_network_is_found_by_its_subnet(host: Make) -> None:
    """CreateNetwork names no pool: it is the newest of that subnet that no network has."""
    ann = host("ann")
    use = ann.pool()
    assert ann.pools.use_of(use.subnet) == use
    assert ann.pools.use_of(Subnet("10.9.0.0/24")) is None
    ann.network(use)
    assert ann.pools.use_of(use.subnet) is None


def test_the_gateway_is_agreed(host: Make) -> None:
    """The first to ask decides, also among hosts that ask at once; who insists on another is refused with both."""
    hosts = [host(name) for name in ("ann", "bob", "eve")]
    uses = [one.pool() for one in hosts]
    asked = ["10.5.0.9", "10.5.0.8", None]
    answers = together(*[
        lambda one=one, use=use, text=text: one.pools.gateway(use.pool, Address(text) if text else None, soon())
        for one, use, text in zip(hosts, uses, asked, strict=True)
    ])  # fmt: skip
    given = [answer for answer in answers if not isinstance(answer, Exception)]
    refused = [answer for answer in answers if isinstance(answer, Exception)]
    assert len(set(given)) == 1
    gateway, subnet = given[0]
    assert subnet == "10.5.0.0/24"
    assert all(f"has the gateway {gateway}, this host asks for" in str(error) for error in refused)
    assert hosts[2].pools.gateway(uses[2].pool, None, soon()) == (gateway, subnet)


def test_a_gateway_is_a_free_host_address(host: Make) -> None:
    """Without a wish it is the lowest that nobody has; a container's address or the broadcast one is refused."""
    ann = host("ann")
    use = ann.pool()
    on = ann.network(use)
    assert ann.claim(use) == "10.5.0.1"
    with pytest.raises(Clash, match=r"10\.5\.0\.1 is taken by a container: choose another --gateway"):
        ann.pools.gateway(use.pool, GATEWAY, soon())
    with pytest.raises(Refused, match=r"10\.5\.0\.255 is no host address"):
        ann.pools.gateway(use.pool, Address("10.5.0.255"), soon())
    assert ann.pools.gateway(use.pool, None, soon()) == ("10.5.0.2", on.subnet)


# -- addresses -----------------------------------------------------------------------------------------------------


def test_sixteen_threads_on_three_hosts_get_distinct_addresses(host: Make, store: SqliteStore) -> None:
    """No address is ever given out twice, from reserves or the store, and the store knows all of them."""
    hosts = [host(name) for name in ("ann", "bob", "eve")]
    uses = {one.name: ready(one)[0] for one in hosts}
    hosts[0].settle()
    hosts[1].settle()
    calls = [lambda one=hosts[number % 3]: one.claim(uses[one.name]) for number in range(16)]
    given = together(*calls)
    assert all(isinstance(address, Address) for address in given), given
    assert len(set(given)) == 16
    assert GATEWAY not in given
    assert set(given) <= leased(store)
    by_journal = [address for one in hosts for address in one.held("endpoint")]
    assert sorted(by_journal) == sorted(given)


def test_sixteen_threads_on_one_small_pool(host: Make) -> None:
    """A pool of five gives five addresses to sixteen who ask at once, and eleven the sentence that it is full."""
    hosts = [host("ann"), host("bob")]
    uses = [ready(one, SMALL)[0] for one in hosts]
    answers = together(*[lambda number=number: hosts[number % 2].claim(uses[number % 2]) for number in range(16)])
    given = [answer for answer in answers if isinstance(answer, Address)]
    assert sorted(given) == [f"10.5.0.{last}" for last in range(2, 7)]
    full = {str(answer) for answer in answers if not isinstance(answer, Address)}
    assert full == {"pool 10.5.0.0/29 is full: no address is free; release one or use a larger --subnet"}


def test_a_range_bounds_what_is_given_and_kept(host: Make) -> None:
    """With `--ip-range` addresses and the reserve come from the range alone."""
    ann = host("ann")
    use, _ = ready(ann, within="10.5.0.64/26")
    given = ann.claim(use)
    ann.settle()
    area = Subnet("10.5.0.64/26")
    assert given == "10.5.0.64"
    assert len(ann.held("reserve")) == 1
    assert all(address in area for address in ann.held("reserve"))


def test_an_address_in_use_names_its_host(host: Make) -> None:
    """`--ip` of a container elsewhere is refused with that host's name; here, as this host's own."""
    ann, bob = host("ann"), host("bob")
    use, on = ready(ann)
    other, _ = ready(bob)
    ann.container(on, ann.claim(use, "10.5.0.9"))
    with pytest.raises(Clash, match=r"10\.5\.0\.9 is in use by a container on host ann: choose another --ip"):
        bob.claim(other, "10.5.0.9")
    with pytest.raises(Clash, match=r"10\.5\.0\.9 is in use by a container on this host"):
        ann.claim(use, "10.5.0.9")


def test_a_claim_whose_answer_was_lost_is_answered_again(host: Make) -> None:
    """The same `--ip` for a container that did not come to be yet is no clash with itself."""
    ann = host("ann")
    use, _ = ready(ann)
    assert ann.claim(use, "10.5.0.9") == ann.claim(use, "10.5.0.9") == "10.5.0.9"


@pytest.mark.parametrize(
    ("asked", "words"),
    [("10.5.0.1", "is the gateway"), ("10.5.0.255", "is no host address"), ("10.6.0.3", "is no host address")],
)
def test_an_address_no_container_can_have_is_refused(host: Make, asked: str, words: str) -> None:
    """The gateway, the broadcast address and what is outside, before the store is asked."""
    ann = host("ann")
    use, _ = ready(ann)
    calls = len(ann.wire.calls)
    with pytest.raises(Refused, match=words):
        ann.claim(use, asked)
    assert len(ann.wire.calls) == calls


def test_hosts_share_what_is_set_aside(host: Make, store: SqliteStore) -> None:
    """The same `--aux-address` on several hosts is one lease of all; no container gets it; it goes with the last."""
    hosts = [host(name) for name in ("ann", "bob", "eve")]
    uses = [one.pool() for one in hosts]
    answers = together(*[
        lambda one=one, use=use: one.claim(use, "10.5.0.2") for one, use in zip(hosts, uses, strict=True)
    ])  # fmt: skip
    assert answers == ["10.5.0.2"] * 3
    held = hosts[0].records.lease(Subnet("10.5.0.0/24"), Address("10.5.0.2"))
    assert held is not None
    assert set(held.value.hosts) == {one.me for one in hosts}
    on = hosts[0].network(uses[0])
    assert hosts[0].claim(uses[0]) != "10.5.0.2"
    hosts[1].network(uses[1])
    with pytest.raises(Clash, match=r"10\.5\.0\.2 is set aside with --aux-address"):
        host_claims_fresh(host("dan"), "10.5.0.2")
    hosts[0].remove(on, uses[0])
    for one, use in zip(hosts, uses, strict=True):
        one.leases.release(use.pool, Address("10.5.0.2"))
        assert "10.5.0.2" in leased(store)
        one.telling.settle(soon())
    assert "10.5.0.2" not in leased(store)


def host_claims_fresh(one: Host, asked: str) -> Address:
    use, _ = ready(one)
    return one.claim(use, asked)


def test_an_address_set_aside_cannot_be_a_containers(host: Make) -> None:
    """Setting aside what a container elsewhere has is refused, naming its host."""
    ann, bob = host("ann"), host("bob")
    use, _ = ready(ann)
    ann.claim(use, "10.5.0.9")
    other = bob.pool()
    with pytest.raises(Clash, match="in use by a container on host ann"):
        bob.claim(other, "10.5.0.9")
    with pytest.raises(Refused, match="outside the pool"):
        bob.claim(other, "10.6.0.9")


def test_unknown_pools(host: Make) -> None:
    """Claiming from a pool that was never given is an error; releasing what is unknown succeeds."""
    ann = host("ann")
    with pytest.raises(Unknown, match=r"'10.9.0.0-24' is not one that this host was given"):
        ann.leases.claim("10.9.0.0-24", None, soon())
    ann.leases.release("10.9.0.0-24", Address("10.9.0.2"))
    ann.pools.release("10.9.0.0-24")


def test_releasing_twice_or_what_was_never_leased_succeeds(host: Make, store: SqliteStore) -> None:
    """Docker's retries, and its release of the gateway, change nothing."""
    ann = host("ann")
    use, _ = ready(ann)
    address = ann.claim(use)
    for what in (address, address, GATEWAY):
        ann.leases.release(use.pool, what)
        ann.telling.settle(soon())
    assert leased(store) == set()
    assert ann.journal.leases.all() == ()


def test_what_a_dead_container_had_is_docker_s_to_give_back(host: Make, clock: Clock) -> None:
    """Buried, but Docker's release may be on its way: nobody gets it unasked until that is there, or is overdue."""
    ann = host("ann")
    use, _ = ready(ann, SMALL)
    back, overdue = ann.claim(use), ann.claim(use)
    for address in (back, overdue):
        ann.leases.free(use.pool, address, owed=True)
    ann.settle()
    other = ann.claim(use)
    assert other not in (back, overdue)
    ann.wire.off = True
    with pytest.raises(Unavailable):
        ann.claim(use)
    ann.wire.off = False
    ann.leases.release(use.pool, back)
    ann.settle()
    assert ann.claim(use) == back
    clock.now += OWED
    ann.settle()
    assert ann.held("releasing") == []
    assert ann.claim(use) == overdue


def test_what_a_dead_container_had_is_given_to_who_asks_for_it(host: Make) -> None:
    """After a power loss Docker starts containers with their `--ip` at once, with and without the store."""
    ann = host("ann")
    use, _ = ready(ann, SMALL)
    first, second = ann.claim(use), ann.claim(use)
    for address in (first, second):
        ann.leases.free(use.pool, address, owed=True)
    assert ann.claim(use, first) == first
    ann.wire.off = True
    assert ann.claim(use, second) == second


# -- the reserve, and the store away -------------------------------------------------------------------------------


@pytest.mark.parametrize(("subnet", "size"), [("10.5.0.0/24", 7), ("10.5.0.0/22", 8), ("10.5.0.0/27", 0)])
def test_the_reserve_is_filled_once(host: Make, store: SqliteStore, subnet: str, size: int) -> None:
    """Settling keeps the share in reserve, in the store and the journal alike, and another time adds nothing."""
    ann = host("ann")
    ready(ann, subnet)
    for _ in range(2):
        ann.settle()
        assert len(ann.held("reserve")) == size
        assert leased(store) == set(ann.held("reserve"))


def test_the_reserve_serves_while_the_store_is_away(host: Make, store: SqliteStore) -> None:
    """Containers start on reserved addresses, each once, and the lease is written when the store is back."""
    ann = host("ann")
    use, on = ready(ann)
    ann.settle()
    reserve = ann.held("reserve")
    ann.wire.off = True
    given = together(*[lambda: ann.claim(use)] * 8)
    served = [address for address in given if isinstance(address, Address)]
    assert sorted(served) == sorted(reserve)
    assert [type(answer) for answer in given if not isinstance(answer, Address)] == [Unavailable]
    for address in served:
        ann.container(on, address)
    ann.wire.off = False
    ann.settle()
    for address in served:
        held = ann.records.lease(use.subnet, address)
        assert held is not None
        assert (held.value.use, held.value.hosts) == ("endpoint", (ann.me,))
    assert not any(lease.promised for lease in ann.journal.leases.all())
    assert len(ann.held("reserve")) == 7


def test_an_address_of_the_reserve_is_given_before_the_store_is_told(host: Make, store: SqliteStore) -> None:
    """Nobody waits for a write: the store is asked once, and told when this host settles, also by its next run."""
    ann, bob = host("ann"), host("bob")
    use, _ = ready(ann)
    other, _ = ready(bob)
    ann.settle()
    ann.wire.calls.clear()
    address = ann.claim(use)
    assert (ann.wire.count("commit"), ann.wire.count("get")) == (0, 1)
    lease = ann.journal.leases.get(f"{use.subnet.key}/{address}")
    assert lease is not None
    assert lease.promised
    held = ann.records.lease(use.subnet, address)
    assert held is not None
    assert (held.value.use, held.value.hosts) == ("reserve", (ann.me,))
    ann.settle()
    held = ann.records.lease(use.subnet, address)
    assert held is not None
    assert held.value.use == "endpoint"
    assert not any(one.promised for one in ann.journal.leases.all())
    with pytest.raises(Clash, match=f"{address} is in use by a container on host ann"):
        bob.claim(other, address)


def test_a_release_is_not_lost_while_the_store_is_being_told(
    host: Make, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The promise is written between the moment when the release looks at its lease and when it marks it."""
    ann = host("ann")
    use, _ = ready(ann)
    ann.settle()
    before = leased(store)
    address = ann.claim(use)
    key, get = f"{use.subnet.key}/{address}", ann.journal.leases.get
    told: list[bool] = []

    def looked(asked: str) -> LocalLease | None:
        found = get(asked)
        if asked == key and not told:
            told.append(True)
            ann.settle()
        return found

    with monkeypatch.context() as patch:
        patch.setattr(ann.journal.leases, "get", looked)
        ann.leases.release(use.pool, address)
    assert told
    lease = ann.journal.leases.get(key)
    assert lease is not None
    assert lease.use == "releasing"
    ann.settle()
    assert ann.journal.leases.get(key) is None
    assert len(leased(store)) == len(before)


def test_what_the_others_are_told_of_is_not_free_yet(host: Make, store: SqliteStore) -> None:
    """A release waits until this host's list has the address no more, and goes on when that was written."""
    ann = host("ann")
    use, network = ready(ann)
    address = ann.claim(use, "10.5.0.9")
    told = {(network.overlay, address)}
    ann.telling.is_told = lambda overlay, address: (overlay, address) in told
    ann.leases.release(use.pool, address)
    ann.settle()
    assert address in leased(store)
    ann.leases.wanted.clear()
    ann.telling.hurry()
    assert ann.leases.wanted.is_set()
    told.clear()
    ann.settle()
    assert address not in leased(store)
    ann.leases.wanted.clear()
    ann.telling.hurry()
    assert not ann.leases.wanted.is_set()


def test_of_a_full_pool_what_was_just_given_back_is_given_again(host: Make, store: SqliteStore) -> None:
    """Also while the store is just being told that it is free; one that another host lists is nobody's."""
    ann = host("ann")
    use, _ = ready(ann, SMALL)
    given = [ann.claim(use) for _ in range(5)]
    ann.leases.release(use.pool, given[3])
    assert ann.claim(use) == given[3]
    ann.leases.release(use.pool, given[2])
    ann.leases.elsewhere = Elsewhere(others=[given[2]])
    with pytest.raises(Refused, match=r"pool 10\.5\.0\.0/29 is full"):
        ann.claim(use)
    ann.leases.elsewhere = Elsewhere()
    answers: list[Address] = []
    thread = threading.Thread(target=lambda: answers.append(ann.claim(use)), daemon=True)

    def before(name: str, _: Any) -> None:
        if name == "commit" and not thread.is_alive() and not answers:
            thread.start()
            until(lambda: ann.wire.count("list") > lists)

    lists = ann.wire.count("list")
    ann.wire.before = before
    ann.settle()
    thread.join(8)
    assert answers == [given[2]]


def test_whoever_wants_what_another_host_is_giving_back_waits_for_it(host: Make, store: SqliteStore) -> None:
    """A container that moves with its address: the new host asks before the former has told the store."""
    ann, bob = host("ann"), host("bob")
    use, _ = ready(ann)
    other, _ = ready(bob)
    address = ann.claim(use, "10.5.0.9")
    ann.leases.release(use.pool, address)

    def tell() -> None:
        until(lambda: bob.wire.count("wait"))
        ann.settle()

    assert together(tell, lambda: bob.claim(other, address)) == [None, address]


def test_a_full_pool_waits_for_what_another_host_is_giving_back(host: Make, store: SqliteStore) -> None:
    """Docker has removed the container there, and the store does not know yet: nobody is told that the pool is full."""
    ann, bob = host("ann"), host("bob")
    use, _ = ready(ann, SMALL)
    other, _ = ready(bob, SMALL)
    given = [ann.claim(use) for _ in range(5)]
    ann.leases.release(use.pool, given[3])
    key = f"{PREFIX}/pools/10.5.0.0-29/{given[0]}"
    entry = store.get(key)
    assert entry is not None

    def tell() -> None:
        until(lambda: bob.wire.count("wait"))
        put(store, key, entry.value)  # a change that frees nothing
        until(lambda: bob.wire.count("wait") > 1)
        ann.settle()

    assert together(tell, lambda: bob.claim(other)) == [None, given[3]]
    waits = bob.wire.count("wait")
    with pytest.raises(Refused, match="is full"):
        bob.claim(other)
    assert bob.wire.count("wait") == waits + awaiting.WAITS


def test_where_nobody_else_has_an_address_nothing_is_waited_for(host: Make) -> None:
    """A full pool of this host's own containers is refused at once."""
    ann = host("ann")
    use, _ = ready(ann, SMALL)
    for _ in range(5):
        ann.claim(use)
    with pytest.raises(Refused, match="is full"):
        ann.claim(use)
    assert ann.wire.count("wait") == 0


def test_a_wish_inside_the_own_reserve_is_served_while_the_store_is_away(host: Make) -> None:
    """`--ip` of a reserved address needs no store; any other does."""
    ann = host("ann")
    use, _ = ready(ann)
    ann.settle()
    ann.wire.off = True
    assert ann.claim(use, ann.held("reserve")[3]) in ann.held("endpoint")
    with pytest.raises(Unavailable):
        ann.claim(use, "10.5.0.200")


def test_a_promise_that_cannot_be_kept_is_told(
    host: Make, store: SqliteStore, caplog: pytest.LogCaptureFixture
) -> None:
    """If another host got the address from an emptied store meanwhile, the log names it, and its lease stays its own.

    Whoever promised it stands behind the owner: given back there it is nobody else's, and cannot be asked for.
    """
    ann, bob = host("ann"), host("bob")
    use, on = ready(ann)
    ready(bob)
    ann.settle()
    ann.wire.off = True
    address = ann.claim(use)
    ann.container(on, address)
    taken = Lease(address=address, use="endpoint", hosts=(bob.me,))
    put(store, f"{PREFIX}/pools/10.5.0.0-24/{address}", encode(taken))
    ann.wire.off = False
    ann.settle()
    assert f"{address} was given out while the store was away; host bob has it as well" in caplog.text
    held = bob.records.lease(use.subnet, address)
    assert held is not None
    assert held.value == Lease(address=address, use="endpoint", hosts=(bob.me, ann.me))
    assert bob.records.release(use.subnet, address)
    with pytest.raises(Clash, match=f"{address} is in use by a container on host ann: choose another --ip"):
        bob.claim(use, address)
    ann.settle()
    assert not any(lease.promised for lease in ann.journal.leases.all())
    assert ann.records.lease(use.subnet, address).value.hosts == (ann.me,)


def test_what_clashed_is_not_promised_again(host: Make, store: SqliteStore) -> None:
    """The host knows that another has it: given back here, it is given out no more while the store cannot be asked."""
    ann, bob = host("ann"), host("bob")
    use, on = ready(ann)
    ann.settle()
    ann.wire.off = True
    address = ann.claim(use)
    mine = ann.container(on, address)
    taken = Lease(address=address, use="endpoint", hosts=(bob.me,))
    put(store, f"{PREFIX}/pools/10.5.0.0-24/{address}", encode(taken))
    ann.wire.off = False
    ann.settle()
    ann.wire.off = True
    ann.journal.endpoints.drop(mine.endpoint)
    ann.leases.release(use.pool, address)
    spare = set(ann.held("reserve"))
    assert {ann.claim(use) for _ in spare} == spare
    with pytest.raises(Unavailable, match=r"no address of 10\.5\.0\.0/24 is left in this host's reserve"):
        ann.claim(use)
    with pytest.raises(Unavailable):
        ann.claim(use, address)


def test_who_stands_behind_the_owner_is_not_passed_over(host: Make, store: SqliteStore) -> None:
    """The owner's Docker asks for the address anew before the lease was given back: another's container has it."""
    ann, bob = host("ann"), host("bob")
    use, _ = ready(ann)
    theirs, _ = ready(bob)
    both = Lease(address=Address("10.5.0.9"), use="endpoint", hosts=(bob.me, ann.me))
    put(store, f"{PREFIX}/pools/10.5.0.0-24/10.5.0.9", encode(both))
    with pytest.raises(Clash, match=r"10\.5\.0\.9 is in use by a container on host ann"):
        bob.claim(theirs, "10.5.0.9")
    assert bob.records.lease(use.subnet, Address("10.5.0.9")).value == both


def test_a_promise_that_clashes_is_told_once(host: Make, store: SqliteStore, caplog: pytest.LogCaptureFixture) -> None:
    """However often it is settled it is said and counted once, again for another host; freed there it is kept."""
    ann, bob, eve = host("ann"), host("bob"), host("eve")
    use, on = ready(ann)
    ann.settle()
    ann.wire.off = True
    address = ann.claim(use)
    ann.container(on, address)
    ann.wire.off = False
    key = f"{PREFIX}/pools/10.5.0.0-24/{address}"

    def told(by: Host) -> int:
        put(store, key, encode(Lease(address=address, use="endpoint", hosts=(by.me,))))
        for _ in range(3):
            ann.settle()
        return ann.tally.get("contradictions")

    assert [told(by) for by in (bob, eve, eve)] == [1, 2, 2]
    assert [caplog.text.count(f"host {by} has it as well") for by in ("bob", "eve")] == [1, 1]
    assert eve.records.release(use.subnet, address)
    ann.settle()
    assert not any(lease.promised for lease in ann.journal.leases.all())


def test_a_reserve_the_store_lost_is_not_given_out(host: Make, store: SqliteStore) -> None:
    """After the store was emptied a reserved address may be anybody's: it is asked for like any other."""
    ann, bob = host("ann"), host("bob")
    use, _ = ready(ann)
    ready(bob)
    ann.settle()
    first = ann.held("reserve")[0]
    taken = Lease(address=first, use="endpoint", hosts=(bob.me,))
    put(store, f"{PREFIX}/pools/10.5.0.0-24/{first}", encode(taken))
    assert ann.claim(use) == ann.held("endpoint")[0] != first


def test_a_store_that_finds_nothing_does_not_take_the_reserve(host: Make, store: SqliteStore) -> None:
    """Reads find nothing and writes find everything: that is no answer, and a reserved address is given out."""
    ann = host("ann")
    use, _ = ready(ann)
    ann.settle()
    reserve = ann.held("reserve")
    ann.wire.blind = True
    ann.leases.elsewhere = Elsewhere(lambda _: "the store lost what it held")
    given = [ann.claim(use) for _ in reserve]
    assert sorted(given) == sorted(reserve)
    with pytest.raises(Unavailable, match="left in this host's reserve, and the store lost"):
        ann.claim(use)
    ann.wire.blind = False
    ann.settle()
    assert leased(store) == set(given)


def test_a_reserved_address_with_garbage_at_its_key_is_left_alone(host: Make, store: SqliteStore) -> None:
    """Nobody can tell whose it is: another one is given out, and `--ip` names the key."""
    ann = host("ann")
    use, _ = ready(ann)
    ann.settle()
    first, *others = sorted(ann.held("reserve"), key=lambda address: address.number)
    put(store, f"{PREFIX}/pools/10.5.0.0-24/{first}", b"garbage")
    assert ann.claim(use) == others[0]
    with pytest.raises(Unreadable, match=r"pools/10\.5\.0\.0-24/"):
        ann.claim(use, first)


def test_a_full_pool_takes_the_reserve_of_living_hosts(host: Make, store: SqliteStore) -> None:
    """Under pressure what others keep free is given back, one by one, until really nothing is free."""
    ann, bob = host("ann"), host("bob")
    use, _ = ready(ann, "10.5.0.0/26")
    other, _ = ready(bob, "10.5.0.0/26")
    ann.settle()
    assert len(ann.held("reserve")) == 1
    kept = ann.held("reserve")[0]
    with consenting(ann):
        given = [bob.claim(other) for _ in range(61)]
    assert len(set(given)) == 61
    assert kept in given
    assert ann.held("reserve") == []
    with pytest.raises(Refused, match=r"pool 10\.5\.0\.0/26 is full"):
        bob.claim(other)
    with pytest.raises(Refused, match=r"pool 10\.5\.0\.0/26 is full"):
        ann.claim(use)
    assert ann.held("endpoint") == []


def test_a_full_range_says_so(host: Make) -> None:
    """The sentence names the range where one was given."""
    ann = host("ann")
    use, _ = ready(ann, within="10.5.0.4/31")
    ann.claim(use)
    ann.claim(use)
    with pytest.raises(Refused, match=r"pool 10\.5\.0\.4/31 is full"):
        ann.claim(use)


def test_the_reserve_of_a_silent_host_is_kept(host: Make, store: SqliteStore) -> None:
    """A host that is cut off may be giving out its reserve: nobody takes it, and `--ip` is refused with its name."""
    ann, bob = host("ann"), host("bob")
    use = ann.pool("10.5.0.0/26")
    ann.network(use)
    ann.settle()
    (kept,) = ann.held("reserve")
    other, _ = ready(bob, "10.5.0.0/26")
    with pytest.raises(Clash, match=f"{kept} is kept in reserve by host ann, which cannot be asked just now"):
        bob.claim(other, kept)
    given = {bob.claim(other) for _ in range(60)}
    assert kept not in given
    with pytest.raises(Refused, match="is full"):
        bob.claim(other)
    ann.live()
    with consenting(ann):
        assert bob.claim(other, kept) == kept
    assert ann.held("reserve") == []


def test_a_reserve_is_not_taken_without_its_owners_word(host: Make, store: SqliteStore) -> None:
    """Alive by its session, but deaf: `--ip` of its reserve is refused with its name, and it gives that out itself."""
    ann, bob = host("ann"), host("bob")
    use, _ = ready(ann)
    other, _ = ready(bob)
    ann.settle()
    kept = ann.held("reserve")[0]
    begun = time.monotonic()
    with pytest.raises(Clash, match=f"{kept} is kept in reserve by host ann, which did not give it up within 3 s"):
        bob.claim(other, kept)
    assert 2.5 < time.monotonic() - begun < 6
    ann.wire.off = True
    assert ann.claim(use) == kept
    ann.wire.off = False
    ann.ceding.asked(use.subnet)
    ann.settle()
    held = ann.records.lease(use.subnet, kept)
    assert held is not None
    assert (held.value.use, held.value.hosts, held.value.wanted) == ("endpoint", (ann.me,), None)


def test_what_is_asked_for_is_ceded_to_whoever_asked(host: Make, store: SqliteStore) -> None:
    """The owner forgets it before it is written over, also where that fails; nothing else of its reserve goes."""
    ann, bob = host("ann"), host("bob")
    use, _ = ready(ann)
    ready(bob)
    ann.settle()
    first, *rest = ann.held("reserve")
    lease = bob.records.lease(use.subnet, first)
    assert lease is not None
    assert bob.records.want(use.subnet, lease, DEMO)
    assert not bob.records.want(use.subnet, lease, DEMO)
    ann.ceding.asked(use.subnet)
    ann.ceding.settle(soon())
    assert ann.held("reserve") == rest
    now = bob.records.lease(use.subnet, first)
    assert now is not None
    assert (now.value.use, now.value.hosts, now.value.wanted) == ("reserve", (bob.me,), None)
    ring = ann.records.changes(DEMO, 0, timeout=1)
    assert isinstance(ring, Changes)
    assert ring.asked.hosts == (ann.me,)


def test_nothing_is_ceded_to_a_host_that_has_left(host: Make, store: SqliteStore) -> None:
    """There nothing would ever free it; and who asked in vain asks no longer."""
    ann, bob = host("ann"), host("bob")
    use, _ = ready(ann)
    ready(bob)
    ann.settle()
    kept = ann.held("reserve")
    lease = bob.records.lease(use.subnet, kept[0])
    assert lease is not None
    with pytest.raises(Clash, match="did not give it up"):
        bob.ceding.ask(use.subnet, lease, soon())
    now = bob.records.lease(use.subnet, kept[0])
    assert now is not None
    assert now.value == lease.value
    assert bob.records.want(use.subnet, now, DEMO)
    bob.records.write_pool(bob.records.pool(use.subnet), Pool(subnet=use.subnet, overlay=DEMO, users=(ann.me,)))
    ann.ceding.asked(use.subnet)
    ann.ceding.settle(soon())
    assert ann.held("reserve") == kept


def test_a_chosen_address_is_nobodys_wish(host: Make) -> None:
    """An address just given to a container that asked for none is no answer to a later `--ip`; a repeated wish is."""
    ann = host("ann")
    use, _ = ready(ann)
    chosen, wish = ann.claim(use), ann.claim(use, "10.5.0.77")
    assert ann.claim(use, "10.5.0.77") == wish
    with pytest.raises(Clash, match=f"{chosen} was just given to another container on this host"):
        ann.claim(use, chosen)
    ann.leases.release(use.pool, chosen)
    ann.settle()
    assert ann.claim(use, chosen) == ann.claim(use, chosen) == chosen


def test_a_release_while_the_store_is_away_is_told_later(host: Make, store: SqliteStore) -> None:
    """Docker's release succeeds at once; the address is nobody's only after the store was told."""
    ann = host("ann")
    use, _ = ready(ann, SMALL)
    given = [ann.claim(use) for _ in range(5)]
    ann.wire.off = True
    ann.leases.release(use.pool, given[2])
    assert ann.held("releasing") == [given[2]]
    ann.wire.off = False
    assert given[2] in leased(store)
    ann.settle()
    assert given[2] not in leased(store)
    assert ann.held("releasing") == []
    assert ann.claim(use) == given[2]


def test_settling_is_told_to_come(host: Make) -> None:
    """Whatever leaves something to do wakes the one who settles."""
    ann = host("ann")
    use, _ = ready(ann)
    for act in (
        lambda: ann.claim(use, "10.5.0.9"),
        lambda: ann.leases.release(use.pool, Address("10.5.0.9")),
        lambda: ann.pools.release(use.pool),
    ):
        ann.leases.wanted.clear()
        act()
        assert ann.leases.wanted.is_set()


def test_settling_with_the_store_away_says_so(host: Make) -> None:
    """Unfinished work raises, so that it is tried again, and loses nothing."""
    ann = host("ann")
    use, _ = ready(ann)
    ann.pools.release(use.pool)
    ann.wire.off = True
    with pytest.raises(Unavailable):
        ann.settle()
    ann.wire.off = False
    ann.journal.networks.drop("demo-ann".ljust(64, "0"))
    ann.settle()
    assert ann.journal.uses.all() == ()


def test_an_address_taken_again_during_its_release_stays_taken(host: Make, store: SqliteStore) -> None:
    """A release that is told late and a new container with the same `--ip` meet: the container's lease remains."""
    ann = host("ann")
    use, _ = ready(ann)
    address = ann.claim(use, "10.5.0.9")
    ann.wire.off = True
    ann.leases.release(use.pool, address)
    ann.wire.off = False
    claimed, asked = threading.Event(), threading.Event()
    answers: list[Address] = []

    def claim() -> None:
        answers.append(ann.claim(use, address))
        claimed.set()

    thread = threading.Thread(target=claim, daemon=True)

    def before(name: str, _: Any) -> None:
        if threading.current_thread() is thread:
            asked.set()
        elif name == "commit" and not thread.is_alive() and not claimed.is_set():
            thread.start()
            # The claim is under way: it has the address already, or it has asked and is made to wait for us.
            assert asked.wait(5)
            claimed.wait(0.3)

    ann.wire.before = before
    ann.settle()
    thread.join(8)
    assert answers == [address]
    assert address in leased(store)
    assert ann.held("endpoint") == [address]


# -- what failed calls leave behind --------------------------------------------------------------------------------


def test_an_abandoned_pool_is_collected(host: Make, store: SqliteStore, clock: Clock) -> None:
    """A pool whose network never came goes after ABANDONED, with what is set aside there, and not before."""
    ann = host("ann")
    use = ann.pool()
    ann.claim(use, "10.5.0.2")
    clock.now += ABANDONED
    ann.settle()
    assert ann.journal.uses.all() == (use,)
    clock.now += 1
    ann.settle()
    assert ann.journal.uses.all() == ann.journal.leases.all() == ()
    assert nothing_left(store)


def test_an_abandoned_address_is_collected(host: Make, store: SqliteStore, clock: Clock) -> None:
    """An address whose endpoint never came goes after ABANDONED; one that a container has stays for ever."""
    ann = host("ann")
    use, on = ready(ann, SMALL)
    used, lost = ann.claim(use), ann.claim(use)
    ann.container(on, used)
    clock.now += ABANDONED + 1
    ann.settle()
    assert leased(store) == {used}
    assert ann.held("endpoint") == [used]
    assert lost != used


def test_a_network_in_use_is_never_abandoned(host: Make, clock: Clock) -> None:
    """However long it is there, a network keeps its pool and its reserve."""
    ann = host("ann")
    ready(ann)
    ann.settle()
    clock.now += 100 * ABANDONED
    ann.settle()
    assert len(ann.journal.uses.all()) == 1
    assert len(ann.held("reserve")) == 7


def test_an_empty_network_whose_pool_was_given_back_gives_way(host: Make) -> None:
    """Docker released the pool of a network it never heard of: the next request for it is not refused."""
    ann = host("ann")
    use, on = ready(ann)
    gone: list[Network] = []

    def drop(network: Network) -> None:
        gone.append(network)
        ann.journal.networks.drop(network.network)

    ann.pools.on_given_back = drop
    with pytest.raises(Clash, match="has already joined"):
        ann.pool()
    ann.container(on, ann.claim(use))
    ann.pools.release(use.pool)
    with pytest.raises(Clash, match="has already joined"):
        ann.pool()
    for endpoint in ann.journal.endpoints.all():
        ann.journal.endpoints.drop(endpoint.endpoint)
    assert ann.pool().pool == use.pool
    assert gone == [on]


def test_a_network_whose_pool_was_given_back_is_collected(host: Make, clock: Clock) -> None:
    """After ABANDONED and not before: usually DeleteNetwork follows within milliseconds."""
    ann = host("ann")
    use, on = ready(ann)
    gone: list[Network] = []
    ann.pools.on_given_back = gone.append
    ann.pools.release(use.pool)
    ann.settle()
    clock.now += ABANDONED
    ann.settle()
    assert gone == []
    clock.now += 1
    ann.settle()
    assert gone == [on]


def test_after_everything_is_released_nothing_is_left(host: Make, store: SqliteStore) -> None:
    """Three hosts with containers, reserves, things set aside and a gateway leave no key below subnets/ and pools/."""
    hosts = [host(name) for name in ("ann", "bob", "eve")]
    made = []
    for one in hosts:
        use = one.pool()
        one.claim(use, "10.5.0.2")
        one.pools.gateway(use.pool, None, soon())
        made.append((one, use, one.network(use)))
        one.live()
    for one, use, on in made:
        for _ in range(4):
            one.container(on, one.claim(use))
        one.settle()
    assert len(leased(store)) == 1 + 3 * (4 + 7)
    for one, use, on in made:
        one.remove(on, use)
        one.settle()
        assert one.journal.leases.all() == one.journal.uses.all() == ()
    assert nothing_left(store)
    assert all(key.startswith(f"{PREFIX}/alive/") for key in every(store))


def test_a_pool_of_two_networks_stays_with_the_second(host: Make, store: SqliteStore) -> None:
    """A pool given twice (with another range) is left only when both are released."""
    ann = host("ann")
    one, two = ann.pool("10.5.0.0/24"), ann.pool("10.5.0.0/24", "10.5.0.128/25")
    assert one.pool != two.pool
    ann.pools.release(one.pool)
    ann.settle()
    assert ann.records.pool(one.subnet) is not None
    ann.pools.release(two.pool)
    ann.settle()
    assert nothing_left(store)


@pytest.mark.parametrize("late", [False, True], ids=["refused before", "refused after"])
def test_of_two_creations_at_once_the_refused_one_takes_nothing(
    host: Make, store: SqliteStore, clock: Clock, late: bool
) -> None:
    """Both are given the pool: what the loser gives back, before or after the winner's network is made, stays its."""
    ann = host("ann")
    use, _ = ann.pool(), ann.pool()
    ann.claim(use, "10.5.0.2")
    on = ann.network(use) if late else None
    if late:
        with pytest.raises(Clash, match=r"overlay demo of pool .* was just joined by network demo-ann"):
            ann.pools.use_of(use.subnet)
    ann.leases.release(use.pool, Address("10.5.0.2"))
    ann.pools.release(use.pool)
    assert ann.pools.use_of(use.subnet) == (None if late else ann.pools.use(use.pool))
    on = on or ann.network(use)
    ann.settle()
    clock.now += ABANDONED
    ann.settle()
    assert ann.held("aux") == ["10.5.0.2"]
    assert len(ann.held("reserve")) == 7
    ann.container(on, ann.claim(use))
    ann.remove(on, use)
    ann.settle()
    assert nothing_left(store)


def test_a_pool_whose_first_answer_was_lost_goes_with_its_network(host: Make, store: SqliteStore, clock: Clock) -> None:
    """Docker asked twice and gives back once: at once after CREATING, else with what is abandoned."""
    ann = host("ann")
    for passes, pause in ((CREATING, 0.0), (0.0, ABANDONED + 1)):
        use, _ = ann.pool(), ann.pool()
        on = ann.network(use)
        clock.now += passes
        ann.remove(on, use)
        clock.now += pause
        ann.settle()
        ann.settle()
        assert nothing_left(store)


# -- enemies and outsiders -----------------------------------------------------------------------------------------


def test_a_bad_lease_costs_one_address(host: Make, store: SqliteStore) -> None:
    """A key that nobody can read is left alone and passed over: containers start all the same."""
    ann = host("ann")
    use, _ = ready(ann)
    for last in (2, 3):
        put(store, f"{PREFIX}/pools/10.5.0.0-24/10.5.0.{last}", b"garbage")
    began = time.monotonic()
    assert ann.claim(use) == "10.5.0.4"
    assert time.monotonic() - began < 5
    assert every(store)[f"{PREFIX}/pools/10.5.0.0-24/10.5.0.2"] == b"garbage"


def outside(store: SqliteStore, address: str, flags: int = 0) -> None:
    put(store, f"demo-1/arp/{address}", "02:42:00:00:00:99", flags)
    put(store, "demo-1/fib/02:42:00:00:00:99", "192.0.2.99", flags)


def test_outsiders_addresses_are_taken(host: Make, store: SqliteStore) -> None:
    """Where outsiders are on their addresses are passed over, kept out of the reserve, and refused by name."""
    ann = host("ann")
    use, _ = ready(ann, records="demo-1", outsiders=True)
    outside(store, "10.5.0.2")
    assert ann.claim(use) == "10.5.0.3"
    ann.settle()
    assert "10.5.0.2" not in ann.held("reserve")
    with pytest.raises(
        Clash, match=r"10\.5\.0\.2 belongs to an outsider, by the key demo-1/arp/10\.5\.0\.2: choose another --ip"
    ):
        ann.claim(use, "10.5.0.2")


def test_a_leftover_in_the_index_blocks_nobody(host: Make, store: SqliteStore) -> None:
    """An `arp/` key with our mark that no lease stands behind is no outsider's: its address can be had."""
    ann = host("ann")
    use, _ = ready(ann, records="demo-1", outsiders=True)
    outside(store, "10.5.0.2", MARK)
    assert ann.claim(use, "10.5.0.2") == "10.5.0.2"


def test_half_an_outsider_blocks_its_address_at_once(host: Make, store: SqliteStore) -> None:
    """An `arp/` key without its `fib/` key refuses its address by name, and does not use up the deadline."""
    ann = host("ann")
    use, _ = ready(ann, records="demo-1", outsiders=True)
    put(store, "demo-1/arp/10.5.0.2", "02:42:00:00:00:99")
    with pytest.raises(Clash, match="belongs to an outsider"):
        ann.claim(use, "10.5.0.2")
    assert ann.claim(use) == "10.5.0.3"


def test_an_outsider_that_comes_later_takes_from_the_reserve(host: Make, store: SqliteStore) -> None:
    """A reserved address that an outsider's key names by now is not given out."""
    ann = host("ann")
    use, _ = ready(ann, records="demo-1", outsiders=True)
    ann.settle()
    first = ann.held("reserve")[0]
    outside(store, first)
    assert ann.claim(use) != first


def test_a_lease_that_cannot_be_read_is_named(host: Make, store: SqliteStore) -> None:
    """Whoever asks for that very address is told the key at once, instead of trying until the deadline."""
    ann = host("ann")
    use, _ = ready(ann)
    put(store, f"{PREFIX}/pools/10.5.0.0-24/10.5.0.9", b"garbage")
    with pytest.raises(Unreadable, match=r"pools/10\.5\.0\.0-24/10\.5\.0\.9 in the store cannot be read"):
        ann.leases.claim(use.pool, Address("10.5.0.9"), time.monotonic() + 60)
    assert ann.held("endpoint") == []


def test_a_store_that_always_conflicts_ends_with_the_deadline(host: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fought over without end, a call ends with Late in time, and claims nothing."""
    ann = host("ann")
    use, _ = ready(ann)
    monkeypatch.setattr(ann.records, "write_lease", lambda *_, **__: False)
    began = time.monotonic()
    with pytest.raises(Late):
        ann.leases.claim(use.pool, Address("10.5.0.9"), began + 0.2)
    assert time.monotonic() - began < 3
    assert ann.held("endpoint") == []


# -- answers that were lost ----------------------------------------------------------------------------------------


def test_a_lease_whose_answer_was_lost_is_taken_back(host: Make, store: SqliteStore) -> None:
    """The store wrote a lease and could not say so: nobody uses it, so it is freed when the store answers again."""
    ann = host("ann")
    use, _ = ready(ann, SMALL)
    ann.wire.unheard = True
    with pytest.raises(Unavailable):
        ann.claim(use)
    assert len(leased(store)) == 1
    ann.wire.unheard = False
    ann.settle()
    assert leased(store) == set()
    assert ann.claim(use) == "10.5.0.2"


def test_a_pool_whose_answer_was_lost_is_taken_back(host: Make, store: SqliteStore) -> None:
    """The store entered this host as a pool's user and could not say so: it does not stay one."""
    ann = host("ann")
    ann.wire.unheard = True
    with pytest.raises(Unavailable):
        ann.pool()
    assert not nothing_left(store)
    ann.wire.unheard = False
    ann.settle()
    assert nothing_left(store)


def test_a_promise_that_was_released_meanwhile_is_not_written(host: Make, store: SqliteStore) -> None:
    """A container started and stopped while the store was away: no lease of it is written afterwards."""
    ann = host("ann")
    use, _ = ready(ann)
    ann.settle()
    ann.wire.off = True
    address = ann.claim(use)
    (promised,) = [one for one in ann.journal.leases.all() if one.promised]
    ann.leases.free(use.pool, address)
    ann.wire.off = False
    ann.telling.keep(promised, soon())
    held = ann.records.lease(use.subnet, address)
    assert held is not None
    assert held.value.use == "reserve"


def test_a_pool_without_a_network_of_ours_gives_no_address(host: Make) -> None:
    """With another network driver nobody could tell a container's address from a leftover."""
    ann = host("ann")
    use = ann.pool()
    with pytest.raises(Refused, match="serves networks of -d myoverlay only"):
        ann.claim(use)


# -- a store that is away for long, and one that lost something ------------------------------------------------------


def test_a_released_address_that_another_has_by_now_is_not_given_again(host: Make, store: SqliteStore) -> None:
    """The store lost it before it was told of the release, and gave it away; in a doubt it answers, and that counts."""
    ann, bob = host("ann"), host("bob")
    use, _ = ready(ann, SMALL)
    ready(bob, SMALL)
    first, second = ann.claim(use), ann.claim(use)
    ann.wire.off = True
    for address in (first, second):
        ann.leases.release(use.pool, address)
    ann.wire.off = False
    put(store, f"{PREFIX}/pools/10.5.0.0-29/{first}", encode(Lease(address=first, use="endpoint", hosts=(bob.me,))))
    ann.leases.elsewhere = Elsewhere(lambda _: "the store lost what it held")
    assert ann.claim(use) == second
    with pytest.raises(Unavailable, match=r"no address of 10\.5\.0\.0/29 is left in this host's reserve"):
        ann.claim(use)
    with pytest.raises(Unavailable, match="the store lost what it held"):
        ann.claim(use, first)


def test_with_the_reserve_used_up_released_addresses_serve(host: Make, store: SqliteStore) -> None:
    """Containers come and go while the store is away: what one gave up the next one gets, and no two have the same."""
    ann = host("ann")
    use, on = ready(ann)
    ann.settle()
    ann.wire.off = True
    living = {ann.container(on, ann.claim(use)) for _ in range(7)}
    for _ in range(20):
        gone = living.pop()
        ann.journal.endpoints.drop(gone.endpoint)
        ann.leases.release(use.pool, gone.address)
        living.add(ann.container(on, ann.claim(use)))
        assert len({one.address for one in living}) == 7
    with pytest.raises(Unavailable, match=r"no address of 10\.5\.0\.0/24 is left in this host's reserve"):
        ann.claim(use)
    ann.wire.off = False
    ann.settle()
    for one in living:
        held = ann.records.lease(use.subnet, one.address)
        assert held is not None
        assert (held.value.use, held.value.hosts) == ("endpoint", (ann.me,))


def test_a_claim_that_was_never_answered_serves_nobody(host: Make, store: SqliteStore) -> None:
    """Whether the store wrote it is not known, so it is not given out on this host's word."""
    ann = host("ann")
    use, _ = ready(ann, SMALL)
    ann.wire.unheard = True
    with pytest.raises(Unavailable):
        ann.claim(use)
    ann.wire.off = True
    with pytest.raises(Unavailable, match="is left in this host's reserve"):
        ann.claim(use)


def test_a_release_that_was_never_answered_serves_nobody(host: Make, store: SqliteStore) -> None:
    """The store freed it and could not say so, and another host has it by now: it is not given out again here."""
    ann, bob = host("ann"), host("bob")
    use, _ = ready(ann, SMALL)
    other, _ = ready(bob, SMALL)
    address = ann.claim(use)
    ann.wire.unheard = True
    ann.leases.release(use.pool, address)
    with pytest.raises(Unavailable):
        ann.settle()
    ann.wire.off = True
    assert bob.claim(other, address) == address
    with pytest.raises(Unavailable, match="is left in this host's reserve"):
        ann.claim(use)
    ann.wire.off = ann.wire.unheard = False
    ann.settle()
    assert ann.held("releasing") == []
    held = bob.records.lease(other.subnet, address)
    assert held is not None
    assert held.value.hosts == (bob.me,)


def test_a_release_that_was_cut_short_serves_nobody(host: Make, store: SqliteStore) -> None:
    """A kill between the store's deed and the journal's: that the store may have done it is noted beforehand."""
    ann = host("ann")
    use, _ = ready(ann, SMALL)
    address = ann.claim(use)
    noted = []

    def look(name: str, _: object) -> None:
        if name == "commit":
            noted.extend(lease.unsure for lease in ann.journal.leases.all() if lease.address == address)

    ann.wire.before = look
    ann.leases.release(use.pool, address)
    ann.settle()
    assert noted == [True]
    assert ann.journal.leases.all() == ()


def test_new_addresses_are_held_back_in_a_doubt(host: Make, store: SqliteStore) -> None:
    """The reserve serves, and then a claim fails with the reason; a wish too, and nothing is written for either."""
    ann = host("ann")
    use, _ = ready(ann)
    ann.settle()
    ann.leases.elsewhere = Elsewhere(lambda network: f"{network.overlay}: the store lost what it held")
    for _ in range(7):
        ann.claim(use)
    before = leased(store)
    for asked in (None, "10.5.0.200"):
        with pytest.raises(Unavailable, match="demo: the store lost what it held"):
            ann.claim(use, asked)
    assert leased(store) == before
    ann.leases.elsewhere = Elsewhere()
    assert ann.claim(use, "10.5.0.200") == "10.5.0.200"


def test_the_reserve_is_not_filled_in_a_doubt(host: Make, store: SqliteStore) -> None:
    """A free address may be one that another host promised while the store was away: it is left alone until known."""
    ann = host("ann")
    ready(ann)
    ann.leases.elsewhere = Elsewhere(lambda _: "the store lost what it held")
    ann.settle()
    assert leased(store) == set()
    ann.leases.elsewhere = Elsewhere()
    ann.settle()
    assert len(leased(store)) == 7


def test_an_address_that_others_list_is_not_free(host: Make, store: SqliteStore) -> None:
    """A lease that the store lost is still in use by whom another host lists: neither a wish nor luck gets it."""
    ann = host("ann")
    use, _ = ready(ann, SMALL)
    others = {Address("10.5.0.2"), Address("10.5.0.4")}
    ann.leases.elsewhere = Elsewhere(others=others)
    with pytest.raises(Clash, match=r"10\.5\.0\.4 is in use on another host, though the store has no lease of it"):
        ann.claim(use, "10.5.0.4")
    assert [ann.claim(use) for _ in range(3)] == ["10.5.0.3", "10.5.0.5", "10.5.0.6"]
    with pytest.raises(Refused, match="is full"):
        ann.claim(use)
    others.clear()
    assert ann.claim(use, "10.5.0.4") == "10.5.0.4"


def test_a_reserved_address_is_taken_anew_in_an_emptied_store(host: Make, store: SqliteStore) -> None:
    """Its lease is gone: of this host and one that finds the same address free, only one gets it."""
    ann, bob = host("ann"), host("bob")
    use, _ = ready(ann)
    other, _ = ready(bob)
    ann.settle()
    first = ann.held("reserve")[0]
    held = ann.records.lease(use.subnet, first)
    assert held is not None
    assert ann.records.drop_lease(use.subnet, held)

    def faster(name: str, _: object) -> None:
        if name == "commit":
            ann.wire.before = lambda _name, _what: None
            assert bob.claim(other, first) == first

    ann.wire.before = faster
    assert ann.claim(use) != first
    kept = bob.records.lease(use.subnet, first)
    assert kept is not None
    assert kept.value.hosts == (bob.me,)
