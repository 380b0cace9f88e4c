"""Hops as they are put into words: right, wrong with what repairs it, or not looked at."""

from __future__ import annotations

from myoverlay.networks import plain
from myoverlay.path import SAID, Hop, State


def make(name: str, wrong: bool, saw: str, wanted: str, remedy: str, heals: bool = False) -> Hop:
    """A hop as judged; what is right needs no remedy."""
    if not wrong:
        return Hop(name=name, state=State.RIGHT, saw=plain(saw, SAID))
    return Hop(
        name=name,
        state=State.WRONG,
        saw=plain(saw, SAID),
        wanted=plain(wanted, SAID),
        remedy=plain(remedy, SAID),
        heals=heals,
    )


def broken(name: str, saw: str, wanted: str, remedy: str) -> Hop:
    """A hop that is not there at all, so that nothing behind it can be looked at."""
    return make(name, True, saw, wanted, remedy)


def unread(name: str, saw: str, remedy: str = "") -> Hop:
    """A hop that could not be looked at, or judged."""
    return Hop(name=name, state=State.UNSEEN, saw=plain(saw, SAID), remedy=plain(remedy, SAID))
