"""A named thread that does rounds until it is stopped."""

from __future__ import annotations

import logging
import random
import threading

from myoverlay.errors import Late, Unavailable
from myoverlay.tally import Tally

log = logging.getLogger(__name__)

#: A blocking query's length, seconds.
WAIT = 55.0
#: After a change, others that follow within this time are taken together, seconds.
COALESCE = 0.05
#: After a round that failed, seconds: at first, at most.
RETRY = (0.2, 5.0)


class Loop:
    """Owned by one object, started once, stopped by who started it.

    While the store is away a round is tried again, ever more slowly. A bug of ours is logged and counted and does not
    end the loop: a host whose watch had died silently would go stale.
    """

    #: The longest pause after a round that failed, seconds.
    longest = RETRY[1]

    def __init__(self, name: str, tally: Tally) -> None:
        self.tally = tally
        self.stopping = threading.Event()
        self._again = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def round(self) -> None:
        """Wait until there is something to do, or until `wake`, and do it."""
        raise NotImplementedError

    def wake(self) -> None:
        """End the waiting of a round, so that it sees `stopping`."""

    def start(self) -> None:
        self._thread.start()

    def cancel(self) -> None:
        """Ask it to end, without waiting."""
        self.stopping.set()
        self._again.set()
        self.wake()

    def retry(self) -> None:
        """If it waits after a round that failed, try again now: the store is back."""
        self._again.set()

    def join(self, timeout: float) -> None:
        """Wait for its end. A loop that was never started has ended."""
        if self._thread.ident is not None:
            self._thread.join(timeout)

    def stop(self, timeout: float) -> None:
        self.cancel()
        self.join(timeout)

    def _run(self) -> None:
        name, delay = self._thread.name, RETRY[0]
        while not self.stopping.is_set():
            try:
                self.round()
                delay = RETRY[0]
                self._again.clear()
                continue
            except (Unavailable, Late) as error:
                if self.stopping.is_set():
                    return
                self.tally.add("loop_failures", name.partition("-")[0])
                log.warning("%s: %s", name, error)
            except Exception:
                self.tally.add("bugs", name.partition("-")[0])
                log.exception("%s: a bug in myoverlay", name)
            if not self._again.wait(delay * random.uniform(0.5, 1.0)):
                delay = min(self.longest, delay * 2)
            elif not self.stopping.is_set():
                self._again.clear()
                delay = RETRY[0]  # a store that has just come back may fail once more: that costs no long pause
