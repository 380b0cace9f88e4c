"""What dead hosts leave: freed when their time is over and nobody hears them, or at once on a person's word."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from myoverlay.errors import Clash, Denied, Unavailable, Unknown
from myoverlay.host.epoch import LAPSE, Epoch
from myoverlay.host.graves import Graves
from myoverlay.networks import Became, HeldNetwork
from myoverlay.plan.fates import State
from myoverlay.store import Delete
from myoverlay.store.networks import NetworkRecords
from myoverlay.store.records import Member
from myoverlay.store.sqlite import SqliteStore
from myoverlay.values import Address, Lease, OverlayName, Subnet
from tests.pure.host.test_peers import LEASE_GRACE, Watcher, lists
from tests.pure.kit import DEMO, PREFIX, SUBNET, Host, definition, every, put, soon

EVERY = LEASE_GRACE / 4
OTHER = OverlayName("other")


class Digger(Watcher):
    """A host with its graves. `pools`: the pool of each of its overlays."""

    def __init__(self, host: Host) -> None:
        super().__init__(host)
        self.pools: dict[OverlayName, Subnet] = {DEMO: SUBNET}
        self.epoch = Epoch(host.journal, host.presence, self.tally, 60.0, self.clock)
        self.epoch.look()
        self.graves = Graves(
            host.records,
            host.presence,
            self.watch,
            self.fates,
            self.epoch,
            self.pools.get,
            LEASE_GRACE,
            self.clock,
        )

    def settle(self) -> None:
        self.look()
        self.fates.step()
        self.graves.settle(soon())

    def dies(self, host: Host) -> None:
        """The host is found dead now."""
        self.beat.pulse(host.me).silent = True
        self.settle()
        assert self.fates.is_dead(host.me)

    def forget(self, name: str, force: bool = False) -> object:
        return self.graves.forget(name, force, soon())


Make = Callable[[str], Host]


def takes_part(one: Host, last: int, overlay: OverlayName = DEMO, subnet: str = str(SUBNET), vni: int = 5) -> None:
    """The host is a member, has a list and leases of an overlay, as a running one has."""
    use = one.pool(subnet)
    on = one.network(use, overlay)
    of = definition(overlay=overlay, subnet=use.subnet, gateway=None, holders=(one.me,), vni=vni)
    held, member = one.records.definition(overlay), Member(name=one.name, vtep=Address(f"192.0.2.{last}"))
    assert (one.records.found(of, member) is None) if held is None else one.records.join(held, member)
    one.container(on, one.claim(use))
    one.settle()
    lists(one, f"192.0.2.{last}", overlay, f"{subnet.rpartition('.')[0]}.{last}")


@pytest.fixture
def ann(host: Make) -> Digger:
    one = host("ann")
    takes_part(one, 11)
    return Digger(one)


@pytest.fixture
def bob(ann: Digger, host: Make) -> Host:
    one = host("bob")
    takes_part(one, 12)
    return one


def left_of(store: SqliteStore, one: Host) -> list[str]:
    """The keys that still say something of the host; the rings only say that it changed."""
    return [
        key
        for key, value in every(store).items()
        if (one.me in key or one.me.encode() in value) and "/changes/" not in key
    ]


# -- burial --------------------------------------------------------------------------------------------------------


def test_a_dead_host_is_buried_after_the_lease_grace(ann: Digger, bob: Host, store: SqliteStore) -> None:
    """List, member, holder, use of the pool, leases and witness: nothing of it stays, and all of ours does."""
    own = left_of(store, ann.host)
    ann.settle()
    ann.host.presence.bear_witness(bob.me)
    ann.dies(bob)
    whole = left_of(store, bob)
    assert len(whole) > 8
    ann.clock.now += LEASE_GRACE - 0.1
    ann.settle()
    assert left_of(store, bob) == whole
    ann.clock.now += 0.1
    ann.settle()
    assert left_of(store, bob) == []
    assert left_of(store, ann.host) == own
    ann.settle()
    assert ann.watch.sharing() == {}


def test_under_a_policy_the_hosts_own_keys_stay(
    ann: Digger, bob: Host, store: SqliteStore, caplog: pytest.LogCaptureFixture
) -> None:
    """With a token that may not write another host's keys: all else goes, its addresses are free, and it is said once,
    with what stays. A later death, and a person's word, end in the same way."""

    def policy(name: str, what: Any) -> None:
        if name == "commit" and any(f"/hosts/{bob.me}/" in op.key for op in what):
            raise Denied("Consul says permission denied")

    ann.host.wire.before = policy
    own = f"{PREFIX}/hosts/{bob.me}/overlays/demo"
    ann.dies(bob)
    ann.clock.now += LEASE_GRACE
    for _ in range(3):
        ann.settle()
    assert left_of(store, bob) == [own]
    said = [one.getMessage() for one in caplog.records if "is buried" in one.getMessage()]
    assert said == [f"host bob is buried: its addresses are free; the keys below {PREFIX}/hosts/{bob.me}/ stay, the token may not delete them"]  # fmt: skip # noqa: E501
    asked = ann.host.wire.count("commit")
    ann.settle()
    assert ann.host.wire.count("commit") == asked, "what is not allowed was tried again and again"
    assert getattr(ann.forget("bob"), "kept") == f"{PREFIX}/hosts/{bob.me}/"  # noqa: B009


