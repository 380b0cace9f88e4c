"""Who is there, and which store this is: session-bound keys, witnesses, the incarnation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from myoverlay.errors import Denied
from myoverlay.store import Committed, Conflict, Delete, Op, Put, Unchanged
from myoverlay.store.presence import GARBLED, Incarnation, Presence, Present
from myoverlay.store.sqlite import SqliteStore
from myoverlay.store.typed import Held
from myoverlay.values import COUNT_LIMIT, Address, Alive, HostId, encode
from tests.pure.kit import ANN, BOB, EVE, every, put, together

VTEP = Address("192.0.2.1")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(tmp_path / "store.db")
    yield store
    store.close()


@pytest.fixture
def ann(store: SqliteStore) -> Presence:
    return Presence(store, "myoverlay", ANN)


@pytest.fixture
def bob(store: SqliteStore) -> Presence:
    return Presence(store, "myoverlay", BOB)


def be_there(presence: Presence, name: str = "ann") -> str:
    """Announce the host; returns its session."""
    session = presence.store.open_session(name, 10.0)
    assert presence.announce(Alive(host=presence.me, name=name, vteps=(VTEP,)), session, None)
    return session


# -- being alive ---------------------------------------------------------------------------------------------------


def test_being_alive_hangs_on_the_session(store: SqliteStore, ann: Presence, bob: Presence) -> None:
    """The key goes with its session; while that lives no other session takes it, unless it is handed over."""
    alive = Alive(host=ANN, name="ann", vteps=(VTEP,))
    one, two = store.open_session("ann", 10.0), store.open_session("ann", 10.0)
    assert ann.announce(alive, one, None)
    assert ann.own() == (alive, one)
    assert not ann.announce(alive, two, None)
    assert ann.announce(alive, two, one)
    store.close_session(one)
    assert {host: held.value for host, held in bob.alive().items()} == {ANN: alive}
    store.close_session(two)
    assert bob.alive() == {}
    assert ann.own() == (None, None)


def test_some_hosts_are_asked_about(store: SqliteStore, ann: Presence, bob: Presence) -> None:
    """Only the hosts asked for are read, by one call; who is not there is absent, and nobody is nobody."""
    be_there(ann)
    be_there(bob, "bob")
    assert {host: alive.name for host, alive in ann.alive_of([BOB, EVE]).items()} == {BOB: "bob"}
    assert ann.alive_of([]) == {}


def test_waiting_tells_who_is_there(store: SqliteStore, ann: Presence, bob: Presence) -> None:
    """The first answer comes at once, the next when a host came, went or says something else of itself."""
    session = be_there(ann)
    seen = bob.wait(0, timeout=1.0)
    assert isinstance(seen, Present)
    assert seen.hosts == {ANN}
    assert ann.announce(Alive(host=ANN, name="ann", vteps=()), session, session)
    changed = bob.wait(seen.index, timeout=1.0)
    assert isinstance(changed, Present)
    assert changed.hosts == {ANN}
    assert ann.announce(Alive(host=ANN, name="ann", vteps=()), session, session)
    assert isinstance(bob.wait(changed.index, timeout=0.05), Unchanged)
    be_there(bob, "bob")
    after = bob.wait(changed.index, timeout=1.0)
    assert isinstance(after, Present)
    assert after.hosts == {ANN, BOB}
    store.close_session(session)
    last = bob.wait(after.index, timeout=1.0)
    assert isinstance(last, Present)
    assert last.hosts == {BOB}


@pytest.mark.parametrize("name", [EVE, "nobody"])
@pytest.mark.parametrize("value", [encode(Alive(host=BOB, name="bob", vteps=())), b"garbage", b"{}", b"\xff"])
def test_a_bad_announcement_is_left_out(store: SqliteStore, ann: Presence, name: str, value: bytes) -> None:
    """What is about another host than its key, or about nothing, is passed over and named; the good one is read."""
    put(store, f"myoverlay/alive/{name}", value)
    put(store, f"myoverlay/alive/{BOB}", encode(Alive(host=BOB, name="bob", vteps=())))
    assert set(ann.alive()) == {BOB}
    assert set(ann.alive_of([EVE, BOB])) == {BOB}
    assert list(ann.quarantine) == [f"myoverlay/alive/{name}"]


def test_a_name_that_is_no_host_is_nobody(store: SqliteStore, ann: Presence) -> None:
    """Only names of keys are waited for: one that is no host id is left out and named."""
    put(store, "myoverlay/alive/nobody", "x")
    put(store, f"myoverlay/alive/{EVE}", "garbage under a good name is somebody all the same")
    seen = ann.wait(0, timeout=1.0)
    assert isinstance(seen, Present)
    assert seen.hosts == {EVE}
    assert list(ann.quarantine) == ["myoverlay/alive/nobody"]


@pytest.mark.parametrize("denied", [False, True], ids=["checked", "read first"])
def test_a_write_can_depend_on_a_hosts_absence(store: SqliteStore, ann: Presence, denied: bool) -> None:
    """It is done before the host came and after it went, and not while it is there; also where Consul does not let this
    token check that, which is found out once."""
    asked: list[int] = []

    class Policed:
        """The store, for a token that may write nothing of ANN's: not even check that it is not there."""

        def commit(self, ops: Sequence[Op], *, timeout: float = 3.0) -> Committed | Conflict:
            asked.append(len(ops))
            if any(op.key == f"myoverlay/alive/{ANN}" for op in ops) and denied:
                raise Denied("permission denied")
            return store.commit(ops, timeout=timeout)

        def __getattr__(self, name: str) -> Any:
            return getattr(store, name)

    bob = Presence(cast(Any, Policed()), "myoverlay", BOB)

    def write() -> Committed | Conflict:
        return bob.commit_without(ANN, [Put("myoverlay/x", b"")])

    assert isinstance(write(), Committed)
    session = be_there(ann)
    assert isinstance(write(), Conflict)
    store.close_session(session)
    assert isinstance(write(), Committed)
    assert asked == ([2, 1, 1, 1] if denied else [2, 2, 2])


