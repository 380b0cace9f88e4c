"""Records: the keys as documented, compare-and-set by position, and everything read as if an enemy wrote it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from myoverlay.plan.believe import believed
from myoverlay.store import Conflict, Delete, Put, Reset, Unchanged
from myoverlay.store.hostlists import READER
from myoverlay.store.pooled import MARK
from myoverlay.store.presence import Presence
from myoverlay.store.records import (
    MAX_CLAIMS,
    Changes,
    Claim,
    Member,
    Outsiders,
    Published,
    Records,
    Stale,
    VniHolder,
)
from myoverlay.store.rings import RING_LENGTH, RINGS, Ring
from myoverlay.store.sqlite import SqliteStore
from myoverlay.store.typed import Held
from myoverlay.values import (
    COUNT_LIMIT,
    Address,
    Alive,
    Definition,
    HostId,
    HostList,
    Lease,
    Mac,
    OverlayName,
    Peer,
    Pool,
    Record,
    Subnet,
    encode,
)
from tests.pure.kit import ANN, BOB, DEMO, EVE, SUBNET, definition, every, put, record

VTEP = Address("192.0.2.1")
MEMBER = Member(name="ann", vtep=VTEP)
ADDRESS = Address("10.5.0.3")
RECORD = record("10.5.0.3")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(tmp_path / "store.db")
    yield store
    store.close()


@pytest.fixture
def ann(store: SqliteStore) -> Records:
    return Records(store, "myoverlay", ANN)


@pytest.fixture
def bob(store: SqliteStore) -> Records:
    return Records(store, "myoverlay", BOB)


def list_of(records: Records, *entries: Record, overlay: OverlayName = DEMO) -> HostList:
    return HostList(host=records.me, overlay=overlay, vtep=VTEP, records=entries)


def publish(records: Records, *entries: Record, of: Definition | None = None, drops: list[Any] | None = None) -> Any:
    of = of or definition()
    listed = records.lists(of.overlay, [records.me]).get(records.me)
    claims = [Claim(entry) for entry in entries]
    return records.publish(of, list_of(records, *entries), listed, records.ring(of.overlay), claims, drops or [])


def ring_key(store: SqliteStore) -> str:
    (key,) = store.keys("myoverlay/overlays/demo/changes/").keys
    return key


# -- keys ----------------------------------------------------------------------------------------------------------


def test_an_overlay_has_the_documented_keys(store: SqliteStore, ann: Records) -> None:
    """What founding and publishing write lies exactly where the table of keys says, and nowhere else."""
    assert ann.found(definition(), MEMBER) is None
    assert isinstance(publish(ann, RECORD), Published)
    ring = ring_key(store)
    assert ring.removeprefix("myoverlay/overlays/demo/changes/") in {str(number) for number in range(RINGS)}
    assert set(every(store)) == {
        "myoverlay/overlays/demo/definition",
        f"myoverlay/overlays/demo/members/{ANN}",
        f"myoverlay/hosts/{ANN}/overlays/demo",
        "myoverlay/overlays/demo/records/arp/10.5.0.3",
        "myoverlay/overlays/demo/records/fib/02:42:0a:05:00:03",
        "myoverlay/vni/7340033",
        ring,
    }


def test_pools_leases_and_liveness_have_the_documented_keys(store: SqliteStore, ann: Records) -> None:
    """A pool, a lease and the session's key lie where the table of keys says."""
    session = store.open_session("ann", 10.0)
    assert ann.write_pool(None, Pool(subnet=SUBNET, users=(ANN,)))
    assert ann.write_lease(SUBNET, None, Lease(address=ADDRESS, use="endpoint", hosts=(ANN,)))
    assert Presence(store, "myoverlay", ANN).announce(Alive(host=ANN, name="ann", vteps=(VTEP,)), session, None)
    assert set(every(store)) == {
        "myoverlay/subnets/10.5.0.0-24",
        "myoverlay/pools/10.5.0.0-24/10.5.0.3",
        f"myoverlay/alive/{ANN}",
    }


def test_the_index_is_the_tutorials(store: SqliteStore, ann: Records) -> None:
    """With `records=demo-1` the keys are the tutorial's to the letter: plain text, and our mark in the flags alone."""
    assert isinstance(publish(ann, RECORD, of=definition(records="demo-1")), Published)
    arp, fib = store.get("demo-1/arp/10.5.0.3"), store.get("demo-1/fib/02:42:0a:05:00:03")
    assert arp is not None
    assert fib is not None
    assert (arp.value, fib.value) == (b"02:42:0a:05:00:03", b"192.0.2.1")
    assert arp.flags == fib.flags == MARK


