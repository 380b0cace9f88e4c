"""The store: a small tree of keys with compare-and-set, blocking reads and sessions.

One interface and two of them: Consul (shared by many hosts) and SQLite (one host, nothing else to install). Whoever
stands on this interface cannot tell which one it is; one contract suite runs on both. It knows no kernel and no Docker.

The words follow Consul's: an *index* is a number that grows with every change of the store; an entry's index is that of
its last change. https://developer.hashicorp.com/consul/api-docs/kv and …/txn
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

#: Operations in one commit: Consul before 1.14 takes 64 and answers 413 for the whole above that. A Delete counts
#: twice: Consul's delete-cas of an absent key succeeds, so a check of its index goes beside it.
MAX_OPS = 64
#: Bytes of one value: Consul takes 512 KB after base64 with the JSON around it, of a commit as a whole too.
MAX_VALUE = 380 * 1024


class Entry(msgspec.Struct, frozen=True):
    """A key as the store holds it. `session` is the one that holds its lock, if any."""

    key: str
    value: bytes
    flags: int
    index: int
    session: str | None = None


class Put(msgspec.Struct, frozen=True):
    """Set a key (flags below 2^63); with `index`, only if it still has that index (0: only if it does not exist)."""

    key: str
    value: bytes
    flags: int = 0
    index: int | None = None


class Delete(msgspec.Struct, frozen=True):
    """Delete a key that still has that index. Deleting what is absent conflicts: the caller's picture is old."""

    key: str
    index: int


class Check(msgspec.Struct, frozen=True):
    """Go on only if the key still has that index (0: only if it does not exist)."""

    key: str
    index: int


class Lock(msgspec.Struct, frozen=True):
    """Set a key and bind it to the session; conflicts where another session holds it."""

    key: str
    value: bytes
    session: str


class Unlock(msgspec.Struct, frozen=True):
    """Let go of a key that the session holds; the key stays."""

    key: str
    value: bytes
    session: str


Op = Put | Delete | Check | Lock | Unlock


class Committed(msgspec.Struct, frozen=True):
    """All operations were done, together. `indexes` are the keys' new indexes (keys that were written)."""

    indexes: dict[str, int]


class Conflict(msgspec.Struct, frozen=True):
    """No operation was done. `failed` are the positions of those that did not hold, as far as the store told."""

    failed: tuple[int, ...]
    reason: str = ""


class Listing(msgspec.Struct, frozen=True):
    """All keys below a prefix at an index: complete, possibly empty."""

    entries: tuple[Entry, ...]
    index: int


class Keys(msgspec.Struct, frozen=True):
    """The names of all keys below a prefix at an index."""

    keys: tuple[str, ...]
    index: int


class Unchanged(msgspec.Struct, frozen=True):
    """Nothing below the prefix changed within the time."""

    index: int


class Reset(msgspec.Struct, frozen=True):
    """The store's index went backwards: it was emptied, restored or replaced. What it lacks may exist all the same."""

    index: int


class Store(Protocol):
    """What both stores do. Every method may raise `errors.Unavailable`; none waits longer than `timeout` seconds.

    Methods are safe to call from several threads at once.
    """

    def get(self, key: str, *, timeout: float = 3.0, sure: bool = False) -> Entry | None:
        """One key, or None where the store says that it does not exist.

        `sure`: also just after the store was started; else it may then tell of an earlier state for a moment.
        """

    def get_many(self, keys: Sequence[str], *, timeout: float = 3.0) -> dict[str, Entry]:
        """Those of the keys that exist; few round trips however many there are."""

    def list(self, prefix: str, *, timeout: float = 3.0) -> Listing:
        """Everything whose key starts with the prefix, which must not be empty."""

    def keys(self, prefix: str, *, timeout: float = 3.0) -> Keys:
        """The names alone."""

    def wait(self, prefix: str, index: int, *, timeout: float) -> Listing | Unchanged | Reset:
        """Block until something below the prefix changed after `index` (0: answer at once), at most about `timeout`."""

    def wait_keys(self, prefix: str, index: int, *, timeout: float, values: bool = False) -> Keys | Unchanged | Reset:
        """The same for the names alone: woken by keys that come and go, at the price of the names.

        `values`: woken by changed values too, though not told which.
        """

    def commit(self, ops: Sequence[Op], *, timeout: float = 3.0) -> Committed | Conflict:
        """Do all operations or none. At most MAX_OPS; raises ValueError above that, as for a value over MAX_VALUE."""

    def open_session(self, name: str, ttl: float, *, timeout: float = 3.0) -> str:
        """A new session that ends (and deletes the keys it holds) when it is not renewed for `ttl` to 2 × `ttl` s."""

    def renew_session(self, session: str, *, timeout: float = 3.0) -> bool:
        """Keep the session; False where the store no longer knows it."""

    def close_session(self, session: str, *, timeout: float = 3.0) -> None:
        """End the session and delete the keys it holds; one that is unknown is closed already."""

    def close(self) -> None:
        """Let go of connections and files. Blocked waits end soon, with Unavailable."""
