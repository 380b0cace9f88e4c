"""The tutorial's keys for who knows nothing but their place."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from myoverlay.store import Unchanged
from myoverlay.store.index import Index, Pairs
from myoverlay.store.pooled import MARK
from myoverlay.store.sqlite import SqliteStore
from myoverlay.values import Address, Mac, Peer
from tests.pure.kit import put

MAC, VTEP, ADDRESS = Mac("02:42:c0:a8:00:03"), Address("192.0.2.9"), Address("192.168.0.3")
PEER = Peer(address=ADDRESS, mac=MAC, vtep=VTEP)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(tmp_path / "store.db")
    yield store
    store.close()


def listed(index: Index) -> Pairs:
    pairs = index.wait(0, timeout=1.0)
    assert isinstance(pairs, Pairs)
    return pairs


@pytest.mark.parametrize("flags", [0, MARK])
def test_pairs_are_read_whoever_wrote_them(store: SqliteStore, flags: int) -> None:
    """A pair is a peer, with a plugin host's mark and without; white space around the values is nobody's."""
    put(store, f"demo-1/arp/{ADDRESS}", f"{MAC.upper()}\n".encode(), flags)
    put(store, f"demo-1/fib/{MAC}", f"{VTEP}\n".encode(), flags)
    index = Index(store, "demo-1")
    assert listed(index).peers == (PEER,)
    assert index.lookup(ADDRESS, timeout=1.0) == PEER
    assert index.lookup_mac(MAC, timeout=1.0) == VTEP


def test_half_a_pair_is_no_peer(store: SqliteStore) -> None:
    """An address without its MAC's key has no row; a MAC without an address can still be forwarded."""
    put(store, f"demo-1/arp/{ADDRESS}", MAC.encode())
    put(store, "demo-1/fib/02:42:00:00:00:09", VTEP.encode())
    index = Index(store, "demo-1")
    pairs = listed(index)
    assert pairs.peers == ()
    assert pairs.vteps == {Mac("02:42:00:00:00:09"): VTEP}
    assert index.lookup(ADDRESS, timeout=1.0) is None


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("arp/192.168.0.3", b"no mac"),
        ("arp/192.168.0.3", b"\xff" * 200),
        ("arp/224.0.0.1", b"02:42:c0:a8:00:03"),
        ("fib/02:42:c0:a8:00:03", b"127.0.0.1"),
        ("fib/ff:ff:ff:ff:ff:ff", b"192.0.2.9"),
    ],
)
def test_bad_keys_are_passed_over_and_named(store: SqliteStore, key: str, value: bytes) -> None:
    """They stop no reader, and the good ones beside them are read."""
    put(store, f"demo-1/{key}", value)
    put(store, "demo-1/arp/192.168.0.7", MAC.encode())
    if not key.startswith("fib/02"):
        put(store, f"demo-1/fib/{MAC}", VTEP.encode())
    index = Index(store, "demo-1")
    assert {peer.address for peer in listed(index).peers} <= {Address("192.168.0.7")}
    assert set(index.quarantine) == {f"demo-1/{key}"}


def test_other_places_are_not_read(store: SqliteStore) -> None:
    """A key of `demo-10` or `demo-1x` is none of `demo-1`, and a place is never empty."""
    put(store, f"demo-10/arp/{ADDRESS}", MAC.encode())
    index = Index(store, "demo-1")
    pairs = listed(index)
    assert pairs.peers == ()
    assert isinstance(index.wait(max(pairs.index, 1), timeout=0.05), Unchanged)
    with pytest.raises(ValueError, match="no place for records"):
        Index(store, "")