def test_another_prefix_moves_all_of_it(store: SqliteStore) -> None:
    """Two installations in one Consul share no key."""
    other = Records(store, "team/net", ANN)
    assert other.found(definition(), MEMBER) is None
    assert isinstance(publish(other, RECORD), Published)
    assert every(store, "myoverlay") == {}
    assert all(key.startswith("team/net/") for key in every(store, "team"))


# -- overlays ------------------------------------------------------------------------------------------------------


def test_the_first_defines_and_the_second_is_told(ann: Records, bob: Records) -> None:
    """A definition is written once; who comes second learns that it is there, and then joins as another holder."""
    assert ann.found(definition(), MEMBER) is None
    assert bob.found(definition(holders=(BOB,), vni=9), MEMBER) == "definition"
    held = bob.definition(DEMO)
    assert held is not None
    assert held.value == definition()
    assert bob.join(held, Member(name="bob", vtep=Address("192.0.2.2")))
    assert not bob.join(held, MEMBER), "the definition is another since"
    joined = ann.definition(DEMO)
    assert joined is not None
    assert joined.value.holders == (ANN, BOB)
    assert {host: member.name for host, member in ann.members(DEMO).items()} == {ANN: "ann", BOB: "bob"}


def test_a_vni_has_one_overlay(store: SqliteStore, ann: Records, bob: Records) -> None:
    """A second overlay with the VNI is refused for the VNI, and leaves nothing behind."""
    assert ann.found(definition(), MEMBER) is None
    before = every(store)
    other = definition(overlay=OverlayName("other"), holders=(BOB,))
    assert bob.found(other, MEMBER) == "vni"
    assert every(store) == before
    assert ann.vnis() == {0x700001: VniHolder(overlay=DEMO, subnet=SUBNET)}


def test_leaving_keeps_what_the_others_need(store: SqliteStore, ann: Records, bob: Records) -> None:
    """While another holder is there only this host's own keys go, and its name among the holders."""
    ann.found(definition(), MEMBER)
    held = bob.definition(DEMO)
    assert held is not None
    bob.join(held, MEMBER)
    publish(ann, RECORD)
    publish(bob, record("10.5.0.4"))
    before = every(store)
    left = ann.definition(DEMO)
    assert left is not None
    assert ann.leave(left)
    gone = {f"myoverlay/overlays/demo/members/{ANN}", f"myoverlay/hosts/{ANN}/overlays/demo"}
    assert set(every(store)) == set(before) - gone
    after = bob.definition(DEMO)
    assert after is not None
    assert after.value == definition(holders=(BOB,))


def test_the_last_to_leave_takes_the_overlay_along(store: SqliteStore, ann: Records) -> None:
    """After the last holder left no key of the overlay is there, its VNI is free, and outsiders' keys stay."""
    ann.found(definition(), MEMBER)
    done = publish(ann, RECORD)
    ann.publish(definition(), list_of(ann), done.listed, done.ring, [], list(done.claimed))
    put(store, "myoverlay/overlays/demo/records/arp/10.5.0.9", "02:42:0a:05:00:09")
    held = ann.definition(DEMO)
    assert held is not None
    assert ann.leave(held)
    assert set(every(store)) == {"myoverlay/overlays/demo/records/arp/10.5.0.9"}
    assert ann.found(definition(), MEMBER) is None


def test_withdrawing_tells_the_others_and_spares_theirs(store: SqliteStore, ann: Records, bob: Records) -> None:
    """A host that leaves writes an empty list and turns its ring; its index keys go, nobody else's do."""
    mine = [record(f"10.5.0.{last}") for last in range(10, 10 + MAX_CLAIMS)]
    publish(ann, *mine)
    publish(bob, RECORD)
    put(store, ann.arp(definition(), Address("10.5.0.10")), "02:42:00:00:00:99")
    turns = ann.ring(DEMO).value.last
    assert ann.withdraw(definition())
    assert ann.lists(DEMO, [ANN])[ANN].value.records == ()
    assert ann.ring(DEMO).value.last == turns + 1
    left = {key.rpartition("/")[2] for key in every(store, PLACE)}
    assert left == {"10.5.0.10", "10.5.0.3", "02:42:0a:05:00:03"}
    assert ann.withdraw(definition())
    assert ann.ring(DEMO).value.last == turns + 1


def test_leaving_with_an_old_picture_does_nothing(store: SqliteStore, ann: Records, bob: Records) -> None:
    """Who would have been the last, had nobody joined meanwhile, takes nothing along."""
    ann.found(definition(), MEMBER)
    old = ann.definition(DEMO)
    assert old is not None
    bob.join(old, MEMBER)
    before = every(store)
    assert not ann.leave(old)
    assert every(store) == before