def test_a_burial_is_said_once(ann: Digger, bob: Host, caplog: pytest.LogCaptureFixture) -> None:
    """It is done again as long as the host is called dead, for it may not have been whole; the log has it once. What
    was said is forgotten when the host is back: another death is said again."""
    takes_part(bob, 12, OTHER, "10.6.0.0/24", 6)  # which this host is no part of: so it stays among the dead
    ann.dies(bob)
    ann.clock.now += LEASE_GRACE
    for _ in range(3):
        ann.fates.step()
        assert ann.fates.expired() == {bob.me}
        ann.graves.settle(soon())
        assert sum("is buried" in record.message for record in caplog.records) == 1
    bob.live()
    ann.beat.pulse(bob.me).silent = False
    ann.settle()
    assert not ann.fates.is_dead(bob.me)
    assert ann.graves._buried == set()


def test_a_host_is_buried_as_far_as_it_shares(ann: Digger, bob: Host, store: SqliteStore) -> None:
    """What it has on an overlay that this host is no part of is another host's to take away."""
    takes_part(bob, 12, OTHER, "10.6.0.0/24", 6)
    ann.dies(bob)
    ann.clock.now += LEASE_GRACE
    ann.settle()
    kept = left_of(store, bob)
    assert kept
    assert all("other" in key or "10.6.0" in key or key.endswith("vni/6") for key in kept)


def test_a_host_that_is_back_is_not_buried(ann: Digger, bob: Host, store: SqliteStore) -> None:
    """It is there again by the store, and this host has not noticed yet: nothing of it is touched."""
    ann.dies(bob)
    ann.clock.now += LEASE_GRACE
    ann.fates.step()
    assert ann.fates.expired() == {bob.me}
    bob.live()
    whole = every(store)
    ann.graves.settle(soon())
    assert every(store) == whole


def test_a_burial_that_was_cut_short_is_ended(ann: Digger, bob: Host, store: SqliteStore) -> None:
    """At whichever call the store goes away, a later settling takes the rest."""
    ann.dies(bob)
    ann.clock.now += LEASE_GRACE
    ann.fates.step()
    for after in range(100):
        left = [after]

        def fail(_name: str, _what: object, left: list[int] = left) -> None:
            left[0] -= 1
            if left[0] < 0:
                raise Unavailable("the store went away")

        ann.host.wire.before = fail
        try:
            ann.graves.settle(soon())
        except Unavailable:
            continue
        break
    ann.host.wire.before = lambda _name, _what: None
    assert left_of(store, bob) == []


def test_two_hosts_bury_one(ann: Digger, bob: Host, store: SqliteStore, host: Make) -> None:
    """Both find it dead and dig at once or one after the other: it is buried once, and neither fails."""
    other = host("eve")
    takes_part(other, 13)
    eve = Digger(other)
    for one in (ann, eve):
        one.beat.pulse(other.me).heard = one.beat.pulse(ann.host.me).heard = None
        one.dies(bob)
        one.clock.now += LEASE_GRACE
    ann.look()
    ann.fates.step()

    def dig(name: str, _: object) -> None:
        if name == "commit":
            ann.host.wire.before = lambda _name, _what: None
            eve.look()
            eve.fates.step()
            eve.graves._bury_or_wait(bob.me, soon())

    ann.host.wire.before = dig
    ann.graves._bury_or_wait(bob.me, soon())
    assert left_of(store, bob) == []


# -- witnesses -----------------------------------------------------------------------------------------------------


def test_who_hears_a_host_that_is_cut_off_says_so(ann: Digger, bob: Host, store: SqliteStore) -> None:
    """At once, and again each quarter of the lease grace, as long as it hears it."""
    said: list[str | None] = []
    ann.settle()
    for _ in range(9):
        ann.beat.pulse(bob.me).heard = ann.clock.now
        ann.settle()
        said.append(bob.presence.witness(bob.me))
        ann.clock.now += EVERY / 4
    assert None not in said
    assert len(set(said)) == 3