def test_what_is_denied_itself_is_told(store: SqliteStore) -> None:
    """Not the check but the write is not allowed: nobody takes that for done, nor writes without the check."""

    class Policed:
        def commit(self, ops: Sequence[Op], *, timeout: float = 3.0) -> Committed | Conflict:
            if any(isinstance(op, Put) for op in ops):
                raise Denied("permission denied")
            return store.commit(ops, timeout=timeout)

    bob = Presence(cast(Any, Policed()), "myoverlay", BOB)
    for _ in range(2):
        with pytest.raises(Denied):
            bob.commit_without(ANN, [Put("myoverlay/x", b"")])


# -- witnesses -----------------------------------------------------------------------------------------------------


def test_each_word_of_a_witness_is_a_new_one(ann: Presence, bob: Presence) -> None:
    """Whoever reads it sees that somebody spoke meanwhile, and when it is ended nothing is left."""
    assert ann.witness(EVE) is None
    ann.bear_witness(EVE)
    first = bob.witness(EVE)
    assert first
    assert bob.witness(EVE) == first
    bob.bear_witness(EVE)
    assert ann.witness(EVE) not in (None, first)
    assert ann.witness(BOB) is None
    ann.end_witness(EVE)
    bob.end_witness(EVE)
    assert bob.witness(EVE) is None
    assert every(ann.store) == {}  # type: ignore[arg-type]


def test_a_host_that_is_back_gets_no_witness(ann: Presence, bob: Presence) -> None:
    """Nobody would ever take the word away again."""
    be_there(bob, "bob")
    ann.bear_witness(BOB)
    assert ann.witness(BOB) is None


def test_a_hostile_witness_is_a_word_like_any(store: SqliteStore, ann: Presence) -> None:
    """Whatever bytes lie there, they are read as a short text that can be compared."""
    put(store, f"myoverlay/witness/{EVE}", b"\xff\x00" * 100_000)
    seen = ann.witness(EVE)
    assert seen is not None
    assert len(seen) == 64


