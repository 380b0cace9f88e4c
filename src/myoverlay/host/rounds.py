"""Waiting for a whole round of a loop that another thread runs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from myoverlay.errors import Late, MyoverlayError


class Rounds:
    """Counts the rounds of one loop. `_turn` guards everything and is held across no call."""

    def __init__(self) -> None:
        self._turn = threading.Condition()
        self._begun = 0
        self._ended = 0
        self._failure: MyoverlayError | None = None

    @contextmanager
    def counted(self) -> Iterator[None]:
        """One round, by the loop's own thread."""
        with self._turn:
            self._begun += 1
        failure = None
        try:
            yield
        except MyoverlayError as error:
            failure = error
            raise
        finally:
            with self._turn:
                self._ended, self._failure = self._begun, failure
                self._turn.notify_all()

    def have(self, hurry: Callable[[], None], deadline: float, what: str) -> None:
        """Have a round that begins from now on, and wait for its end. `hurry` makes the loop begin.

        Raises what the round failed with, and Late where it did not end in time.
        """
        with self._turn:
            wanted = self._begun + 1
        hurry()
        with self._turn:
            if not self._turn.wait_for(lambda: self._ended >= wanted, max(0.0, deadline - time.monotonic())):
                raise Late(f"{what} was not done in time")
            failure = self._failure
        if failure is not None:
            raise failure
