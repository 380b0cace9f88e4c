"""What the store is told of this host's addresses afterwards: that one was given out, and that one is free again.

Docker does not wait for that. What is still to be told stands in the journal, so it outlives whatever ends this run.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import msgspec

from myoverlay.host.claiming import Claiming
from myoverlay.host.deadline import check, left
from myoverlay.host.journal import Journal, lease_key
from myoverlay.host.leases import Leases
from myoverlay.store.records import Records
from myoverlay.tally import Tally
from myoverlay.values import Address, HostId, Lease, LocalLease, Network, OverlayName, Subnet

log = logging.getLogger(__name__)


class Telling:
    """Used by the settler's thread, and by the call with which this host leaves."""

    def __init__(
        self,
        journal: Journal,
        records: Records,
        leases: Leases,
        host_name: Callable[[HostId], str],
        tally: Tally,
    ) -> None:
        self._journal = journal
        self._records = records
        self._leases = leases
        self._claiming: Claiming = leases.claiming
        self._host_name = host_name
        self._tally = tally
        #: Promises that clash, by `lease_key`, with the host that has the address as well: each is said once.
        self._clashing: dict[str, HostId] = {}
        #: May the others be told, by this host's list in the store, that it has the address?
        self.is_told: Callable[[OverlayName, Address], bool] = lambda _, __: False

    def settle(self, deadline: float) -> None:
        """Tell what is due. Raises Unavailable or Late."""
        for lease in self._journal.leases.all():
            if lease.use == "releasing" and self._is_due(lease):
                self.release(lease, deadline)
            elif lease.promised:
                self.keep(lease, deadline)

    def hurry(self) -> None:
        """This host's list was written: what it has withdrawn may be free now."""
        if any(lease.use == "releasing" for lease in self._journal.leases.all()):
            self._leases.wanted.set()

    def _is_due(self, lease: LocalLease) -> bool:
        """May the store be told that an address is free?

        Not while Docker may give it back yet, nor while this host's list has it: whoever takes it then would find it
        in use.
        """
        network = self._network_of(lease.subnet)
        told = network is not None and self.is_told(network.overlay, lease.address)
        return not told and not self._leases.is_owed(lease)

    def _network_of(self, subnet: Subnet) -> Network | None:
        """The network whose containers have the addresses of a pool."""
        networks = (one for one in self._journal.networks.all() if one.pool is not None)
        return next((one for one in networks if one.subnet == subnet), None)

    def release(self, lease: LocalLease, deadline: float) -> None:
        """Tell the store that an address is free. Raises Unavailable or Late."""
        with self._claiming.alone(lease.subnet, lease.address) as alone:
            if not alone or self._journal.leases.get(lease_key(lease)) != lease:
                return  # a call has just taken the address again, or is about to
            key, subnet = lease_key(lease), lease.subnet
            self._clashing.pop(key, None)
            while (held := self._records.lease(subnet, lease.address, timeout=left(deadline))) is not None:
                if self._records.me not in held.value.hosts:
                    break
                # From here on the store may have done it without our knowing: nobody gets it on this host's word.
                lease = self._note_unsure(lease)
                if self._records.give_back(subnet, held, timeout=left(deadline)):
                    break
                check(deadline, f"the release of {lease.address}")
            self._journal.leases.change(key, lambda now: None if now == lease else now)

    def _note_unsure(self, lease: LocalLease) -> LocalLease:
        unsure = msgspec.structs.replace(lease, unsure=True)
        self._journal.leases.change(lease_key(lease), lambda now: unsure if now == lease else now)
        return unsure

    def keep(self, lease: LocalLease, deadline: float) -> None:
        """Write in the store what was promised. Raises Unavailable."""
        with self._claiming.alone(lease.subnet, lease.address) as alone:
            if not alone or self._journal.leases.get(lease_key(lease)) != lease:
                return  # it was released meanwhile, or is about to be
            self._keep_promise(lease, deadline)

    def _keep_promise(self, lease: LocalLease, deadline: float) -> None:
        me = self._records.me
        held = self._records.lease(lease.subnet, lease.address, timeout=left(deadline))
        other = next((host for host in held.value.hosts if host != me), None) if held is not None else None
        if held is not None and other is not None and held.value.use != "reserve":
            # Whoever gives it back leaves it to the other: no third one is given it in between.
            if held.value.use == "endpoint" and me not in held.value.hosts:
                both = msgspec.structs.replace(held.value, hosts=(*held.value.hosts, me))
                self._records.write_lease(lease.subnet, held, both, timeout=left(deadline))
            if not lease.unsure:
                self._note_unsure(lease)  # given back, it is not given out again on this host's word
            self._tell_clash(lease, other)
            return
        self._clashing.pop(lease_key(lease), None)
        new = Lease(address=lease.address, use="endpoint", hosts=(me,))
        if self._records.write_lease(lease.subnet, held, new, timeout=left(deadline)):
            kept = msgspec.structs.replace(lease, promised=False, unsure=False)
            self._journal.leases.change(lease_key(lease), lambda now: kept if now == lease else now)

    def _tell_clash(self, lease: LocalLease, other: HostId) -> None:
        """Both go on, and it is looked at in each settling: said when it begins, and when it is another host."""
        if self._clashing.get(lease_key(lease)) != other:
            self._clashing[lease_key(lease)], name = other, self._host_name(other)
            self._tally.add("contradictions")
            log.error("%s was given out while the store was away; host %s has it as well", lease.address, name)
