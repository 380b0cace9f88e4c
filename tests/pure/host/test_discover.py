"""What the others do: little is read per change, and nothing is withdrawn that its owner did not withdraw."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, cast

import pytest

from myoverlay.errors import Unavailable
from myoverlay.host.converge import Converger
from myoverlay.host.discover import AT_ONCE, RELIST, Discovery, OutsiderWatch, Watch
from myoverlay.host.epoch import LAPSE, Epoch
from myoverlay.host.local import LocalOverlay
from myoverlay.host.peers import SETTLED
from myoverlay.store import Conflict, Delete, Entry
from myoverlay.store.records import Member, Published, Records
from myoverlay.store.rings import RING_LENGTH, Ring
from myoverlay.store.sqlite import SqliteStore
from myoverlay.store.typed import Held
from myoverlay.tally import Tally
from myoverlay.values import Address, HostId, HostList, Lease, Subnet, encode
from tests.pure.kit import DEMO, PREFIX, SUBNET, Clock, Host, definition, network, put, record, until

Make = Callable[[str], Host]
#: How long a doubt lasts, seconds.
GRACE = 60.0


class Overlay(LocalOverlay):
    """The real overlay without a kernel's side, that notes what it is told."""

    def __init__(self, one: Host, **changes: Any) -> None:
        super().__init__(network(**changes), one.journal, cast(Converger, None), 1000)
        self.told: list[tuple[set[HostId], bool]] = []

    def learn(
        self,
        lists: Mapping[HostId, Held[HostList]],
        anew: bool,
        left: Collection[HostId] = (),
        incarnation: str = "",
        doubt: bool = False,
    ) -> None:
        self.told.append((set(lists), anew))
        super().learn(lists, anew, left, incarnation, doubt)

    def addresses(self) -> set[str]:
        return {str(address) for address in self.view.peers}


def looked(one: Host) -> Epoch:
    """What the host goes by is the store's incarnation of now."""
    epoch = Epoch(one.journal, one.presence, Tally(), GRACE)
    epoch.look()
    return epoch


class Watcher:
    """A host that watches, round by round; `calls` are what a round asked of the store."""

    def __init__(self, one: Host) -> None:
        self.host = one
        one.wire.patience = 0.02
        self.local = Overlay(one)
        self.tally = Tally()
        self.clock = Clock(0.0)
        self.lost: set[HostId] = set()
        self.epoch = Epoch(one.journal, one.presence, self.tally, GRACE, self.clock)
        self.watch = Watch(self.local, one.records, self.epoch, lambda: self.lost, self.tally, self.clock)
        self.epoch.on_doubt = self.watch.begin_anew
        self.epoch.look()

    def round(self) -> list[tuple[str, Any]]:
        before = len(self.host.wire.calls)
        self.watch.round()
        return self.host.wire.calls[before:]

    def kinds(self) -> dict[str, int]:
        return {label: count for (name, label), count in self.tally.all().items() if name == "watch_rounds"}


def write(one: Host, *addresses: str, generation: int = 1, incarnation: str = "") -> None:
    """The host publishes its list, as its publisher would."""
    last = int(one.name.removeprefix("h"))
    listed = one.records.lists(DEMO, [one.me]).get(one.me)
    new = HostList(
        host=one.me,
        overlay=DEMO,
        vtep=Address(f"192.0.2.{last}"),
        records=tuple(record(address, generation=generation) for address in addresses),
        incarnation=incarnation,
    )
    assert isinstance(one.records.publish(definition(), new, listed, one.records.ring(DEMO), [], []), Published)


@pytest.fixture
def others(host: Make) -> list[Host]:
    """Three hosts with one container each, 10.5.0.11 to 10.5.0.13."""
    made = [host(f"h{number}") for number in (11, 12, 13)]
    for one in made:
        write(one, f"10.5.0.{one.name[1:]}")
    return made


@pytest.fixture
def ann(host: Make) -> Watcher:
    return Watcher(host("ann"))


ALL = {"10.5.0.11", "10.5.0.12", "10.5.0.13"}


def test_when_the_store_answered_last(ann: Watcher, others: list[Host]) -> None:
    """Each answer counts, also one that tells of no change; a failure does not."""
    ann.clock.now = 10.0
    ann.round()
    assert ann.watch.heard_at == 10.0
    ann.clock.now = 70.0
    ann.round()
    assert ann.kinds()["unchanged"] == 1
    assert ann.watch.heard_at == 70.0
    ann.clock.now = 80.0
    ann.host.wire.off = True
    with pytest.raises(Unavailable):
        ann.round()
    assert ann.watch.heard_at == 70.0


