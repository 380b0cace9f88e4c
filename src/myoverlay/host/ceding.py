"""Addresses kept in reserve pass from one living host to another, and only with their owner's consent.

A host that is cut off from the store gives out its reserve there and then, so nobody else can know whether such an
address is still free. Who wants one says so in its lease (`wanted`) and in a ring that the owner's watch follows; the
owner forgets the address first, and then writes it over to whoever asked.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import msgspec

from myoverlay.errors import Clash
from myoverlay.host.claiming import Claiming
from myoverlay.host.deadline import left
from myoverlay.host.journal import Journal, lease_key
from myoverlay.store import Unchanged
from myoverlay.store.records import Records
from myoverlay.store.typed import Held
from myoverlay.values import Address, HostId, Lease, LocalLease, Subnet

log = logging.getLogger(__name__)

#: How long an owner is waited for: so many waits of so many seconds.
WAITS, EACH = 6, 0.5


class Ceding:
    """`ask` is for Docker's calls, `asked` for the watches, `settle` for the settler's thread."""

    def __init__(
        self,
        journal: Journal,
        records: Records,
        claiming: Claiming,
        wanted: threading.Event,
        host_name: Callable[[HostId], str],
    ) -> None:
        self._journal = journal
        self._records = records
        self._claiming = claiming
        self._wanted = wanted
        self._host_name = host_name
        self._asked: set[Subnet] = set()  # one step each to add and to take out

    def ask(self, subnet: Subnet, held: Held[Lease], deadline: float) -> None:
        """Ask another host for an address that it keeps in reserve; afterwards the lease is to be read again.

        Raises Clash where the owner does not answer in time, Unavailable or Late.
        """
        if held.value.wanted != self._records.me:
            pool = self._records.pool(subnet, timeout=left(deadline))
            if pool is None or pool.value.overlay is None:
                raise self._unanswered(held.value, "belongs to no overlay yet")
            if not self._records.want(subnet, held, pool.value.overlay, timeout=left(deadline)):
                return
        index = 0
        for _ in range(WAITS):
            seen = self._records.lease_wait(subnet, held.value.address, index, timeout=min(EACH, left(deadline)))
            if isinstance(seen, Unchanged):
                continue
            if seen.lease is None or seen.lease.wanted != self._records.me:
                return
            index = seen.index
        self._unwant(subnet, held.value.address, deadline)
        raise self._unanswered(held.value, f"did not give it up within {WAITS * EACH:g} s")

    def _unwant(self, subnet: Subnet, address: Address, deadline: float) -> None:
        """Nobody waits for it any more."""
        held = self._records.lease(subnet, address, timeout=left(deadline))
        if held is not None and held.value.wanted == self._records.me:
            new = msgspec.structs.replace(held.value, wanted=None)
            self._records.write_lease(subnet, held, new, timeout=left(deadline))

    def _unanswered(self, lease: Lease, why: str) -> Clash:
        name = self._host_name(lease.hosts[0])
        return Clash(f"{lease.address} is kept in reserve by host {name}, which {why}: choose another --ip")

    def asked(self, subnet: Subnet) -> None:
        """Somebody may want an address of this host's reserve."""
        self._asked.add(subnet)
        self._wanted.set()

    def settle(self, deadline: float) -> None:
        """Cede what was asked for, if it is still in reserve. Raises Unavailable or Late."""
        for subnet in tuple(self._asked):
            for lease in self._journal.leases.all():
                if lease.subnet == subnet and lease.use == "reserve":
                    self._cede(lease, deadline)
            self._asked.discard(subnet)

    def _cede(self, lease: LocalLease, deadline: float) -> None:
        held = self._records.lease(lease.subnet, lease.address, timeout=left(deadline))
        if held is None or held.value.wanted is None or held.value.hosts != (self._records.me,):
            return
        pool = self._records.pool(lease.subnet, timeout=left(deadline))
        if pool is None or held.value.wanted not in pool.value.users:
            return  # it has left meanwhile, and nothing there would free it
        with self._claiming.alone(lease.subnet, lease.address) as alone:
            if not alone or self._journal.leases.get(lease_key(lease)) != lease:
                return
            # From here on it is not given out here, whatever becomes of the write.
            self._journal.leases.drop(lease_key(lease))
            new = msgspec.structs.replace(held.value, hosts=(held.value.wanted,), wanted=None)
            done = self._records.write_lease(lease.subnet, held, new, timeout=left(deadline))
        log.info("%s is %s to host %s", lease.address, "ceded" if done else "not ceded", self._host_name(new.hosts[0]))
