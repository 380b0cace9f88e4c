"""Which questions may go to the store: each once while it is open or answered "nobody", and not too many a second."""

from __future__ import annotations

from collections.abc import Hashable

#: Look-ups in the store: so many at once, then so many a second. A storm of a second costs it 150.
BURST, RATE = 100, 50.0
#: How long a question that was asked is not asked again, seconds.
QUIET = 2.0


class Gate:
    """`burst` questions at once, then `rate` a second; a question asked is not asked again for `quiet` seconds.

    Time is an argument. Not safe for many threads: its owner locks.
    """

    def __init__(self, burst: int, rate: float, quiet: float) -> None:
        self._burst, self._rate, self._quiet = float(burst), rate, quiet
        self._tokens, self._filled = float(burst), 0.0
        self._until: dict[Hashable, float] = {}

    def admits(self, question: Hashable, now: float) -> bool:
        """May it be asked now? Yes means that it is."""
        if self.is_open(question, now) or not self.has_room(now):
            return False
        self._tokens -= 1.0
        if len(self._until) > 10 * self._burst:
            self._until = {asked: until for asked, until in self._until.items() if until > now}
        self._until[question] = now + self._quiet
        return True

    def has_room(self, now: float) -> bool:
        """May anything be asked now?"""
        self._tokens = min(self._burst, self._tokens + max(0.0, now - self._filled) * self._rate)
        self._filled = now
        return self._tokens >= 1.0

    def is_open(self, question: Hashable, now: float) -> bool:
        """Was it asked so lately that the answer is still wanted?"""
        return self._until.get(question, now) > now

    def answered(self, question: Hashable) -> None:
        """It has an answer: if it is asked again, that answer is no longer there."""
        self._until.pop(question, None)
