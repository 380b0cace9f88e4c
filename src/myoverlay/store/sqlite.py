"""The store of one host alone: a file, with Consul's manners.

One process has it open, with any number of threads; a second is refused. What hangs on time and on memory (sessions'
deadlines, what changed lately) starts anew with the process, to the side of waking once too often.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from myoverlay.errors import Unavailable
from myoverlay.store import (
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
    Unchanged,
    Unlock,
)
from myoverlay.store.rules import check_key, check_ops, check_prefix, check_ttl

#: Changes that are remembered for waits; who waits from further back is answered at once, with everything.
REMEMBERED = 4096
#: Seconds to wait for another process to let go of the file: one that is being replaced needs a moment to end.
BUSY = 3.0
#: The form of the file; a higher one comes from a newer version.
FORM = 1

# Keys are held as UTF-8 bytes: they then sort as Consul's, and all that starts with a prefix lies below prefix + 0xff.
_FORM_SQL = """
CREATE TABLE IF NOT EXISTS kv (
    key BLOB PRIMARY KEY, value BLOB NOT NULL, flags INTEGER NOT NULL,
    created INTEGER NOT NULL, modified INTEGER NOT NULL, session TEXT
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS kv_session ON kv (session) WHERE session IS NOT NULL;
CREATE TABLE IF NOT EXISTS session (id TEXT PRIMARY KEY, name TEXT NOT NULL, ttl REAL NOT NULL);
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL);
INSERT OR IGNORE INTO meta VALUES ('index', 1);
"""
_FIELDS = "key, value, flags, modified, session"


class _Change(NamedTuple):
    at: int
    key: str
    came_or_went: bool


class SqliteStore:
    """`Store` in the file at `path`, which is made (mode 0600) with its directory.

    `now` is the clock of sessions in seconds, which only has to grow. Raises `errors.Unavailable` where the file cannot
    be used, or is used by another process.
    """

    def __init__(self, path: Path, *, now: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._now = now
        self._changed = threading.Condition()  # its lock guards all below
        self._closed = False
        self._recent: deque[_Change] = deque(maxlen=REMEMBERED)
        self._batch: list[_Change] = []
        with self._errors("opening it"):
            self._db = _open(path)
        self._index = self._floor = self._read_index()
        sessions = self._db.execute("SELECT id, ttl FROM session").fetchall()
        # As Consul does after an election: who was alive gets a whole life to say so.
        self._ends = {name: now() + 2 * ttl for name, ttl in sessions}

    def get(self, key: str, *, timeout: float = 3.0, sure: bool = False) -> Entry | None:  # noqa: ARG002 - it always is
        """See `Store.get`."""
        check_key(key)
        with self._held(f"reading {key}", timeout):
            return self._get(key)

    def get_many(self, keys: Sequence[str], *, timeout: float = 3.0) -> dict[str, Entry]:
        """See `Store.get_many`."""
        wanted = [check_key(key) for key in keys]
        with self._held("reading keys", timeout):
            found = {key: self._get(key) for key in wanted}
        return {key: entry for key, entry in found.items() if entry is not None}

    def list(self, prefix: str, *, timeout: float = 3.0) -> Listing:
        """See `Store.list`."""
        check_prefix(prefix)
        with self._held(f"reading below {prefix}", timeout):
            return self._list(prefix)

    def keys(self, prefix: str, *, timeout: float = 3.0) -> Keys:
        """See `Store.keys`."""
        check_prefix(prefix)
        with self._held(f"reading below {prefix}", timeout):
            return self._keys(prefix)

    def wait(self, prefix: str, index: int, *, timeout: float) -> Listing | Unchanged | Reset:
        """See `Store.wait`."""
        check_prefix(prefix)
        with self._held(f"waiting below {prefix}", timeout):
            return self._await(prefix, index, timeout, names_only=False) or self._list(prefix)

    def wait_keys(self, prefix: str, index: int, *, timeout: float, values: bool = False) -> Keys | Unchanged | Reset:
        """See `Store.wait_keys`."""
        check_prefix(prefix)
        with self._held(f"waiting below {prefix}", timeout):
            return self._await(prefix, index, timeout, names_only=not values) or self._keys(prefix)

    def commit(self, ops: Sequence[Op], *, timeout: float = 3.0) -> Committed | Conflict:
        """See `Store.commit`."""
        check_ops(ops)
        with self._held("writing", timeout), self._transaction():
            failed = {position: reason for position, op in enumerate(ops) if (reason := self._apply(op))}
            if not failed:
                written = [op.key for op in ops if isinstance(op, Put | Lock | Unlock)]
                return Committed({key: entry.index for key in written if (entry := self._get(key)) is not None})
            self._db.execute("ROLLBACK")
            self._batch.clear()
            return Conflict(tuple(failed), next(iter(failed.values())))

    def open_session(self, name: str, ttl: float, *, timeout: float = 3.0) -> str:
        """See `Store.open_session`."""
        check_ttl(ttl)
        session = str(uuid.uuid4())
        with self._held("opening a session", timeout), self._transaction():
            self._db.execute("INSERT INTO session VALUES (?, ?, ?)", (session, name, ttl))
            self._ends[session] = self._now() + 2 * ttl
        return session

    def renew_session(self, session: str, *, timeout: float = 3.0) -> bool:
        """See `Store.renew_session`."""
        with self._held("renewing a session", timeout):
            row = self._db.execute("SELECT ttl FROM session WHERE id = ?", (session,)).fetchone()
            if row is None:
                return False
            self._ends[session] = self._now() + 2 * row[0]
            return True

    def close_session(self, session: str, *, timeout: float = 3.0) -> None:
        """See `Store.close_session`."""
        with self._held("closing a session", timeout):
            self._end_session(session)

    def close(self) -> None:
        """See `Store.close`."""
        with self._changed:
            if not self._closed:
                self._closed = True
                self._db.close()
                self._changed.notify_all()

    # The lock, the errors, the transaction

    @contextlib.contextmanager
    def _held(self, attempt: str, timeout: float) -> Iterator[None]:
        """The lock, on a store that is open and has ended what ran out. Raises Unavailable after `timeout` seconds."""
        if not self._changed.acquire(timeout=max(timeout, 0.001)):
            raise Unavailable(f"the store {self._path} was busy for {timeout:.3g} s: {attempt}")
        try:
            self._raise_if_closed()
            with self._errors(attempt):
                self._expire()
                yield
        finally:
            self._changed.release()

    @contextlib.contextmanager
    def _errors(self, attempt: str) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise Unavailable(f"the store {self._path} cannot be used: {attempt}: {error}") from error

    def _raise_if_closed(self) -> None:
        if self._closed:
            raise Unavailable(f"the store {self._path} is closed")

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        """All or nothing on disk; what is noted in `_batch` becomes known, and the index grows, once it is there."""
        self._batch.clear()
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            if self._batch:
                self._db.execute("UPDATE meta SET value = ? WHERE name = 'index'", (self._next,))
            if self._db.in_transaction:
                self._db.execute("COMMIT")
        except BaseException:
            self._batch.clear()
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise
        if self._batch:
            self._publish()

    def _publish(self) -> None:
        self._index = self._next
        for change in self._batch:
            if len(self._recent) == REMEMBERED:
                self._floor = self._recent[0].at
            self._recent.append(change)
        self._changed.notify_all()

    @property
    def _next(self) -> int:
        return self._index + 1

    def _read_index(self) -> int:
        with self._errors("reading its index"):
            return int(self._db.execute("SELECT value FROM meta WHERE name = 'index'").fetchone()[0])

    # Reading

    def _get(self, key: str) -> Entry | None:
        row = self._db.execute(f"SELECT {_FIELDS} FROM kv WHERE key = ?", (key.encode(),)).fetchone()
        return None if row is None else _entry(row)

    def _list(self, prefix: str) -> Listing:
        return Listing(tuple(_entry(row) for row in self._below(_FIELDS, prefix)), self._index)

    def _keys(self, prefix: str) -> Keys:
        return Keys(tuple(key.decode() for (key,) in self._below("key", prefix)), self._index)

    def _below(self, fields: str, prefix: str) -> sqlite3.Cursor:
        start = prefix.encode()
        return self._db.execute(
            f"SELECT {fields} FROM kv WHERE key >= ? AND key < ? ORDER BY key", (start, start + b"\xff")
        )

    # Writing

    def _apply(self, op: Op) -> str | None:
        """Do it within the transaction, or say why it does not hold."""
        held = self._get(op.key)
        reason = self._objection(op, held)
        if reason is None:
            self._do(op, held)
        return reason

    def _objection(self, op: Op, held: Entry | None) -> str | None:
        match op:
            case Put(index=None):
                return None
            case Put() | Delete() | Check():
                return None if op.index == _index_of(held) else f"key {op.key!r} has another index"
            case Lock() if op.session not in self._ends:
                return f"invalid session {op.session!r}"
            case Lock() if held is not None and held.session not in (None, op.session):
                return f"failed to lock key {op.key!r}, lock is already held"
            case Unlock() if held is None or held.session != op.session:
                return f"failed to unlock key {op.key!r}, lock isn't held, or is held by another session"
        return None

    def _do(self, op: Op, held: Entry | None) -> None:
        match op:
            case Put():
                # A session's lock outlives others' writes, as in Consul.
                self._set(held, Entry(op.key, op.value, op.flags, 0, held.session if held else None))
            case Delete():
                self._delete(op.key)
            case Lock():
                self._set(held, Entry(op.key, op.value, 0, 0, op.session))
            case Unlock():
                self._set(held, Entry(op.key, op.value, 0, 0, None))
            case Check():
                pass

    def _set(self, held: Entry | None, new: Entry) -> None:
        # As in Consul, what stays the same keeps its index and wakes nobody.
        if held is not None and (held.value, held.flags, held.session) == (new.value, new.flags, new.session):
            return
        self._db.execute(
            "INSERT INTO kv VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value, "
            "flags = excluded.flags, modified = excluded.modified, session = excluded.session",
            (new.key.encode(), new.value, new.flags, self._next, self._next, new.session),
        )
        self._batch.append(_Change(self._next, new.key, held is None))

    def _delete(self, key: str) -> None:
        self._db.execute("DELETE FROM kv WHERE key = ?", (key.encode(),))
        self._batch.append(_Change(self._next, key, True))

    # Sessions

    def _expire(self) -> None:
        now = self._now()
        for session in [session for session, ends in self._ends.items() if ends <= now]:
            self._end_session(session)

    def _end_session(self, session: str) -> None:
        with self._transaction():
            for (key,) in self._db.execute("SELECT key FROM kv WHERE session = ?", (session,)).fetchall():
                self._delete(key.decode())
            self._db.execute("DELETE FROM session WHERE id = ?", (session,))
        self._ends.pop(session, None)

    # Waiting

    def _await(self, prefix: str, index: int, timeout: float, *, names_only: bool) -> Unchanged | Reset | None:
        """Block, with the lock let go, until there is something to read (None), or nothing came."""
        ends = time.monotonic() + timeout
        while not self._is_news(prefix, index, names_only=names_only):
            if index > self._index:
                return Reset(self._index)
            left = ends - time.monotonic()
            if left <= 0:
                # Nothing below the prefix changed up to the store's own index: who goes on from there is not overrun.
                return Unchanged(self._index)
            self._changed.wait(min(left, self._until_expiry()))
            self._raise_if_closed()
            self._expire()
        return None

    def _is_news(self, prefix: str, index: int, *, names_only: bool) -> bool:
        if index < 1 or index < self._floor:
            return True
        # Newest first: what is older than `index` need not be looked at.
        for change in reversed(self._recent):
            if change.at <= index:
                return False
            if change.key.startswith(prefix) and (change.came_or_went or not names_only):
                return True
        return False

    def _until_expiry(self) -> float:
        return max(min(self._ends.values(), default=float("inf")) - self._now(), 0.01) if self._ends else 3600.0


def _open(path: Path) -> sqlite3.Connection:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Made here and not by SQLite, which would take the umask's mode; its -wal file takes after this one.
    # Never opened where it exists: closing it again would drop the locks that SQLite has on it in this process.
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    path.chmod(0o600)
    db = sqlite3.connect(path, timeout=BUSY, isolation_level=None, check_same_thread=False)
    try:
        # One process: a change made by another would wake nobody here.
        db.execute("PRAGMA locking_mode = EXCLUSIVE")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        _prepare(db)
    except BaseException:
        db.close()
        raise
    return db


def _prepare(db: sqlite3.Connection) -> None:
    form = int(db.execute("PRAGMA user_version").fetchone()[0])
    if form > FORM:
        raise sqlite3.NotSupportedError(f"it has form {form}, from a newer version; this one reads up to {FORM}")
    # A write, so that the lock is taken now and not at the first change.
    db.executescript(f"BEGIN IMMEDIATE; {_FORM_SQL} PRAGMA user_version = {FORM}; COMMIT;")


def _index_of(entry: Entry | None) -> int:
    return 0 if entry is None else entry.index


def _entry(row: tuple[bytes, bytes, int, int, str | None]) -> Entry:
    key, value, flags, modified, session = row
    return Entry(key.decode(), value, flags, modified, session)
