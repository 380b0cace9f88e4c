"""Which hosts changed what they tell, or are asked for something: small keys that every watcher blocks on."""

from __future__ import annotations

from typing import Annotated

import msgspec

from myoverlay.values import COUNT_LIMIT, HostId, Value, check_count

#: Changes go round in rings, so that parallel writers seldom meet: 8 rings carried 100 changes/s at 4 % conflicts.
RINGS = 8
#: One more ring tells which hosts are asked for an address of their reserve.
ASKED = "asked"
#: A watcher that is further behind than this lists everything.
RING_LENGTH = 32


class Ring(Value, frozen=True, kw_only=True):
    """The hosts of the last changes, newest last; `last` is the sequence number of the newest."""

    last: int = 0
    hosts: Annotated[tuple[HostId, ...], msgspec.Meta(max_length=RING_LENGTH)] = ()

    def __post_init__(self) -> None:
        check_count(self.last)

    def turned(self, host: HostId) -> Ring:
        last = self.last + 1 if self.last < COUNT_LIMIT else 1
        return Ring(last=last, hosts=(*self.hosts, host)[-RING_LENGTH:])

    def follows(self, before: Ring) -> bool:
        """Did the other one become this? Not where it is older, nor where it tells otherwise of what both tell."""
        after = self.since(before.last)
        if after is None:
            return self.last > before.last
        mine = self.hosts[: len(self.hosts) - len(after)]
        both = min(len(mine), len(before.hosts))
        return mine[len(mine) - both :] == before.hosts[len(before.hosts) - both :]

    def since(self, last: int) -> tuple[HostId, ...] | None:
        """Who changed after `last`, or None where the ring no longer tells."""
        missed = self.last - last
        if missed < 0 or missed > len(self.hosts):
            return None
        return self.hosts[len(self.hosts) - missed :]
