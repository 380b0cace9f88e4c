"""`trace` for whoever looks at the page: asked for by a button, one at a time, seldom, and never for long.

The page asks nobody who he is, and a trace makes work on two hosts (rules are listed, a question goes through the
store). So, however many visitors ask: one trace at a time on this host, each ends within `LIMIT`, and the next begins
`PAUSE` after it; meanwhile whoever asks for the same pair is told the same, and the others that they have to wait.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from myoverlay.errors import MyoverlayError
from myoverlay.host.loop import WAIT, Loop
from myoverlay.operate.trace import Ask
from myoverlay.tally import Tally

Shown = dict[str, Any]
#: Seconds that a trace may take; and from the end of one to the begin of the next, for which its result is told.
LIMIT, PAUSE = 8.0, 3.0


class Traced(NamedTuple):
    """What came of one, the `number`-th. `ended`: by the clock handed in; `at`: in Unix seconds."""

    number: int
    pair: Ask
    ended: float
    at: int
    found: Shown | None
    refused: str


class Tracing(Loop):
    """Owns the thread `tracer`. `_lock` guards `_wanted` and `_last`."""

    def __init__(
        self,
        trace: Callable[[Ask, float], Shown],
        tally: Tally,
        now: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """`trace`: `operate.trace.Trace.trace`, by a deadline of `time.monotonic()`."""
        super().__init__("tracer", tally)
        self._trace = trace
        self._now = now
        self._wall = wall
        self._lock = threading.Lock()
        self._news = threading.Event()
        self._wanted: Ask | None = None
        self._last: Traced | None = None

    def ask(self, pair: Ask, had: int = 0) -> Shown:
        """What came of the pair's trace, if there was one just now; else have it begun, or say that it waits.

        `had`: the number of the one that who asks knows already: he wants a newer one, as something was repaired.
        From the page's thread, and at once.
        """
        with self._lock:
            last, now = self._last, self._now()
            if self._wanted is not None:
                return {"state": "running" if self._wanted == pair else "waits"}
            if last is not None and now - last.ended < PAUSE:
                if last.pair != pair or last.number == had:
                    return {"state": "waits"}
                told = {"number": last.number, "at": last.at, "found": last.found, "refused": last.refused}
                return {"state": "done", **told}
            self._wanted = pair
        self._news.set()
        return {"state": "running"}

    def wake(self) -> None:
        self._news.set()

    def round(self) -> None:
        """Wait until a pair is wanted, and trace it."""
        self._news.wait(WAIT)
        self._news.clear()
        with self._lock:
            pair = self._wanted
        if pair is None or self.stopping.is_set():
            return
        found, refused = None, "the trace failed: see the plugin's log"
        try:
            found, refused = self._trace(pair, time.monotonic() + LIMIT), ""
        except MyoverlayError as error:
            refused = str(error)
        finally:  # also after a bug, which the loop logs: nobody waits for ever
            with self._lock:
                self._wanted = None
                number = self._last.number + 1 if self._last is not None else 1
                self._last = Traced(number, pair, self._now(), round(self._wall()), found, refused)