def test_leaving_what_a_rollback_knows_nothing_of(store: SqliteStore, ann: Records, bob: Records) -> None:
    """Where the definition names others only, what this host wrote meanwhile goes, and nothing else changes."""
    bob.found(definition(holders=(BOB,)), MEMBER)
    publish(bob, record("10.5.0.4"))
    before = every(store)
    publish(ann)
    put(store, f"myoverlay/overlays/demo/members/{ANN}", encode(MEMBER))
    held = bob.definition(DEMO)
    assert held is not None
    assert ann.leave(held)
    assert {key for key in every(store) if "/changes/" not in key} == {key for key in before if "/changes/" not in key}
    assert bob.definition(DEMO) == held
    assert ann.leave(held), "nothing to do is done"


def test_leaving_an_overlay_that_is_no_more(store: SqliteStore, ann: Records, bob: Records) -> None:
    """Without a definition all that is left of the overlay goes; not where one is founded meanwhile."""
    publish(ann)
    put(store, "myoverlay/vni/7340033", encode(VniHolder(overlay=DEMO, subnet=SUBNET)))
    gone = Held(definition(holders=()), 0)
    put(store, "myoverlay/overlays/demo/definition", encode(definition(holders=(BOB,))))
    before = every(store)
    assert not ann.leave(gone)
    assert every(store) == before
    store.commit([Delete("myoverlay/overlays/demo/definition", store.get("myoverlay/overlays/demo/definition").index)])
    assert ann.leave(gone)
    assert every(store) == {}


def test_leaving_spares_a_vni_that_is_anothers(store: SqliteStore, ann: Records) -> None:
    """A VNI key that names another overlay by now is not ours to delete."""
    ann.found(definition(), MEMBER)
    put(store, "myoverlay/vni/7340033", encode(VniHolder(overlay=OverlayName("other"), subnet=SUBNET)))
    held = ann.definition(DEMO)
    assert held is not None
    assert ann.leave(held)
    assert set(every(store)) == {"myoverlay/vni/7340033"}


# -- publishing ----------------------------------------------------------------------------------------------------


def test_published_tells_the_new_indexes(store: SqliteStore, ann: Records) -> None:
    """What was written can be written again from what the answer holds, with nothing read in between."""
    done = publish(ann, RECORD)
    assert isinstance(done, Published)
    again = ann.publish(definition(), list_of(ann), done.listed, done.ring, [], list(done.claimed))
    assert isinstance(again, Published)
    assert again.ring.value == Ring(last=2, hosts=(ANN, ANN))
    assert not [key for key in every(store) if "/records/" in key]


def test_publishing_with_an_old_list_is_stale_there(ann: Records) -> None:
    """An own list that changed (a second plugin under our id) is told apart from a ring that others turned."""
    publish(ann)
    outcome = ann.publish(definition(), list_of(ann), None, ann.ring(DEMO), [], [])
    assert outcome == Stale(listed=True, ring=False, claims=())


def test_publishing_with_an_old_ring_is_stale_there(ann: Records) -> None:
    """A ring that another host turned meanwhile is all that has to be read again."""
    done = publish(ann)
    outcome = ann.publish(definition(), list_of(ann), done.listed, Held(Ring(), 0), [], [])
    assert outcome == Stale(listed=False, ring=True, claims=())


@pytest.mark.parametrize("taken", ["arp/10.5.0.4", "fib/02:42:0a:05:00:04"])
def test_a_claim_that_is_taken_is_named(store: SqliteStore, ann: Records, taken: str) -> None:
    """Of several claims exactly the one is named whose address or MAC somebody has, and nothing is written."""
    put(store, f"myoverlay/overlays/demo/records/{taken}", "02:42:00:00:00:99")
    before = every(store)
    records = [record(f"10.5.0.{last}") for last in (3, 4, 5)]
    outcome = publish(ann, *records)
    assert outcome == Stale(listed=False, ring=False, claims=(Claim(records[1]),))
    assert every(store) == before


def test_a_full_claim_is_one_commit(ann: Records) -> None:
    """MAX_CLAIMS records fit into a commit beside the list and the ring."""
    records = [record(f"10.5.0.{last}") for last in range(10, 10 + MAX_CLAIMS)]
    done = publish(ann, *records)
    assert isinstance(done, Published)
    assert len(done.claimed) == 2 * MAX_CLAIMS


def test_an_outsiders_key_is_never_cleared_by_an_old_picture(store: SqliteStore, ann: Records) -> None:
    """A leftover is cleared as it was read: a PUT in between saves the key."""
    publish(ann, RECORD)
    entries = ann.index_entries(definition(), [RECORD])
    put(store, ann.arp(definition(), ADDRESS), "02:42:00:00:00:99")
    assert not ann.clear(entries.values())
    assert every(store)[ann.arp(definition(), ADDRESS)] == b"02:42:00:00:00:99"
    assert ann.clear(ann.index_entries(definition(), [RECORD]).values())
    assert ann.index_entries(definition(), [RECORD]) == {}