def test_the_first_round_lists_everybody(ann: Watcher, others: list[Host]) -> None:
    """All hosts' lists are read, and only then is the view complete and a Join let go on."""
    assert not ann.local.listed.is_set()
    ann.round()
    assert ann.local.addresses() == ALL
    assert ann.local.view.complete
    assert ann.local.listed.is_set()
    assert {str(peer.vtep) for peer in ann.local.view.peers.values()} == {f"192.0.2.{last}" for last in (11, 12, 13)}
    assert ann.kinds() == {"listing": 1}


def test_what_is_heard_of_one_host_is_no_listing(ann: Watcher, others: list[Host]) -> None:
    """One that died, or was asked for, before the first listing: a Join waits for that all the same."""
    ann.local.learn({}, anew=False, left=[others[0].me])
    assert not ann.local.listed.is_set()
    ann.watch.fetch([others[1].me])
    assert ann.local.addresses() == {"10.5.0.12"}
    assert not ann.local.listed.is_set()
    assert not ann.local.view.complete
    ann.round()
    assert ann.local.addresses() == ALL
    assert ann.local.listed.is_set()


def test_an_empty_overlay_is_complete(ann: Watcher) -> None:
    """Nobody is there: that is an answer too, and the first container does not wait for more."""
    ann.round()
    assert ann.local.listed.is_set()
    assert ann.local.addresses() == set()


def test_a_change_costs_the_changed_hosts_list(ann: Watcher, others: list[Host]) -> None:
    """One wake-up and one read of one key, however many hosts there are."""
    ann.round()
    write(others[1], "10.5.0.12", "10.5.0.22")
    calls = ann.round()
    assert [name for name, _ in calls] == ["wait", "get_many"]
    assert calls[1][1] == (f"{PREFIX}/hosts/{others[1].me}/overlays/demo",)
    assert ann.local.addresses() == ALL | {"10.5.0.22"}
    assert ann.local.told[-1] == ({others[1].me}, False)
    assert ann.kinds() == {"listing": 1, "change": 1}


def test_own_changes_are_not_fetched(ann: Watcher, others: list[Host]) -> None:
    """This host's own list never makes a peer of its own containers."""
    ann.round()
    ann.host.name = "h99"
    write(ann.host, "10.5.0.99")
    calls = ann.round()
    assert "get_many" not in [name for name, _ in calls]
    assert ann.local.addresses() == ALL


def test_who_is_asked_for_a_reserve_hears_of_it(ann: Watcher, others: list[Host]) -> None:
    """A wish for an address that this host keeps calls it, once; wishes to others do not, and fetch no list."""
    ann.round()
    heard: list[Subnet] = []
    ann.watch._on_asked = heard.append
    bob, eve = others[0], others[1]
    for owner, last, calls in ((eve, 9, []), (ann.host, 10, [SUBNET])):
        kept = Lease(address=Address(f"10.5.0.{last}"), use="reserve", hosts=(owner.me,))
        assert owner.records.write_lease(SUBNET, None, kept)
        held = owner.records.lease(SUBNET, kept.address)
        assert held is not None
        assert bob.records.want(SUBNET, held, DEMO)
        assert [what for what in ann.round() if what[0] == "get_many"] == []
        assert heard == calls
    ann.round()
    assert heard == [SUBNET]


def test_an_owner_withdraws_by_writing(ann: Watcher, others: list[Host]) -> None:
    """A list without the endpoint takes it away."""
    ann.round()
    write(others[0])
    ann.round()
    assert ann.local.addresses() == ALL - {"10.5.0.11"}


def test_an_overrun_lists_everything(ann: Watcher, others: list[Host]) -> None:
    """Who slept longer than a ring remembers reads all lists, and misses nothing."""
    ann.round()
    for generation in range(RING_LENGTH + 2):
        write(others[0], "10.5.0.11", generation=generation)
    write(others[2], "10.5.0.33")
    ann.round()
    assert ann.local.addresses() == {"10.5.0.11", "10.5.0.12", "10.5.0.33"}
    assert ann.local.view.peers[Address("10.5.0.11")].generation == RING_LENGTH + 1
    assert ann.kinds() == {"listing": 2}


