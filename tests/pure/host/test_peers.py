"""The other hosts: who is there by the store's word, who is dead by the heartbeat's too, and what follows from it."""

from __future__ import annotations

from collections.abc import Callable, Collection

import msgspec
import pytest

from myoverlay.errors import Unavailable
from myoverlay.host.peers import AT_ONCE, REFRESH, REFRESH_EACH, Fates, PeerWatch
from myoverlay.plan.fates import Fate, State
from myoverlay.store.records import Member, Published
from myoverlay.store.sqlite import SqliteStore
from myoverlay.tally import Tally
from myoverlay.values import Address, Alive, HostId, HostList, OverlayName
from tests.pure.kit import DEMO, Clock, Host, definition, record

GRACE, LEASE_GRACE = 60.0, 600.0


class Sound:
    """What the heartbeat heard of a host."""

    def __init__(self) -> None:
        self.heard: float | None = None
        self.silent = False
        self.rtt: float | None = None


class Beat:
    """A heartbeat on paper: the test says what it heard."""

    def __init__(self) -> None:
        self.on_change: Callable[[], None] = lambda: None
        self.sounds: dict[HostId, Sound] = {}
        self.suspects: list[set[HostId]] = []

    def suspect(self, hosts: Collection[HostId]) -> None:
        self.suspects.append(set(hosts))

    def pulse(self, host: HostId) -> Sound:
        return self.sounds.setdefault(host, Sound())

    def retire(self, timeout: float) -> bool:
        return True


class Watcher:
    """A host that watches the others, step by step."""

    def __init__(self, host: Host) -> None:
        self.host = host
        host.wire.patience = 0.02
        self.clock = Clock(1000.0)
        self.beat = Beat()
        self.tally = Tally()
        self.told: list[tuple[str, HostId | None]] = []
        self.losses = 0
        self.seen: dict[OverlayName, dict[HostId, Address]] = {DEMO: {}}
        self.watch = PeerWatch(host.presence, host.records, lambda: self.seen, self._lost_it, self.tally, self.clock)
        self.fates = Fates(self.watch, self.beat, self.tally, GRACE, LEASE_GRACE, self.clock)
        self.fates.on_lost = lambda who: self.told.append(("lost", who))
        self.fates.on_found = lambda who: self.told.append(("found", who))
        self.fates.on_expired = lambda: self.told.append(("expired", None))

    def _lost_it(self, _: float) -> None:
        self.losses += 1

    def look(self) -> bool:
        return self.watch.step(1.0)

    def after(self, seconds: float) -> None:
        """So much later the fates are judged."""
        self.clock.now += seconds
        self.fates.step()

    def state(self, host: Host) -> State | None:
        fate = self.fates.fate(host.me)
        return fate.state if fate else None

    def news(self) -> list[tuple[str, HostId | None]]:
        told, self.told = self.told, []
        return told


def lists(one: Host, vtep: str, overlay: OverlayName = DEMO, *addresses: str) -> None:
    """The host has a list of the overlay."""
    new = HostList(host=one.me, overlay=overlay, vtep=Address(vtep), records=tuple(map(record, addresses)))
    done = one.records.publish(definition(overlay=overlay), new, None, one.records.ring(overlay), [], [])
    assert isinstance(done, Published)


@pytest.fixture
def ann(host: Callable[[str], Host]) -> Watcher:
    return Watcher(host("ann"))


@pytest.fixture
def bob(host: Callable[[str], Host]) -> Host:
    """A host that shares an overlay with ann."""
    one = host("bob")
    lists(one, "192.0.2.2")
    return one


# -- what the store says -------------------------------------------------------------------------------------------


def test_who_is_there_and_shares_an_overlay(ann: Watcher, bob: Host, host: Callable[[str], Host]) -> None:
    """Names and VTEPs come from `alive`, who shares from the names of the lists; this host itself is not among them."""
    eve = host("eve")
    lists(eve, "192.0.2.3", OverlayName("other"))
    for one in (ann.host, bob, eve):
        one.live()
    lists(ann.host, "192.0.2.9")
    assert ann.watch.known.present is None
    assert not ann.look()
    known = ann.watch.known
    assert known.present == {bob.me, eve.me}
    assert known.names == {bob.me: "bob", eve.me: "eve"}
    assert known.versions == {bob.me: "9.8.7", eve.me: "9.8.7"}
    assert known.vteps[bob.me] == "192.0.2.1"
    assert ann.watch.sharing() == {bob.me: {DEMO}}


