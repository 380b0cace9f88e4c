"""What is done for leases and pools in the background: the store is told what it could not be, reserves are filled."""

from __future__ import annotations

from myoverlay.host.deadline import left
from myoverlay.host.journal import Journal
from myoverlay.host.leases import Leases
from myoverlay.host.pools import RELEASED, Pools
from myoverlay.host.telling import Telling
from myoverlay.plan import pools as plan
from myoverlay.store.records import Records
from myoverlay.values import PoolUse, Subnet


class Upkeep:
    """Used by the settler's thread."""

    def __init__(self, journal: Journal, records: Records, pools: Pools, leases: Leases, telling: Telling) -> None:
        self._journal = journal
        self._records = records
        self._pools = pools
        self._leases = leases
        self._telling = telling

    def settle(self, deadline: float) -> None:
        """Tell the store what it could not be told, fill the reserves.

        Raises Unavailable or Late when it could not be finished.
        """
        self._telling.settle(deadline)
        for use in self._journal.uses.all():
            if use.at == RELEASED:
                self._settle_pool(use, deadline)
            elif self._pools.network(use.pool) is not None:
                self._fill(use, deadline)

    def _settle_pool(self, use: PoolUse, deadline: float) -> None:
        """Leave a pool that Docker released, with all that is held of it."""
        if not self._pools.is_shared(use):
            for lease in self._leases.of(use.subnet):
                if self._journal.uses.get(use.pool) != use:
                    return  # Docker asked for it again meanwhile
                self._telling.release(self._leases.mark(lease, "releasing"), deadline)
            self._free_unknown(use.subnet, deadline)
        self._pools.leave(use, deadline)
        if not self._pools.is_shared(use):
            self._free_unknown(use.subnet, deadline)  # what was ceded to this host before the others saw it leave

    def _free_unknown(self, subnet: Subnet, deadline: float) -> None:
        """Free what only the store knows of: a run of ours ended between its write there and the one in the journal."""
        for address, held in self._records.leases(subnet, timeout=left(deadline)).items():
            if self._records.me in held.value.hosts:
                with self._leases.claiming.alone(subnet, address) as alone:
                    if alone and self._journal.leases.get(f"{subnet.key}/{address}") is None:
                        self._records.release(subnet, address, timeout=left(deadline))

    def _fill(self, use: PoolUse, deadline: float) -> None:
        """Bring the reserve of a pool to its size."""
        network = self._pools.network(use.pool)
        missing = plan.reserve_size(use.within or use.subnet) - len(self._leases.of(use.subnet, "reserve"))
        if missing <= 0 or (network is not None and self._leases.elsewhere.held_back(network) is not None):
            return  # in a doubt a free address may be one that another host promised while the store was away
        leases = self._records.leases(use.subnet, timeout=left(deadline))
        taken = self._leases.taken(use.subnet, leases, network)
        for address in plan.candidates(use.subnet, use.within, taken):
            if missing <= 0 or self._journal.uses.get(use.pool) != use:
                return
            if self._leases.create(use.subnet, address, "reserve", network, deadline):
                missing -= 1