def test_another_hosts_word_stops_the_clock(ann: Digger, bob: Host, store: SqliteStore, host: Make) -> None:
    """As long as somebody else hears it, it keeps its addresses; when that ends it is buried a lease grace later."""
    other = host("eve")
    ann.dies(bob)
    whole = left_of(store, bob)
    for _ in range(3):
        ann.clock.now += LEASE_GRACE / 2
        other.presence.bear_witness(bob.me)
        ann.settle()
        ann.clock.now += LEASE_GRACE / 2
        ann.settle()
        assert ann.fates.expired() == set()
        assert set(whole) <= set(left_of(store, bob))
    ann.clock.now += LEASE_GRACE
    ann.settle()
    assert left_of(store, bob) == []


def test_nobody_is_buried_while_the_store_is_in_doubt(ann: Digger, bob: Host, store: SqliteStore) -> None:
    """What others say of the dead may be among what it lost: they are given the time to say it again."""
    ann.dies(bob)
    ann.clock.now += LEASE_GRACE - 1
    ann.epoch.went_back()
    ann.epoch.look()
    ann.clock.now += 2
    ann.settle()
    assert left_of(store, bob)
    for _ in range(6):  # the store is there all the while
        ann.clock.now += LAPSE
        ann.epoch.look()
    ann.settle()
    assert not left_of(store, bob)


def test_nobody_is_buried_on_the_silence_of_a_store_that_was_away(ann: Digger, bob: Host, store: SqliteStore) -> None:
    """Who heard the host meanwhile could not say so (model seed 673370103): for half the lease grace he may."""
    ann.settle()
    ann.host.wire.off = True
    ann.beat.pulse(bob.me).silent = True
    ann.fates.step()
    ann.clock.now += LEASE_GRACE
    ann.fates.step()
    assert ann.fates.expired() == {bob.me}
    ann.host.wire.off = False
    ann.graves.listen_anew()
    whole = left_of(store, bob)
    ann.settle()
    ann.clock.now += LEASE_GRACE / 2 - 1
    ann.settle()
    assert left_of(store, bob) == whole
    ann.clock.now += 1
    ann.settle()
    assert left_of(store, bob) == []


def test_a_word_is_said_again_to_a_store_that_may_have_lost_it(ann: Digger, bob: Host, store: SqliteStore) -> None:
    """Who hears a host that is cut off says so at once under the store's new identity, and not only when it is due."""
    ann.settle()
    ann.beat.pulse(bob.me).heard = ann.clock.now
    ann.settle()
    assert bob.presence.witness(bob.me) is not None
    bob.presence.end_witness(bob.me)
    ann.clock.now += 1
    ann.settle()
    assert bob.presence.witness(bob.me) is None
    ann.epoch.went_back()
    ann.epoch.look()
    ann.settle()
    assert bob.presence.witness(bob.me) is not None


def test_a_word_from_before_its_death_stops_nothing(ann: Digger, bob: Host, store: SqliteStore, host: Make) -> None:
    """What was said before it was found dead is no sign of life."""
    host("eve").presence.bear_witness(bob.me)
    ann.dies(bob)
    ann.clock.now += LEASE_GRACE
    ann.settle()
    assert left_of(store, bob) == []


# -- forgetting ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["name", "id", "start"])
def test_a_host_is_forgotten_at_once(ann: Digger, bob: Host, store: SqliteStore, call: str) -> None:
    """By its name, its id or the start of it: everything of it goes, also where this host shares nothing with it."""
    takes_part(bob, 12, OTHER, "10.6.0.0/24", 6)
    ann.dies(bob)
    done = ann.forget({"name": "bob", "id": bob.me, "start": bob.me[:6]}[call])
    assert left_of(store, bob) == []
    assert (done.host, done.name) == (bob.me, "bob")  # type: ignore[attr-defined]
    assert done.overlays == (DEMO, OTHER)  # type: ignore[attr-defined]
    assert done.pools == (SUBNET, Subnet("10.6.0.0/24"))  # type: ignore[attr-defined]


def test_a_member_without_a_list_is_forgotten_too(ann: Digger, bob: Host, store: SqliteStore) -> None:
    """A host that had no container on an overlay, or whose list the store lost, is its holder no more."""
    ann.settle()
    ann.dies(bob)
    entry = store.get(f"{PREFIX}/hosts/{bob.me}/overlays/demo")
    assert entry is not None
    store.commit([Delete(entry.key, entry.index)])
    ann.forget("bob")
    assert left_of(store, bob) == []


