"""What has become of another host: alive, cut off from the store, or dead. Pure: what was seen and `now` are arguments.

Two things are known of a host: whether its session lives in the store (`present`), and whether its VTEP answers the
heartbeat. Only both together say that it is dead: a host that lost its session, its plugin or its way to the store goes
on forwarding packets.
"""

from __future__ import annotations

import enum

import msgspec


class State(enum.Enum):
    """`pending`: its session is gone and the heartbeat has not decided yet."""

    ALIVE = "alive"
    PENDING = "pending"
    CUT_OFF = "cut off"
    DEAD = "dead"


class Fate(msgspec.Struct, frozen=True):
    """A host's state, and since when, in seconds of a monotonic clock."""

    state: State
    since: float

    def dead_for(self, now: float) -> float:
        """Seconds that it has been dead without a break; below 0 where it is not."""
        return now - self.since if self.state is State.DEAD else -1.0


def judge(known: Fate | None, present: bool, silent: bool, heard: float | None, now: float) -> Fate:
    """The fate of a host, given the one known before.

    `silent`: the heartbeat asked often enough and nothing came. `heard`: when an answer came last. An answer counts
    for the time after the session was found gone; what was heard before says nothing.
    """
    if present:
        return _kept(known, State.ALIVE, now)
    if silent:
        return _kept(known, State.DEAD, now)
    gone_since = known.since if known is not None and known.state is not State.ALIVE else now
    if heard is not None and heard >= gone_since:
        return _kept(known, State.CUT_OFF, now)
    if known is not None and known.state is not State.ALIVE:
        return known
    return Fate(State.PENDING, now)


def _kept(known: Fate | None, state: State, now: float) -> Fate:
    return known if known is not None and known.state is state else Fate(state, now)
