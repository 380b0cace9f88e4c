"""Being there: one session over restarts, and a host that is the double of a living one stays out."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from myoverlay.errors import Unavailable
from myoverlay.host.alive import TTL, Liveness, _same_machine
from myoverlay.host.epoch import Epoch
from myoverlay.host.journal import Journal
from myoverlay.host.mirror import Mirror
from myoverlay.store import Delete
from myoverlay.store.presence import Presence
from myoverlay.store.sqlite import SqliteStore
from myoverlay.tally import Tally
from myoverlay.values import Address, Alive, HostId
from tests.pure.kit import PREFIX, Clock, Host, every, until

Make = Callable[[str], Host]


def liveness(one: Host, *vteps: str, name: str | None = None) -> Liveness:
    known = tuple(Address(vtep) for vtep in vteps or ("192.0.2.1",))
    return made(one.journal, one.presence, name or one.name, lambda: known)


def made(journal: Journal, presence: Presence, name: str, vteps: Callable[[], tuple[Address, ...]]) -> Liveness:
    tally = Tally()
    return Liveness(journal, presence, Epoch(journal, presence, tally, 60.0), name, vteps, tally)


def test_a_host_is_announced(host: Make, store: SqliteStore) -> None:
    """One round announces name and VTEPs under the host's id, bound to a session that is kept on disk."""
    ann = host("ann")
    alive = liveness(ann)
    assert not alive.announced.is_set()
    alive.step()
    assert alive.announced.is_set()
    assert alive.barred() is None
    known, session = ann.presence.own()
    assert known is not None
    assert (known.name, known.vteps) == ("ann", ("192.0.2.1",))
    assert session == ann.journal.session is not None
    assert alive.tally.all() == {("session", "opened"): 1}


def test_further_rounds_only_renew(host: Make, store: SqliteStore, ticks: Clock) -> None:
    """A quiet host writes nothing, and lives as long as its rounds come within twice the TTL."""
    ann = host("ann")
    alive = liveness(ann)
    alive.step()
    session, commits = ann.journal.session, ann.wire.count("commit")
    for _ in range(5):
        ticks.now += 1.9 * TTL
        alive.step()
    assert ann.journal.session == session
    assert ann.wire.count("commit") == commits
    assert f"{PREFIX}/alive/{ann.me}" in every(store)


def test_a_restart_takes_over_its_session(host: Make, store: SqliteStore) -> None:
    """A plugin that comes back within its session's life goes on with it, and no key changes."""
    ann = host("ann")
    liveness(ann).step()
    entry = store.get(f"{PREFIX}/alive/{ann.me}")
    assert entry is not None
    again = liveness(ann)
    again.step()
    assert again.announced.is_set()
    assert again.tally.all() == {("session", "renewed"): 1}
    after = store.get(f"{PREFIX}/alive/{ann.me}")
    assert after is not None
    assert (after.session, after.index) == (entry.session, entry.index)


def test_a_restart_after_its_session_ended_opens_another(host: Make, ticks: Clock) -> None:
    """A session that the store knows no more is not held on to."""
    ann = host("ann")
    liveness(ann).step()
    old = ann.journal.session
    ticks.now += 100 * TTL
    again = liveness(ann)
    again.step()
    assert again.tally.all() == {("session", "opened"): 1}
    assert ann.presence.own()[1] == ann.journal.session != old


def test_a_lost_session_is_opened_anew(host: Make, ticks: Clock) -> None:
    """A running host whose session ended is there again in the same round, and counts it."""
    ann = host("ann")
    alive = liveness(ann)
    alive.step()
    old = ann.journal.session
    ticks.now += 100 * TTL
    alive.step()
    known, session = ann.presence.own()
    assert known is not None
    assert session == ann.journal.session != old
    assert alive.tally.get("session", "lost") == 1


def test_a_key_that_was_deleted_by_hand_comes_back(host: Make, store: SqliteStore) -> None:
    """A host that sees itself missing among the living announces itself again."""
    ann = host("ann")
    alive = liveness(ann)
    alive.step()
    entry = store.get(f"{PREFIX}/alive/{ann.me}")
    assert entry is not None
    store.commit([Delete(entry.key, entry.index)])
    alive.step()
    assert ann.presence.own()[1] == ann.journal.session


def test_a_new_vtep_is_announced(host: Make) -> None:
    """What changes about a host is told in the next round."""
    ann = host("ann")
    vteps = [Address("192.0.2.1")]
    alive = made(ann.journal, ann.presence, "ann", lambda: tuple(vteps))
    alive.step()
    vteps.append(Address("192.0.2.2"))
    alive.step()
    known, _ = ann.presence.own()
    assert known is not None
    assert known.vteps == ("192.0.2.1", "192.0.2.2")


