"""The leases of this host, held against the store and against what here asks for them, in both directions."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import msgspec

from myoverlay.errors import Clash
from myoverlay.host.deadline import left
from myoverlay.host.journal import Journal, lease_key
from myoverlay.host.leases import Leases
from myoverlay.host.leftovers import Leftovers
from myoverlay.host.pools import Pools
from myoverlay.host.telling import Telling
from myoverlay.store.records import Records
from myoverlay.store.typed import Held
from myoverlay.values import Address, HostId, Lease, LocalLease, Network, OverlayName, PoolUse

log = logging.getLogger(__name__)

#: A pool without a network, or an address without an endpoint, after this long is what a failed call left behind.
ABANDONED = 300.0


class Holdings:
    """Used by the reconciler's thread."""

    def __init__(
        self,
        journal: Journal,
        records: Records,
        pools: Pools,
        leases: Leases,
        telling: Telling,
        leftovers: Leftovers,
        host_name: Callable[[HostId], str],
        now: Callable[[], float] = time.time,
    ) -> None:
        self._journal = journal
        self._records = records
        self._pools = pools
        self._leases = leases
        self._telling = telling
        self._claiming = leases.claiming
        self._leftovers = leftovers
        self._host_name = host_name
        self._now = now

    def abandon(self) -> None:
        """Calls that failed half-way leave pools without a network and addresses without an endpoint: they go."""
        before = self._now() - ABANDONED
        self._pools.abandon(before)
        networks = {network.network: network for network in self._journal.networks.all()}
        ends = [one for one in self._journal.endpoints.all() if one.network in networks]
        used = {(networks[one.network].subnet, one.address) for one in ends}
        held = [lease for lease in self._journal.leases.all() if lease.use == "endpoint"]
        for network in networks.values():
            mine = [lease for lease in held if lease.subnet == network.subnet]
            stale = {x.address: x for x in mine if x.at < before and (x.subnet, x.address) not in used}
            for address in self._leftovers.release("lease", network.overlay, stale.keys(), len(mine)):
                self._leases.mark(stale[Address(address)], "releasing")

    def give_up(self, deadline: float) -> None:
        """Free everything that this host holds, and use no pool any more. Raises Unavailable or Late."""
        for lease in self._journal.leases.all():
            self._telling.release(self._leases.mark(lease, "releasing"), deadline)
        for use in self._journal.uses.all():
            self._pools.give_up(use, deadline)

    def reassert(self, use: PoolUse, network: Network, deadline: float) -> list[str]:
        """See to it that the store has this host's leases of a pool, and no others of it.

        A lease that is gone is written again, a promise is kept; what another host has by now is named in the
        sentences returned. What only the store knows of is freed, as far as the brake lets it go. Raises Unavailable
        or Late.
        """
        self._note_unleased(use, network)
        clashes = []
        held = self._records.leases(use.subnet, timeout=left(deadline))
        mine = {lease.address: lease for lease in self._leases.of(use.subnet)}
        for address, lease in mine.items():
            there = held.get(address)
            try:
                if lease.promised:
                    self._telling.keep(lease, deadline)
                elif lease.use != "releasing" and not self._stands(lease, there):
                    self._write_again(lease, there, deadline)
            except Clash as error:
                clashes.append(str(error))
        here = {address for address, one in held.items() if self._records.me in one.value.hosts}
        self._free_strays(use, network.overlay, here - mine.keys(), len(here), deadline)
        return clashes

    def _note_unleased(self, use: PoolUse, network: Network) -> None:
        """An endpoint whose lease was given up under it (`host leave --force`) gets it back: as a promise to keep."""
        for endpoint in self._journal.endpoints.all():
            lease = LocalLease(
                subnet=use.subnet, address=endpoint.address, use="endpoint", at=self._now(), promised=True
            )
            if endpoint.network == network.network and self._journal.leases.get(lease_key(lease)) is None:
                self._journal.leases.put(lease_key(lease), lease)

    def _free_strays(self, use: PoolUse, overlay: OverlayName, strays: set[Address], of: int, deadline: float) -> None:
        for address in map(Address, sorted(self._leftovers.release("stray lease", overlay, strays, of))):
            with self._claiming.alone(use.subnet, address) as alone:
                if alone and self._journal.leases.get(f"{use.subnet.key}/{address}") is None:
                    log.warning("the lease of %s is this host's, and nothing here asks for it: it is freed", address)
                    self._records.release(use.subnet, address, timeout=left(deadline))

    def _stands(self, lease: LocalLease, there: Held[Lease] | None) -> bool:
        return there is not None and there.value.use == lease.use and self._records.me in there.value.hosts

    def _write_again(self, lease: LocalLease, there: Held[Lease] | None, deadline: float) -> None:
        me = self._records.me
        if lease.use == "aux":
            self._leases.claim_aux(lease.subnet, lease.address, deadline)
            return
        with self._claiming.alone(lease.subnet, lease.address) as alone:
            if not alone or self._journal.leases.get(lease_key(lease)) != lease:
                return
            # What another host only keeps in reserve it was given after the store lost ours.
            if there is None or there.value.hosts == (me,) or (lease.use, there.value.use) == ("endpoint", "reserve"):
                new = Lease(address=lease.address, use=lease.use, hosts=(me,))
                self._records.write_lease(lease.subnet, there, new, timeout=left(deadline))
            elif lease.use == "reserve":
                self._journal.leases.drop(lease_key(lease))
            else:
                # It is written as soon as the other host gives it back.
                self._journal.leases.put(lease_key(lease), msgspec.structs.replace(lease, promised=True))
                name = self._host_name(there.value.hosts[0])
                raise Clash(f"{lease.address} is in use here, but leased to host {name}: stop one of the containers")
