"""The embedded store: the contract, and what only it has: a file, a clock, one process."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from myoverlay.errors import Unavailable
from myoverlay.store import Entry, Keys, Listing, Lock, Put, Unchanged
from myoverlay.store import sqlite as module
from myoverlay.store.sqlite import SqliteStore
from tests.store_contract import SHORT, Call, StoreContract, done, names


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "store.db"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(path: Path, clock: Clock) -> Iterator[SqliteStore]:
    store = SqliteStore(path, now=clock)
    yield store
    store.close()


class TestContract(StoreContract):
    """The contract on SQLite."""


def test_files_are_the_owners_alone(path: Path) -> None:
    """The database and its log are 0600 and their directory 0700, under any umask and after an older mode."""
    old = os.umask(0)
    try:
        SqliteStore(path).close()
        path.chmod(0o644)
        store = SqliteStore(path)
        done(store, Put("a", b""))
        files = list(path.parent.iterdir())
        store.close()
    finally:
        os.umask(old)
    assert len(files) >= 2
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_log_file_is_the_owners_alone(store: SqliteStore, path: Path) -> None:
    """The write-ahead log holds the same secrets."""
    done(store, Put("a", b"secret"))
    assert {stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()} == {0o600}


def test_everything_is_there_after_a_restart(store: SqliteStore, path: Path) -> None:
    """Keys, flags, indexes, sessions and their locks outlive the process; the index goes on from where it was."""
    session = store.open_session("me", 10)
    done(store, Put("a", b"\xff", flags=5))
    index = done(store, Lock("b", b"1", session))["b"]
    listing = store.list("a")
    store.close()
    again = SqliteStore(path)
    assert again.list("a") == listing
    assert again.get("b") == Entry("b", b"1", 0, index, session)
    assert again.renew_session(session)
    assert done(again, Put("c", b""))["c"] > index
    again.close()


def test_wait_over_a_restart(store: SqliteStore, path: Path) -> None:
    """An index from before a restart serves if it was the last, and else gets everything at once."""
    done(store, Put("a", b"1"))
    old = store.list("a")
    done(store, Put("a", b"2"))
    last = store.list("a")
    store.close()
    again = SqliteStore(path)
    assert again.wait("a", old.index, timeout=30) == last
    assert isinstance(again.wait("a", last.index, timeout=0.01), Unchanged)
    again.close()


def test_wait_from_too_far_back_gets_everything(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """More changes than are remembered make a wait answer at once and never make it miss one."""
    start = store.list("a").index
    done(store, Put("a", b""))
    for number in range(module.REMEMBERED // 64 + 1):
        done(store, *[Put(f"x/{place}", b"%d" % number) for place in range(64)])
    answer = store.wait("a", start, timeout=30)
    assert isinstance(answer, Listing)
    assert names(answer) == ["a"]
    assert isinstance(store.wait("a", answer.index, timeout=0.01), Unchanged)


def test_a_session_ends_after_twice_its_ttl(store: SqliteStore, clock: Clock) -> None:
    """Unrenewed it lives TTL to twice the TTL; renewed it lives on; its keys go with it."""
    kept, lost = store.open_session("kept", 10), store.open_session("lost", 10)
    done(store, Lock("a/kept", b"", kept), Lock("a/lost", b"", lost), Put("a/plain", b""))
    clock.now += 19.9
    assert store.keys("a/").keys == ("a/kept", "a/lost", "a/plain")
    assert store.renew_session(kept)
    clock.now += 0.1
    assert store.keys("a/").keys == ("a/kept", "a/plain")
    assert not store.renew_session(lost)
    clock.now += 19.9
    assert store.keys("a/").keys == ("a/plain",)
    assert not store.renew_session(kept)


def test_a_wait_hears_a_session_end(path: Path) -> None:
    """Nobody has to ask for a session to end: who waits below its keys is woken by time alone."""
    store = SqliteStore(path)
    session = store.open_session("me", 10)
    done(store, Lock("a", b"", session))
    index = store.keys("a").index
    store._ends[session] = time.monotonic() + 0.2  # nearly at its end
    answer = Call(lambda: store.wait_keys("a", index, timeout=30)).result()
    assert isinstance(answer, Keys)
    assert answer.keys == ()
    store.close()


def test_a_session_gets_a_whole_life_after_a_restart(store: SqliteStore, path: Path) -> None:
    """The clock of another process means nothing: a session that was open starts anew."""
    session = store.open_session("me", 10)
    store.close()
    clock = Clock()
    clock.now = 5.0
    again = SqliteStore(path, now=clock)
    clock.now += 19
    assert again.renew_session(session)
    clock.now += 20
    assert not again.renew_session(session)
    again.close()


def test_a_second_process_is_refused(store: SqliteStore, path: Path) -> None:
    """Two processes would not hear each other's changes: the second is told so and the first goes on."""
    script = (
        "import sys, pathlib; import myoverlay.store.sqlite; from myoverlay.store.sqlite import SqliteStore\n"
        "myoverlay.store.sqlite.BUSY = 0.05\n"
        "from myoverlay.errors import Unavailable\n"
        "try: SqliteStore(pathlib.Path(sys.argv[1]))\n"
        "except Unavailable as error: print(error)\n"
    )
    command = [sys.executable, "-c", script, str(path)]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    other = subprocess.run(command, capture_output=True, text=True, check=True, env=env)
    assert "locked" in other.stdout
    done(store, Put("a", b""))


def test_a_second_store_in_this_process_is_refused_and_harms_no_lock(
    store: SqliteStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opening the file once more must not drop the locks that the first holds."""
    monkeypatch.setattr(module, "BUSY", 0.05)
    with pytest.raises(Unavailable, match="locked"):
        SqliteStore(path)
    test_a_second_process_is_refused(store, path)


def test_a_file_that_is_no_database(path: Path) -> None:
    """What cannot be read is Unavailable, with the path, and stays as it is."""
    path.parent.mkdir()
    path.write_bytes(b"not a database, by far too long for one" * 100)
    with pytest.raises(Unavailable, match=r"store\.db"):
        SqliteStore(path)
    assert path.read_bytes().startswith(b"not a database")


def test_a_file_of_a_newer_version(path: Path) -> None:
    """A form that is not known is not touched."""
    SqliteStore(path).close()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(Unavailable, match="newer version"):
        SqliteStore(path)


def test_a_store_that_is_busy_keeps_to_the_time(store: SqliteStore) -> None:
    """Who cannot have the lock in time is told so."""
    with store._changed, pytest.raises(Unavailable, match="busy"):
        Call(lambda: store.get("a", timeout=0.05)).result()


def test_a_full_disk_is_unavailable_and_changes_nothing(store: SqliteStore) -> None:
    """A commit that cannot be written is undone, its index and its news with it."""
    before = done(store, Put("a", b"1"))
    store._db.execute("PRAGMA max_page_count = 10")
    with pytest.raises(Unavailable, match="full"):
        store.commit([Put("a", b"2"), Put("b", bytes(300_000))])
    listing = store.list("a")
    assert [entry.index for entry in listing.entries] == [before["a"]] == [listing.index]
    assert isinstance(store.wait("a", listing.index, timeout=SHORT / 10), Unchanged)
    assert done(store, Put("a", b"3"))["a"] == before["a"] + 1


def test_commits_are_on_disk(store: SqliteStore) -> None:
    """What was committed survives a power cut: WAL with full synchronisation."""
    assert store._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert store._db.execute("PRAGMA synchronous").fetchone() == (2,)
