"""What Docker asked this host for, on its own disk: written, and synced, before Docker is answered.

After a reboot Docker does not call CreateNetwork again; everything is rebuilt from here, without the store. Reads come
from memory; a write is on the disk when it returns (SQLite, WAL with synchronous=FULL: one fsync), and in the mirror.

What holds between versions: a newer one adds fields with defaults, tables and kinds of rows, and lives with an older
one that ignores them, or drops such a field from a row that it writes. A change that an older one would misread raises
`Form.reader`; the older one then refuses the journal before it changes anything.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

from myoverlay.errors import MyoverlayError, Refused
from myoverlay.host.mirror import Mirror, stamp_of
from myoverlay.values import (
    COUNT_LIMIT,
    Definition,
    Endpoint,
    HostId,
    LocalLease,
    Network,
    PoolUse,
    decoder,
    encode,
)

log = logging.getLogger(__name__)

T = TypeVar("T")

_TABLES = ("meta", "networks", "endpoints", "uses", "leases", "leaving")


@dataclass(frozen=True)
class Form:
    """How a version writes the journal.

    `reader`: the least schema whose version may go on with it. `steps`: statements that make schema n of schema n - 1;
    all that are missing are done in one transaction. New tables need no step.
    """

    schema: int = 1
    reader: int = 1
    tables: tuple[str, ...] = _TABLES
    steps: Mapping[int, tuple[str, ...]] = field(default_factory=dict)


FORM = Form()

#: So many serials are set aside at once: an hour of milliseconds, which they follow. A restart skips what is left.
SERIALS = 3_600_000


class Shelf(Generic[T]):
    """Values of one kind by their keys: a table on disk and the same in memory."""

    def __init__(self, journal: Journal, name: str, kind: type[T]) -> None:
        self._journal = journal
        self._name = name
        self._values: dict[str, T] = {}
        read = decoder(kind)
        for key, value in journal.execute(f"SELECT key, value FROM {name}"):
            try:
                self._values[key] = read(value)
            except ValueError as error:
                # To go on without it would take down whatever it stands for.
                raise Refused(f"{journal.path}: {name} {key} cannot be read: {error}") from None

    def get(self, key: str) -> T | None:
        with self._journal.lock:
            return self._values.get(key)

    def all(self) -> tuple[T, ...]:
        with self._journal.lock:
            return tuple(self._values.values())

    def put(self, key: str, value: T) -> None:
        with self._journal.lock:
            self._journal.write(f"INSERT OR REPLACE INTO {self._name} VALUES (?, ?)", key, encode(value))
            self._values[key] = value

    def drop(self, key: str) -> T | None:
        """Take a value out; one that is not there is out already."""
        with self._journal.lock:
            if key not in self._values:
                return None
            self._journal.write(f"DELETE FROM {self._name} WHERE key = ?", key)
            return self._values.pop(key)

    def change(self, key: str, change: Callable[[T | None], T | None]) -> T | None:
        """Replace a value by what `change` makes of it, in one step; None takes it out."""
        with self._journal.lock:
            new = change(self._values.get(key))
            if new is None:
                self.drop(key)
            else:
                self.put(key, new)
            return new


class Journal:
    """The shelves, and who this host is. Safe for many threads; its lock is the last one anybody takes.

    Raises Refused where the journal, or the only copy of it, cannot be used; nothing was changed then.
    """

    def __init__(
        self,
        directory: Path,
        open_disk: Callable[[Path], sqlite3.Connection] | None = None,
        mirror: Mirror | None = None,
        form: Form = FORM,
    ) -> None:
        self.path = directory / "journal.db"
        self.lock = threading.RLock()
        self._mirror = mirror
        self._form = form
        self._serial = self._serial_limit = 0
        with _named(self.path, Refused, "cannot be opened"):
            self._db = (open_disk or _open)(self.path)
        try:
            with _named(self.path, Refused, "cannot be read"):
                self._begin()
        except BaseException:
            self.close()
            raise

    def _begin(self) -> None:
        _check(self._db, self.path, self._form)
        remembered = self._recall(self._mirror) if self._mirror is not None else None
        _bring_up(self._db, self._form)
        #: Docker's networks on this host, by Docker's id.
        self.networks = Shelf(self, "networks", Network)
        #: Docker's endpoints on this host, by Docker's id.
        self.endpoints = Shelf(self, "endpoints", Endpoint)
        #: Pools Docker asked for, by the pool id that it was told.
        self.uses = Shelf(self, "uses", PoolUse)
        #: Addresses this host holds, by `lease_key`.
        self.leases = Shelf(self, "leases", LocalLease)
        #: Overlays this host has left and the store has not been told, by name.
        self.leaving = Shelf(self, "leaving", Definition)
        if self.announced != remembered:
            self.announced = None
        if self._mirror is not None:
            self._set_meta("runs", str(int(self._meta("runs") or 0) + 1))
            self.mend()

    def _recall(self, mirror: Mirror) -> str | None:
        """Take over the copy where there is nothing else, or where it is newer. Returns what it says is `announced`.

        It is newer where another installation of the plugin served this host since, with a state of its own.
        """
        mine = stamp_of(self._db)
        try:
            copy = mirror.read()
        except sqlite3.DatabaseError as error:
            self._cannot_recall(mirror, error, needed=mine is None)
            return None
        if copy is None:
            if mine is None and mirror.in_use():
                log.warning("overlays stand here that neither %s nor %s tells of", self.path, mirror.path)
            return None
        with closing(copy):
            theirs = stamp_of(copy)
            if theirs is None:
                return None
            if mine is not None and mine.host != theirs.host:
                log.warning("%s belongs to host %s: it is replaced by this host's", mirror.path, theirs.host[:12])
            elif mine is None or mine.runs < theirs.runs:
                _check(copy, mirror.path, self._form)
                copy.backup(self._db)
                log.warning("this host's state was taken from its copy, %s", mirror.path)
            said = copy.execute("SELECT value FROM meta WHERE key = 'announced'").fetchone()
            return (said[0].decode() or None) if said is not None else None

    def _cannot_recall(self, mirror: Mirror, error: Exception, *, needed: bool) -> None:
        if needed and mirror.in_use():
            raise Refused(
                f"overlays stand on this host, and the only copy of its state, {mirror.path}, cannot be read ({error}):"
                " mend it, or remove it to begin as a new host"
            )
        log.error("%s cannot be read (%s): it is made anew", mirror.path, error)

    def mend(self) -> None:
        """Make the copy anew where it is not whole."""
        with self.lock:
            if self._mirror is not None and not self._mirror.is_whole():
                self._mirror.renew(self._db)

    def execute(self, statement: str, *values: str | bytes) -> list[tuple[str, bytes]]:
        """What reads, or changes nothing that a copy needs."""
        with self.lock:
            return self._db.execute(statement, values).fetchall()

    def write(self, statement: str, *values: str | bytes) -> None:
        """A change, on disk and in the copy when it returns. Raises MyoverlayError where the disk takes none."""
        with self.lock:
            with _named(self.path, MyoverlayError, "cannot be written"):
                self._db.execute(statement, values)
            if self._mirror is not None:
                self._mirror.follow(lambda copy: copy.execute(statement, values))

    def _meta(self, key: str) -> str | None:
        rows = self.execute("SELECT key, value FROM meta WHERE key = ?", key)
        return rows[0][1].decode() if rows else None

    def _set_meta(self, key: str, value: str) -> None:
        self.write("INSERT OR REPLACE INTO meta VALUES (?, ?)", key, value.encode())

    def untold(self) -> int:
        """How many addresses were given out or given back here that the store has not been told of."""
        return sum(lease.promised or lease.use == "releasing" for lease in self.leases.all())

    def host_id(self) -> HostId:
        """Who this host is; decided at the first start."""
        text = self._meta("host")
        return HostId(text) if text else self.new_host_id()

    def new_host_id(self) -> HostId:
        """Become another host: for a machine that was cloned."""
        host = HostId.random()
        self._set_meta("host", host)
        self._set_meta("session", "")
        self.announced = None
        return host

    @property
    def session(self) -> str | None:
        """The session a former run of ours may still hold."""
        return self._meta("session") or None

    @session.setter
    def session(self, session: str) -> None:
        self._set_meta("session", session)

    @property
    def announced(self) -> str | None:
        """The session under which this very machine was announced since it was booted.

        A start that does not find the same in the copy forgets it: a clone has the disk, and not what lies in memory.
        """
        return self._meta("announced") or None

    @announced.setter
    def announced(self, session: str | None) -> None:
        self._set_meta("announced", session or "")

    @property
    def incarnation(self) -> tuple[str, int, int] | None:
        """Id, counter and birth of the store that this host goes by; None before it saw one."""
        words = (self._meta("incarnation") or "").split()
        return (words[0], int(words[1]), int(words[2]) if len(words) > 2 else 0) if len(words) > 1 else None

    @incarnation.setter
    def incarnation(self, incarnation: tuple[str, int, int]) -> None:
        self._set_meta("incarnation", " ".join(map(str, incarnation)))

    @property
    def vouched(self) -> str:
        """The store's incarnation under which all that this host holds is in the store; "" before there was one."""
        return self._meta("vouched") or ""

    @vouched.setter
    def vouched(self, incarnation: str) -> None:
        self._set_meta("vouched", incarnation)

    @property
    def doubted(self) -> str:
        """The store's incarnation that began with a loss not long ago; "" where there is no doubt."""
        return self._meta("doubted") or ""

    @doubted.setter
    def doubted(self, incarnation: str) -> None:
        self._set_meta("doubted", incarnation)

    def next_serial(self, above: int) -> int:
        """A number higher than any that this host used, and than `above`. Few cost a write."""
        with self.lock:
            if max(self._serial, above) >= self._serial_limit:
                used = max(int(self._meta("serial") or 0), above)
                self._set_meta("serial", str(used + SERIALS))
                self._serial, self._serial_limit = used, used + SERIALS
            self._serial = max(self._serial, above) + 1
            return min(self._serial, COUNT_LIMIT)

    def is_idle(self) -> bool:
        """Does this host hold nothing, so that no other run needs to know of it?"""
        with self.lock:
            return not any(
                shelf.all() for shelf in (self.networks, self.endpoints, self.uses, self.leases, self.leaving)
            )

    def remove_mirror(self) -> None:
        """Leave no copy behind, for a host that leaves. Raises OSError."""
        with self.lock:
            mirror, self._mirror = self._mirror, None
            if mirror is not None:
                mirror.remove()

    def close(self) -> None:
        with self.lock:
            self._db.close()
            if self._mirror is not None:
                self._mirror.close()


