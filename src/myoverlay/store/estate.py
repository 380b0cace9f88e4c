"""What another host has in the store, taken away in its place: it is dead, or a person said that it will not come back.

Every write goes with the condition that the host is not there: one that comes back just now keeps what is its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from myoverlay.errors import Denied
from myoverlay.store import Committed, Conflict, Op, Store
from myoverlay.store.networks import NetworkRecords
from myoverlay.store.presence import Presence
from myoverlay.store.records import Records
from myoverlay.values import HostId, OverlayName, Subnet


class _Guarded:
    """A store on which every commit has one more condition: that a host is not there."""

    def __init__(self, store: Store, presence: Presence, host: HostId) -> None:
        self._store = store
        self._presence = presence
        self._host = host

    def commit(self, ops: Sequence[Op], *, timeout: float = 3.0) -> Committed | Conflict:
        return self._presence.commit_without(self._host, ops, timeout=timeout)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


def named(records: Records, *, timeout: float = 3.0) -> dict[HostId, str]:
    """Everybody that the store says something of, with the name where it says one; not those that are only alive.

    A host may have ended between any two of its writes: a use of a pool, or a lease, may be all that is left of it.
    """
    found = dict.fromkeys(records.hosts_and_overlays(timeout=timeout), "")
    for overlay in {one.overlay for one in records.vnis(timeout=timeout).values() if one}:
        held = records.definition(overlay, timeout=timeout)
        found |= dict.fromkeys((held.value.holders if held is not None else ()), "")
        found |= {host: member.name for host, member in records.members(overlay, timeout=timeout).items()}
    for hosts in _pools(records, timeout).values():
        found = dict.fromkeys(hosts, "") | found
    return found | NetworkRecords(records.store, records.prefix, records.me).called(timeout=timeout)


def _pools(records: Records, timeout: float) -> dict[Subnet, set[HostId]]:
    """All pools, and who uses them or has a lease there."""
    found = {}
    for pool in (held.value for held in records.pools(timeout=timeout)):
        leases = records.leases(pool.subnet, timeout=timeout).values()
        found[pool.subnet] = {*pool.users, *(host for held in leases for host in held.value.hosts)}
    return found


class Estate:
    """One other host's keys. Every method may raise Unavailable; False means that something changed meanwhile.

    Where the token may not write what is the other host's alone, that stays, and `kept` names it.
    """

    def __init__(self, records: Records, presence: Presence, host: HostId) -> None:
        self.host = host
        self.kept = ""
        guarded: Any = _Guarded(records.store, presence, host)
        self._records = records.of_host(guarded, host)
        self._networks = NetworkRecords(guarded, records.prefix, host)

    def overlays(self, *, timeout: float = 3.0) -> set[OverlayName]:
        """The overlays that the host has a list for, or holds: it may have had no container there."""
        found = set(self._records.hosts_and_overlays(timeout=timeout).get(self.host, ()))
        for overlay in {one.overlay for one in self._records.vnis(timeout=timeout).values() if one} - found:
            held = self._records.definition(overlay, timeout=timeout)
            if held is not None and self.host in held.value.holders:
                found.add(overlay)
        return found

    def leave(self, overlay: OverlayName, incarnation: str, *, timeout: float = 3.0) -> bool:
        """Withdraw the host's endpoints from an overlay and end its membership; the last member takes all along."""
        held = self._records.definition(overlay, timeout=timeout)
        if held is None:
            return True
        try:
            if not self._records.withdraw(held.value, incarnation, timeout=timeout):
                return False
            return self._records.leave(held, timeout=timeout)
        except Denied:
            self._keep()
            return self.host not in held.value.holders or self._records.leave(held, with_list=False, timeout=timeout)

    def _keep(self) -> None:
        self.kept = self._records.key("hosts", self.host, "")

    def leave_pool(self, subnet: Subnet, *, timeout: float = 3.0) -> bool:
        """Free the host's leases of a pool, and its use of it."""
        for address, held in self._records.leases(subnet, timeout=timeout).items():
            if self.host in held.value.hosts and not self._records.release(subnet, address, timeout=timeout):
                return False
        pool = self._records.pool(subnet, timeout=timeout)
        if pool is None or self.host not in pool.value.users:
            return True
        users = tuple(host for host in pool.value.users if host != self.host)
        return self._records.write_pool(pool, msgspec.structs.replace(pool.value, users=users), timeout=timeout)

    def leave_networks(self, *, timeout: float = 3.0) -> None:
        """Take back what the host said of networks that are defined for all hosts."""
        for name in self._networks.held(timeout=timeout):
            try:
                self._networks.unsay(name, timeout=timeout)
            except Denied:
                self._keep()

    def pools(self, *, timeout: float = 3.0) -> list[Subnet]:
        """The pools that the host uses or has a lease of."""
        return [subnet for subnet, hosts in _pools(self._records, timeout).items() if self.host in hosts]