# -- rings ---------------------------------------------------------------------------------------------------------


@given(st.integers(0, 3 * RING_LENGTH), st.integers(0, 3 * RING_LENGTH))
def test_a_ring_tells_who_changed_since(turns: int, then: int) -> None:
    """All hosts that changed after a turn, oldest first, or None where that is further back than the ring is long."""
    hosts = [HostId(f"{number:032x}") for number in range(turns)]
    ring = Ring()
    for host in hosts:
        ring = ring.turned(host)
    assert ring.last == turns
    missed = turns - then
    assert ring.since(then) == (tuple(hosts[then:]) if 0 <= missed <= RING_LENGTH else None)


@given(st.integers(0, 2 * RING_LENGTH), st.integers(0, 2 * RING_LENGTH))
def test_what_a_ring_became_follows_it(turns: int, more: int) -> None:
    """However many turns later; the ring before them does not follow the one after, nor an empty one any."""
    before = Ring()
    for number in range(turns):
        before = before.turned(HostId(f"{number:032x}"))
    after = before
    for number in range(more):
        after = after.turned(HostId(f"{number + 1000:032x}"))
    assert after.follows(before)
    assert before.follows(after) == (more == 0)


@given(st.integers(0, 2 * RING_LENGTH), st.integers(1, RING_LENGTH), st.integers(0, RING_LENGTH - 1))
def test_a_ring_that_lost_turns_and_made_others_does_not_follow(turns: int, lost: int, more: int) -> None:
    """As long as it tells of one of the turns that others took in place of the lost ones."""
    ring = Ring()
    for number in range(turns):
        ring = ring.turned(HostId(f"{number:032x}"))
    before = after = ring
    for _ in range(lost):
        before = before.turned(ANN)
    for _ in range(lost + more):
        after = after.turned(BOB)
    assert not after.follows(before) or more + lost > RING_LENGTH
    assert not before.follows(after)


def test_a_ring_at_its_end_begins_anew() -> None:
    """A number that somebody set as high as it goes stops no writer; watchers then list everything."""
    ring = Ring(last=COUNT_LIMIT, hosts=(EVE,))
    turned = ring.turned(ANN)
    assert encode(turned)
    assert turned.hosts == (EVE, ANN)
    assert turned.since(ring.last) is None


def test_hosts_spread_over_the_rings(store: SqliteStore) -> None:
    """Many hosts use all rings, so that parallel writers seldom meet."""
    for number in range(64):
        publish(Records(store, "myoverlay", HostId(f"{number * 7919:032x}")))
    assert len(store.keys("myoverlay/overlays/demo/changes/").keys) == RINGS


def test_changes_are_the_rings(ann: Records, bob: Records) -> None:
    """A watcher sees who wrote, sleeps while nobody does, and is told when the store began again."""
    publish(bob)
    seen = ann.changes(DEMO, 0, timeout=1.0)
    assert isinstance(seen, Changes)
    assert [ring.hosts for ring in seen.rings.values()] == [(BOB,)]
    assert isinstance(ann.changes(DEMO, seen.index, timeout=0.01), Unchanged)
    assert isinstance(ann.changes(DEMO, seen.index + 1000, timeout=0.01), Reset)


def test_a_bad_ring_is_begun_anew(store: SqliteStore, ann: Records) -> None:
    """Garbage in a ring is an empty ring to its readers and is written over by the next writer."""
    publish(ann)
    put(store, ring_key(store), b"\xff")
    seen = ann.changes(DEMO, 0, timeout=1.0)
    assert isinstance(seen, Changes)
    assert list(seen.rings.values()) == [Ring()]
    assert isinstance(publish(ann), Published)
    assert ann.ring(DEMO).value == Ring(last=1, hosts=(ANN,))


def test_a_bad_own_list_is_written_over(store: SqliteStore, ann: Records) -> None:
    """Who spoils a host's list cannot keep the host from writing it: it is read as one that is certainly not wanted."""
    publish(ann)
    put(store, f"myoverlay/hosts/{ANN}/overlays/demo", b"{}")
    held = ann.own_list(DEMO, VTEP)
    assert held is not None
    assert held.value != list_of(ann)
    outcome = ann.publish(definition(), list_of(ann), held, ann.ring(DEMO), [], [])
    assert isinstance(outcome, Published)
    again = ann.own_list(DEMO, VTEP)
    assert again is not None
    assert again.value == list_of(ann)


def test_a_host_without_a_list_has_none(ann: Records) -> None:
    """A list that is absent is None: it will be made by check-not-exists."""
    assert ann.own_list(DEMO, VTEP) is None


# -- outsiders -----------------------------------------------------------------------------------------------------

PLACE = "myoverlay/overlays/demo/records"


