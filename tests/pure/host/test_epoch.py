"""Whether the store still holds what it held: found by any host, told to all, and over after the grace."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from myoverlay.errors import Unavailable
from myoverlay.host.epoch import LAPSE, RAISE, Epoch
from myoverlay.store.presence import Incarnation
from myoverlay.store.sqlite import SqliteStore
from myoverlay.tally import Tally
from tests.pure.kit import ANN, BOB, EVE, PREFIX, Clock, Host, put

Make = Callable[[str], Host]
GRACE = 60.0
KEY = f"{PREFIX}/incarnation"


class Onlooker:
    """A host with its epoch; `doubts` is how often it was told that the store lost something."""

    def __init__(self, one: Host, clock: Clock) -> None:
        self.host = one
        self.clock = clock
        self.tally = Tally()
        self.doubts = 0
        self.begin()

    def begin(self) -> None:
        """The plugin starts (again): what it remembers is what is in the journal."""
        self.epoch = Epoch(self.host.journal, self.host.presence, self.tally, GRACE, self.clock)
        self.epoch.on_doubt = self._doubted

    def _doubted(self) -> None:
        self.doubts += 1

    def look(self) -> str:
        self.epoch.look()
        return self.epoch.id

    def waits(self, seconds: float) -> None:
        """Time goes by, and the host looks now and then, as it does while the store is there."""
        until = self.clock.now + seconds
        while self.clock.now < until:
            self.clock.now = min(until, self.clock.now + 3.0)
            self.look()

    def stored(self) -> Incarnation:
        held = self.host.presence.incarnation()
        assert held is not None
        return held.value

    def sees(self, store: SqliteStore) -> None:
        """The host finds another store behind its wire."""
        self.host.wire.inner = store


@pytest.fixture
def ticking() -> Clock:
    return Clock(5000.0)


@pytest.fixture
def onlooker(host: Make, ticking: Clock) -> Callable[[str], Onlooker]:
    return lambda name: Onlooker(host(name), ticking)


@pytest.fixture
def another(tmp_path: Path) -> Iterator[Callable[[], SqliteStore]]:
    """Makes further stores, empty ones."""
    made: list[SqliteStore] = []
    numbers = itertools.count()

    def make() -> SqliteStore:
        made.append(SqliteStore(tmp_path / f"another{next(numbers)}.db"))
        return made[-1]

    yield make
    for store in made:
        store.close()


def snapshot(store: SqliteStore, into: SqliteStore) -> SqliteStore:
    """What the first store holds now, put into the second."""
    for entry in store.list(f"{PREFIX}/").entries:
        put(into, entry.key, entry.value, entry.flags)
    return into


Make2 = Callable[[str], Onlooker]


# -- which store it is ---------------------------------------------------------------------------------------------


def test_the_first_host_gives_the_store_an_id(onlooker: Make2) -> None:
    """Before the first look nothing is known and all is in doubt; the first look at an empty store is no loss."""
    ann = onlooker("ann")
    assert ann.epoch.id == ""
    assert ann.epoch.in_doubt()
    assert not ann.epoch.looked.is_set()
    ann.look()
    assert ann.epoch.looked.is_set()
    assert ann.epoch.id == ann.stored().id != ""
    assert not ann.epoch.in_doubt()
    assert ann.doubts == ann.tally.get("doubts") == 0


def test_later_hosts_go_by_the_same_id(onlooker: Make2) -> None:
    """Whoever comes takes the id that is there, without doubt, and a plugin that restarts goes on with it."""
    ann, bob = onlooker("ann"), onlooker("bob")
    assert ann.look() == bob.look()
    assert ann.epoch.lost_for() == float("inf")
    bob.begin()
    assert bob.epoch.id == ann.epoch.id
    assert bob.look() == ann.epoch.id
    assert not bob.epoch.in_doubt()
    assert bob.doubts == 0


def test_of_two_first_hosts_one_gives_the_id(onlooker: Make2) -> None:
    """Who finds that another was faster takes that one's in the next look, and nobody doubts."""
    ann, bob = onlooker("ann"), onlooker("bob")

    def faster(name: str, _: object) -> None:
        if name == "commit":
            ann.host.wire.before = lambda _name, _what: None
            bob.look()

    ann.host.wire.before = faster
    ann.look()
    assert ann.look() == bob.epoch.id == ann.stored().id
    assert ann.doubts == bob.doubts == 0