def test_coming_and_going_is_news(ann: Watcher, bob: Host, store: SqliteStore) -> None:
    """Each time `on_change` is called; a name that is known stays known."""
    called: list[frozenset[HostId] | None] = []
    ann.watch.on_change = lambda: called.append(ann.watch.known.present)
    ann.look()
    session = bob.live()
    assert ann.look()
    store.close_session(session)
    assert ann.look()
    assert called == [frozenset(), frozenset({bob.me}), frozenset()]
    assert ann.watch.known.names[bob.me] == "bob"
    assert not ann.look()
    assert len(called) == 3


def test_who_says_something_else_is_read_again(ann: Watcher, bob: Host) -> None:
    """A host with another VTEP under the same session: the guard must let it in there at once, not after a minute."""
    session = bob.live()
    ann.look()
    told: list[Address] = []
    ann.watch.on_change = lambda: told.append(ann.watch.known.vteps[bob.me])
    assert bob.presence.announce(moved(bob), session, session)
    assert ann.look()
    assert told == ["192.0.2.77"]
    assert not ann.look()


def test_who_says_something_else_beside_one_that_comes_is_read_too(
    ann: Watcher, bob: Host, host: Callable[[str], Host]
) -> None:
    """One answer of the store tells of both."""
    session = bob.live()
    ann.look()
    assert bob.presence.announce(moved(bob), session, session)
    host("eve").live()
    assert ann.look()
    assert ann.watch.known.vteps[bob.me] == "192.0.2.77"


def test_of_many_it_is_read_in_turn(ann: Watcher, bob: Host, host: Callable[[str], Host]) -> None:
    """A thousand hosts do not ask for a thousand words each because one of them was told another VTEP."""
    session = bob.live()
    for number in range(AT_ONCE):
        host(f"h{number}").live()
    ann.look()
    assert bob.presence.announce(moved(bob), session, session)
    assert [keys for _, keys in read_of(ann, "get", "get_many", "keys", "list") if keys] == []
    for _ in range(2):
        ann.clock.now += REFRESH
        ann.look()
    assert ann.watch.known.vteps[bob.me] == "192.0.2.77"


def moved(host: Host) -> Alive:
    """What a host says of itself when it has another VTEP."""
    return Alive(host=host.me, name=host.name, vteps=(Address("192.0.2.77"),), version="9.8.7")


def test_a_host_that_was_gone_before_is_known_by_what_it_left(ann: Watcher, bob: Host) -> None:
    """Nobody ever saw it alive: its member key names it, its list says where its kernel may answer."""
    assert bob.records.found(definition(holders=(bob.me,)), Member(name="bob", vtep=Address("192.0.2.2"))) is None
    ann.look()
    assert ann.watch.known.names[bob.me] == "bob"
    assert ann.watch.where() == {bob.me: "192.0.2.2"}


def test_without_a_member_key_the_list_says_where(ann: Watcher, bob: Host) -> None:
    """The member key is a hint: a host that has none is asked all the same."""
    ann.look()
    assert ann.watch.where() == {bob.me: "192.0.2.2"}


def test_who_has_rows_here_shares_though_the_store_lost_it(
    ann: Watcher, bob: Host, host: Callable[[str], Host]
) -> None:
    """A host whose list is gone from the store is judged as long as its rows are here, at the VTEP they name."""
    eve = host("eve")
    ann.seen = {DEMO: {eve.me: Address("192.0.2.33")}}
    ann.look()
    assert ann.watch.sharing() == {bob.me: {DEMO}, eve.me: {DEMO}}
    assert ann.watch.where()[eve.me] == "192.0.2.33"


def test_what_is_shared_follows_this_hosts_overlays(ann: Watcher, bob: Host) -> None:
    """An overlay that this host joins or leaves changes at once with whom it shares."""
    ann.look()
    ann.seen = {}
    assert ann.watch.sharing() == ann.watch.where() == {}
    ann.seen = {DEMO: {}}
    assert set(ann.watch.sharing()) == {bob.me}


def test_lists_are_read_again_slowly_and_when_asked(ann: Watcher, bob: Host, host: Callable[[str], Host]) -> None:
    """A host's first list wakes nobody here: it is seen after REFRESH, or at the next answer after `refresh`."""
    ann.look()
    first, second = host("eve"), host("joe")
    lists(first, "192.0.2.3")
    ann.look()
    assert set(ann.watch.sharing()) == {bob.me}
    ann.watch.refresh()
    ann.look()
    assert set(ann.watch.sharing()) == {bob.me, first.me}
    lists(second, "192.0.2.4")
    ann.clock.now += REFRESH
    ann.look()
    assert set(ann.watch.sharing()) == {bob.me, first.me, second.me}