@pytest.mark.parametrize(
    ("mac", "vtep"),
    [
        ("02:42:0a:05:00:09", "192.0.2.9"),
        ("02:42:0a:05:00:09\n", "192.0.2.9\n"),
        ("  02:42:0A:05:00:09\r\n", "\t192.0.2.9 "),
    ],
)
def test_outsiders_are_read_as_people_write_them(store: SqliteStore, ann: Records, mac: str, vtep: str) -> None:
    """A trailing newline of `echo | curl -T -`, blanks and capitals change nothing."""
    put(store, f"{PLACE}/arp/10.5.0.9", mac)
    put(store, f"{PLACE}/fib/02:42:0a:05:00:09", vtep)
    seen = ann.outsiders(definition(), 0, timeout=1.0)
    assert isinstance(seen, Outsiders)
    address, known = Address("10.5.0.9"), Mac("02:42:0a:05:00:09")
    assert seen.peers == (Peer(address=address, mac=known, vtep=Address("192.0.2.9")),)
    assert seen.addresses == {address}
    assert ann.lookup(definition(), address) == (seen.peers[0], False, {})
    assert ann.lookup_mac(definition(), known) == ("192.0.2.9", False)
    assert ann.quarantine == {}


def test_what_is_ours_is_no_outsider(store: SqliteStore, ann: Records) -> None:
    """Keys with our mark are no outsider's; a bare PUT over one clears the mark and makes it one."""
    publish(ann, RECORD)
    seen = ann.outsiders(definition(), 0, timeout=1.0)
    assert isinstance(seen, Outsiders)
    assert (seen.peers, seen.addresses) == ((), frozenset())
    assert ann.lookup(definition(), ADDRESS) == (Peer(address=ADDRESS, mac=RECORD.mac, vtep=VTEP), True, {})
    put(store, f"{PLACE}/arp/10.5.0.3", "02:42:0a:05:00:03")
    again = ann.outsiders(definition(), 0, timeout=1.0)
    assert isinstance(again, Outsiders)
    assert again.addresses == {ADDRESS}


@pytest.mark.parametrize(("mac", "reads"), [("02:42:0a:05:00:09", 1), ("02:00:00:00:00:01", 2)])
def test_a_look_up_is_one_read_for_the_usual_mac(
    store: SqliteStore, ann: Records, monkeypatch: pytest.MonkeyPatch, mac: str, reads: int
) -> None:
    """A packet waits for it. A MAC of somebody's own choice is found all the same, by a second one."""
    put(store, f"{PLACE}/arp/10.5.0.9", mac)
    put(store, f"{PLACE}/fib/{mac}", "192.0.2.9")
    asked = []
    for name in ("get", "get_many"):
        real = getattr(store, name)
        monkeypatch.setattr(store, name, lambda *a, real=real, **k: asked.append(a) or real(*a, **k))
    assert ann.store is store
    found = ann.lookup(definition(), Address("10.5.0.9"))
    assert found == (Peer(address=Address("10.5.0.9"), mac=Mac(mac), vtep=Address("192.0.2.9")), False, {})
    assert len(asked) == reads


def test_lists_are_read_along_with_the_index(ann: Records) -> None:
    """In one read, with the records that are as they were, and what is nobody's by now, or bad, is left out."""
    publish(ann, RECORD)
    before = ann.lists(DEMO, [ann.me])
    near = {**before, BOB: Held(HostList(host=BOB, overlay=DEMO, vtep=VTEP), 1)}
    found = ann.lookup(definition(), Address("10.5.0.9"), near)
    assert (found.peer, found.marked) == (None, False)
    assert found.lists == before
    assert found.lists[ann.me].value.records[0] is before[ann.me].value.records[0]