@contextmanager
def _named(path: Path, kind: type[MyoverlayError], what: str) -> Iterator[None]:
    """SQLite's and the disk's errors as ours, with the file's name."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise kind(f"{path} {what}: {error}") from error


@contextmanager
def _transaction(db: sqlite3.Connection) -> Iterator[None]:
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.OperationalError):  # some failures have rolled it back already
            db.execute("ROLLBACK")
        raise


def peek(directory: Path) -> HostId | None:
    """Who this host is, while nobody uses the journal: nothing is changed. None where that cannot be told."""
    try:
        with closing(sqlite3.connect(f"file:{directory / 'journal.db'}?mode=ro", uri=True)) as db:
            row = db.execute("SELECT value FROM meta WHERE key = 'host'").fetchone()
            return HostId(row[0].decode()) if row else None
    except (sqlite3.Error, ValueError, AttributeError):
        return None


def _open(path: Path) -> sqlite3.Connection:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
    except BaseException:
        db.close()
        raise
    return db


def _schema_of(db: sqlite3.Connection) -> int:
    return int(db.execute("PRAGMA user_version").fetchone()[0])


def _check(db: sqlite3.Connection, path: Path, form: Form) -> None:
    """Raises Refused where a newer version wrote what this one would misread."""
    schema = _schema_of(db)
    if schema <= form.schema:
        return
    noted = db.execute("SELECT value FROM meta WHERE key = 'reader'").fetchone()
    if noted is None or int(noted[0]) > form.schema:
        raise Refused(
            f"{path} was written by a newer version (schema {schema}; this one knows {form.schema}): use that version"
        )


def _bring_up(db: sqlite3.Connection, form: Form) -> None:
    """Make the tables, and of an older form the newest; one that is newer still is left as it is."""
    schema = _schema_of(db)
    with _transaction(db):
        for table in form.tables:
            db.execute(f"CREATE TABLE IF NOT EXISTS {table} (key TEXT PRIMARY KEY, value BLOB) WITHOUT ROWID")
        if schema < form.schema:
            for number in range(schema + 1, form.schema + 1):
                for statement in form.steps.get(number, ()):
                    db.execute(statement)
            db.execute("INSERT OR REPLACE INTO meta VALUES ('reader', ?)", (str(form.reader).encode(),))
            db.execute(f"PRAGMA user_version = {form.schema}")


def lease_key(lease: LocalLease) -> str:
    return f"{lease.subnet.key}/{lease.address}"