def test_a_spoilt_ring_lists_everything(ann: Watcher, others: list[Host], store: SqliteStore) -> None:
    """Garbage under `changes` costs a listing and stops nothing, however far it claims to be."""
    ann.round()
    (ring, *_) = store.keys(f"{PREFIX}/overlays/demo/changes/").keys
    for spoilt in (b"garbage", encode(Ring(last=10**9)), encode(Ring())):
        put(store, ring, spoilt)
        ann.round()
        assert ann.local.addresses() == ALL
    write(others[0], "10.5.0.44")
    ann.round()
    assert "10.5.0.44" in ann.local.addresses()
    assert ann.tally.get("bugs", "watch") == 0


def test_a_spoilt_list_changes_nothing(ann: Watcher, others: list[Host], store: SqliteStore) -> None:
    """A host whose list was written over with garbage keeps what it said last."""
    ann.round()
    put(store, f"{PREFIX}/hosts/{others[0].me}/overlays/demo", b"garbage")
    ann.watch.fetch([one.me for one in others])
    assert ann.local.addresses() == ALL


def delete(store: SqliteStore, key: str) -> None:
    entry = store.get(key)
    assert entry is not None
    store.commit([Delete(key, entry.index)])


def define(others: list[Host], *holders: Host) -> None:
    of = definition(holders=tuple(one.me for one in holders))
    assert others[0].records.found(of, Member(name="x", vtep=Address("192.0.2.1"))) is None


@pytest.mark.parametrize("defined", [False, True])
def test_an_absent_list_withdraws_nothing(ann: Watcher, others: list[Host], store: SqliteStore, defined: bool) -> None:
    """A list that vanished was lost by the store, as long as its host is a holder or nobody knows who is."""
    if defined:
        define(others, *others)
    ann.round()
    delete(store, f"{PREFIX}/hosts/{others[0].me}/overlays/demo")
    ann.clock.now += RELIST + 1
    ann.round()
    ann.round()
    assert ann.kinds()["listing"] == 2
    assert ann.local.addresses() == ALL


def test_a_host_that_left_is_withdrawn(ann: Watcher, others: list[Host], store: SqliteStore) -> None:
    """A list that is gone together with its host's name among the holders is withdrawn."""
    define(others, *others[1:])
    ann.round()
    delete(store, f"{PREFIX}/hosts/{others[0].me}/overlays/demo")
    ann.clock.now += RELIST + 1
    ann.round()
    ann.round()
    assert ann.local.addresses() == ALL - {"10.5.0.11"}


def test_a_quiet_store_is_listed_again_slowly(ann: Watcher, others: list[Host]) -> None:
    """Without changes nothing is read; after RELIST all is, against what a watch may have missed."""
    ann.round()
    assert [name for name, _ in ann.round()] == ["wait"]
    assert ann.kinds() == {"listing": 1, "unchanged": 1}
    ann.clock.now += RELIST + 1
    ann.round()
    ann.round()
    assert ann.kinds() == {"listing": 2, "unchanged": 2}


def emptied(ann: Watcher, others: list[Host], path: Path) -> SqliteStore:
    """All hosts find another, empty store behind their wires."""
    new = SqliteStore(path)
    for one in (ann.host, *others):
        one.wire.inner = new
    return new


def test_an_emptied_store_withdraws_nothing(ann: Watcher, others: list[Host], tmp_path: Path) -> None:
    """The index went back: peers stay as they were, over the listing of the empty store as well."""
    ann.round()
    new = emptied(ann, others, tmp_path / "new.db")
    ann.round()
    assert ann.kinds() == {"listing": 1, "reset": 1}
    assert ann.local.addresses() == ALL
    ann.round()
    assert ann.kinds() == {"listing": 2, "reset": 1}
    assert ann.local.addresses() == ALL
    new.close()


@pytest.mark.parametrize("listed_between", [True, False])
def test_after_an_emptied_store_hosts_are_believed_again(
    ann: Watcher, others: list[Host], tmp_path: Path, listed_between: bool
) -> None:
    """Hosts that publish again in the new store are heard, though its index is far below the old one's.

    What their lists lack counts as withdrawn once they were written under the new store's incarnation.
    """
    for generation in range(20):
        write(others[0], "10.5.0.11", generation=generation)
    ann.round()
    new = emptied(ann, others, tmp_path / "new.db")
    ann.round()
    if listed_between:
        ann.round()
    write(others[0], "10.5.0.55")
    ann.round()
    assert ann.local.addresses() == {"10.5.0.55", *ALL}
    ann.epoch.look()
    write(others[0], "10.5.0.55", incarnation=ann.epoch.id)
    ann.round()
    assert ann.local.addresses() == {"10.5.0.55", "10.5.0.12", "10.5.0.13"}
    new.close()


