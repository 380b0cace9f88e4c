"""How long a call may still take: deadlines are moments of `time.monotonic()`."""

from __future__ import annotations

import time

from myoverlay.errors import Late

#: So many writes that somebody was faster with are enough for now.
TRIES = 16
#: One question to the store, at most, seconds.
STORE = 3.0


def left(deadline: float) -> float:
    """The time-out for the next question to the store. Raises Late when no time is left."""
    remaining = deadline - time.monotonic()
    if remaining <= 0:
        raise Late("the store took too long: try again")
    return min(remaining, STORE)


def check(deadline: float, what: str, tries: int = 0) -> None:
    """Before another try: raises Late when several hosts fought over `what` until the deadline, or too often.

    `tries` are those that failed. A store whose reads tell of nothing and whose writes meet something is not asked
    hundreds of times a second by the background.
    """
    if time.monotonic() >= deadline or tries >= TRIES:
        raise Late(f"{what} is fought over by several hosts: try again")
