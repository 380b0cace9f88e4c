"""A store in memory with Consul's behaviour: what all simulated hosts share. It passes `tests/store_contract.py`.

As Consul: a prefix has the index of its last change, one that never had a key the whole store's; a session ends at
twice its TTL and takes its keys along; a write that changes nothing keeps the index. `snapshot`, `restore` and `wipe`
are what an operator may do to it: the index goes back.
"""

from __future__ import annotations

import bisect
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
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


class Snapshot(NamedTuple):
    """Everything the store held at a moment."""

    entries: dict[str, Entry]
    graves: dict[str, int]
    born: dict[str, int]
    sessions: dict[str, float]
    index: int


class MemoryStore:
    """`Store` in memory. `now` is the clock of sessions; `hurried`: waits answer at once, changed or not."""

    def __init__(self, now: Callable[[], float] = time.monotonic, hurried: bool = False) -> None:
        self._now = now
        self._hurried = hurried
        self._changed = threading.Condition()
        self._closed = False
        self._entries: dict[str, Entry] = {}
        self._names: list[str] = []
        #: The index at which keys were deleted, and at which they came.
        self._graves: dict[str, int] = {}
        self._born: dict[str, int] = {}
        self._sessions: dict[str, float] = {}  # TTLs
        self._ends: dict[str, float] = {}
        self._index = 10
        #: The indexes at which something was told of a prefix.
        self._told: set[tuple[str, int]] = set()
        #: Called with the keys of every change.
        self.on_change: Callable[[set[str]], None] = lambda _: None

    # -- reading ---------------------------------------------------------------------------------------------------

    def get(self, key: str, *, timeout: float = 3.0, sure: bool = False) -> Entry | None:
        check_key(key)
        with self._held():
            return self._entries.get(key)

    def get_many(self, keys: Sequence[str], *, timeout: float = 3.0) -> dict[str, Entry]:
        wanted = [check_key(key) for key in keys]
        with self._held():
            return {key: self._entries[key] for key in wanted if key in self._entries}

    def list(self, prefix: str, *, timeout: float = 3.0) -> Listing:
        check_prefix(prefix)
        with self._held():
            return self._list(prefix)

    def keys(self, prefix: str, *, timeout: float = 3.0) -> Keys:
        check_prefix(prefix)
        with self._held():
            return self._keys(prefix, self._last_name)

    def wait(self, prefix: str, index: int, *, timeout: float) -> Listing | Unchanged | Reset:
        check_prefix(prefix)
        with self._held():
            return self._await(prefix, index, timeout, self._last) or self._list(prefix)

    def wait_keys(self, prefix: str, index: int, *, timeout: float, values: bool = False) -> Keys | Unchanged | Reset:
        check_prefix(prefix)
        with self._held():
            last = self._last if values else self._last_name
            return self._await(prefix, index, timeout, last) or self._keys(prefix, last)

    def _list(self, prefix: str) -> Listing:
        index = self._index_of(prefix, self._last)
        listing = Listing(tuple(self._entries[key] for key in self._below(prefix)), index)
        if listing.entries:
            self._told.add((prefix, index))
        return listing

    def _keys(self, prefix: str, last: Callable[[str], int]) -> Keys:
        keys = Keys(tuple(self._below(prefix)), self._index_of(prefix, last))
        if keys.keys:
            self._told.add((prefix, keys.index))
        return keys

    def _below(self, prefix: str) -> Iterator[str]:
        place = bisect.bisect_left(self._names, prefix)
        while place < len(self._names) and self._names[place].startswith(prefix):
            yield self._names[place]
            place += 1

    def _last(self, prefix: str) -> int:
        """The index of the last change below the prefix, 0 where nothing ever was."""
        alive = max((self._entries[key].index for key in self._below(prefix)), default=0)
        return max(alive, self._last_grave(prefix))

    def _last_name(self, prefix: str) -> int:
        alive = max((self._born[key] for key in self._below(prefix)), default=0)
        return max(alive, self._last_grave(prefix))

    def _last_grave(self, prefix: str) -> int:
        return max((index for key, index in self._graves.items() if key.startswith(prefix)), default=0)

    def _index_of(self, prefix: str, last: Callable[[str], int]) -> int:
        return last(prefix) or self._index

    def _await(self, prefix: str, index: int, timeout: float, last: Callable[[str], int]) -> Unchanged | Reset | None:
        ends = time.monotonic() + timeout
        while True:
            newest = last(prefix)
            if index < 1 or newest > index:
                return None
            if index > self._index:
                return Reset(self._index_of(prefix, last))
            # Restored, or emptied, and grown beyond that index again since: the prefix's own index tells.
            if newest < index and (newest or (prefix, index) in self._told):
                return None
            left = ends - time.monotonic()
            if self._hurried or left <= 0:
                return Unchanged(index)
            self._changed.wait(min(left, 1.0))
            self._look()

    # -- writing ---------------------------------------------------------------------------------------------------

    def commit(self, ops: Sequence[Op], *, timeout: float = 3.0) -> Committed | Conflict:
        check_ops(ops)
        with self._held():
            staged: dict[str, Entry | None] = {}
            failed: dict[int, str] = {}
            for place, op in enumerate(ops):
                held = staged[op.key] if op.key in staged else self._entries.get(op.key)
                reason = self._objection(op, held)
                if reason is not None:
                    failed[place] = reason
                else:
                    self._stage(op, held, staged)
            if failed:
                return Conflict(tuple(failed), next(iter(failed.values())))
            self._write(staged)
            written = [op.key for op in ops if isinstance(op, Put | Lock | Unlock)]
            return Committed({key: self._entries[key].index for key in written if key in self._entries})

    def _objection(self, op: Op, held: Entry | None) -> str | None:
        match op:
            case Put(index=None):
                return None
            case Put() | Delete() | Check():
                return None if op.index == (held.index if held else 0) else f"key {op.key!r} has another index"
            case Lock() if op.session not in self._sessions:
                return f"invalid session {op.session!r}"
            case Lock() if held is not None and held.session not in (None, op.session):
                return f"failed to lock key {op.key!r}, lock is already held"
            case Unlock() if held is None or held.session != op.session:
                return f"failed to unlock key {op.key!r}, lock isn't held, or is held by another session"
        return None

    def _stage(self, op: Op, held: Entry | None, staged: dict[str, Entry | None]) -> None:
        new: Entry | None = held
        match op:
            case Put():
                new = Entry(op.key, op.value, op.flags, self._index + 1, held.session if held else None)
            case Delete():
                new = None
            case Lock():
                new = Entry(op.key, op.value, 0, self._index + 1, op.session)
            case Unlock():
                new = Entry(op.key, op.value, 0, self._index + 1, None)
            case Check():
                return
        # As in Consul, what stays the same keeps its index and wakes nobody.
        if new is None or held is None or _what(held) != _what(new):
            staged[op.key] = new

    def _write(self, staged: dict[str, Entry | None]) -> None:
        if not staged:
            return
        self._index += 1
        for key, entry in staged.items():
            if entry is None:
                if self._entries.pop(key, None) is not None:
                    self._names.pop(bisect.bisect_left(self._names, key))
                    self._graves[key] = self._index
                continue
            if key not in self._entries:
                bisect.insort(self._names, key)
                self._born[key] = self._index
                self._graves.pop(key, None)
            self._entries[key] = entry
        self._changed.notify_all()
        self.on_change(set(staged))

    # -- sessions --------------------------------------------------------------------------------------------------

    def open_session(self, name: str, ttl: float, *, timeout: float = 3.0) -> str:
        check_ttl(ttl)
        with self._held():
            session = str(uuid.uuid4())
            self._sessions[session] = ttl
            self._ends[session] = self._now() + 2 * ttl
            return session

    def renew_session(self, session: str, *, timeout: float = 3.0) -> bool:
        with self._held():
            if session not in self._sessions:
                return False
            self._ends[session] = self._now() + 2 * self._sessions[session]
            return True

    def close_session(self, session: str, *, timeout: float = 3.0) -> None:
        with self._held():
            self._end(session)

    def _end(self, session: str) -> None:
        self._write({key: None for key, entry in self._entries.items() if entry.session == session})
        self._sessions.pop(session, None)
        self._ends.pop(session, None)

    def expire(self) -> None:
        """End the sessions whose time is over, as Consul does without being asked."""
        if self._ends and min(self._ends.values()) <= self._now():
            for session in [session for session, ends in self._ends.items() if ends <= self._now()]:
                self._end(session)

    # -- what an operator may do -----------------------------------------------------------------------------------

    def snapshot(self) -> Snapshot:
        with self._changed:
            return Snapshot(
                dict(self._entries), dict(self._graves), dict(self._born), dict(self._sessions), self._index
            )

    def restore(self, old: Snapshot) -> None:
        """All is as it was then, the index too; whoever had a session then gets a whole life to say so."""
        with self._changed:
            touched = set(self._entries) | set(old.entries)
            self._entries, self._graves, self._born = dict(old.entries), dict(old.graves), dict(old.born)
            self._names = sorted(self._entries)
            self._sessions = dict(old.sessions)
            self._ends = {session: self._now() + 2 * ttl for session, ttl in old.sessions.items()}
            self._index = old.index
            self._changed.notify_all()
            self.on_change(touched)

    def wipe(self) -> None:
        """A new, empty store."""
        self.restore(Snapshot({}, {}, {}, {}, 10))

    def entries(self) -> dict[str, Entry]:
        """Everything, for the test's eyes."""
        return dict(self._entries)

    # -- the rest --------------------------------------------------------------------------------------------------

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _held(self) -> threading.Condition:
        """For `with`: what is looked at stays as it is meanwhile. Raises Unavailable."""
        with self._changed:
            self._look()
        return self._changed

    def _look(self) -> None:
        if self._closed:
            raise Unavailable("the store is closed")
        self.expire()


def _what(entry: Entry) -> tuple[bytes, int, str | None]:
    return entry.value, entry.flags, entry.session