def test_a_snapshot_younger_than_the_counter_is_recognised(
    ann: Watcher, others: list[Host], store: SqliteStore
) -> None:
    """A ring that is older than it was tells of a restore: from then on nothing is withdrawn, and the doubt begins.

    The store is another one at once: who comes back a moment later must not take for free what is free in the snapshot
    (model, 840454827).
    """
    write(others[0], "10.5.0.11", incarnation=ann.epoch.id)
    ring, listed = (others[0].records.ring(DEMO), others[0].records.lists(DEMO, [others[0].me])[others[0].me])
    write(others[0], "10.5.0.11", "10.5.0.99", incarnation=ann.epoch.id)
    ann.round()
    assert "10.5.0.99" in ann.local.addresses()
    keys = store.keys("myoverlay/").keys
    put(store, next(key for key in keys if f"/{others[0].me}/overlays/" in key), encode(listed.value).decode())
    rings = {key: store.get(key) for key in keys if "/changes/" in key}
    put(
        store,
        next(key for key, entry in rings.items() if entry and others[0].me in entry.value.decode()),
        encode(ring.value).decode(),
    )
    before = ann.epoch.id
    ann.round()
    assert "10.5.0.99" in ann.local.addresses()
    assert ann.epoch.in_doubt()
    held = ann.host.presence.incarnation()
    assert held is not None
    assert ann.epoch.id == held.value.id != before


def test_a_snapshot_is_recognised_though_as_much_was_written_since(
    ann: Watcher, others: list[Host], store: SqliteStore
) -> None:
    """A ring that tells of another host's change in place of a lost one: everything is listed, and the doubt begins."""
    one, other = others[0], others[1]
    key, before = ring_key(store, one), one.records.ring(DEMO).value
    write(one, "10.5.0.11", "10.5.0.99", incarnation=ann.epoch.id)
    ann.round()
    keys = [key for key in store.keys("myoverlay/").keys if "/changes/" in key]
    rings = {key: cast(Entry, store.get(key)).value.decode() for key in keys}
    write(other, "10.5.0.12", "10.5.0.97", incarnation=ann.epoch.id)
    for name, ring in (rings | {key: encode(before.turned(other.me)).decode()}).items():
        put(store, name, ring)
    assert not ann.epoch.in_doubt()
    ann.round()
    assert {"10.5.0.97", "10.5.0.99"} <= ann.local.addresses()
    assert ann.epoch.in_doubt()


def test_rings_that_go_with_the_overlay_are_no_loss(ann: Watcher, others: list[Host], store: SqliteStore) -> None:
    """Who has left it sees its last holder take the keys along; who is still in it doubts the store."""
    ann.round()
    for key in [key for key in store.keys("myoverlay/").keys if "/changes/" in key]:
        entry = cast(Entry, store.get(key))
        assert not isinstance(store.commit([Delete(key, entry.index)]), Conflict)
    ann.watch.cancel()
    ann.watch.step()
    assert not ann.epoch.in_doubt()
    ann.watch.stopping.clear()
    ann.watch.step()
    assert ann.epoch.in_doubt()


def ring_key(store: SqliteStore, one: Host) -> str:
    """Where the host's changes are told."""
    keys = (key for key in store.keys("myoverlay/").keys if "/changes/" in key)
    return next(key for key in keys if one.me in cast(Entry, store.get(key)).value.decode())


def test_an_older_reading_is_passed_over(ann: Watcher, others: list[Host]) -> None:
    """A list that was read before a newer one but handed over after it changes nothing (the miss path reads too)."""
    old = others[0].records.lists(DEMO, [others[0].me])
    write(others[0], "10.5.0.66")
    ann.round()
    ann.local.learn(old, anew=False)
    assert "10.5.0.66" in ann.local.addresses()