def test_a_store_that_is_away_leaves_all_open(onlooker: Make2) -> None:
    """A look that fails tells nothing: no doubt is raised, and who had not looked before has not looked now."""
    ann, bob = onlooker("ann"), onlooker("bob")
    ann.look()
    for one in (ann, bob):
        one.host.wire.off = True
        with pytest.raises(Unavailable):
            one.look()
    assert not ann.epoch.in_doubt()
    assert ann.doubts == 0
    assert bob.epoch.in_doubt()
    assert not bob.epoch.looked.is_set()


# -- that it lost something ----------------------------------------------------------------------------------------


def test_an_emptied_store_is_doubted_by_all(onlooker: Make2, another: Callable[[], SqliteStore]) -> None:
    """The first host that looks gives it a new id; the others learn of it by that, and nobody makes another."""
    hosts = [onlooker(name) for name in ("ann", "bob", "eve")]
    before = {one.look() for one in hosts}
    new = another()
    for one in hosts:
        one.sees(new)
    after = {one.look() for one in hosts}
    assert len(before) == len(after) == 1
    assert before != after
    for _ in range(3):
        assert {one.look() for one in hosts} == after
    assert [one.doubts for one in hosts] == [one.tally.get("doubts") for one in hosts] == [1, 1, 1]
    assert all(one.epoch.in_doubt() for one in hosts)


def test_a_replaced_store_is_doubted_under_its_own_id(onlooker: Make2, another: Callable[[], SqliteStore]) -> None:
    """A store that others use already keeps their id: whoever comes to it takes it over, and they notice nothing."""
    ann, bob = onlooker("ann"), onlooker("bob")
    ann.look()
    theirs = another()
    bob.sees(theirs)
    bob.look()
    ann.sees(theirs)
    assert ann.look() == bob.look() == bob.stored().id
    assert ann.doubts == 1
    assert bob.doubts == 0


def test_a_store_restored_from_a_snapshot_is_doubted(
    onlooker: Make2, store: SqliteStore, another: Callable[[], SqliteStore], ticking: Clock
) -> None:
    """A lower count than is remembered under the same id: it gets a new one, which all hosts take."""
    ann, bob = onlooker("ann"), onlooker("bob")
    ann.look()
    old = snapshot(store, another())
    ticking.now += RAISE
    ann.look()
    bob.look()
    assert ann.stored().count == 2
    ann.sees(old)
    bob.sees(old)
    first = ann.epoch.id
    assert ann.look() == bob.look() != first
    assert (ann.doubts, bob.doubts) == (1, 1)
    assert ann.stored().count == 1


def test_a_snapshot_younger_than_the_last_raise_is_told_by_its_index(onlooker: Make2) -> None:
    """The counter is the same, so only the watch's word shows it; a look without one shows nothing."""
    ann, bob = onlooker("ann"), onlooker("bob")
    first = ann.look()
    bob.look()
    ann.epoch.went_back()
    assert ann.epoch.in_doubt()
    assert ann.look() != first
    assert bob.look() == ann.epoch.id
    assert (ann.doubts, bob.doubts) == (1, 1)
    assert ann.look() == bob.look()
    assert (ann.doubts, bob.doubts) == (1, 1)


def counts(*hosts: Onlooker) -> list[int]:
    """How often each was told that the store lost something."""
    return [one.doubts for one in hosts]


