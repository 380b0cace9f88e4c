"""What nobody asks for any more, on its way out: one brake for everybody who collects, and the alarm."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Collection

from myoverlay.plan.brake import Brake, Held
from myoverlay.tally import Tally

log = logging.getLogger(__name__)

#: So many releases are remembered, for whoever asks what has just gone.
_REMEMBERED = 256


class Leftovers:
    """The brake of this host, safe for many threads. `_lock` guards it; no other lock is taken under it.

    Who collects brings all candidates of a kind in an overlay each round, and removes what comes back. Kinds are
    counted apart: `link`, `namespace`, `endpoint`, `lease`, `key`.
    """

    def __init__(self, tally: Tally, now: Callable[[], float] = time.monotonic) -> None:
        self._tally = tally
        self._now = now
        self._lock = threading.Lock()
        self._brake = Brake()
        self._number = 0
        self._lately: deque[tuple[int, Held]] = deque(maxlen=_REMEMBERED)
        #: Called when a person let something go: whoever collects should look again now.
        self.on_let_go: Callable[[], None] = lambda: None

    def release(
        self, kind: str, overlay: str, candidates: Collection[str], of: int, in_use: Collection[str] = ()
    ) -> frozenset[str]:
        """Those of the candidates that may go now, as `Brake.release` says; what is held from now on is told once."""
        with self._lock:
            before = self._brake.names(kind, overlay)
            allowed = self._brake.release(kind, overlay, candidates, of, self._now(), in_use)
            if allowed:
                self._number += 1
                gone = Held(kind=kind, overlay=overlay, names=tuple(sorted(allowed)), of=of)
                self._lately.append((self._number, gone))
            held = self._brake.names(kind, overlay)
        if held - before:
            self._tally.add("braked", kind, len(held - before))
            log.error(
                "%s%d of %d %ss would go only because nothing asks for them (%s): they stay until somebody has looked"
                " and said `myoverlay gc --yes`",
                f"overlay {overlay}: " if overlay else "",
                len(held),
                of,
                kind,
                _few(held),
            )
        return allowed

    def mark(self) -> int:
        """Now, for `since`."""
        with self._lock:
            return self._number

    def since(self, mark: int) -> tuple[Held, ...]:
        """What was let go after a mark, each object once, by kind and overlay."""
        with self._lock:
            lately = [gone for number, gone in self._lately if number > mark]
        names: dict[tuple[str, str], set[str]] = {}
        for one in lately:
            names.setdefault((one.kind, one.overlay), set()).update(one.names)
        of = {(one.kind, one.overlay): one.of for one in reversed(lately)}
        return tuple(
            Held(kind=key[0], overlay=key[1], names=tuple(sorted(names[key])), of=of[key]) for key in sorted(names)
        )

    def held(self) -> tuple[Held, ...]:
        """What waits for a person's word."""
        with self._lock:
            return self._brake.held()

    def let_go(self) -> tuple[Held, ...]:
        """A person's word: all that is held now goes in the next round. Returns what that is."""
        with self._lock:
            gone = self._brake.let_go()
        for one in gone:
            log.warning(
                "%d %ss are let go by a person's word: %s", len(one.names), one.kind, _few(frozenset(one.names))
            )
        if gone:
            self.on_let_go()
        return gone

    def forget(self, overlay: str) -> None:
        """The overlay is no longer on this host: nothing of it waits."""
        with self._lock:
            self._brake.forget(overlay)


def _few(names: frozenset[str]) -> str:
    first = sorted(names)[:3]
    return ", ".join(first) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
