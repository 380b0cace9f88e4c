"""What could not be read is remembered while it is so, and no longer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from myoverlay.store.records import Records
from myoverlay.store.sqlite import SqliteStore
from myoverlay.values import encode
from tests.pure.kit import ANN, DEMO, PREFIX, definition, put


@pytest.fixture
def records(tmp_path: Path) -> Iterator[Records]:
    store = SqliteStore(tmp_path / "store.db")
    yield Records(store, PREFIX, ANN)
    store.close()


def test_a_key_is_unreadable_until_it_is_repaired(records: Records) -> None:
    """Named with its reason, and forgotten with the first reading that succeeds."""
    key = records.key("overlays", DEMO, "definition")
    put(records.store, key, b"{")
    assert records.definition(DEMO) is None
    assert list(records.unreadable(60.0)) == [key]
    put(records.store, key, encode(definition()))
    assert records.definition(DEMO) is not None
    assert records.unreadable(60.0) == records.quarantine == {}


def test_a_key_that_was_deleted_is_told_of_for_a_while(records: Records) -> None:
    """Nobody reads it any more, so that time alone takes it out."""
    records.distrust("a/b", "no JSON")
    assert records.unreadable(60.0) == {"a/b": "no JSON"}
    assert records.unreadable(0.0) == {}