@pytest.mark.parametrize("spoilt", [b"garbage", b"{}"])
def test_a_garbled_incarnation_is_no_loss(
    onlooker: Make2, store: SqliteStore, spoilt: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """Somebody wrote over it: the first host that looks writes what it knew, by compare-and-set; said, and no doubt."""
    ann, bob, eve = onlooker("ann"), onlooker("bob"), onlooker("eve")
    first = [one.look() for one in (ann, bob, eve)]
    put(store, KEY, spoilt)

    def faster(name: str, _: object) -> None:
        if name == "commit":
            ann.host.wire.before = lambda _name, _what: None
            eve.look()

    ann.host.wire.before = faster
    assert [one.look() for one in (ann, bob, eve)] == first
    assert ann.stored().id == first[0]
    assert eve.host.wire.count("commit") == 1
    assert counts(ann, bob, eve) == [0, 0, 0]
    assert not ann.epoch.in_doubt()
    assert caplog.text.count("cannot be read: it is written anew") == 2


def test_who_wrote_it_again_was_behind(onlooker: Make2, store: SqliteStore, ticking: Clock) -> None:
    """The counter that is written from memory is none that another host knows a higher one of."""
    ann, bob = onlooker("ann"), onlooker("bob")
    ann.look()
    ticking.now += RAISE - 1.0
    bob.look()
    ticking.now += 1.0
    ann.look()
    assert ann.stored().count == 2
    put(store, KEY, b"garbage")
    for one in (bob, ann, bob):
        one.look()
    assert ann.epoch.id == bob.epoch.id == ann.stored().id
    assert counts(ann, bob) == [0, 0]


def test_who_does_not_know_it_just_now_leaves_it_to_the_others(
    onlooker: Make2, store: SqliteStore, ticking: Clock, another: Callable[[], SqliteStore]
) -> None:
    """A new host, and one that comes back with the id of long ago, write nothing for RAISE: nobody is misled."""
    ann, old, new = onlooker("ann"), onlooker("old"), onlooker("new")
    old.look()
    now = another()
    ann.sees(now)
    ann.look()
    old.sees(now)
    new.sees(now)
    old.begin()
    put(now, KEY, b"garbage")
    for one in (old, new, old, new):
        one.look()
    assert [one.host.wire.count("commit") for one in (old, new)] == [1, 0]
    assert new.epoch.in_doubt()
    assert ann.look() == ann.stored().id
    assert new.look() == ann.epoch.id
    assert old.look() == ann.epoch.id
    assert counts(ann, old, new) == [0, 1, 0]


@pytest.mark.parametrize("knows", [True, False])
def test_where_nobody_else_is_it_is_written_after_all(
    onlooker: Make2, store: SqliteStore, ticking: Clock, knows: bool
) -> None:
    """A lone host started into it writes what it remembers, or a new id, after RAISE; and nothing was lost."""
    ann = onlooker("ann")
    first = ann.look() if knows else ""
    put(store, KEY, b"garbage")
    ann.begin()
    ann.look()
    assert not ann.epoch.looked.is_set()
    ticking.now += RAISE
    ann.look()
    assert ann.look() == ann.stored().id
    assert ann.epoch.id == first or not knows
    assert not ann.epoch.in_doubt()
    assert counts(ann) == [0]


def test_a_loss_behind_a_garbled_incarnation_is_seen(onlooker: Make2, store: SqliteStore) -> None:
    """Where a watch saw the index go backwards something was lost, whatever stands there: a new id is given."""
    ann, bob = onlooker("ann"), onlooker("bob")
    first = ann.look()
    bob.look()
    put(store, KEY, b"garbage")
    ann.epoch.went_back()
    assert ann.look() == bob.look() == ann.stored().id != first
    assert counts(ann, bob) == [1, 1]


def test_two_hosts_that_find_it_at_once_end_with_one_id(onlooker: Make2, another: Callable[[], SqliteStore]) -> None:
    """Who is slower writes no second id over the first: the doubt begins under the one that stands."""
    ann, bob = onlooker("ann"), onlooker("bob")
    first = ann.look()
    bob.look()
    new = another()
    ann.sees(new)
    bob.sees(new)

    def faster(name: str, _: object) -> None:
        if name == "commit":
            ann.host.wire.before = lambda _name, _what: None
            bob.look()

    ann.host.wire.before = faster
    ann.look()
    assert ann.look() == bob.look() == bob.stored().id != first
    assert (ann.doubts, bob.doubts) == (1, 1)


def test_an_answer_that_was_lost_raises_no_second_doubt_elsewhere(
    onlooker: Make2, another: Callable[[], SqliteStore]
) -> None:
    """The new id was written, its answer lost: the host doubts in its next look under the very id that it wrote."""
    ann, bob = onlooker("ann"), onlooker("bob")
    ann.look()
    bob.look()
    new = another()
    ann.sees(new)
    bob.sees(new)
    ann.host.wire.unheard = True
    with pytest.raises(Unavailable):
        ann.look()
    ann.host.wire.unheard = False
    written = bob.look()
    assert ann.look() == written
    assert (ann.doubts, bob.doubts) == (1, 1)


# -- no ping-pong --------------------------------------------------------------------------------------------------


def test_many_watches_that_report_it_make_one_new_id(onlooker: Make2, ticking: Clock) -> None:
    """Each overlay's watch, on each host, sees the index go back at another moment: one id is made for all of them."""
    hosts = [onlooker(name) for name in ("ann", "bob", "eve")]
    for one in hosts:
        one.look()
    hosts[0].epoch.went_back()
    ids = {hosts[0].look()}
    for second in range(10):
        ticking.now += 1.0
        for one in hosts[second % 2 :]:
            one.look()
            one.epoch.went_back()
            ids.add(one.look())
    assert len(ids) == 1
    assert [one.doubts for one in hosts] == [1, 1, 1]


def test_watches_that_report_before_the_others_id_is_seen(onlooker: Make2) -> None:
    """Two hosts have the report of a watch in hand before either looks: the second takes the first one's id."""
    ann, bob = onlooker("ann"), onlooker("bob")
    ann.look()
    bob.look()
    ann.epoch.went_back()
    bob.epoch.went_back()
    ids = [ann.look(), bob.look(), ann.look(), bob.look(), ann.look()]
    assert len(set(ids)) == 1
    assert (ann.doubts, bob.doubts) == (1, 1)


def test_a_report_after_the_grace_is_news(onlooker: Make2) -> None:
    """A store that goes back again after the doubt was over is doubted again."""
    ann = onlooker("ann")
    ann.look()
    ann.epoch.went_back()
    first = ann.look()
    ann.waits(GRACE)
    ann.epoch.went_back()
    assert ann.look() != first
    assert ann.doubts == 2


def test_a_second_loss_within_the_grace_is_seen(onlooker: Make2, another: Callable[[], SqliteStore]) -> None:
    """Emptied again while still in doubt: that is told by the id, and the doubt begins anew."""
    ann = onlooker("ann")
    ann.look()
    ids = set()
    for _ in range(3):
        ann.sees(another())
        ids.add(ann.look())
    assert len(ids) == 3
    assert ann.doubts == 3


# -- how long it is doubted ----------------------------------------------------------------------------------------


def test_the_doubt_ends_with_the_grace(onlooker: Make2, ticking: Clock) -> None:
    """Not before it and not by looking again; a later loss begins it anew."""
    ann = onlooker("ann")
    ann.look()
    ann.epoch.went_back()
    ann.look()
    ann.waits(GRACE - 0.1)
    assert ann.epoch.in_doubt()
    ticking.now += 0.1
    assert not ann.epoch.in_doubt()
    ann.look()
    assert not ann.epoch.in_doubt()


def test_while_the_store_is_away_the_grace_stands_still(onlooker: Make2, ticking: Clock) -> None:
    """Nobody can write again what was lost: the others have what is left of the grace once the store is back."""
    ann = onlooker("ann")
    ann.look()
    ann.epoch.went_back()
    ann.look()
    ann.waits(GRACE - 20)
    ticking.now += 10 * GRACE
    assert ann.epoch.in_doubt()
    ann.look()
    assert ann.epoch.in_doubt()
    assert ann.epoch.lost_for() == pytest.approx(GRACE - 20 + LAPSE)
    ann.waits(20 - LAPSE - 0.1)
    assert ann.epoch.in_doubt()
    ann.waits(0.2)
    assert not ann.epoch.in_doubt()


def test_a_restart_into_a_doubt_waits_for_the_store(onlooker: Make2, ticking: Clock) -> None:
    """Who starts while the store is away counts from when it is back."""
    ann = onlooker("ann")
    ann.look()
    ann.epoch.went_back()
    ann.look()
    ann.begin()
    ticking.now += 10 * GRACE
    ann.look()
    assert ann.epoch.in_doubt()
    ann.waits(GRACE)
    assert not ann.epoch.in_doubt()


def test_a_plugin_restarted_into_a_loss_finds_it(onlooker: Make2, another: Callable[[], SqliteStore]) -> None:
    """What the journal remembers is compared at the first look: a loss while the plugin was down is found then."""
    ann = onlooker("ann")
    first = ann.look()
    ann.sees(another())
    ann.begin()
    assert ann.epoch.in_doubt()
    assert ann.look() != first
    assert ann.epoch.in_doubt()
    assert ann.doubts == 1


def test_a_plugin_restarted_within_the_doubt_still_doubts(
    onlooker: Make2, another: Callable[[], SqliteStore], ticking: Clock
) -> None:
    """The grace belongs to the store's loss, not to the process: a restart does not end it early."""
    ann = onlooker("ann")
    ann.look()
    ann.sees(another())
    ann.look()
    ticking.now += 1.0
    ann.begin()
    ann.look()
    assert ann.epoch.in_doubt()
    ann.waits(GRACE)
    assert not ann.epoch.in_doubt()


def test_what_is_vouched_for_is_kept_apart(onlooker: Make2, another: Callable[[], SqliteStore]) -> None:
    """A new id is vouched for only when somebody says so: not by the look that finds it, nor by a restart after it."""
    ann = onlooker("ann")
    first = ann.look()
    ann.epoch.vouch(first)
    ann.begin()
    assert ann.epoch.vouched == first
    ann.sees(another())
    new = ann.look()
    assert ann.epoch.vouched == first
    ann.begin()
    ann.look()
    assert ann.epoch.vouched != new
    ann.epoch.vouch(new)
    assert ann.epoch.vouched == new


def test_nobody_is_waited_for_without_a_doubt(onlooker: Make2) -> None:
    """Hosts whose lists name another incarnation are waited for only while the store is in doubt."""
    ann = onlooker("ann")
    ann.look()
    assert ann.epoch.waits_for({BOB: "other"}, frozenset()) is None


def test_who_is_waited_for(onlooker: Make2) -> None:
    """In a doubt: those whose list is not of the new incarnation, but the dead; all the grace while nobody is known."""
    ann = onlooker("ann")
    ann.look()
    ann.epoch.went_back()
    new = ann.look()
    assert ann.epoch.waits_for({BOB: "old", EVE: new}, frozenset()) == {BOB}
    assert ann.epoch.waits_for({BOB: "old", EVE: "", ANN: new}, frozenset({BOB})) == {EVE}
    assert ann.epoch.waits_for({BOB: "old", EVE: new}, frozenset({BOB})) is None
    assert ann.epoch.waits_for({BOB: new, EVE: new}, frozenset()) is None
    assert ann.epoch.waits_for({}, frozenset()) == set()
    ann.waits(GRACE)
    assert ann.epoch.waits_for({BOB: "old"}, frozenset()) is None
    assert ann.epoch.waits_for({}, frozenset()) is None


# -- the counter ---------------------------------------------------------------------------------------------------


def test_the_counter_is_raised_once_by_all_together(onlooker: Make2, ticking: Clock) -> None:
    """Five hosts look every 3 s for ten minutes: the counter grows by one in RAISE seconds for all."""
    hosts = [onlooker(f"h{number}") for number in range(5)]
    for one in hosts:
        one.look()
    begun = hosts[0].stored().count
    for _ in range(200):
        ticking.now += 3.0
        for one in hosts:
            one.look()
    raised = hosts[0].stored().count - begun
    assert 600 / RAISE - 1 <= raised <= 600 / RAISE
    assert all(one.doubts == 0 for one in hosts)
    writes = sum(one.host.wire.count("commit") for one in hosts)
    assert writes <= raised + len(hosts)


def test_a_raise_that_another_was_faster_with_is_no_loss(onlooker: Make2, ticking: Clock) -> None:
    """The slower host remembers what stands there at its next look."""
    ann, bob = onlooker("ann"), onlooker("bob")
    ann.look()
    bob.look()
    ticking.now += RAISE

    def faster(name: str, _: object) -> None:
        if name == "commit":
            ann.host.wire.before = lambda _name, _what: None
            bob.look()

    ann.host.wire.before = faster
    ann.look()
    ann.look()
    assert ann.stored().count == 2
    assert ann.host.journal.incarnation == bob.host.journal.incarnation
    assert (ann.host.journal.incarnation or ())[:2] == (ann.epoch.id, 2)
    assert ann.doubts == bob.doubts == 0


def test_a_raise_whose_answer_was_lost_is_no_loss(onlooker: Make2, ticking: Clock) -> None:
    """The count that was written without our knowing is a higher one, and that is taken."""
    ann = onlooker("ann")
    ann.look()
    ticking.now += RAISE
    ann.host.wire.unheard = True
    with pytest.raises(Unavailable):
        ann.look()
    ann.host.wire.unheard = False
    ann.look()
    assert ann.doubts == 0
    assert (ann.host.journal.incarnation or ())[:2] == (ann.epoch.id, 2)


def test_a_newer_version_may_say_more(onlooker: Make2, store: SqliteStore) -> None:
    """Fields that this version does not know are no loss."""
    ann = onlooker("ann")
    first = ann.look()
    known = msgspec.to_builtins(ann.stored())
    put(store, KEY, msgspec.json.encode(known | {"colour": "blue"}))
    assert ann.look() == first
    assert ann.doubts == 0


def test_a_snapshot_from_before_the_last_loss_gets_a_new_id(
    onlooker: Make2, store: SqliteStore, another: Callable[[], SqliteStore]
) -> None:
    """It brings back an id that the store had once, and nobody goes by that."""
    ann, bob = onlooker("ann"), onlooker("bob")
    first = ann.look()
    bob.look()
    old = snapshot(store, another())
    ann.epoch.went_back()
    second = ann.look()
    assert bob.look() == second != first
    ann.sees(old)
    bob.sees(old)
    third = ann.look()
    assert third not in (first, second)
    assert bob.look() == third


def test_an_id_of_a_time_that_this_host_missed_is_known_as_old(
    onlooker: Make2, store: SqliteStore, another: Callable[[], SqliteStore]
) -> None:
    """A host that was cut off while the store had an id takes that for no new one, when a snapshot brings it back."""
    ann, bob = onlooker("ann"), onlooker("bob")
    ann.look()
    bob.look()
    bob.epoch.went_back()
    missed = bob.look()
    old = snapshot(store, another())
    bob.waits(GRACE + 1)  # within a doubt it would be no news
    bob.epoch.went_back()
    current = bob.look()
    assert ann.look() == current != missed
    ann.sees(old)
    assert ann.look() not in (missed, current)


def test_with_a_clock_that_is_behind_a_new_id_is_later_all_the_same(onlooker: Make2) -> None:
    """Whoever makes an id makes it later than what it knew; who knew a later one makes another."""
    ann, bob = onlooker("ann"), onlooker("bob")
    first = ann.look()
    bob.look()
    bob.epoch._wall = lambda: 1.0
    bob.epoch.went_back()
    second = bob.look()
    assert ann.look() == second != first


def test_a_second_loss_is_told_from_the_echo_of_the_first(onlooker: Make2) -> None:
    """A watch that goes back from what it read before the doubt says nothing new; from what it read since it does."""
    ann = onlooker("ann")
    ann.look()
    before = ann.clock.now
    ann.clock.now += 1
    ann.epoch.went_back(before)
    second = ann.look()
    assert ann.doubts == 1
    ann.clock.now += 1
    ann.epoch.went_back(before)
    assert ann.look() == second
    since = ann.clock.now
    ann.clock.now += 1
    ann.epoch.went_back(since)
    assert ann.look() != second
    assert ann.doubts == 2