def test_a_second_host_with_a_living_ones_vtep_is_barred(host: Make, ticks: Clock) -> None:
    """One sentence names the other and what to do; when the other is gone the host takes part."""
    ann, bob = host("ann"), host("bob")
    first, second = liveness(ann), liveness(bob, "192.0.2.7", "192.0.2.1")
    first.step()
    second.step()
    assert second.barred() == "host ann uses the VTEP 192.0.2.1 as well: give each host its own MYOVERLAY_VTEP"
    assert not second.announced.is_set()
    assert set(ann.presence.alive()) == {ann.me}
    ticks.now += 100 * TTL
    second.step()
    assert second.barred() is None
    assert set(ann.presence.alive()) == {bob.me}


def test_who_was_first_is_not_barred(host: Make) -> None:
    """A host that is announced already goes on, whoever comes after it."""
    ann, bob = host("ann"), host("bob")
    first, second = liveness(ann), liveness(bob)
    first.step()
    second.step()
    first.step()
    assert first.barred() is None
    assert second.barred() is not None


def test_a_cloned_machine_is_barred(host: Make, tmp_path: Path, store: SqliteStore) -> None:
    """A copy of a living host's disk is refused naming it and the cure, `new-id`; after that it takes part."""
    ann = host("ann")
    liveness(ann).step()
    shutil.copytree(tmp_path / "ann", tmp_path / "clone")
    journal = Journal(tmp_path / "clone")
    assert journal.host_id() == ann.me
    clone = made(
        journal, Presence(store, PREFIX, journal.host_id()), "clone", lambda: (Address("192.0.2.2"),)
    )  # fmt: skip
    clone.step()
    sentence = clone.barred()
    assert sentence is not None
    assert sentence.startswith("host ann (192.0.2.1) lives under the same host id: ")
    assert "myoverlay host new-id" in sentence
    known, session = ann.presence.own()
    assert known is not None
    assert (known.name, session) == ("ann", ann.journal.session)
    cured = made(
        journal, Presence(store, PREFIX, journal.new_host_id()), "clone", lambda: (Address("192.0.2.2"),)
    )  # fmt: skip
    cured.step()
    assert cured.barred() is None
    assert len(ann.presence.alive()) == 2
    journal.close()


class Machine:
    """A machine with a disk and a memory: where its journal lies, and the journal's copy."""

    def __init__(self, folder: Path, store: SqliteStore) -> None:
        self.folder, self.store = folder, store
        self.tally = Tally()

    def clone(self, name: str) -> Machine:
        """Another machine with a copy of the disk."""
        shutil.copytree(self.folder / "disk", self.folder.parent / name / "disk")
        return Machine(self.folder.parent / name, self.store)

    def reboot(self) -> None:
        shutil.rmtree(self.folder / "memory")

    def run(self, vtep: str) -> str | None:
        """The plugin starts, does a round, and is killed; why it was barred."""
        journal = Journal(self.folder / "disk", mirror=Mirror(self.folder / "memory", self.tally))
        with closing(journal):
            presence = Presence(self.store, PREFIX, journal.host_id())
            alive = made(journal, presence, self.folder.name, lambda: (Address(vtep),))
            alive.step()
            return alive.barred()


def test_a_restart_with_another_address_is_the_same_machine(tmp_path: Path, store: SqliteStore) -> None:
    """Its address changed while the plugin was down: it goes on at once, with the session that it had."""
    ann = Machine(tmp_path / "ann", store)
    assert ann.run("192.0.2.1") is None
    (before,) = store.list(f"{PREFIX}/alive/").entries
    assert ann.run("192.0.2.7") is None
    (after,) = store.list(f"{PREFIX}/alive/").entries
    assert (before.key, before.session) == (after.key, after.session)
    assert b"192.0.2.7" in after.value


def test_a_clone_is_barred_however_often_it_starts(tmp_path: Path, store: SqliteStore) -> None:
    """Its disk tells of the session that the original has; its memory does not, also once the plugin has run there."""
    ann = Machine(tmp_path / "ann", store)
    assert ann.run("192.0.2.1") is None
    clone = ann.clone("clone")
    for _ in range(3):
        assert "lives under the same host id" in str(clone.run("192.0.2.7"))
    assert ann.run("192.0.2.8") is None