def test_a_refresh_that_failed_is_made_up_for(ann: Watcher, bob: Host, host: Callable[[str], Host]) -> None:
    """The store went away in the middle of it: the next answer reads all again."""
    ann.look()
    eve = host("eve")
    lists(eve, "192.0.2.3")
    ann.watch.refresh()

    def fail(name: str, _: object) -> None:
        if name == "keys":
            raise Unavailable("the store went away")

    ann.host.wire.before = fail
    with pytest.raises(Unavailable):
        ann.look()
    ann.host.wire.before = lambda _name, _what: None
    ann.look()
    assert set(ann.watch.sharing()) == {bob.me, eve.me}


def test_an_empty_answer_says_that_nobody_is_there(ann: Watcher, bob: Host, store: SqliteStore) -> None:
    """Not that everybody is dead: names, VTEPs and rows stay, and the heartbeat is asked."""
    session = bob.live()
    ann.look()
    ann.fates.step()
    store.close_session(session)
    ann.look()
    ann.fates.step()
    assert ann.watch.known.present == frozenset()
    assert ann.state(bob) is State.PENDING
    assert ann.beat.suspects[-1] == {bob.me}
    assert ann.fates.lost() == frozenset()


def test_an_index_that_went_back_is_told(ann: Watcher, bob: Host, tmp_path: object) -> None:
    """It withdraws nobody by itself; the next answer begins anew with who is there."""
    bob.live()
    ann.look()
    emptied = SqliteStore(tmp_path / "emptied.db")  # type: ignore[operator]
    ann.host.wire.inner = emptied
    before = ann.watch.known
    ann.look()
    assert ann.losses == 1
    assert ann.watch.known is before
    ann.look()
    assert ann.watch.known.present == frozenset()
    assert ann.losses == 1
    emptied.close()


# -- fates ---------------------------------------------------------------------------------------------------------


def test_nothing_is_judged_before_the_store_was_read(ann: Watcher, bob: Host) -> None:
    """At start, with the store away: nobody is suspected, nobody is anything, whatever the heartbeat thinks."""
    ann.beat.pulse(bob.me).silent = True
    ann.seen = {DEMO: {bob.me: Address("192.0.2.2")}}
    for _ in range(3):
        ann.after(LEASE_GRACE)
    assert ann.fates.all() == {}
    assert ann.beat.suspects == []
    assert ann.news() == []


def test_a_host_that_falls_silent_dies_loses_its_rows_and_expires(ann: Watcher, bob: Host, store: SqliteStore) -> None:
    """Pending while the heartbeat asks, dead when it gives up, lost after the grace, expired after the lease grace."""
    session = bob.live()
    ann.look()
    ann.fates.step()
    assert ann.state(bob) is State.ALIVE
    store.close_session(session)
    ann.look()
    ann.after(1.0)
    assert ann.state(bob) is State.PENDING
    ann.beat.pulse(bob.me).silent = True
    ann.after(2.0)
    assert ann.fates.is_dead(bob.me)
    ann.after(GRACE - 0.1)
    assert ann.fates.lost() == frozenset()
    assert ann.news() == []
    ann.after(0.1)
    assert ann.fates.lost() == {bob.me}
    assert ann.news() == [("lost", bob.me)]
    ann.after(LEASE_GRACE - GRACE - 0.1)
    assert ann.fates.expired() == set()
    assert ann.news() == []
    ann.after(0.2)
    assert ann.fates.expired() == {bob.me}
    assert ann.news() == [("expired", None)]
    for _ in range(5):
        ann.after(10.0)
    assert ann.news() == []
    assert {label: count for (name, label), count in ann.tally.all().items() if name == "fates"} == {
        "alive": 1,
        "pending": 1,
        "dead": 1,
    }


def test_a_host_whose_kernel_answers_is_cut_off(ann: Watcher, bob: Host) -> None:
    """Its plugin or its way to the store is gone, its containers run: however long, its rows and addresses stay."""
    ann.look()
    ann.fates.step()
    for _ in range(20):
        ann.clock.now += LEASE_GRACE
        ann.beat.pulse(bob.me).heard = ann.clock.now
        ann.fates.step()
    assert ann.fates.cut_off() == {bob.me}
    assert ann.fates.is_away(bob.me)
    assert ann.fates.lost() == frozenset()
    assert ann.fates.expired() == set()
    assert ann.news() == []
    ann.beat.pulse(bob.me).silent = True
    ann.after(1.0)
    assert ann.fates.is_dead(bob.me)
    assert ann.fates.is_away(bob.me)
    assert ann.fates.fate(bob.me) == Fate(State.DEAD, ann.clock.now)


