"""A store as it is lived with: how long its answers take, since when it answers, what failed last.

It stands before either store and passes on everything.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

import msgspec

from myoverlay.errors import Unavailable
from myoverlay.store import Committed, Conflict, Entry, Keys, Listing, Op, Reset, Store, Unchanged
from myoverlay.store.typed import Quarantine

if TYPE_CHECKING:  # whoever has the embedded store does without Consul's client
    from myoverlay.store.consul import ConsulStore

T = TypeVar("T")


class Health(msgspec.Struct, frozen=True):
    """`answers`: did the last call have an answer? None before the first. Times of the clock handed in.

    `since`: since when that is so. `answered`: when it answered last. `failure` is what failed last, and when, if
    anything ever did.
    """

    answers: bool | None = None
    since: float = 0.0
    answered: float | None = None
    failure: str = ""
    failed: float | None = None


class Metered:
    """`Store` over another one. `_lock` guards the health; `took(operation, seconds, answered)` is told of each call.

    A wait that blocks says nothing about round trips: it counts for the health alone.
    """

    def __init__(
        self,
        inner: Store,
        took: Callable[[str, float, bool], None] = lambda *_: None,
        now: Callable[[], float] = time.monotonic,
        bad: Callable[[], None] = lambda: None,
    ) -> None:
        """`bad` is called for each value that could not be read."""
        self.quarantine = Quarantine(bad)
        self.inner = inner
        self._took = took
        self._now = now
        self._lock = threading.Lock()
        self._health = Health(since=now())

    @property
    def health(self) -> Health:
        with self._lock:
            return self._health

    def get(self, key: str, *, timeout: float = 3.0, sure: bool = False) -> Entry | None:
        """See `Store.get`."""
        return self._timed("get", lambda: self.inner.get(key, timeout=timeout, sure=sure))

    def get_many(self, keys: Sequence[str], *, timeout: float = 3.0) -> dict[str, Entry]:
        """See `Store.get_many`."""
        return self._timed("get", lambda: self.inner.get_many(keys, timeout=timeout))

    def list(self, prefix: str, *, timeout: float = 3.0) -> Listing:
        """See `Store.list`."""
        return self._timed("list", lambda: self.inner.list(prefix, timeout=timeout))

    def keys(self, prefix: str, *, timeout: float = 3.0) -> Keys:
        """See `Store.keys`."""
        return self._timed("list", lambda: self.inner.keys(prefix, timeout=timeout))

    def wait(self, prefix: str, index: int, *, timeout: float) -> Listing | Unchanged | Reset:
        """See `Store.wait`."""
        return self._noted(lambda: self.inner.wait(prefix, index, timeout=timeout))

    def wait_keys(self, prefix: str, index: int, *, timeout: float, values: bool = False) -> Keys | Unchanged | Reset:
        """See `Store.wait_keys`."""
        return self._noted(lambda: self.inner.wait_keys(prefix, index, timeout=timeout, values=values))

    def commit(self, ops: Sequence[Op], *, timeout: float = 3.0) -> Committed | Conflict:
        """See `Store.commit`."""
        return self._timed("commit", lambda: self.inner.commit(ops, timeout=timeout))

    def open_session(self, name: str, ttl: float, *, timeout: float = 3.0) -> str:
        """See `Store.open_session`."""
        return self._timed("session", lambda: self.inner.open_session(name, ttl, timeout=timeout))

    def renew_session(self, session: str, *, timeout: float = 3.0) -> bool:
        """See `Store.renew_session`."""
        return self._timed("session", lambda: self.inner.renew_session(session, timeout=timeout))

    def close_session(self, session: str, *, timeout: float = 3.0) -> None:
        """See `Store.close_session`."""
        self._timed("session", lambda: self.inner.close_session(session, timeout=timeout))

    def close(self) -> None:
        """See `Store.close`."""
        self.inner.close()

    def _timed(self, operation: str, call: Callable[[], T]) -> T:
        began, answered = self._now(), False
        try:
            done = self._noted(call)
            answered = True
            return done
        finally:
            self._took(operation, self._now() - began, answered)

    def _noted(self, call: Callable[[], T]) -> T:
        try:
            done = call()
        except Unavailable as error:
            self._note(str(error))
            raise
        self._note("")
        return done

    def _note(self, failure: str) -> None:
        now = self._now()
        with self._lock:
            known, answers = self._health, not failure
            since = known.since if known.answers is answers else now
            if answers:
                self._health = Health(True, since, now, known.failure, known.failed)
            else:
                self._health = Health(False, since, known.answered, failure, now)


def consul_behind(store: Store) -> ConsulStore | None:
    """Consul itself, for what only Consul has; None where the store is another."""
    from myoverlay.store.consul import ConsulStore

    bare = store.inner if isinstance(store, Metered) else store
    return bare if isinstance(bare, ConsulStore) else None