def test_a_new_word_survives_an_end_that_was_read_before(store: SqliteStore, ann: Presence, bob: Presence) -> None:
    """Ending a witness takes away only what was read: a word said meanwhile stays."""
    ann.bear_witness(EVE)

    class Slow:
        """Between its read and its write somebody speaks."""

        def __getattr__(self, name: str) -> object:
            if name == "commit":
                bob.bear_witness(EVE)
            return getattr(store, name)

    Presence(Slow(), "myoverlay", ANN).end_witness(EVE)  # type: ignore[arg-type]
    assert bob.witness(EVE) is not None


# -- the store's incarnation ---------------------------------------------------------------------------------------


def test_one_host_gives_the_store_its_id(store: SqliteStore, ann: Presence, bob: Presence) -> None:
    """Of hosts that write at once one is first; the others read its id."""
    assert ann.incarnation() is None
    hosts = [ann, bob, Presence(store, "myoverlay", EVE)]
    fresh = [Incarnation.fresh(1) for _ in hosts]
    done = together(*[
        lambda one=one, new=new: one.write_incarnation(None, new) for one, new in zip(hosts, fresh, strict=True)
    ])  # fmt: skip
    assert sorted(done) == [False, False, True]
    held = bob.incarnation()
    assert held is not None
    assert held.value == fresh[done.index(True)]


def test_a_count_is_raised_once(ann: Presence, bob: Presence) -> None:
    """Two hosts with one picture: the second is told that it is old, and the count grew by one."""
    new = Incarnation(id="one")
    assert ann.write_incarnation(None, new)
    held = ann.incarnation()
    assert held is not None
    assert ann.write_incarnation(held, held.value.older())
    assert not bob.write_incarnation(held, held.value.older())
    after = bob.incarnation()
    assert after is not None
    assert after.value == Incarnation(id="one", count=2)
    assert new.older().older().count == 3


def test_a_count_ends_where_readers_of_json_do() -> None:
    """It never becomes a number that the next reader refuses."""
    assert Incarnation(id="one", count=COUNT_LIMIT).older().count == COUNT_LIMIT


@pytest.mark.parametrize(("name", "count"), [("", 1), ("a" * 65, 1), ("a b", 1), ("one", -1), ("one", COUNT_LIMIT + 1)])
def test_nonsense_is_no_incarnation(name: str, count: int) -> None:
    """An id has 1 to 64 letters and digits, a count is one that every reader of JSON holds."""
    with pytest.raises(ValueError, match=r"an incarnation's id|count|number"):
        Incarnation(id=name, count=count)


spoilt = st.one_of(
    st.binary(max_size=60).map(lambda some: b"!" + some),
    st.sampled_from([b"", b"{}", b"[]", b'{"id":"a b"}', b'{"id":"x","count":-1}', b'{"id":1}', b"{" * 10_000]),
)


@given(value=spoilt)
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_a_spoilt_incarnation_is_told_from_any_other(store: SqliteStore, value: bytes) -> None:
    """Garbage there is read as that, also beside a store whose id is the same word; it is named and written over."""
    ann = Presence(store, "myoverlay", ANN)
    put(store, "myoverlay/incarnation", value)
    held = ann.incarnation()
    assert held is not None
    assert held.value is GARBLED
    assert list(ann.quarantine) == ["myoverlay/incarnation"]
    assert ann.write_incarnation(held, Incarnation(id=GARBLED.id))
    again = ann.incarnation()
    assert again is not None
    assert again.value == GARBLED
    assert again.value is not GARBLED
    entry = store.get("myoverlay/incarnation")
    assert entry is not None
    store.commit([Delete(entry.key, entry.index)])


def test_an_incarnation_can_be_read_back() -> None:
    """Ids made here are ids that are taken there."""
    made: Callable[[], Incarnation] = partial(Incarnation.fresh, 1)
    assert made() != made()
    assert Held(made(), 1).value.count == 1
    assert HostId(made().id)