def test_outsiders_follow_their_keys(host: Make, store: SqliteStore) -> None:
    """An outsider's rows come with its keys, change with them and go with them; the view waits for them."""
    one = host("ann")
    one.wire.patience = 0.02
    local = Overlay(one, outsiders=True, definition=definition(records="demo-1"))
    tally = Tally()
    watch = OutsiderWatch(local, one.records, tally)
    local.learn({}, anew=True)
    assert not local.view.complete
    put(store, "demo-1/arp/10.5.0.9", "02:42:0a:05:00:09\n")
    put(store, "demo-1/fib/02:42:0a:05:00:09", "192.0.2.9\n")
    watch.round()
    assert local.view.complete
    assert local.addresses() == {"10.5.0.9"}
    put(store, "demo-1/fib/02:42:0a:05:00:09", "192.0.2.8")
    watch.round()
    assert local.view.peers[Address("10.5.0.9")].vtep == "192.0.2.8"
    watch.round()
    delete(store, "demo-1/arp/10.5.0.9")
    watch.round()
    assert local.addresses() == set()
    assert tally.get("watch_rounds", "change") == 3
    assert tally.get("watch_rounds", "unchanged") == 1


@pytest.mark.parametrize("told", [True, False], ids=["told of a loss", "for long"])
def test_outsiders_are_listed_again(host: Make, store: SqliteStore, tmp_path: Path, told: bool) -> None:
    """A store rolled back unseen, and written to since, tells of no change: what it lost goes by a listing."""
    one, clock = host("ann"), Clock(0.0)
    one.wire.patience = 0.02
    local = Overlay(one, outsiders=True, definition=definition(records="demo-1"))
    watch = OutsiderWatch(local, one.records, Tally(), now=clock)
    put(store, "demo-1/arp/10.5.0.9", "02:42:0a:05:00:09")
    put(store, "demo-1/fib/02:42:0a:05:00:09", "192.0.2.9")
    watch.round()
    with contextlib.closing(SqliteStore(tmp_path / "older.db")) as older:
        for number in range(10):
            put(older, "another", str(number))
        one.wire.inner = older
        watch.round()
        assert local.addresses() == {"10.5.0.9"}
        clock.now += RELIST + 1 if not told else 0.0
        if told:
            watch.begin_anew()
        watch.round()
        assert local.addresses() == set()


def test_an_overlay_is_followed_once(host: Make, others: list[Host], store: SqliteStore) -> None:
    """Following twice starts one watch; it hears of a change by itself, and ends when the store is closed."""
    one = host("ann")
    local = Overlay(one)
    discovery = Discovery(one.records, looked(one), frozenset, Tally())
    discovery.follow(local)
    discovery.follow(local)
    threads = [thread for thread in threading.enumerate() if thread.name == "watch-demo"]
    assert len(threads) == 1
    assert local.listed.wait(5)
    write(others[0], "10.5.0.77")
    until(lambda: "10.5.0.77" in local.addresses())
    assert discovery.watch_of(local) is not None
    discovery.cancel()
    store.close()
    discovery.join(5)
    assert not threads[0].is_alive()


def test_an_overlay_with_outsiders_has_two_watches(host: Make, store: SqliteStore) -> None:
    """Both end after the overlay is dropped, and it is followed no more."""
    one = host("ann")
    one.wire.patience = 0.05
    local = Overlay(one, outsiders=True)
    discovery = Discovery(one.records, looked(one), frozenset, Tally())
    discovery.follow(local)
    threads = [thread for thread in threading.enumerate() if thread.name in ("watch-demo", "outsiders-demo")]
    assert len(threads) == 2
    assert local.listed.wait(5)
    discovery.drop(local)
    assert discovery.watch_of(local) is None
    for thread in threads:
        thread.join(5)
        assert not thread.is_alive()
    discovery.drop(local)


# -- a store in doubt, and hosts that are dead -----------------------------------------------------------------------


def doubt(ann: Watcher) -> None:
    """A watch reports that the store went back, and the host finds it in doubt."""
    ann.epoch.went_back()
    ann.epoch.look()
    assert ann.epoch.in_doubt()


def outlast(ann: Watcher, seconds: float) -> None:
    """Time goes by, and the store is there all the while."""
    until = ann.clock.now + seconds
    while ann.clock.now < until:
        ann.clock.now = min(until, ann.clock.now + LAPSE)
        ann.epoch.look()