def test_half_an_outsider_has_its_address_taken(store: SqliteStore, ann: Records) -> None:
    """An `arp/` key without its `fib/` key leads nowhere, and yet its address is not given out."""
    put(store, f"{PLACE}/arp/10.5.0.9", "02:42:0a:05:00:09")
    seen = ann.outsiders(definition(), 0, timeout=1.0)
    assert isinstance(seen, Outsiders)
    assert (seen.peers, seen.addresses) == ((), {Address("10.5.0.9")})
    assert ann.lookup(definition(), Address("10.5.0.9")).peer is None


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("arp/10.5.0.1", "02:42:0a:05:00:09"),  # the gateway
        ("arp/10.5.0.255", "02:42:0a:05:00:09"),
        ("arp/10.9.0.9", "02:42:0a:05:00:09"),
        ("arp/10.5.0.9/x", "02:42:0a:05:00:09"),
        ("arp/", "02:42:0a:05:00:09"),
        ("arp/10.5.0.9", ""),
        ("arp/10.5.0.9", "ff:ff:ff:ff:ff:ff"),
        ("arp/10.5.0.9", "02:42:0a:05:00:09 " * 10),
        ("fib/02:42:0a:05:00:09", "224.0.0.1"),
        ("fib/02:42:0a:05:00:09", "127.0.0.1"),
        ("fib/02:42:0a:05:00:09", "host-9"),
        ("fib/ff:ff:ff:ff:ff:ff", "192.0.2.9"),
        ("fib/02:42:0a:05:00:09", "192.0.2.9\n192.0.2.8"),
    ],
)
def test_a_bad_outsider_is_left_out_by_name(store: SqliteStore, ann: Records, key: str, value: str) -> None:
    """The bad key is quarantined with its reason, and the good pair beside it is read."""
    put(store, f"{PLACE}/{key}", value)
    put(store, f"{PLACE}/arp/10.5.0.8", "02:42:0a:05:00:08")
    put(store, f"{PLACE}/fib/02:42:0a:05:00:08", "192.0.2.8")
    seen = ann.outsiders(definition(), 0, timeout=1.0)
    assert isinstance(seen, Outsiders)
    assert [peer.address for peer in seen.peers] == ["10.5.0.8"]
    assert list(ann.quarantine) == [f"{PLACE}/{key}"]


def test_other_keys_of_the_place_are_none_of_our_business(store: SqliteStore, ann: Records) -> None:
    """What lies beside `arp/` and `fib/` is passed over without a word."""
    put(store, f"{PLACE}/notes", "hello")
    put(store, f"{PLACE}/arpx/10.5.0.9", "02:42:0a:05:00:09")
    assert isinstance(ann.outsiders(definition(), 0, timeout=1.0), Outsiders)
    assert ann.quarantine == {}


def test_a_lease_spares_an_outsiders_address(store: SqliteStore, ann: Records) -> None:
    """Taken together with a look at the index, a lease loses against an outsider's key."""
    put(store, f"{PLACE}/arp/10.5.0.9", "02:42:0a:05:00:09")
    lease = Lease(address=Address("10.5.0.9"), use="endpoint", hosts=(ANN,))
    assert not ann.write_lease(SUBNET, None, lease, definition())
    assert ann.write_lease(SUBNET, None, lease)


# -- as if an enemy had written it ---------------------------------------------------------------------------------


def good_list(host: HostId) -> bytes:
    return encode(HostList(host=host, overlay=DEMO, vtep=Address("192.0.2.7"), records=(record("10.5.0.7"),)))


#: kind: a key with a bad value, one beside it that is good with its value, and what a reader of both makes of them.
KINDS: dict[str, tuple[str, str, bytes, Callable[[Records], Any]]] = {
    "list": (
        f"hosts/{EVE}/overlays/demo",
        f"hosts/{BOB}/overlays/demo",
        good_list(BOB),
        lambda records: set(records.lists(DEMO, records.hosts_of(DEMO))) == {BOB},
    ),
    "definition": (
        "overlays/spoilt/definition",
        "overlays/demo/definition",
        encode(definition()),
        lambda records: records.definition(OverlayName("spoilt")) is None and records.definition(DEMO) is not None,
    ),
    "member": (
        f"overlays/demo/members/{EVE}",
        f"overlays/demo/members/{BOB}",
        encode(MEMBER),
        lambda records: set(records.members(DEMO)) == {BOB},
    ),
    "ring": (
        "overlays/demo/changes/0",
        "overlays/demo/changes/1",
        encode(Ring(last=1, hosts=(BOB,))),
        lambda records: records.changes(DEMO, 0, timeout=1.0).rings["1"].hosts == (BOB,),
    ),
    "pool": (
        "subnets/10.6.0.0-24",
        "subnets/10.5.0.0-24",
        encode(Pool(subnet=SUBNET, users=(BOB,))),
        lambda records: (
            [held.value.subnet for held in records.pools()] == [SUBNET]
            and records.pool(Subnet("10.6.0.0/24")) is None
        ),
    ),
    "lease": (
        "pools/10.5.0.0-24/10.5.0.3",
        "pools/10.5.0.0-24/10.5.0.4",
        encode(Lease(address=Address("10.5.0.4"), use="endpoint", hosts=(BOB,))),
        lambda records: (
            set(records.leases(SUBNET)) == {Address("10.5.0.4")} and records.lease(SUBNET, ADDRESS) is None
        ),
    ),
    "vni": (
        "vni/7340034",
        "vni/7340033",
        encode(VniHolder(overlay=DEMO, subnet=SUBNET)),
        lambda records: {vni for vni, holder in records.vnis().items() if holder is not None} == {7340033},
    ),
}  # fmt: skip
#: Bytes no reader takes for a value of any kind: not JSON, not an object, too deep, or without what is required.
hostile = st.one_of(
    st.binary(max_size=80),
    st.text(max_size=40).map(lambda text: json.dumps(text).encode()),
    st.dictionaries(st.sampled_from(["host", "address", "use", "name", "last", "x"]), st.integers() | st.text()).map(
        lambda table: json.dumps(table | {"host": 0, "subnet": 0, "address": 0, "vtep": 0, "last": "x"}).encode()
    ),
    st.sampled_from([b"{" * 10_000, b'{"x":' + b"[" * 100_000, b"9" * 5_000, b'{"last":' + b"9" * 4_000 + b"}"]),
)