def test_who_is_dead_is_gone_without_a_session_only(ann: Watcher, bob: Host) -> None:
    """Who was cut off from the store takes a host that came back meanwhile for dead: the store is asked."""
    ann.look()
    ann.beat.pulse(bob.me).silent = True
    assert not ann.fates.is_gone(bob.me)
    ann.after(1.0)
    assert ann.fates.is_gone(bob.me)
    bob.live()
    assert ann.fates.is_dead(bob.me)
    assert not ann.fates.is_gone(bob.me)
    ann.host.wire.off = True
    with pytest.raises(Unavailable):
        ann.fates.is_gone(bob.me)


def test_a_host_that_was_lost_is_found_again(ann: Watcher, bob: Host) -> None:
    """Its session is back: it is not lost any more before its lists are read, and that is told once."""
    ann.look()
    ann.beat.pulse(bob.me).silent = True
    ann.after(0.0)
    ann.after(GRACE)
    assert ann.news() == [("lost", bob.me)]
    bob.live()
    ann.look()
    lost_then: list[frozenset[HostId]] = []
    ann.fates.on_found = lambda who: (lost_then.append(ann.fates.lost()), ann.told.append(("found", who)))[1]
    ann.after(1.0)
    assert ann.news() == [("found", bob.me)]
    assert lost_then == [frozenset()]
    ann.after(1.0)
    assert ann.news() == []


def test_who_is_found_while_the_store_is_away_is_read_later(ann: Watcher, bob: Host) -> None:
    """Its kernel answers again: reading its lists fails at first, and is tried until it succeeds."""
    ann.look()
    ann.beat.pulse(bob.me).silent = True
    ann.after(0.0)
    ann.after(GRACE)
    ann.news()
    ann.beat.pulse(bob.me).silent = False
    ann.beat.pulse(bob.me).heard = ann.clock.now + 1.0

    def away(_: HostId) -> None:
        raise Unavailable("the store is away")

    ann.fates.on_found, keep = away, ann.fates.on_found
    for _ in range(3):
        with pytest.raises(Unavailable):
            ann.after(1.0)
    assert ann.state(bob) is State.CUT_OFF
    ann.fates.on_found = keep
    ann.after(1.0)
    assert ann.news() == [("found", bob.me)]
    ann.after(1.0)
    assert ann.news() == []


def test_who_is_lost_again_before_it_was_read_is_not_found(ann: Watcher, bob: Host) -> None:
    """A host that flaps while the store is away ends where it is: lost."""
    ann.look()
    sound = ann.beat.pulse(bob.me)
    sound.silent = True
    ann.after(0.0)
    ann.after(GRACE)
    sound.silent, sound.heard = False, ann.clock.now + 1.0

    def away(_: HostId) -> None:
        raise Unavailable("the store is away")

    ann.fates.on_found, keep = away, ann.fates.on_found
    with pytest.raises(Unavailable):
        ann.after(1.0)
    sound.silent = True
    with pytest.raises(Unavailable):
        ann.after(1.0)
    ann.news()
    ann.fates.on_found = keep
    ann.clock.now += GRACE
    ann.fates.step()
    assert ann.news() == [("lost", bob.me)]
    ann.after(1.0)
    assert ann.news() == []


def test_the_store_away_kills_nobody(ann: Watcher, bob: Host) -> None:
    """What was read last stands: who was there then is alive, though the heartbeat hears nothing."""
    bob.live()
    ann.look()
    ann.fates.step()
    ann.host.wire.off = True
    ann.beat.pulse(bob.me).silent = True
    for _ in range(5):
        with pytest.raises(Unavailable):
            ann.look()
        ann.after(LEASE_GRACE)
    assert ann.state(bob) is State.ALIVE
    assert ann.news() == []


def test_a_respite_begins_the_time_anew(ann: Watcher, bob: Host) -> None:
    """Somebody else hears the host: its addresses are kept for another lease grace, and its end is told again."""
    ann.look()
    ann.beat.pulse(bob.me).silent = True
    ann.after(0.0)
    ann.after(LEASE_GRACE)
    assert ("expired", None) in ann.news()
    ann.fates.respite(bob.me)
    assert ann.fates.expired() == set()
    ann.after(LEASE_GRACE - 0.1)
    assert ann.fates.expired() == set()
    assert ann.fates.lost() == {bob.me}, "to this host it is dead as before"
    ann.after(0.1)
    assert ann.fates.expired() == {bob.me}
    assert ("expired", None) in ann.news()


