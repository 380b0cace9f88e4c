"""What of all that the kernel tells of links and rows nobody of ours did: that is what the flight recorder is for."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import NamedTuple

from myoverlay.plan.rows import Written
from myoverlay.values import Fdb, Neigh

ROW_GONE, FOREIGN_ROW, BRIDGE_ROW_GONE = "row gone", "foreign row", "bridge row gone"
LINK_GONE, LINK_CHANGED = "link gone", "link changed"
#: States of a row that is of use to nobody: the kernel is still asking, or has given up.
_EMPTY = ("incomplete", "failed", "none")


class Look(NamedTuple):
    """What of a link is of interest. `master`: the bridge it is in, "" for none."""

    up: bool
    mtu: int
    master: str = ""

    def __str__(self) -> str:
        where = f", in {self.master}" if self.master else ""
        return f"{'up' if self.up else 'down'}, MTU {self.mtu}{where}"


def of_row(
    gone: bool, row: Neigh | Fdb | None, state: str, known: Written, ours: Iterable[Collection[Neigh | Fdb]]
) -> str:
    """What happened to a row of the tunnel; "" for what is as it should be, or of our own doing.

    `known`: the rows that we wrote; `ours`: those that we wrote or took away just now, which the kernel tells as well.
    """
    if row is not None and any(row in some for some in ours):
        return ""
    there = row is not None and row == _known(row, known)
    if gone:
        return ROW_GONE if there else ""
    return FOREIGN_ROW if not there and state not in _EMPTY else ""


def _known(row: Neigh | Fdb, known: Written) -> Neigh | Fdb | None:
    """What we wrote for the same address or MAC."""
    return known.neigh.get(row.address) if isinstance(row, Neigh) else known.fdb.get(row.mac)


def of_link(before: Look | None, now: Look | None) -> str:
    """What happened to a link that is wanted; "" for nothing. None: it was not yet in use, or is not there any more.

    A link that is being made comes in pieces, down and in no bridge at first: nobody wants to read that.
    """
    if before is None or before == now:
        return ""
    return LINK_GONE if now is None else LINK_CHANGED