def test_a_list_without_incarnation_withdraws_nothing_in_a_doubt(ann: Watcher, others: list[Host]) -> None:
    """What it lacks stays, what it has is added; one that names the new incarnation withdraws at once."""
    ann.round()
    doubt(ann)
    write(others[0], "10.5.0.21")
    ann.round()
    assert ann.local.addresses() == ALL | {"10.5.0.21"}
    write(others[0], "10.5.0.31", incarnation=ann.epoch.id)
    ann.round()
    ann.round()
    assert ann.local.addresses() == {"10.5.0.12", "10.5.0.13", "10.5.0.31"}


def test_a_list_of_an_old_incarnation_withdraws_nothing(ann: Watcher, others: list[Host]) -> None:
    """A snapshot brought it back: neither in the doubt nor after it is anything taken away by it."""
    ann.round()
    write(others[0], "10.5.0.21", incarnation="before")
    ann.round()
    ann.clock.now += 2 * GRACE
    ann.watch.begin_anew()
    ann.round()
    assert ann.local.addresses() == ALL | {"10.5.0.21"}


def test_an_absent_list_in_a_doubt_is_no_leaving(ann: Watcher, others: list[Host], store: SqliteStore) -> None:
    """Neither list nor holder, as in a restored store: nobody has left until the doubt is over and it vouched."""
    define(others, *others[1:])
    ann.round()
    delete(store, f"{PREFIX}/hosts/{others[0].me}/overlays/demo")
    doubt(ann)
    ann.watch.begin_anew()
    ann.round()
    assert ann.local.addresses() == ALL


def test_a_small_overlay_is_at_hand(ann: Watcher, others: list[Host], monkeypatch: pytest.MonkeyPatch) -> None:
    """Its living hosts, while they are few and have little; what they say is programmed, and withdraws nobody else."""
    ann.round()
    ann.lost.add(others[2].me)
    near = {one.me for one in others[:2]}
    assert ann.watch.at_hand() == {host: (ann.local.view.lists or {})[host] for host in near}
    write(others[0], "10.5.0.11", "10.5.0.21")
    ann.watch.learn(ann.host.records.lists(DEMO, near))
    assert ann.local.addresses() == ALL | {"10.5.0.21"}
    seen = ann.local.view
    ann.watch.learn(ann.host.records.lists(DEMO, near))
    assert ann.local.view is seen, "what is known already is taken up again"
    for name, most in (("FEW_HOSTS", 2), ("FEW_RECORDS", 3)):
        with monkeypatch.context() as patch:
            patch.setattr(f"myoverlay.host.discover.{name}", most)
            assert ann.watch.at_hand() == {}


def test_a_dead_hosts_rows_go_and_come(ann: Watcher, others: list[Host]) -> None:
    """Whatever it left in the store, a lost host has no rows, however often its list is read; found again it has."""
    ann.round()
    ann.lost.add(others[0].me)
    ann.watch.fetch([others[0].me])
    assert ann.local.addresses() == ALL - {"10.5.0.11"}
    ann.watch.begin_anew()
    ann.round()
    assert ann.local.addresses() == ALL - {"10.5.0.11"}
    ann.lost.clear()
    ann.watch.fetch([others[0].me])
    assert ann.local.addresses() == ALL


def test_who_restarts_into_a_doubt_knows_a_part(ann: Watcher, others: list[Host]) -> None:
    """Nothing is taken out of the kernel by an incomplete picture; when the doubt is over it is listed again, whole."""
    doubt(ann)
    ann.round()
    assert ann.local.listed.is_set()
    assert not ann.local.view.complete
    write(others[0], "10.5.0.11", "10.5.0.21")
    ann.round()
    assert not ann.local.view.complete
    outlast(ann, GRACE)
    ann.round()
    assert ann.local.view.complete
    assert ann.local.addresses() == ALL | {"10.5.0.21"}