def test_who_lost_its_id_to_a_clone_is_barred(tmp_path: Path, store: SqliteStore, ticks: Clock) -> None:
    """The original was away for so long that a clone took its place: what it remembers is held by nobody."""
    ann = Machine(tmp_path / "ann", store)
    ann.run("192.0.2.1")
    clone = ann.clone("clone")
    ticks.now += 100 * TTL
    assert clone.run("192.0.2.7") is None
    assert "lives under the same host id" in str(ann.run("192.0.2.8"))


def test_a_reboot_with_another_address_waits_for_its_session_to_end(
    tmp_path: Path, store: SqliteStore, ticks: Clock
) -> None:
    """Nothing tells it from a clone then: it is barred for as long as its former session lives."""
    ann = Machine(tmp_path / "ann", store)
    ann.run("192.0.2.1")
    ann.reboot()
    assert "lives under the same host id" in str(ann.run("192.0.2.7"))
    ticks.now += 100 * TTL
    assert ann.run("192.0.2.7") is None


def test_the_store_away_is_told_and_forgets_nothing(host: Make) -> None:
    """A round that cannot reach the store raises, bars nobody, and the next one goes on with the same session."""
    ann = host("ann")
    alive = liveness(ann)
    alive.step()
    session = ann.journal.session
    ann.wire.off = True
    with pytest.raises(Unavailable):
        alive.step()
    ann.wire.off = False
    alive.step()
    assert ann.journal.session == session
    assert alive.barred() is None


@pytest.mark.parametrize("lost", [False, True])
def test_a_round_that_was_cut_short_is_ended_by_the_next(host: Make, store: SqliteStore, lost: bool) -> None:
    """At whichever call of its first round the store goes away, or its answer is lost, a host is announced by the
    next one, and needs no witness any more."""
    eve = host("eve")
    for after in range(1, 100):
        one = host(f"h{after}")
        eve.presence.bear_witness(one.me)
        alive, left = liveness(one, f"192.0.2.{after}"), [after]

        def fail(name: str, _what: object, one: Host = one, left: list[int] = left) -> None:
            left[0] -= 1
            if left[0] == 0 and not lost:
                raise Unavailable("the store went away")
            one.wire.unheard = left[0] == 0

        one.wire.before = fail
        try:
            alive.step()
        except Unavailable:
            alive.step()
        assert alive.announced.is_set()
        assert eve.presence.witness(one.me) is None
        if left[0] > 0:
            return
    pytest.fail("a round never ends")


@pytest.mark.parametrize("call", ["renew_session", "commit"])
def test_a_session_that_ends_within_the_first_round(host: Make, ticks: Clock, call: str) -> None:
    """A restart whose former session ends as it takes it over says that it is not announced, and is a moment later:
    until then nothing of this host would be written, so it must not wait for its next turn.
    """
    ann = host("ann")
    liveness(ann).step()
    again = liveness(ann)

    def end(name: str, _what: object) -> None:
        if name == call:
            ann.wire.before = lambda *_: None
            ticks.now += 100 * TTL

    ann.wire.before = end
    with pytest.raises(Unavailable, match="while this host was being announced"):
        again.step()
    assert not again.announced.is_set()
    again.step()
    assert again.announced.is_set()


def test_a_stopped_host_leaves_its_session(host: Make, store: SqliteStore) -> None:
    """The thread ends at once, and the key stays for the next run to take over."""
    ann = host("ann")
    alive = liveness(ann)
    alive.start()
    until(alive.announced.is_set)
    alive.stop(5)
    assert not alive._thread.is_alive()
    assert ann.presence.own()[1] == ann.journal.session


@pytest.mark.parametrize(
    ("known", "mine", "same"),
    [
        (("h1", ["10.0.0.1"]), ("h1", ["10.0.0.1"]), True),
        (("h1", ["10.0.0.1"]), ("renamed", ["10.0.0.1"]), True),
        (("h1", ["10.0.0.1"]), ("h1", []), True),
        (("h1", []), ("h1", ["10.0.0.1"]), True),
        (("h1", ["10.0.0.1", "10.1.0.1"]), ("h1", ["10.1.0.1"]), True),
        (("h1", ["10.0.0.1"]), ("h1", ["10.0.0.2"]), False),
        (("h1", ["10.0.0.1"]), ("h2", []), False),
    ],
)
def test_a_restart_is_told_from_a_clone(known: tuple[str, list[str]], mine: tuple[str, list[str]], same: bool) -> None:
    """A host that comes back has its address, or none yet; a clone has another."""
    me = HostId("0" * 32)
    one, other = (Alive(host=me, name=name, vteps=tuple(map(Address, vteps))) for name, vteps in (known, mine))
    assert _same_machine(one, other) is same