@pytest.mark.parametrize("call", ["cid", "start"])
def test_a_host_that_never_had_an_overlay_is_forgotten_too(
    ann: Digger, host: Make, store: SqliteStore, call: str
) -> None:
    """All that is left of it is what it said of networks for all hosts, and what it called itself there."""
    cid = host("cid")
    said = HeldNetwork(host=cid.me, network=OTHER, plan="1" * 32, became=Became.HELD, host_name="cid")
    NetworkRecords(store, PREFIX, cid.me).say(said)
    ann.settle()
    done = ann.forget({"cid": "cid", "start": cid.me[:6]}[call])
    assert (done.host, done.name, done.overlays) == (cid.me, "cid", ())  # type: ignore[attr-defined]
    assert left_of(store, cid) == []
    with pytest.raises(Unknown, match="no host is called"):
        ann.forget("cid")


def test_a_user_of_a_pool_alone_is_forgotten_too(ann: Digger, host: Make, store: SqliteStore) -> None:
    """A host that ended between asking for a pool and creating its network has no list, and is no holder."""
    joe = host("joe")
    joe.pool("10.7.0.0/24")
    assert left_of(store, joe) == [f"{PREFIX}/subnets/10.7.0.0-24"]
    ann.settle()
    ann.forget(joe.me)
    assert left_of(store, joe) == []


def test_an_owner_of_a_lease_alone_is_forgotten_too(ann: Digger, host: Make, store: SqliteStore) -> None:
    """It took an address in a store that had lost it, and ended before it said more (model seed 54869111)."""
    joe, address = host("joe"), Address("10.5.0.77")
    lease = Lease(address=address, use="endpoint", hosts=(joe.me,))
    assert joe.records.write_lease(SUBNET, None, lease)
    ann.settle()
    ann.forget(joe.me)
    assert left_of(store, joe) == []


def test_a_host_that_this_one_never_saw_is_forgotten_by_its_name(ann: Digger, host: Make, store: SqliteStore) -> None:
    """It ended before this one started, and shares nothing with it: the store's list of members names it."""
    joe = host("joe")
    takes_part(joe, 12, OTHER, "10.6.0.0/24", 6)
    ann.settle()
    ann.forget("joe")
    assert left_of(store, joe) == []


def test_a_living_host_is_not_forgotten(ann: Digger, bob: Host, store: SqliteStore) -> None:
    """Not even by force: it is told where it can be asked to leave."""
    ann.settle()
    bob.live()
    ann.look()
    whole = every(store)
    for force in (False, True):
        with pytest.raises(Clash, match="host bob is alive: stop its plugin, or run `myoverlay host leave` there"):
            ann.forget("bob", force)
    assert every(store) == whole


def test_a_host_that_is_cut_off_is_forgotten_by_force_alone(ann: Digger, bob: Host, store: SqliteStore) -> None:
    """Its containers may run: the sentence says so, and force does it all the same."""
    ann.settle()
    ann.beat.pulse(bob.me).heard = ann.clock.now
    ann.settle()
    assert ann.state(bob) is State.CUT_OFF
    with pytest.raises(Clash, match="host bob is cut off: its containers may still run"):
        ann.forget("bob")
    assert left_of(store, bob)
    ann.forget("bob", force=True)
    assert left_of(store, bob) == []


def test_a_host_that_comes_back_meanwhile_is_not_said_to_be_forgotten(
    ann: Digger, bob: Host, store: SqliteStore
) -> None:
    """What it had left by then stays, and whoever asked is told that it is alive."""
    ann.dies(bob)

    def back(name: str, _: object) -> None:
        if name == "commit":
            ann.host.wire.before = lambda _name, _what: None
            bob.live()

    ann.host.wire.before = back
    whole = left_of(store, bob)
    with pytest.raises(Clash, match="host bob is alive"):
        ann.forget("bob")
    assert set(whole) <= set(left_of(store, bob))


def test_who_is_meant_must_be_clear(ann: Digger, bob: Host, host: Make) -> None:
    """Two of one name are told apart by their ids; nobody's name, and too short a start of an id, is nobody."""
    twin = host("twin")
    twin.name = "bob"
    takes_part(twin, 13)
    ann.settle()
    with pytest.raises(Clash, match="2 hosts are called bob: use an id, one of") as caught:
        ann.forget("bob")
    assert bob.me.short in str(caught.value)
    assert twin.me.short in str(caught.value)
    for nobody in ("joe", bob.me[:5], ann.host.me, ""):
        with pytest.raises(Unknown, match="no host is called"):
            ann.forget(nobody)


def test_a_garbled_list_of_a_dead_host_is_no_hindrance(ann: Digger, bob: Host, store: SqliteStore) -> None:
    """Whatever lies under its keys, its leases are freed."""
    ann.dies(bob)
    put(store, f"{PREFIX}/hosts/{bob.me}/overlays/demo", b"garbage")
    ann.forget("bob")
    assert left_of(store, bob) == []