def test_who_has_been_there_since_the_loss_and_lists_nothing_has_left(
    ann: Watcher, others: list[Host], store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its last list is of a former incarnation; once it was there long enough to write it again, it is not coming."""
    write(others[0], "10.5.0.55", incarnation=ann.epoch.id)
    ann.round()
    doubt(ann)
    monkeypatch.setattr(ann.epoch, "in_doubt", lambda: False)  # it is over
    define(others, others[1])
    delete(store, f"{PREFIX}/hosts/{others[0].me}/overlays/{DEMO}")
    ann.watch.fetch([others[0].me])
    assert "10.5.0.55" in ann.local.addresses()
    ann.watch._settled = lambda host: host == others[0].me
    outlast(ann, SETTLED - 1)  # its session may live on without it
    ann.watch.fetch([others[0].me])
    assert "10.5.0.55" in ann.local.addresses()
    outlast(ann, 1)
    ann.watch.fetch([others[0].me])
    assert "10.5.0.55" not in ann.local.addresses()


def test_who_does_not_reach_the_store_has_not_left(ann: Watcher, others: list[Host], store: SqliteStore) -> None:
    """A list without incarnation is believed in any store; but its host did not take it away, and lives perhaps."""
    ann.round()
    define(others, *others[1:])
    delete(store, f"{PREFIX}/hosts/{others[0].me}/overlays/{DEMO}")
    ann.watch._away = lambda host: host == others[0].me
    ann.watch.fetch([others[0].me])
    assert ann.local.addresses() == ALL
    ann.watch._away = lambda _: False
    ann.watch.fetch([others[0].me])
    assert ann.local.addresses() == ALL - {"10.5.0.11"}


@pytest.mark.parametrize("named", [True, False])
def test_who_is_dead_here_too_was_buried_rightly(
    ann: Watcher, others: list[Host], store: SqliteStore, named: bool
) -> None:
    """Its last word, which took back what it had, may be gone before it was read; its address is another's at once.

    That tells nothing of who is not dead here, nor of a list that a former store held.
    """
    bob = others[0]
    write(bob, "10.5.0.11", incarnation=ann.epoch.id if named else "of-before")
    ann.round()
    define(others, *others[1:])
    delete(store, f"{PREFIX}/hosts/{bob.me}/overlays/{DEMO}")
    ann.watch._away = lambda host: host == bob.me
    ann.watch.fetch([bob.me])
    assert ann.local.addresses() == ALL
    ann.watch._dead = lambda host: host == bob.me
    ann.watch.fetch([bob.me])
    assert ann.local.addresses() == (ALL - {"10.5.0.11"} if named else ALL)


@pytest.mark.parametrize("quiet", [True, False])
def test_whose_list_is_missing_is_looked_at_again(
    ann: Watcher, others: list[Host], store: SqliteStore, monkeypatch: pytest.MonkeyPatch, quiet: bool
) -> None:
    """With the next change, or soon, not only when all is listed: what it had is nobody else's till then."""
    write(others[0], "10.5.0.11", incarnation=ann.epoch.id)
    ann.round()
    doubt(ann)
    monkeypatch.setattr(ann.epoch, "in_doubt", lambda: False)  # it is over
    define(others, *others[1:])
    delete(store, f"{PREFIX}/hosts/{others[0].me}/overlays/{DEMO}")
    ann.round()
    assert "10.5.0.11" in ann.local.addresses()
    ann.watch._settled = lambda host: host == others[0].me
    outlast(ann, SETTLED)
    if not quiet:
        write(others[1], "10.5.0.11", generation=2)
    asked = ann.round()
    assert [call for call in asked if others[0].me in str(call)]
    assert ann.local.addresses() == ({"10.5.0.12", "10.5.0.13"} if quiet else {"10.5.0.11", "10.5.0.13"})
    assert not [call for call in ann.round() if others[0].me in str(call)], "who has left is no longer looked for"


# -- what it costs ---------------------------------------------------------------------------------------------------


def crowd(ann: Watcher, hosts: int, each: int) -> list[Records]:
    """So many hosts with lists, and the first listing of them done."""
    made = [
        ann.host.records.of_host(ann.host.records.store, HostId(f"{number:032x}")) for number in range(1, hosts + 1)
    ]
    for number, one in enumerate(made):
        tell(one, *(f"10.5.{number}.{last}" for last in range(2, 2 + each)))
    ann.round()
    return made


def tell(one: Records, *addresses: str) -> None:
    listed = one.lists(DEMO, [one.me]).get(one.me)
    of = tuple(map(record, addresses))
    new = HostList(host=one.me, overlay=DEMO, vtep=Address("192.0.2.9"), records=of)
    assert isinstance(one.publish(definition(), new, listed, one.ring(DEMO), [], []), Published)


@pytest.mark.parametrize(("hosts", "each"), [(1, 100), (10, 100), (150, 100), (150, 2)])
def test_a_change_reads_the_changed_hosts_list_at_every_size(ann: Watcher, hosts: int, each: int) -> None:
    """One wait and one read of one key, and nothing of what else there is: not its names, not another list."""
    made = crowd(ann, hosts, each)
    for one in (made[0], made[-1]):
        tell(one, "10.5.0.250")
        calls = ann.round()
        assert [name for name, _ in calls] == ["wait", "get_many"]
        assert calls[1][1] == (f"{PREFIX}/hosts/{one.me}/overlays/demo",)


def test_of_many_lists_a_part_is_read_again(ann: Watcher) -> None:
    """Slowly, in turn, with those that came or went unheard; in the end each was read again. Idle or not."""
    made = crowd(ann, AT_ONCE + 40, 1)
    read: set[str] = set()
    for place in range(2):
        ann.clock.now += RELIST + 1
        if place:
            tell(made[0], "10.5.0.77")
        reads = [keys for name, keys in ann.round() if name == "get_many"]
        assert sum(map(len, reads)) <= AT_ONCE + place
        assert max(map(len, reads)) <= AT_ONCE
        for keys in reads:
            read.update(keys)
    assert len(read) == len(made)
    ann.clock.now += RELIST + 1
    stranger = ann.host.records.of_host(ann.host.records.store, HostId("f" * 32))
    unheard = HostList(host=stranger.me, overlay=DEMO, vtep=Address("192.0.2.9"), records=(record("10.5.0.99"),))
    put(ann.host.records.store, f"{PREFIX}/hosts/{stranger.me}/overlays/demo", encode(unheard))
    ann.round()
    assert Address("10.5.0.99") in ann.local.view.peers


def test_a_list_that_says_the_same_is_held_once(ann: Watcher) -> None:
    """Everything read again is no second copy of everything; what is otherwise is taken."""
    made = crowd(ann, 3, 2)
    before = dict(ann.local.view.lists or {})
    tell(made[1], "10.5.0.99")
    ann.watch.begin_anew()
    ann.round()
    after = ann.local.view.lists or {}
    same = {one.me for one in made if before[one.me].value is after[one.me].value}
    assert same == {made[0].me, made[2].me}
    assert Address("10.5.0.99") in ann.local.view.peers


def test_a_record_that_says_the_same_is_not_read_anew(ann: Watcher, others: list[Host]) -> None:
    """Of a list that changed the records that stay are the ones of before: 100 are not checked again for one."""
    write(others[0], "10.5.0.11", "10.5.0.21")
    ann.round()
    before = {one.address: one for one in (ann.local.view.lists or {})[others[0].me].value.records}
    write(others[0], "10.5.0.11", "10.5.0.31")
    ann.round()
    after = {one.address: one for one in (ann.local.view.lists or {})[others[0].me].value.records}
    assert after.keys() == {"10.5.0.11", "10.5.0.31"}
    assert after[Address("10.5.0.11")] is before[Address("10.5.0.11")]


def test_who_begins_amid_a_lie_hears_the_witness(ann: Watcher, others: list[Host], host: Make) -> None:
    """Whoever saw it names the liar, once, and has the others told. Who did not believes neither until then, and then
    the owner; also where a forged index key made it read the liar's list before all others."""
    ann.round()
    discovery = Discovery(ann.host.records, ann.epoch, frozenset, ann.tally)
    asked: list[str] = []
    discovery.on_accusing = asked.append
    ann.watch._on_learned = discovery._tell
    victim, liar, _ = others
    write(liar, "10.5.0.12", "10.5.0.11", generation=9)
    ann.round()
    write(liar, "10.5.0.12", "10.5.0.11", generation=10)
    ann.round()
    assert asked == [DEMO]
    assert ann.local.view.claims.accuses() == {liar.me}
    assert str(ann.local.view.peers[Address("10.5.0.11")].vtep) == "192.0.2.11"
    late = Watcher(host("late"))
    late.watch._on_learned = Discovery(late.host.records, late.epoch, frozenset, late.tally)._tell
    late.watch.fetch([liar.me])
    late.round()
    assert late.local.addresses() == ALL - {"10.5.0.11"}
    assert late.local.view.complete
    assert late.tally.get("undecided") == 1
    word = HostList(host=ann.host.me, overlay=DEMO, vtep=Address("192.0.2.1"), accuses=(liar.me,))
    assert isinstance(
        ann.host.records.publish(definition(), word, None, ann.host.records.ring(DEMO), [], []), Published
    )
    late.round()
    assert late.local.addresses() == ALL
    assert late.local.view.peers[Address("10.5.0.11")].host == victim.me
