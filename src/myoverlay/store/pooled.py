"""The pools, and the leases of their addresses."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from myoverlay.store import Check, Conflict, Delete, Entry, Op, Put, Reset, Unchanged
from myoverlay.store.rings import ASKED, Ring
from myoverlay.store.typed import Held, Typed
from myoverlay.values import Address, Definition, Lease, Mac, OverlayName, Pool, Subnet, encode

#: Our mark in a key's flags: "myov" in ASCII.
MARK = 0x6D796F76


def arp_key(place: str, address: Address) -> str:
    return f"{place}/arp/{address}"


def fib_key(place: str, mac: Mac) -> str:
    return f"{place}/fib/{mac}"


class LeaseSeen(msgspec.Struct, frozen=True):
    """A lease at an index."""

    lease: Lease | None
    index: int


class LeasesSeen(msgspec.Struct, frozen=True):
    """All leases of a pool at an index."""

    leases: dict[Address, Held[Lease]]
    index: int


class Pooled(Typed):
    """What `Records` reads and writes of pools and leases, and where the `arp/` and `fib/` keys lie."""

    def place(self, definition: Definition) -> str:
        """Where the overlay's `arp/` and `fib/` keys lie."""
        return definition.records or self.key("overlays", definition.overlay, "records")

    def arp(self, definition: Definition, address: Address) -> str:
        return arp_key(self.place(definition), address)

    def fib(self, definition: Definition, mac: Mac) -> str:
        return fib_key(self.place(definition), mac)

    def pools(self, *, timeout: float = 3.0) -> list[Held[Pool]]:
        entries = self.store.list(self.key("subnets", ""), timeout=timeout).entries
        return [held for held in map(self._read_pool, self.direct(entries, "subnets")) if held is not None]

    def pool(self, subnet: Subnet, *, strict: bool = False, timeout: float = 3.0) -> Held[Pool] | None:
        """A pool; a bad one is None, or, where that is `strict`, raises Unreadable."""
        entry = self.store.get(self.key("subnets", subnet.key), timeout=timeout)
        held = self._read_pool(entry)
        return self.firmly(entry, held) if strict else held

    def _read_pool(self, entry: Entry | None) -> Held[Pool] | None:
        held = self.read(Pool, entry)
        return self.named(entry, held.value.subnet.key if held else "", held)

    def write_pool(self, held: Held[Pool] | None, new: Pool, *, timeout: float = 3.0) -> bool:
        """Write a pool by compare-and-set; one that nobody uses any more goes."""
        key = self.key("subnets", new.subnet.key)
        index = held.index if held else 0
        op: Op = Put(key, encode(new), index=index) if new.users else Delete(key, index)
        return not isinstance(self.store.commit([op], timeout=timeout), Conflict)

    def leases(self, subnet: Subnet, *, timeout: float = 3.0) -> dict[Address, Held[Lease]]:
        """All leases of a pool. A key that is no lease counts as taken by nobody known, so it is left out here."""
        return self._read_leases(subnet, self.store.list(self.key("pools", subnet.key, ""), timeout=timeout).entries)

    def _read_leases(self, subnet: Subnet, entries: Iterable[Entry]) -> dict[Address, Held[Lease]]:
        there = self.direct(entries, "pools", subnet.key)
        return {held.value.address: held for held in map(self._read_lease, there) if held is not None}

    def leases_wait(self, subnet: Subnet, index: int, *, timeout: float) -> LeasesSeen | Unchanged:
        """Wait until a lease of the pool changed after `index`."""
        seen = self.store.wait(self.key("pools", subnet.key, ""), index, timeout=timeout)
        if isinstance(seen, Unchanged):
            return seen
        if isinstance(seen, Reset):
            return LeasesSeen({}, 0)
        return LeasesSeen(self._read_leases(subnet, seen.entries), seen.index)

    def lease(
        self, subnet: Subnet, address: Address, *, strict: bool = False, timeout: float = 3.0
    ) -> Held[Lease] | None:
        """A lease; a bad one is None, or, where that is `strict`, raises Unreadable."""
        entry = self.store.get(self.key("pools", subnet.key, address), timeout=timeout)
        held = self._read_lease(entry)
        return self.firmly(entry, held) if strict else held

    def _read_lease(self, entry: Entry | None) -> Held[Lease] | None:
        held = self.read(Lease, entry)
        return self.named(entry, held.value.address if held else "", held)

    def write_lease(
        self,
        subnet: Subnet,
        held: Held[Lease] | None,
        new: Lease,
        besides: Definition | None = None,
        *,
        timeout: float = 3.0,
    ) -> bool:
        """Take or change a lease by compare-and-set; `besides`: only if no outsider of the overlay has the address."""
        key = self.key("pools", subnet.key, new.address)
        ops: list[Op] = [Put(key, encode(new), index=held.index if held else 0)]
        if besides is not None:
            arp = self.store.get(self.arp(besides, new.address), timeout=timeout)
            if arp is not None and arp.flags != MARK:
                return False
            # A key with our mark is a leftover, or about to be withdrawn: whoever publishes the address takes it away.
            ops.append(Check(self.arp(besides, new.address), arp.index if arp else 0))
        return not isinstance(self.store.commit(ops, timeout=timeout), Conflict)

    def ring_at(self, key: str, *, timeout: float = 3.0) -> Held[Ring]:
        """A ring to be written on; one that is absent or bad is begun anew."""
        entry = self.store.get(key, timeout=timeout)
        return self.read(Ring, entry) or Held(Ring(), entry.index if entry else 0)

    def want(self, subnet: Subnet, held: Held[Lease], overlay: OverlayName, *, timeout: float = 3.0) -> bool:
        """Ask a lease's owner for it; False where something changed meanwhile."""
        ring_key = self.key("overlays", overlay, "changes", ASKED)
        ring = self.ring_at(ring_key, timeout=timeout)
        wanted = msgspec.structs.replace(held.value, wanted=self.me)
        ops: list[Op] = [
            Put(self.key("pools", subnet.key, held.value.address), encode(wanted), index=held.index),
            Put(ring_key, encode(ring.value.turned(held.value.hosts[0])), index=ring.index),
        ]
        return not isinstance(self.store.commit(ops, timeout=timeout), Conflict)

    def lease_wait(self, subnet: Subnet, address: Address, index: int, *, timeout: float) -> LeaseSeen | Unchanged:
        """Wait until a lease (or one whose address begins so) changed after `index`; a bad one reads as none."""
        key = self.key("pools", subnet.key, address)
        seen = self.store.wait(key, index, timeout=timeout)
        if isinstance(seen, Unchanged):
            return seen
        if isinstance(seen, Reset):
            return LeaseSeen(None, 0)
        held = next((self._read_lease(entry) for entry in seen.entries if entry.key == key), None)
        return LeaseSeen(held.value if held else None, seen.index)

    def release(self, subnet: Subnet, address: Address, *, timeout: float = 3.0) -> bool:
        """Take this host out of a lease; False where it changed meanwhile."""
        held = self.lease(subnet, address, timeout=timeout)
        return held is None or self.me not in held.value.hosts or self.give_back(subnet, held, timeout=timeout)

    def give_back(self, subnet: Subnet, held: Held[Lease], *, timeout: float = 3.0) -> bool:
        """The same for a lease as it was read; this call writes and reads nothing."""
        others = tuple(host for host in held.value.hosts if host != self.me)
        if others:
            new = msgspec.structs.replace(held.value, hosts=others)
            return self.write_lease(subnet, held, new, timeout=timeout)
        return self.drop_lease(subnet, held, timeout=timeout)

    def drop_lease(self, subnet: Subnet, held: Held[Lease], *, timeout: float = 3.0) -> bool:
        key = self.key("pools", subnet.key, held.value.address)
        return not isinstance(self.store.commit([Delete(key, held.index)], timeout=timeout), Conflict)
