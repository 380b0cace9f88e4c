"""The model's store keeps the contract of the real ones, and ends sessions as Consul does."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from myoverlay.store import Listing, Lock, Put, Reset, Unchanged
from tests.pure.kit import Clock
from tests.pure.model.store import MemoryStore
from tests.store_contract import StoreContract, done


@pytest.fixture
def clock() -> Clock:
    return Clock(1000.0)


@pytest.fixture
def store(clock: Clock) -> Iterator[MemoryStore]:
    store = MemoryStore(clock)
    yield store
    store.close()


class TestContract(StoreContract):
    """The contract on the model's store."""


def test_a_session_ends_after_twice_its_ttl(store: MemoryStore, clock: Clock) -> None:
    """Unrenewed it lives twice its TTL, and its keys go with it; renewed it lives on."""
    kept, lost = store.open_session("kept", 10), store.open_session("lost", 10)
    done(store, Lock("a/kept", b"", kept), Lock("a/lost", b"", lost), Put("a/plain", b""))
    clock.now += 19.9
    assert store.renew_session(kept)
    clock.now += 0.1
    assert store.keys("a/").keys == ("a/kept", "a/plain")
    assert not store.renew_session(lost)


def test_a_store_that_was_restored_says_so(store: MemoryStore) -> None:
    """After a restore, or a loss, who waits from a later index hears that it went back, and nobody else does."""
    done(store, Put("a/x", b"1"))
    old, early = store.snapshot(), store.list("a/").index
    done(store, Put("a/x", b"2"))
    late = store.list("a/").index
    store.restore(old)
    entry = store.get("a/x")
    assert entry is not None
    assert entry.value == b"1"
    assert isinstance(store.wait("a/", late, timeout=0.01), Reset)
    assert isinstance(store.wait("a/", early, timeout=0.01), Unchanged)
    store.wipe()
    assert store.list("a/").entries == ()
    assert isinstance(store.wait("a/", late, timeout=0.01), Reset)


def test_hurried_waits_answer_at_once(clock: Clock) -> None:
    """Under virtual time nobody sleeps: a wait tells what is there now."""
    store = MemoryStore(clock, hurried=True)
    index = done(store, Put("a/x", b"1"))["a/x"]
    assert isinstance(store.wait("a/", index, timeout=55), Unchanged)
    done(store, Put("a/x", b"2"))
    assert isinstance(store.wait("a/", index, timeout=55), Listing)
