"""What every store does, whichever it is. A class of tests for a fixture `store`; each implementation subclasses it."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

import pytest

from myoverlay.errors import Unavailable
from myoverlay.store import (
    MAX_OPS,
    MAX_VALUE,
    Check,
    Committed,
    Conflict,
    Delete,
    Entry,
    Keys,
    Listing,
    Lock,
    Op,
    Put,
    Reset,
    Store,
    Unchanged,
    Unlock,
)

T = TypeVar("T")

#: Seconds a wait may take that should end at once: far above any hiccup, far below the waits' own time.
SOON = 5.0
#: Seconds that waits block which nothing may wake: what would wake them is done by then.
SHORT = 0.25


class Call(threading.Thread, Generic[T]):
    """A call in a thread of its own; `result` gives what it returned or raises what it raised."""

    def __init__(self, function: Callable[[], T]) -> None:
        super().__init__(daemon=True)
        self._function = function
        self._returned: list[T] = []
        self._raised: list[Exception] = []
        self.start()

    def run(self) -> None:
        try:
            self._returned.append(self._function())
        except Exception as error:  # noqa: BLE001 - handed to the test
            self._raised.append(error)

    def result(self, timeout: float = SOON) -> T:
        self.join(timeout)
        assert not self.is_alive(), f"still waiting after {timeout} s"
        if self._raised:
            raise self._raised[0]
        return self._returned[0]


def done(store: Store, *ops: Op) -> dict[str, int]:
    """Commit what must hold; the new indexes."""
    outcome = store.commit(ops)
    assert isinstance(outcome, Committed), outcome
    return outcome.indexes


def refused(store: Store, *ops: Op) -> tuple[int, ...]:
    """Commit what must not hold; the failed positions."""
    outcome = store.commit(ops)
    assert isinstance(outcome, Conflict), outcome
    assert outcome.reason
    return outcome.failed


def names(listing: Listing) -> list[str]:
    return [entry.key for entry in listing.entries]


class StoreContract:
    """Subclass it with a fixture `store` that gives a fresh `Store`."""

    @pytest.fixture
    def at(self) -> str:
        """A place that no other test uses."""
        return f"contract/{uuid.uuid4().hex}/"

    @pytest.fixture
    def session(self, store: Store) -> Iterator[str]:
        session = store.open_session("contract", 60)
        yield session
        store.close_session(session)

    # One key

    def test_get_of_an_absent_key_is_none(self, store: Store, at: str) -> None:
        """What was never written does not exist, and that is an answer."""
        assert store.get(at + "a") is None

    def test_put_then_get(self, store: Store, at: str) -> None:
        """Value, flags and the index of the commit come back as they were written."""
        indexes = done(store, Put(at + "a", b"one", flags=7))
        assert store.get(at + "a") == Entry(at + "a", b"one", 7, indexes[at + "a"], None)

    def test_put_overwrites_value_and_flags(self, store: Store, at: str) -> None:
        """A bare put takes no notice of what is there, and clears the flags it does not give."""
        first = done(store, Put(at + "a", b"one", flags=7))
        second = done(store, Put(at + "a", b"two"))
        assert second[at + "a"] > first[at + "a"]
        assert store.get(at + "a") == Entry(at + "a", b"two", 0, second[at + "a"], None)

    def test_unchanged_put_keeps_the_index(self, store: Store, at: str) -> None:
        """Writing what is there already changes nothing, and the commit tells the old index."""
        first = done(store, Put(at + "a", b"one", flags=7))
        assert done(store, Put(at + "a", b"one", flags=7)) == first
        assert done(store, Put(at + "a", b"one", flags=7, index=first[at + "a"])) == first
        assert done(store, Put(at + "a", b"one", flags=8)) != first

    @pytest.mark.parametrize("value", [b"", b"\0", bytes(range(256)), b"\xff" * 3, "grüße".encode(), b'"\\\n'])
    def test_values_are_bytes(self, store: Store, at: str, value: bytes) -> None:
        """Any bytes come back as they are, alone, in a listing and among many."""
        done(store, Put(at + "a", value))
        (entry,) = store.list(at).entries
        assert entry.value == value
        assert store.get(at + "a") == entry
        assert store.get_many([at + "a"]) == {at + "a": entry}

    def test_large_value(self, store: Store, at: str) -> None:
        """380 KiB, which 6,000 endpoints of a host take, fit into one key."""
        value = bytes(range(256)) * (380 * 4)
        done(store, Put(at + "a", value))
        entry = store.get(at + "a")
        assert entry is not None
        assert entry.value == value

    @pytest.mark.parametrize(
        "name", ["a b", "é", "a?b=c&d", "a%2Fb", "a#b", "02:42:0a:05:00:02", "fd00::1", "a+b", "ä/ö/"]
    )
    def test_odd_names(self, store: Store, at: str, name: str) -> None:
        """Names that need quoting in a URL are names like others."""
        indexes = done(store, Put(at + name, b"1"))
        entry = store.get(at + name)
        assert entry == Entry(at + name, b"1", 0, indexes[at + name])
        assert store.list(at + name).entries == (entry,)
        assert store.keys(at).keys == (at + name,)

    @pytest.mark.parametrize("key", ["", "/a", "a//b", "a/../b", "./a", "a\nb", "a\0"])
    def test_names_that_are_refused(self, store: Store, key: str) -> None:
        """What one of the stores would take for a path to tidy is a mistake on both."""
        with pytest.raises(ValueError, match=r"key|prefix"):
            store.get(key)
        with pytest.raises(ValueError, match=r"key|prefix"):
            store.list(key)
        with pytest.raises(ValueError, match="key"):
            store.commit([Put(key, b"")])

    @pytest.mark.parametrize("largest", [0, (1 << 63) - 1])
    def test_flags_are_kept(self, store: Store, at: str, largest: int) -> None:
        """Flags of up to 63 bit come back in every reading."""
        done(store, Put(at + "a", b"", flags=largest))
        assert [entry.flags for entry in store.list(at).entries] == [largest]
        with pytest.raises(ValueError, match="flags"):
            store.commit([Put(at + "a", b"", flags=1 << 63)])

    # Compare and set

    def test_create_only(self, store: Store, at: str) -> None:
        """Index 0 writes what does not exist and refuses what does, value and flags untouched."""
        indexes = done(store, Put(at + "a", b"one", flags=3, index=0))
        assert refused(store, Put(at + "a", b"two", index=0)) == (0,)
        assert store.get(at + "a") == Entry(at + "a", b"one", 3, indexes[at + "a"])

    def test_compare_and_set(self, store: Store, at: str) -> None:
        """Only who knows the last index writes."""
        old = done(store, Put(at + "a", b"one"))[at + "a"]
        new = done(store, Put(at + "a", b"two", index=old))[at + "a"]
        assert refused(store, Put(at + "a", b"three", index=old)) == (0,)
        assert refused(store, Put(at + "absent", b"", index=old)) == (0,)
        assert store.get(at + "a") == Entry(at + "a", b"two", 0, new)

    def test_delete(self, store: Store, at: str) -> None:
        """Only who knows the last index deletes."""
        old = done(store, Put(at + "a", b"one"))[at + "a"]
        new = done(store, Put(at + "a", b"two"))[at + "a"]
        assert refused(store, Delete(at + "a", old)) == (0,)
        assert store.get(at + "a") is not None
        assert done(store, Delete(at + "a", new)) == {}
        assert store.get(at + "a") is None

    def test_delete_of_an_absent_key_conflicts(self, store: Store, at: str) -> None:
        """Deleting what is gone, or never was, shows that the picture is old."""
        index = done(store, Put(at + "a", b"one"))[at + "a"]
        done(store, Delete(at + "a", index))
        assert refused(store, Delete(at + "a", index)) == (0,)
        assert refused(store, Delete(at + "never", index)) == (0,)
        with pytest.raises(ValueError, match="index"):
            store.commit([Delete(at + "never", 0)])

    def test_check(self, store: Store, at: str) -> None:
        """A check holds for the very index, index 0 for absence, and writes nothing."""
        index = done(store, Put(at + "a", b"one"))[at + "a"]
        assert done(store, Check(at + "a", index), Check(at + "b", 0), Put(at + "c", b"")).keys() == {at + "c"}
        assert refused(store, Check(at + "a", index + 1)) == (0,)
        assert refused(store, Check(at + "a", 0)) == (0,)
        assert refused(store, Check(at + "b", index)) == (0,)
        assert store.keys(at).keys == (at + "a", at + "c")

    def test_all_or_nothing(self, store: Store, at: str) -> None:
        """One operation that does not hold undoes those before and after it."""
        index = done(store, Put(at + "a", b"one"))[at + "a"]
        before = store.list(at)
        ops: list[Op] = [
            Put(at + "b", b""),
            Put(at + "a", b"two"),
            Check(at + "c", 9),
            Delete(at + "a", index),
            Put(at + "d", b""),
        ]
        assert 2 in refused(store, *ops)
        assert store.list(at).entries == before.entries

    def test_positions_of_what_failed(self, store: Store, at: str) -> None:
        """The positions count the caller's operations, a delete as one."""
        index = done(store, Put(at + "a", b""), Put(at + "b", b""))[at + "a"]
        ops: list[Op] = [
            Delete(at + "a", index),
            Put(at + "b", b"x", index=0),
            Delete(at + "z", index),
            Check(at + "z", 0),
        ]
        assert refused(store, *ops) == (1, 2)
        assert refused(store, Delete(at + "a", index), Delete(at + "b", index + 1)) == (1,)

    def test_one_commit_has_one_index(self, store: Store, at: str) -> None:
        """All keys of a commit get the same new index."""
        indexes = done(store, *[Put(f"{at}{number}", b"") for number in range(5)])
        assert len(indexes) == 5
        assert len(set(indexes.values())) == 1

    def test_an_empty_commit_is_done(self, store: Store) -> None:
        """Nothing to do succeeds."""
        assert store.commit([]) == Committed({})

    def test_limits(self, store: Store, at: str) -> None:
        """64 operations go, 65 are the caller's mistake; a delete counts twice; and so with bytes."""
        indexes = done(store, *[Put(f"{at}{number:02}", b"") for number in range(MAX_OPS)])
        with pytest.raises(ValueError, match="64 operations"):
            store.commit([Put(f"{at}x{number}", b"") for number in range(MAX_OPS + 1)])
        deletes = [Delete(key, index) for key, index in indexes.items()]
        with pytest.raises(ValueError, match="64 operations"):
            store.commit(deletes[:33])
        done(store, *deletes[:32])
        assert len(store.keys(at).keys) == 32
        with pytest.raises(ValueError, match="bytes"):
            store.commit([Put(at + "a", bytes(MAX_VALUE + 1))])
        with pytest.raises(ValueError, match="bytes"):
            store.commit([Put(at + name, bytes(MAX_VALUE * 2 // 3)) for name in "ab"])

    def test_sixteen_threads_count(self, store: Store, at: str) -> None:
        """Sixteen threads that add by compare-and-set lose no count."""

        def add() -> None:
            for _ in range(5):
                while True:
                    entry = store.get(at + "n", timeout=30)
                    old = int(entry.value) if entry else 0
                    op = Put(at + "n", b"%d" % (old + 1), index=entry.index if entry else 0)
                    if isinstance(store.commit([op], timeout=30), Committed):
                        break

        for call in [Call(add) for _ in range(16)]:
            call.result(60)
        entry = store.get(at + "n")
        assert entry is not None
        assert entry.value == b"80"

    # Many keys

    def test_get_many(self, store: Store, at: str) -> None:
        """Exactly those that were asked for and exist, also beyond the operations of a transaction."""
        keys = [f"{at}{number}" for number in range(150)]
        for start in range(0, 150, 50):
            done(store, *[Put(key, key.encode()) for key in keys[start : start + 50]])
        absent = [f"{at}absent/{number}" for number in range(100)]
        found = store.get_many([*absent, *keys[::2], keys[0]])
        assert list(found) == keys[::2]
        assert all(entry.key == key and entry.value == key.encode() for key, entry in found.items())
        assert store.get_many(absent) == {}
        assert store.get_many([]) == {}

    def test_get_many_takes_keys_exactly(self, store: Store, at: str) -> None:
        """10.0.0.1 is not 10.0.0.10, nor what lies below it."""
        done(store, Put(at + "10.0.0.10", b""), Put(at + "10.0.0.1/x", b""), Put(at + "10.0.0.2", b""))
        assert set(store.get_many([at + "10.0.0.1", at + "10.0.0.2"])) == {at + "10.0.0.2"}

    def test_list_is_sorted_and_complete(self, store: Store, at: str) -> None:
        """All keys below, by the order of their bytes, with what `get` gives."""
        words = ["b", "a/b", "a", "Z", "a-b", "é", "a/é", "~"]
        done(store, *[Put(at + word, word.encode(), flags=1) for word in words])
        listing = store.list(at)
        assert names(listing) == sorted((at + word for word in words), key=str.encode)
        assert [store.get(name) for name in names(listing)] == list(listing.entries)
        assert store.keys(at).keys == tuple(names(listing))

    def test_empty_listing(self, store: Store, at: str) -> None:
        """A prefix without keys is an empty listing at an index that can be waited for."""
        assert store.list(at).entries == ()
        assert store.keys(at).keys == ()
        assert store.list(at).index >= 1

    def test_empty_prefix_is_refused(self, store: Store) -> None:
        """An empty prefix would reach everybody's keys."""
        calls: list[Callable[[], object]] = [
            lambda: store.list(""),
            lambda: store.keys(""),
            lambda: store.wait("", 1, timeout=1),
            lambda: store.wait_keys("", 1, timeout=1),
        ]
        for call in calls:
            with pytest.raises(ValueError, match="empty"):
                call()

    def test_neighbouring_prefixes(self, store: Store, at: str) -> None:
        """`a/b/` does not hold `a/bc`, `a/b` does, and neither holds `a/` or `a/c`."""
        done(store, *[Put(at + word, b"") for word in ("a/", "a/b", "a/b/x", "a/bc", "a/c", "a/b\U0001f600")])
        assert names(store.list(at + "a/b/")) == [at + "a/b/x"]
        assert list(store.keys(at + "a/b").keys) == [at + word for word in ("a/b", "a/b/x", "a/bc", "a/b\U0001f600")]

    # Waiting

    def test_wait_answers_at_once_for_index_0(self, store: Store, at: str) -> None:
        """Index 0 is a listing."""
        done(store, Put(at + "a", b"1"))
        assert store.wait(at, 0, timeout=30) == store.list(at)
        assert store.wait_keys(at, 0, timeout=30) == store.keys(at)
        assert store.wait(at, -1, timeout=30) == store.list(at)

    @pytest.mark.parametrize("change", ["create", "modify", "delete", "lock", "flags"])
    def test_wait_is_woken_by_a_change_below(self, store: Store, at: str, session: str, change: str) -> None:
        """Whatever changes below the prefix wakes the wait, which gets the whole new listing."""
        index = done(store, Put(at + "a", b"1"), Put(at + "b", b"1"))[at + "a"]
        ops: dict[str, Op] = {
            "create": Put(at + "c", b""),
            "modify": Put(at + "a", b"2"),
            "delete": Delete(at + "a", index),
            "lock": Lock(at + "a", b"1", session),
            "flags": Put(at + "a", b"1", flags=1),
        }
        listing = store.list(at)
        waiting = Call(lambda: store.wait(at, listing.index, timeout=30))
        done(store, ops[change])
        answer = waiting.result()
        assert isinstance(answer, Listing)
        assert answer.index > listing.index
        assert answer.entries == store.list(at).entries != listing.entries

    def test_wait_misses_nothing_between_two_calls(self, store: Store, at: str) -> None:
        """What changed before the wait began, but after its index, is told at once."""
        listing = store.list(at)
        index = done(store, Put(at + "a", b"1"))[at + "a"]
        answer = store.wait(at, listing.index, timeout=30)
        assert isinstance(answer, Listing)
        assert names(answer) == [at + "a"]
        done(store, Delete(at + "a", index))
        assert store.wait(at, answer.index, timeout=30) == store.list(at)

    def test_wait_hears_every_change_of_many(self, store: Store, at: str) -> None:
        """A watcher that goes from index to index ends with the last state, whatever the pace."""
        done(store, Put(at + "n", b"0"))
        first = store.list(at)

        def watch() -> bytes:
            index, value = first.index, b"0"
            while value != b"40":
                answer = store.wait(at, index, timeout=10)
                assert isinstance(answer, Listing)
                assert answer.index > index
                index, value = answer.index, answer.entries[0].value
            return value

        watching = Call(watch)
        for number in range(1, 41):
            done(store, Put(at + "n", b"%d" % number))
        assert watching.result() == b"40"

    @pytest.mark.parametrize("held", [True, False])
    def test_wait_is_not_woken_by_others_keys(self, store: Store, at: str, held: bool) -> None:
        """Keys elsewhere, neighbours by name too, let a wait sleep on, also where nothing is below the prefix."""
        if held:
            done(store, Put(at + "a/b/x", b""))
        listing, keys = store.list(at + "a/b/"), store.keys(at + "a/b/")
        waiting = Call(lambda: store.wait(at + "a/b/", listing.index, timeout=SHORT))
        waiting_keys = Call(lambda: store.wait_keys(at + "a/b/", keys.index, timeout=SHORT))
        for number in range(5):
            done(store, Put(at + "a/bc", b"%d" % number), Put(f"{at}a/{number}", b""), Put(at + "a/b", b"%d" % number))
        assert isinstance(waiting.result(), Unchanged)
        assert isinstance(waiting_keys.result(), Unchanged)

    def test_unchanged_is_not_early_and_can_be_gone_on_from(self, store: Store, at: str) -> None:
        """A wait takes its time, not much more, and its index serves for the next."""
        done(store, Put(at + "a", b""))
        began = time.monotonic()
        answer = store.wait(at, store.list(at).index, timeout=SHORT)
        assert SHORT * 0.9 <= time.monotonic() - began < SHORT + SOON
        assert isinstance(answer, Unchanged)
        waiting = Call(lambda: store.wait(at, answer.index, timeout=30))
        done(store, Put(at + "a", b"2"))
        assert isinstance(waiting.result(), Listing)

    def test_unchanged_write_wakes_nobody(self, store: Store, at: str) -> None:
        """Writing what is there is no change."""
        done(store, Put(at + "a", b"1", flags=2))
        listing = store.list(at)
        waiting = Call(lambda: store.wait(at, listing.index, timeout=SHORT))
        for _ in range(3):
            done(store, Put(at + "a", b"1", flags=2))
        assert isinstance(waiting.result(), Unchanged)

    def test_index_from_the_future_is_a_reset(self, store: Store, at: str) -> None:
        """Who waits for more than the store ever had is told that it went back, with an index that it has."""
        done(store, Put(at + "a", b""))
        for wait in (store.wait, store.wait_keys):
            answer = wait(at, 1 << 40, timeout=SHORT)
            assert isinstance(answer, Reset)
            assert answer.index >= 1
            assert isinstance(store.wait(at, 0, timeout=30), Listing)

    def test_wait_keys_is_woken_by_keys_that_come_and_go(self, store: Store, at: str) -> None:
        """A new key and a deleted one wake it, with the names."""
        keys = store.keys(at)
        waiting = Call(lambda: store.wait_keys(at, keys.index, timeout=30))
        index = done(store, Put(at + "a", b""))[at + "a"]
        came = waiting.result()
        assert isinstance(came, Keys)
        assert came.keys == (at + "a",)
        waiting = Call(lambda: store.wait_keys(at, came.index, timeout=30))
        done(store, Delete(at + "a", index))
        gone = waiting.result()
        assert isinstance(gone, Keys)
        assert gone.keys == ()

    def test_wait_keys_is_not_woken_by_values(self, store: Store, at: str) -> None:
        """A key that only changes is nothing to who asks for names."""
        done(store, Put(at + "a", b"0"))
        keys = store.keys(at)
        waiting = Call(lambda: store.wait_keys(at, keys.index, timeout=SHORT))
        for number in range(1, 4):
            done(store, Put(at + "a", b"%d" % number))
        answer = waiting.result()
        assert isinstance(answer, Unchanged)
        waiting = Call(lambda: store.wait_keys(at, answer.index, timeout=30))
        done(store, Put(at + "b", b""))
        assert isinstance(waiting.result(), Keys)

    def test_wait_keys_is_woken_by_values_where_that_is_asked_for(self, store: Store, at: str) -> None:
        """With the names, which are the same; an unchanged write, and one elsewhere, wakes nobody still."""
        done(store, Put(at + "a/x", b"0"))
        keys = store.keys(at + "a/")
        waiting = Call(lambda: store.wait_keys(at + "a/", keys.index, timeout=30, values=True))
        done(store, Put(at + "a/x", b"1"))
        answer = waiting.result()
        assert isinstance(answer, Keys)
        assert answer.keys == (at + "a/x",)
        waiting = Call(lambda: store.wait_keys(at + "a/", answer.index, timeout=SHORT, values=True))
        done(store, Put(at + "a/x", b"1"), Put(at + "b", b"2"))
        assert isinstance(waiting.result(), Unchanged)

    def test_wait_keys_for_values_sleeps_on_where_there_is_nothing(self, store: Store, at: str) -> None:
        """Below a prefix without a key nothing can have changed, whatever is written elsewhere."""
        keys = store.keys(at + "a/")
        waiting = Call(lambda: store.wait_keys(at + "a/", keys.index, timeout=SHORT, values=True))
        for number in range(5):
            done(store, Put(at + "b", b"%d" % number))
        assert isinstance(waiting.result(), Unchanged)

    def test_close_ends_waits(self, store: Store, at: str) -> None:
        """Waits that block end with Unavailable when the store is closed, and so does every call after."""
        index = store.list(at).index
        waiting = [Call(lambda: store.wait(at, index, timeout=60)) for _ in range(4)]
        waiting_keys = [Call(lambda: store.wait_keys(at, index, timeout=60)) for _ in range(4)]
        store.close()
        for call in waiting:
            with pytest.raises(Unavailable):
                call.result()
        for call_keys in waiting_keys:
            with pytest.raises(Unavailable):
                call_keys.result()
        with pytest.raises(Unavailable, match="closed"):
            store.get(at + "a")
        with pytest.raises(Unavailable, match="closed"):
            store.commit([Put(at + "a", b"")])
        store.close()

    # Sessions

    def test_session_keys_go_with_it(self, store: Store, at: str) -> None:
        """Closing a session deletes what it holds and nothing else, and wakes who waits for it."""
        session = store.open_session("contract", 60)
        done(store, Lock(at + "alive", b"me", session), Put(at + "plain", b""))
        alive = store.get(at + "alive")
        assert alive is not None
        assert (alive.value, alive.flags, alive.session) == (b"me", 0, session)
        keys = store.keys(at)
        waiting = Call(lambda: store.wait_keys(at, keys.index, timeout=30))
        store.close_session(session)
        answer = waiting.result()
        assert isinstance(answer, Keys)
        assert answer.keys == (at + "plain",)
        assert store.get(at + "alive") is None

    def test_renew(self, store: Store) -> None:
        """A session can be renewed until it is closed; closing it twice is closing it."""
        session = store.open_session("contract", 60)
        assert store.renew_session(session) is True
        store.close_session(session)
        assert store.renew_session(session) is False
        store.close_session(session)
        assert store.renew_session(str(uuid.uuid4())) is False

    def test_lock_of_two_sessions(self, store: Store, at: str, session: str) -> None:
        """A key that one session holds is not another's; once that one has gone it is, at once."""
        other = store.open_session("other", 60)
        done(store, Lock(at + "a", b"other", other))
        assert refused(store, Put(at + "b", b""), Lock(at + "a", b"me", session)) == (1,)
        entry = store.get(at + "a")
        assert entry is not None
        assert (entry.value, entry.session) == (b"other", other)
        store.close_session(other)
        done(store, Lock(at + "a", b"me", session))

    def test_lock_again(self, store: Store, at: str, session: str) -> None:
        """The holder may lock again: the same value is no change, another is."""
        first = done(store, Lock(at + "a", b"1", session))
        assert done(store, Lock(at + "a", b"1", session)) == first
        assert done(store, Lock(at + "a", b"2", session)) != first

    def test_lock_needs_a_session_that_lives(self, store: Store, at: str, session: str) -> None:
        """A session that is closed or unknown locks nothing."""
        store.close_session(session)
        assert refused(store, Lock(at + "a", b"", session)) == (0,)
        assert refused(store, Lock(at + "a", b"", str(uuid.uuid4()))) == (0,)
        assert store.get(at + "a") is None

    def test_lock_takes_a_plain_key(self, store: Store, at: str, session: str) -> None:
        """A key without a holder is bound as it stands, its flags cleared."""
        done(store, Put(at + "a", b"1", flags=9))
        index = done(store, Lock(at + "a", b"1", session))[at + "a"]
        assert store.get(at + "a") == Entry(at + "a", b"1", 0, index, session)

    def test_unlock(self, store: Store, at: str, session: str) -> None:
        """Unlocking leaves the key, which then stays when the session goes; only the holder can."""
        other = store.open_session("other", 60)
        done(store, Lock(at + "a", b"1", session))
        assert refused(store, Unlock(at + "a", b"2", other)) == (0,)
        index = done(store, Unlock(at + "a", b"2", session))[at + "a"]
        assert refused(store, Unlock(at + "a", b"3", session)) == (0,)
        assert refused(store, Unlock(at + "absent", b"", session)) == (0,)
        store.close_session(session)
        store.close_session(other)
        assert store.get(at + "a") == Entry(at + "a", b"2", 0, index, None)

    def test_take_over(self, store: Store, at: str, session: str) -> None:
        """Unlock for the old session and lock for the new one in one commit: the key never goes."""
        old = store.open_session("old", 60)
        done(store, Lock(at + "a", b"old", old))
        indexes = done(store, Unlock(at + "a", b"new", old), Lock(at + "a", b"new", session))
        store.close_session(old)
        assert store.get(at + "a") == Entry(at + "a", b"new", 0, indexes[at + "a"], session)

    def test_locks_are_advice(self, store: Store, at: str, session: str) -> None:
        """Anybody may write and delete a locked key; a write leaves it bound."""
        done(store, Lock(at + "a", b"1", session))
        index = done(store, Put(at + "a", b"2"))[at + "a"]
        assert store.get(at + "a") == Entry(at + "a", b"2", 0, index, session)
        done(store, Delete(at + "a", index))
        assert store.get(at + "a") is None

    @pytest.mark.parametrize("ttl", [0, 9.9, 86401])
    def test_ttl_limits(self, store: Store, ttl: float) -> None:
        """A session lives 10 s to a day unrenewed."""
        with pytest.raises(ValueError, match="TTL"):
            store.open_session("contract", ttl)

    def test_fractions_of_a_ttl(self, store: Store) -> None:
        """A TTL need not be whole seconds."""
        store.close_session(store.open_session("contract", 10.5))
