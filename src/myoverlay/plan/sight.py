"""What one look at this host finds: plain values, from which a person, a scraper and a page are told the same.

Times are seconds before the look; None: never.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from myoverlay.plan.fates import State


class StoreSight(msgspec.Struct, frozen=True, kw_only=True):
    """The store. `where` is an address without secrets; `failure` is what failed last, whatever came after.

    `untold`: addresses given out here, or given back, that it has not been told of.
    """

    kind: str
    where: str
    answers: bool | None
    since: float
    answered: float | None
    failure: str
    failed: float | None
    in_doubt: bool
    unreadable: Mapping[str, str]
    untold: int = 0


class OverlaySight(msgspec.Struct, frozen=True, kw_only=True):
    """An overlay of this host. `heard`: when the store last answered its watch, None where it has none.

    `built`: is its kernel side there? `complete`: are all peers known? `unbound`: why its containers here may speak
    under any address though they should not.
    """

    overlay: str
    network: str
    vni: int
    port: int
    mtu: int
    subnet: str
    vtep: str
    endpoints: int
    peers: int
    hosts: int
    eager: bool
    built: bool
    complete: bool
    heard: float | None
    unbound: str = ""


class PeerSight(msgspec.Struct, frozen=True, kw_only=True):
    """Another host. `carries`: do packets of the underlay's MTU come back from it? `rtt` in seconds.

    `why` says in words what stands behind the state; `wrong`: does a person have to see to it?
    """

    id: str
    name: str
    vtep: str | None
    version: str
    state: State
    since: float
    heard: float | None
    rtt: float | None
    carries: bool | None
    overlays: tuple[str, ...]
    why: str = ""
    wrong: bool = False


class HeldSight(msgspec.Struct, frozen=True, kw_only=True):
    """What the brake holds, by kind and overlay."""

    kind: str
    overlay: str
    count: int


class Sight(msgspec.Struct, frozen=True, kw_only=True):
    """This host. `started`: seconds since this run began; `run` is another for each.

    `counts` and `ages` are those of the tally, by name and label. `compared`: when the kernel was compared last with
    what is wanted, `drift` is what that round put right. `names` is what `Control.Names` says, without the names.
    """

    id: str
    name: str
    version: str
    run: str
    started: float
    session: bool
    barred: str | None
    store: StoreSight
    overlays: tuple[OverlaySight, ...]
    peers: tuple[PeerSight, ...]
    held: tuple[HeldSight, ...]
    counts: Mapping[tuple[str, str], int]
    ages: Mapping[tuple[str, str], float]
    compared: float | None
    drift: int
    journal_bytes: int | None
    heartbeat_trouble: str
    heartbeat_mtu: int
    unguarded: str
    names: Mapping[str, Any]
    metrics_at: str
    metrics_trouble: str

    def count(self, name: str, label: str | None = None) -> int:
        """How often that was counted; without a label all its labels together."""
        return sum(n for (one, what), n in self.counts.items() if one == name and label in (None, what))

    def age(self, name: str, label: str | None = None) -> float | None:
        """Seconds since that was counted last."""
        return min(
            (age for (one, what), age in self.ages.items() if one == name and label in (None, what)), default=None
        )