def test_suspects_are_told_when_they_change(ann: Watcher, bob: Host, store: SqliteStore) -> None:
    """The heartbeat asks those at once whose session is gone, and is told when that is over."""
    ann.look()
    ann.fates.step()
    ann.fates.step()
    assert ann.beat.suspects == [{bob.me}]
    bob.live()
    ann.look()
    ann.fates.step()
    assert ann.beat.suspects == [{bob.me}, set()]


def test_a_host_that_shares_nothing_any_more_is_nobody(ann: Watcher, bob: Host) -> None:
    """This host left the last overlay they had in common: no fate, no grave, and no later news of it."""
    ann.look()
    ann.beat.pulse(bob.me).silent = True
    ann.after(0.0)
    ann.seen = {}
    ann.after(LEASE_GRACE)
    assert ann.fates.all() == {}
    assert ann.fates.expired() == set()
    assert ann.news() == []


# -- what it costs ---------------------------------------------------------------------------------------------------


def read_of(ann: Watcher, *names: str) -> list[tuple[str, object]]:
    """What a look asked of the store, by these calls."""
    before = len(ann.host.wire.calls)
    ann.look()
    return [call for call in ann.host.wire.calls[before:] if call[0] in names]


@pytest.mark.parametrize("many", [3, 130])
def test_who_comes_or_goes_costs_that_host_alone(ann: Watcher, host: Callable[[str], Host], many: int) -> None:
    """Of one that went its own keys are read, of one that came what it says of itself: and what the others say, where
    they are few.

    It still shares an overlay with this host when its rows here are gone, or nobody would bury it.
    """
    others = [host(f"h{number}") for number in range(many)]
    for one in others:
        one.live()
    ann.look()
    bob = host("bob")
    session = bob.live()
    ((call, keys),) = read_of(ann, "get", "get_many", "keys", "list")
    asked_of = [bob] if many > AT_ONCE else [bob, *others]
    assert (call, sorted(keys)) == ("get_many", sorted(f"myoverlay/alive/{one.me}" for one in asked_of))  # type: ignore[call-overload]
    assert ann.watch.known.names[bob.me] == "bob"
    lists(bob, "192.0.2.2")
    ann.seen[DEMO] = {bob.me: Address("192.0.2.2")}
    bob.wire.close_session(session)
    asked = [call for call in read_of(ann, "get", "keys", "list") if call[1]]
    assert asked == [("keys", f"myoverlay/hosts/{bob.me}/overlays/")]
    ann.seen[DEMO] = {}
    assert ann.watch.sharing() == {bob.me: {DEMO}}


def test_of_a_stranger_that_went_its_own_keys_are_read(ann: Watcher, host: Callable[[str], Host]) -> None:
    """It came, listed containers and died before anybody read that list: it is judged like the others."""
    ann.look()
    bob = host("bob")
    session = bob.live()
    ann.look()
    lists(bob, "192.0.2.2")
    bob.wire.close_session(session)
    assert read_of(ann, "keys") == [("keys", f"myoverlay/hosts/{bob.me}/overlays/")]
    assert ann.watch.sharing() == {bob.me: {DEMO}}


def test_what_all_say_of_themselves_is_read_again_in_turn(ann: Watcher, host: Callable[[str], Host]) -> None:
    """A part each time, so that a thousand hosts do not ask for a thousand words each; in the end all of them."""
    made = [host(f"h{number}") for number in range(AT_ONCE + 10)]
    for one in made:
        one.live()
    ann.look()
    asked: set[str] = set()
    for _ in range(2):
        ann.clock.now += REFRESH
        (call,) = [keys for name, keys in read_of(ann, "get_many") if keys and "alive" in str(keys)]
        assert isinstance(call, list)
        assert len(call) == AT_ONCE
        asked.update(call)
    assert len(asked) == len(made)


def test_the_more_hosts_the_slower_each_reads_all(ann: Watcher, host: Callable[[str], Host]) -> None:
    """All together ask as often as a few: a look at everything comes later where there are very many."""
    ann.look()
    ann.watch.known = msgspec.structs.replace(ann.watch.known, present=frozenset(HostId.random() for _ in range(1000)))
    ann.clock.now += REFRESH
    assert not ann.watch._is_due()
    ann.clock.now += 1000 * REFRESH_EACH - REFRESH
    assert ann.watch._is_due()
