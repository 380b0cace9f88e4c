"""The shared store as one host sees it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from myoverlay.errors import Unavailable
from myoverlay.store import Store, Unchanged
from tests.kernel.host.tools import until

#: A blocked wait of a shared store looks this often whether its own host has gone, seconds.
_SLICE = 0.1


class StoreView:
    """One host's connection to the shared store: it can be away for this host alone, and notes what was asked."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._ended = threading.Event()
        self._waiting: set[int] = set()
        self.away = False
        self.interrupted = False
        self.calls: list[tuple[str, tuple[str, ...]]] = []

    def reopened(self) -> StoreView:
        """The same store, for the host's next daemon."""
        view = StoreView(self._store)
        view.away = self.away
        return view

    def asked(self, method: str, part: str) -> int:
        """How many keys that contain `part` were asked for by the method."""
        return sum(part in key for name, keys in list(self.calls) if name == method for key in keys)

    def interrupt(self) -> None:
        """From here on nothing can be waited for; what was waiting has ended."""
        self.interrupted = True
        until(lambda: not self._waiting, what="the end of all waits")

    def close(self) -> None:
        self._ended.set()

    def _check(self) -> None:
        if self.away or self._ended.is_set():
            raise Unavailable("the store cannot be reached")

    def _wait(self, wait: Callable[..., Any], prefix: str, index: int, timeout: float) -> Any:
        self.calls.append(("wait", (prefix,)))
        deadline = time.monotonic() + timeout
        self._waiting.add(threading.get_ident())
        try:
            while True:
                self._check()
                if self.interrupted:
                    raise Unavailable("the wait was interrupted")
                left = deadline - time.monotonic()
                try:
                    seen = wait(prefix, index, timeout=min(_SLICE, max(0.0, left)))
                except Unavailable:  # so short a time-out may pass on the store's lock alone
                    if left <= _SLICE:
                        raise
                    continue
                if not isinstance(seen, Unchanged) or left <= _SLICE:
                    return seen
        finally:
            self._waiting.discard(threading.get_ident())

    def wait(self, prefix: str, index: int, *, timeout: float) -> Any:
        return self._wait(self._store.wait, prefix, index, timeout)

    def wait_keys(self, prefix: str, index: int, *, timeout: float, values: bool = False) -> Any:
        return self._wait(partial(self._store.wait_keys, values=values), prefix, index, timeout)

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            self._check()
            first = args[0] if args else ""
            keys = (first,) if isinstance(first, str) else tuple(getattr(one, "key", one) for one in first)
            self.calls.append((name, keys))
            return method(*args, **kwargs)

        return call
