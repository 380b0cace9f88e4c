"""Addresses that another host is just giving back: they are waited for.

Docker is told that a container is gone before the store is, since nobody should wait for that. So who wants its
address on another host may come before the store knows, by some 80 ms, and by a second where a machine is busy.
"""

from __future__ import annotations

from collections.abc import Mapping

from myoverlay.host.deadline import left
from myoverlay.store import Unchanged
from myoverlay.store.records import Records
from myoverlay.store.typed import Held
from myoverlay.values import Address, Lease, Subnet

#: So many waits of so many seconds, and no more.
WAITS, EACH = 20, 0.1


def is_changed(records: Records, subnet: Subnet, held: Held[Lease], deadline: float) -> bool:
    """Is a lease another one within a moment? Raises Unavailable or Late."""
    index = held.index
    for _ in range(WAITS):
        seen = records.lease_wait(subnet, held.value.address, index, timeout=min(EACH, left(deadline)))
        if isinstance(seen, Unchanged):
            continue
        if seen.lease != held.value:
            return True
        index = seen.index
    return False


def is_freed(records: Records, subnet: Subnet, used: Mapping[Address, Held[Lease]], deadline: float) -> bool:
    """Is one of these leases of containers gone, or kept in reserve, within a moment? Raises Unavailable or Late."""
    index = max((held.index for held in used.values()), default=0)
    for _ in range(WAITS if used else 0):
        seen = records.leases_wait(subnet, index, timeout=min(EACH, left(deadline)))
        if isinstance(seen, Unchanged):
            continue
        if any(address not in seen.leases or seen.leases[address].value.use == "reserve" for address in used):
            return True
        index = seen.index
    return False
