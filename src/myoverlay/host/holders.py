"""Who holds an address or a MAC that this host is about to claim: an outsider's key, or another living host's list."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from myoverlay.host.local import LocalOverlay
from myoverlay.plan.claims import MAX_ACCUSED, is_witness
from myoverlay.store import Entry
from myoverlay.store.pooled import MARK
from myoverlay.store.records import Records
from myoverlay.values import Address, HostId, HostList, Record


class Holder(NamedTuple):
    """`sentence`: why the address is refused; `who`: the key or the host that has it. `sure`: does its host know what
    the store went through? `None` for all of it: nobody."""

    sentence: str
    who: str
    sure: bool = True


class Holders:
    """Reads the store. A host whose session is gone and whose VTEP is silent holds nothing against one that lives."""

    def __init__(
        self,
        records: Records,
        host_name: Callable[[HostId], str],
        is_gone: Callable[[HostId], bool],
        latest: Callable[[HostList, HostList], HostList],
        believes: Callable[[HostList], bool],
    ) -> None:
        self._records = records
        self._host_name = host_name
        self._is_gone = is_gone
        self._latest = latest
        self._believes = believes

    def told_elsewhere(self, local: LocalOverlay, record: Record) -> bool:
        """Does another host say, as far as is known here, that it has the address or the MAC?

        The index alone does not tell: a host that lies in its list need not touch it.
        """
        return local.view.claims.is_claimed(record.address, record.mac)

    def accused(self, local: LocalOverlay) -> tuple[HostId, ...]:
        """Hosts that claim what another has. This host names them in its list, so that who begins to know the overlay
        can tell whose an address is; a few do so for each, of those that are there."""
        accused = local.view.claims.accuses()
        if not accused:
            return ()
        there = {host for host in local.view.lists or () if not self._is_gone(host)}
        return tuple(sorted(host for host in accused if is_witness(self._records.me, host, there)))[:MAX_ACCUSED]

    def of(self, local: LocalOverlay, record: Record) -> Holder | None:
        """Who holds the record's address or MAC; None where nobody does (any more): leftovers in the way are cleared.

        Raises Unavailable.
        """
        definition, overlay = local.network.definition, local.network.overlay
        entries = self._records.index_entries(definition, [record])
        arp = entries.get(self._records.arp(definition, record.address))
        fib = entries.get(self._records.fib(definition, record.mac))
        for entry, what in ((arp, record.address), (fib, f"MAC {record.mac}")):
            if entry is not None and entry.flags != MARK:
                return Holder(
                    f"{what} of overlay {overlay} belongs to an outsider, by the key {entry.key}: choose another",
                    f"the key {entry.key}",
                )
        ours = is_ours(fib, local.network.vtep)
        free = (arp is None and (ours or fib is None)) or (
            arp is not None and ours and arp.value == record.mac.encode()
        )
        if free and not self.told_elsewhere(local, record):
            return None
        holder = self._listing(local, record)
        if holder is None and not free:
            leftover = (arp,) if ours else (arp, fib)
            self._records.clear(entry for entry in leftover if entry is not None)
        return holder

    def _listing(self, local: LocalOverlay, record: Record) -> Holder | None:
        overlay, known = local.network.overlay, local.view.lists or {}
        hosts = {host for host in self._records.hosts_of(overlay) if not self._is_gone(host)} - {self._records.me}
        for host, held in self._records.lists(overlay, hosts).items():
            # An old list that a snapshot brought back says nothing of what its host has withdrawn since.
            latest = self._latest(known[host].value, held.value) if host in known else held.value
            name, sure = self._host_name(host), self._believes(held.value)
            for other in latest.records:
                if other.address == record.address:
                    sentence = (
                        f"{record.address} of overlay {overlay} is in use on host {name}: choose"
                        " another --ip, give each host its own --ip-range, or let --ipam-driver myoverlay choose"
                    )
                    return Holder(sentence, f"host {name}", sure)
                if other.mac == record.mac:
                    sentence = (
                        f"MAC {record.mac} of overlay {overlay} is in use by {other.address} on host"
                        f" {name}: choose another --mac-address"
                    )
                    return Holder(sentence, f"host {name}", sure)
        return None


def is_ours(fib: Entry | None, vtep: Address) -> bool:
    """Does the key of a MAC carry our mark, and lead to this VTEP?"""
    return fib is not None and fib.flags == MARK and fib.value == vtep.encode()
