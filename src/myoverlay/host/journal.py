"""What Docker asked this host for, on its own disk: written, and synced, before Docker is answered.

After a reboot Docker does not call CreateNetwork again; everything is rebuilt from here, without the store. Reads come
from memory; a write is on the disk when it returns (SQLite, WAL with synchronous=FULL: one fsync).
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from myoverlay.errors import Refused
from myoverlay.values import (
    Definition,
    Endpoint,
    HostId,
    LocalLease,
    Network,
    PoolUse,
    decoder,
    encode,
)

#: The layout's version: a journal written by a newer version is not touched.
SCHEMA = 1

T = TypeVar("T")


class Shelf(Generic[T]):
    """Values of one kind by their keys: a table on disk and the same in memory."""

    def __init__(self, journal: Journal, name: str, kind: type[T]) -> None:
        self._journal = journal
        self._name = name
        read = decoder(kind)
        rows = journal.execute(f"SELECT key, value FROM {name}")
        self._values: dict[str, T] = {key: read(value) for key, value in rows}

    def get(self, key: str) -> T | None:
        with self._journal.lock:
            return self._values.get(key)

    def all(self) -> tuple[T, ...]:
        with self._journal.lock:
            return tuple(self._values.values())

    def put(self, key: str, value: T) -> None:
        with self._journal.lock:
            self._journal.execute(f"INSERT OR REPLACE INTO {self._name} VALUES (?, ?)", key, encode(value))
            self._values[key] = value

    def drop(self, key: str) -> T | None:
        """Take a value out; one that is not there is out already."""
        with self._journal.lock:
            if key not in self._values:
                return None
            self._journal.execute(f"DELETE FROM {self._name} WHERE key = ?", key)
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
    """The shelves, and who this host is. Safe for many threads; its lock is the last one anybody takes."""

    def __init__(self, directory: Path, open_disk: Callable[[Path], sqlite3.Connection] | None = None) -> None:
        path = directory / "journal.db"
        self.lock = threading.RLock()
        self._db = (open_disk or _open)(path)
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version > SCHEMA:
            raise Refused(f"{path} was written by a newer version (schema {version}; this one knows {SCHEMA})")
        for table in ("meta", "networks", "endpoints", "uses", "leases", "leaving"):
            self._db.execute(f"CREATE TABLE IF NOT EXISTS {table} (key TEXT PRIMARY KEY, value BLOB) WITHOUT ROWID")
        self._db.execute(f"PRAGMA user_version = {SCHEMA}")
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

    def execute(self, statement: str, *values: str | bytes) -> list[tuple[str, bytes]]:
        with self.lock:
            return self._db.execute(statement, values).fetchall()

    def _meta(self, key: str) -> str | None:
        rows = self.execute("SELECT key, value FROM meta WHERE key = ?", key)
        return rows[0][1].decode() if rows else None

    def _set_meta(self, key: str, value: str) -> None:
        self.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", key, value.encode())

    def host_id(self) -> HostId:
        """Who this host is; decided at the first start."""
        text = self._meta("host")
        return HostId(text) if text else self.new_host_id()

    def new_host_id(self) -> HostId:
        """Become another host: for a machine that was cloned."""
        host = HostId.random()
        self._set_meta("host", host)
        self._set_meta("session", "")
        return host

    @property
    def session(self) -> str | None:
        """The session a former run of ours may still hold."""
        return self._meta("session") or None

    @session.setter
    def session(self, session: str) -> None:
        self._set_meta("session", session)

    @property
    def incarnation(self) -> tuple[str, int] | None:
        """Id and counter of the store that this host goes by; None before it saw one."""
        name, _, count = (self._meta("incarnation") or "").partition(" ")
        return (name, int(count)) if count else None

    @incarnation.setter
    def incarnation(self, incarnation: tuple[str, int]) -> None:
        self._set_meta("incarnation", f"{incarnation[0]} {incarnation[1]}")

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

    def close(self) -> None:
        with self.lock:
            self._db.close()


def _open(path: Path) -> sqlite3.Connection:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    return db


def lease_key(lease: LocalLease) -> str:
    return f"{lease.subnet.key}/{lease.address}"