@pytest.mark.parametrize("kind", KINDS)
@given(value=hostile)
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_hostile_values_are_left_out_and_counted(store: SqliteStore, kind: str, value: bytes) -> None:
    """Whatever bytes lie under a key of ours, a reader goes on, reads the good key beside it, and names the bad one."""
    bad, good, right, read = KINDS[kind]
    records = Records(store, "myoverlay", ANN)
    put(store, f"myoverlay/{bad}", value)
    put(store, f"myoverlay/{good}", right)
    assert read(records)
    assert list(records.quarantine) == [f"myoverlay/{bad}"]


@given(value=hostile, name=st.text(st.characters(codec="ascii", exclude_characters="/", categories=("L", "N", "P"))))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_hostile_index_keys_are_left_out_and_counted(store: SqliteStore, value: bytes, name: str) -> None:
    """The same for the plain text of `arp/` and `fib/`, whose keys anybody may write, under any name."""
    records = Records(store, "myoverlay", ANN)
    place = f"zoo{len(store.keys('zoo').keys)}"
    of = definition(records=place)
    keys = {f"{place}/{kind}/{last}" for kind in ("arp", "fib") for last in (f"{name}x", "10.5.0.3", str(RECORD.mac))}
    for key in keys:
        if ".." not in key.split("/") and not key.endswith("/."):
            put(store, key, value)
    put(store, f"{place}/arp/10.5.0.8", "02:42:0a:05:00:08")
    put(store, f"{place}/fib/02:42:0a:05:00:08", "192.0.2.8")
    seen = records.outsiders(of, 0, timeout=1.0)
    assert isinstance(seen, Outsiders)
    assert [peer.address for peer in seen.peers] == ["10.5.0.8"]
    assert set(records.quarantine) == {*keys}
    assert records.lookup(of, ADDRESS).peer is None
    assert records.lookup_mac(of, RECORD.mac) is None


@pytest.mark.parametrize(
    ("key", "value", "read"),
    [
        ("pools/10.5.0.0-24/10.5.0.3", encode(Lease(address=Address("10.5.0.4"), use="aux", hosts=(BOB,))),
         lambda records: records.leases(SUBNET) or records.lease(SUBNET, ADDRESS)),
        ("subnets/10.6.0.0-24", encode(Pool(subnet=SUBNET)),
         lambda records: records.pools() or records.pool(Subnet("10.6.0.0/24"))),
        ("vni/x", encode(VniHolder(overlay=DEMO, subnet=SUBNET)), Records.vnis),
        ("vni/" + "9" * 5000, encode(VniHolder(overlay=DEMO, subnet=SUBNET)), Records.vnis),
        (f"hosts/{EVE}/overlays/demo", good_list(BOB), lambda records: records.lists(DEMO, [EVE])),
        ("hosts/nobody/overlays/demo", good_list(BOB), lambda records: records.hosts_of(DEMO)),
        ("overlays/demo/definition", encode(definition(overlay=OverlayName("other"))),
         lambda records: records.definition(DEMO)),
        ("overlays/demo/members/nobody", encode(MEMBER), lambda records: records.members(DEMO)),
    ],
    ids=lambda value: value[:20] if isinstance(value, str) else "",
)  # fmt: skip
def test_a_value_under_anothers_key_is_left_out(
    store: SqliteStore, ann: Records, key: str, value: bytes, read: Callable[[Records], Any]
) -> None:
    """A good value that is about something else than its key is as bad as garbage, and is counted as such."""
    put(store, f"myoverlay/{key}", value)
    assert not read(ann)
    assert list(ann.quarantine) == [f"myoverlay/{key}"]


def test_the_quarantine_is_bounded(store: SqliteStore, ann: Records) -> None:
    """An enemy with many keys fills no memory."""
    for start in range(0, 1200, 60):
        store.commit([Put(f"myoverlay/vni/{number}", b"x") for number in range(start, start + 60)])
    assert set(ann.vnis().values()) == {None}
    assert len(ann.quarantine) == 1000


