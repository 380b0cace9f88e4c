"""What is known of a store from how it answered."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from myoverlay.errors import Unavailable
from myoverlay.store import Delete, Put, Unchanged
from myoverlay.store.consul import ConsulStore
from myoverlay.store.metered import Health, Metered, consul_behind
from myoverlay.store.sqlite import SqliteStore
from tests.pure.kit import Clock, Switch


class Lived:
    """A metered store on paper: the wire can be cut, time passes when told."""

    def __init__(self, path: Path) -> None:
        self.clock = Clock(100.0)
        self.file = SqliteStore(path / "store.db")
        self.wire = Switch(self.file)
        self.took: list[tuple[str, float, bool]] = []
        self.store = Metered(self.wire, lambda *told: self.took.append(told), self.clock)


@pytest.fixture
def lived(tmp_path: Path) -> Iterator[Lived]:
    lived = Lived(tmp_path)
    yield lived
    lived.file.close()


def test_nothing_is_said_before_the_first_call(lived: Lived) -> None:
    """A store that was not asked neither answers nor fails."""
    assert lived.store.health == Health(None, 100.0)


def test_since_when_it_answers_and_since_when_not(lived: Lived) -> None:
    """The time is that of the change, however many calls follow; the last failure is remembered."""
    lived.clock.now = 110.0
    assert lived.store.get("a/b") is None
    lived.clock.now = 120.0
    lived.store.list("a/")
    assert lived.store.health == Health(True, 110.0, 120.0)
    lived.wire.off = True
    for lived.clock.now in (130.0, 140.0):
        with pytest.raises(Unavailable):
            lived.store.keys("a/")
    assert lived.store.health == Health(False, 130.0, 120.0, "the store is switched off", 140.0)
    lived.wire.off = False
    lived.clock.now = 150.0
    lived.store.get_many(["a/b"])
    assert lived.store.health == Health(True, 150.0, 150.0, "the store is switched off", 140.0)


def test_each_call_is_timed_but_a_wait(lived: Lived) -> None:
    """How long it took, whether it was answered; a wait blocks for minutes and says nothing of round trips."""
    slow = 0.25

    def pass_time(_name: str, _what: object) -> None:
        lived.clock.now += slow

    lived.wire.before = pass_time
    session = lived.store.open_session("x", 10.0)
    assert lived.store.renew_session(session)
    lived.store.commit([Put("a/b", b"1", index=0)])
    entry = lived.store.get("a/b", sure=True)
    assert entry is not None
    assert lived.store.commit([Delete("a/b", entry.index)])
    index = lived.store.list("a/").index
    assert isinstance(lived.store.wait("a/", index, timeout=0.01), Unchanged)
    assert isinstance(lived.store.wait_keys("a/", index, timeout=0.01), Unchanged)
    lived.store.close_session(session)
    lived.wire.off = True
    with pytest.raises(Unavailable):
        lived.store.commit([Put("a/b", b"1")])
    assert lived.took == [
        ("session", slow, True),
        ("session", slow, True),
        ("commit", slow, True),
        ("get", slow, True),
        ("commit", slow, True),
        ("list", slow, True),
        ("session", slow, True),
        ("commit", 0.0, False),
    ]


def test_a_wait_that_fails_is_an_outage(lived: Lived) -> None:
    """A host that only watches learns of it too."""
    lived.wire.off = True
    with pytest.raises(Unavailable):
        lived.store.wait("a/", 0, timeout=0.01)
    assert lived.store.health.answers is False
    assert lived.took == []


def test_a_bug_is_no_outage(lived: Lived) -> None:
    """What is refused before it is sent says nothing of the store."""
    with pytest.raises(ValueError, match="empty"):
        lived.store.list("")
    assert lived.store.health.answers is None


def test_consul_is_found_behind_its_meter(lived: Lived) -> None:
    """With the meter and without; another store is none."""
    consul = ConsulStore("http://127.0.0.1:1")
    assert consul_behind(Metered(consul)) is consul
    assert consul_behind(consul) is consul
    assert consul_behind(lived.store) is None
    consul.close()