def test_only_what_can_be_in_the_overlay_is_believed() -> None:
    """A host's list may hold nonsense: the gateway, foreign addresses, a VTEP that is none. The rest is believed."""
    lists = {
        BOB: HostList(
            host=BOB,
            overlay=DEMO,
            vtep=Address("192.0.2.2"),
            records=tuple(record(address) for address in ("10.5.0.1", "10.5.0.255", "10.9.0.2", "fd00::2", "10.5.0.8")),
        ),
        EVE: HostList(host=EVE, overlay=DEMO, vtep=Address("224.0.0.1"), records=(record("10.5.0.9"),)),
    }
    assert [(peer.address, peer.host) for peer in believed(definition(), lists)] == [("10.5.0.8", BOB)]


# -- other people's keys -------------------------------------------------------------------------------------------


def test_foreign_keys_survive_everything(store: SqliteStore, ann: Records, bob: Records) -> None:
    """A whole life of overlays, pools and hosts touches no key beside ours, however near its name is."""
    foreign = {
        "foreign/app": b"1",
        "myoverlay2/overlays/demo/definition": b"2",
        "myoverlay": b"3",
        "myoverlay/notes": b"4",
        "myoverlay/overlays/demo2/definition": b"5",
        "myoverlay/overlays/demo/records2/arp/10.5.0.3": b"6",
        "myoverlay/overlays/demo/records/arp/10.5.0.77": b"02:42:0a:05:00:77",
        "myoverlay/pools/10.5.0.0-245/10.5.0.3": b"7",
        f"myoverlay/hosts/{ANN}/overlays/demo2": b"8",
        "demo-1x/arp/10.5.0.3": b"9",
        "demo-1/fib/02:00:00:00:00:77": b"192.0.2.77",
    }
    for key, value in foreign.items():
        put(store, key, value)
    for of in (definition(), definition(overlay=OverlayName("tutorial"), records="demo-1", vni=5)):
        assert ann.found(of, MEMBER) is None
        held = bob.definition(of.overlay)
        assert held is not None
        assert bob.join(held, MEMBER)
        done = publish(ann, RECORD, of=of)
        assert isinstance(
            ann.publish(of, list_of(ann, overlay=of.overlay), done.listed, done.ring, [], list(done.claimed)), Published
        )
        for records in (ann, bob):
            held = records.definition(of.overlay)
            assert held is not None
            assert records.leave(held)
    ann.write_pool(None, Pool(subnet=SUBNET, users=(ANN,)))
    ann.write_lease(SUBNET, None, Lease(address=ADDRESS, use="endpoint", hosts=(ANN,)))
    lease, pool = ann.lease(SUBNET, ADDRESS), ann.pool(SUBNET)
    assert lease is not None
    assert pool is not None
    assert ann.drop_lease(SUBNET, lease)
    assert ann.write_pool(pool, Pool(subnet=SUBNET))
    session = store.open_session("ann", 10.0)
    assert Presence(store, "myoverlay", ANN).announce(Alive(host=ANN, name="ann", vteps=()), session, None)
    store.close_session(session)
    assert every(store) == foreign


def test_pools_and_leases_are_changed_by_compare_and_set(ann: Records, bob: Records) -> None:
    """Of two hosts with one picture the second is told that it is old; a pool nobody uses goes."""
    assert ann.write_pool(None, Pool(subnet=SUBNET, users=(ANN,)))
    assert not bob.write_pool(None, Pool(subnet=SUBNET, users=(BOB,)))
    lease = Lease(address=ADDRESS, use="endpoint", hosts=(ANN,))
    assert ann.write_lease(SUBNET, None, lease)
    assert not bob.write_lease(SUBNET, None, Lease(address=ADDRESS, use="endpoint", hosts=(BOB,)))
    held = ann.lease(SUBNET, ADDRESS)
    assert held is not None
    assert ann.drop_lease(SUBNET, held)
    assert not bob.drop_lease(SUBNET, held)
    pool = bob.pool(SUBNET)
    assert pool is not None
    assert bob.write_pool(pool, Pool(subnet=SUBNET))
    assert ann.pool(SUBNET) is None


def test_the_arrangement_can_fail(store: SqliteStore) -> None:
    """The store of these tests does refuse an old index: what they say about compare-and-set is worth something."""
    put(store, "myoverlay/x", "1")
    assert isinstance(store.commit([Delete("myoverlay/x", 999)]), Conflict)


def test_a_list_for_newer_readers_is_left_out(store: SqliteStore, ann: Records, bob: Records) -> None:
    """A list says which reader it needs; one that is too old for it passes it over and names it."""
    publish(bob, RECORD)
    key = next(entry for entry in store.list("myoverlay/hosts/").entries)
    store.commit([Put(key.key, encode(msgspec.structs.replace(list_of(bob, RECORD), schema=9, reader=READER + 1)))])
    assert ann.lists(DEMO, {BOB}) == {}
    assert "schema" in ann.quarantine[key.key]
