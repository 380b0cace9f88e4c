"""Addresses: the store decides, so that no two hosts ever give out one address.

Each host keeps a few free addresses of each pool in reserve, leased in the store beforehand: nobody else has one of
them, so a container starts on it before the store was told, and with the store away too. Everything this host holds is
in the journal; what was given out of the reserve, and what was given back, the store is told in the background.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import suppress

import msgspec

from myoverlay.errors import Clash, Refused, Unavailable, Unknown, Unreadable
from myoverlay.host import awaiting
from myoverlay.host.ceding import Ceding
from myoverlay.host.claiming import Claiming
from myoverlay.host.deadline import STORE, check, left
from myoverlay.host.journal import Journal, lease_key
from myoverlay.host.others import Known, Nothing
from myoverlay.host.pools import Pools
from myoverlay.plan import pools as plan
from myoverlay.store.presence import Presence
from myoverlay.store.records import Records
from myoverlay.store.typed import Held
from myoverlay.tally import Tally
from myoverlay.values import Address, Definition, HostId, Lease, LocalLease, Network, PoolUse, Subnet

log = logging.getLogger(__name__)

#: How long Docker may take to give an address back itself after its container died, seconds: it tries a call for 15.
OWED = 30.0


class Leases:
    """The leases of this host."""

    def __init__(
        self,
        journal: Journal,
        records: Records,
        presence: Presence,
        pools: Pools,
        claiming: Claiming,
        ceding: Ceding,
        host_name: Callable[[HostId], str],
        tally: Tally,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._journal = journal
        self._records = records
        self._presence = presence
        self._pools = pools
        self._host_name = host_name
        self._tally = tally
        self._now = now
        self.claiming = claiming
        self._ceding = ceding
        #: What was given out without being asked for by its address, in this run: nobody's call is repeated by `--ip`.
        self._chosen: set[tuple[Subnet, Address]] = set()
        #: Set when there is something for `settle` to do.
        self.wanted = pools.wanted
        #: What is known of other hosts' addresses.
        self.elsewhere: Known = Nothing()
        #: Called before an address counts as used here: forgets an endpoint that died with its container, and, where
        #: Docker gives the address back, one that Docker never heard of.
        self.make_room: Callable[[Network, Address, bool], None] = lambda _, __, ___: None

    # -- addresses -------------------------------------------------------------------------------------------------

    def claim(self, pool: str, asked: Address | None, deadline: float) -> tuple[Address, Subnet]:
        """An address for an endpoint (or, before the network exists, an `--aux-address`)."""
        use = self._pools.use(pool)
        network = self._pools.network(pool)
        if network is None and asked is None:
            raise Refused("--ipam-driver myoverlay serves networks of -d myoverlay only")
        if network is None and asked is not None:
            return self.claim_aux(use.subnet, asked, deadline), use.subnet
        gateway = network.definition.gateway if network else None
        if asked is not None:
            plan.check_address(use.subnet, asked, gateway)
            address = self._claim_exact(use, network, asked, deadline)
        else:
            address = self._claim_any(use, network, deadline)
            self._chosen.add((use.subnet, address))
        self.wanted.set()
        return address, use.subnet

    def release(self, pool: str, address: Address) -> None:
        """Docker needs the address no more. The store is told in the background, after the address was withdrawn.

        A release that comes late, when a container of this host has the address anew, is passed over.
        """
        network = self._pools.network(pool)
        if network is not None and self._is_used(network, address):
            self.make_room(network, address, True)
        if self._is_used(network, address):
            return
        self.free(pool, address)

    def free(self, pool: str | None, address: Address, *, owed: bool = False) -> LocalLease | None:
        """Note that an address is no longer needed; the store is told in the background. None: it was not held.

        `owed`: Docker did not say so, and may yet. Its release would free the address under whoever has it by then, so
        nobody gets it unasked meanwhile.
        """
        if pool is None:
            return None
        use = self._journal.uses.get(pool)
        subnet = use.subnet if use else _subnet_of(pool)
        lease = self._journal.leases.get(f"{subnet.key}/{address}")
        # Another `docker network create` that was given the pool too may have set aside the same.
        shared = use is not None and self._pools.is_asked_by_others(use)
        if lease is None or lease.use == "reserve" or (lease.use == "aux" and shared):
            return None
        return self.mark(lease, "releasing", owed)

    def _claim_any(self, use: PoolUse, network: Network | None, deadline: float) -> Address:
        others = self.elsewhere.addresses(network) if network is not None else ()
        for lease in self._spare(use, "reserve"):
            # A reserve that was taken under pressure looks free again in a snapshot of the store.
            if lease.address not in others and self._from_reserve(lease, network, deadline):
                return lease.address
        lost: set[Address] = set()
        waited = False
        while True:
            try:
                self._check_held_back(network)
                leases = self._records.leases(use.subnet, timeout=left(deadline))
                taken = self.taken(use.subnet, leases, network) | lost
            except Unavailable as error:
                return self._promise_any(use, error, deadline)
            for address in plan.candidates(use.subnet, use.within, taken):
                if self.create(use.subnet, address, "endpoint", network, deadline):
                    return address
                # Somebody was faster, or its key cannot be read: read again, and leave this one alone.
                lost.add(address)
                break
            else:
                if (again := self._again(use, network, deadline)) is not None:
                    return again
                if not self._is_being_freed(use):
                    if (ceded := self._from_others(use, network, leases, deadline)) is not None:
                        return ceded
                    if waited or not self._is_freed(use, leases, deadline):
                        area = use.within or use.subnet
                        raise Refused(f"pool {area} is full: no address is free; release one or use a larger --subnet")
                    waited = True
            check(deadline, f"an address of pool {use.subnet}")

    def _spare(self, use: PoolUse, kind: str) -> list[LocalLease]:
        """This host's leases of that use which a container of the pool could have, lowest first."""
        fitting = [one for one in self.of(use.subnet, kind) if use.within is None or one.address in use.within]
        return sorted(fitting, key=lambda one: one.address.number)

    def _check_held_back(self, network: Network | None) -> None:
        reason = self.elsewhere.held_back(network) if network is not None else None
        if reason is not None:
            raise Unavailable(reason)

    def _promise_any(self, use: PoolUse, error: Unavailable, deadline: float) -> Address:
        """With the store away and the reserve used up: what was released since is still this host's there."""
        again = self._again(use, None, deadline)
        if again is None:
            raise Unavailable(f"no address of {use.subnet} is left in this host's reserve, and {error}")
        return again

    def _again(self, use: PoolUse, network: Network | None, deadline: float) -> Address | None:
        """An address that was given back here, and that the store has not been told of; with `network` it is asked
        whether somebody else has it.
        """
        others = self.elsewhere.addresses(network) if network is not None else ()
        for lease in self._spare(use, "releasing"):
            if self.is_owed(lease) or lease.address in others:
                continue
            if network is not None and network.outsiders and self._outsider(network, lease.address, deadline):
                continue
            if self._promise_again(lease, deadline):
                self.wanted.set()
                return lease.address
        return None

    def _is_being_freed(self, use: PoolUse) -> bool:
        """Is the store just being told that an address of this host's is free?"""
        busy = self.claiming.of(use.subnet)
        return any(lease.address in busy for lease in self._spare(use, "releasing"))

    def _promise_again(self, lease: LocalLease, deadline: float) -> bool:
        """Give an address out that the store has not been told is free; not one whose claim was never answered.

        A store that lost this host's leases may have given it to another since: where it answers, that counts.
        """
        with self.claiming.alone(lease.subnet, lease.address) as alone:
            if not alone or lease.unsure or self._journal.leases.get(lease_key(lease)) != lease:
                return False
            with suppress(Unavailable):
                held = self._records.lease(lease.subnet, lease.address, timeout=min(1.0, left(deadline)))
                if held is not None and held.value.hosts != (self._records.me,):
                    return False
            self._enter(lease.subnet, lease.address, "endpoint", promised=True)
            return True

    def _from_others(
        self, use: PoolUse, network: Network | None, leases: dict[Address, Held[Lease]], deadline: float
    ) -> Address | None:
        """Nothing is free: living hosts are asked for what they keep in reserve, each until one does not answer."""
        asked = set(self._presence.alive(timeout=left(deadline)))
        for address, held in leases.items():
            owner = held.value.hosts[0]
            if held.value.use != "reserve" or owner not in asked or not (use.within is None or address in use.within):
                continue
            try:
                if self._is_ceded(use, held, network, deadline):
                    return address
            except Clash as error:
                log.info("%s", error)
                asked.discard(owner)
        return None

    def _is_freed(self, use: PoolUse, leases: dict[Address, Held[Lease]], deadline: float) -> bool:
        """Does another host give an address of the pool back within a moment?"""
        theirs = {
            address: held
            for address, held in leases.items()
            if held.value.use == "endpoint"
            and self._other_of(held.value) is not None
            and (use.within is None or address in use.within)
        }
        return awaiting.is_freed(self._records, use.subnet, theirs, deadline)

    def _is_ceded(self, use: PoolUse, held: Held[Lease], network: Network | None, deadline: float) -> bool:
        if self._is_takeable(use.subnet, held, deadline):
            return self._take(use, held, network, deadline)
        now = self._records.lease(use.subnet, held.value.address, timeout=left(deadline))
        if now is None or (now.value.use, now.value.hosts) != ("reserve", (self._records.me,)):
            return False
        return self._take(use, now, network, deadline)

    def _claim_exact(self, use: PoolUse, network: Network | None, asked: Address, deadline: float) -> Address:
        if network is not None and self._is_used(network, asked):
            self.make_room(network, asked, False)
        mine = self._journal.leases.get(f"{use.subnet.key}/{asked}")
        if mine is not None and mine.use == "endpoint" and self._is_used(network, asked):
            raise Clash(f"{asked} is in use by a container on this host: choose another --ip")
        if mine is not None and mine.use == "reserve" and self._from_reserve(mine, network, deadline):
            return asked
        if mine is not None and mine.use == "endpoint" and (use.subnet, asked) not in self._chosen:
            return asked  # the answer to the first call was lost
        while True:
            try:
                self._check_held_back(network)
                held = self._records.lease(use.subnet, asked, strict=True, timeout=left(deadline))
            except Unavailable:
                if mine is not None and mine.use == "releasing" and self._promise_again(mine, deadline):
                    return asked
                raise
            if (now := self._journal.leases.get(f"{use.subnet.key}/{asked}")) and now.use == "endpoint":
                raise Clash(f"{asked} was just given to another container on this host: choose another --ip")
            if held is None:
                self._check_peers(network, asked)
                done = self.create(use.subnet, asked, "endpoint", network, deadline)
            else:
                done = self._is_takeable(use.subnet, held, deadline) and self._take(use, held, network, deadline)
            if done:
                return asked
            if network is not None:
                self._check_outsider(network, asked, deadline)
            check(deadline, f"the address {asked}")

    def _is_takeable(self, subnet: Subnet, held: Held[Lease], deadline: float) -> bool:
        """May a leased address be taken? Where another host keeps it in reserve that is asked: it is read again then.

        Raises Clash where it may not.
        """
        lease, asked = held.value, held.value.address
        if lease.use == "aux":
            raise Clash(f"{asked} is set aside with --aux-address: choose another --ip")
        owner = self._other_of(lease)
        if owner is None:
            return True
        name = self._host_name(owner)
        if lease.use == "endpoint":
            remedy = self.elsewhere.remedy(owner)
            if not remedy and awaiting.is_changed(self._records, subnet, held, deadline):
                return False
            remedy = remedy or "stop that container first"
            raise Clash(f"{asked} is in use by a container on host {name}: choose another --ip, or {remedy}")
        if not self._presence.alive_of([owner], timeout=left(deadline)):
            raise Clash(
                f"{asked} is kept in reserve by host {name}, which cannot be asked just now: choose another --ip"
            )
        self._ceding.ask(subnet, held, deadline)
        return False

    def _other_of(self, lease: Lease) -> HostId | None:
        """The first other host that has it."""
        return next((host for host in lease.hosts if host != self._records.me), None)

    def _check_peers(self, network: Network | None, asked: Address) -> None:
        if network is not None and self.elsewhere.has(network, asked):
            raise Clash(f"{asked} is in use on another host, though the store has no lease of it: choose another --ip")

    def _check_outsider(self, network: Network, asked: Address, deadline: float) -> None:
        key = self._outsider(network, asked, deadline)
        if key is not None:
            raise Clash(f"{asked} belongs to an outsider, by the key {key}: choose another --ip")

    def _outsider(self, network: Network, asked: Address, deadline: float) -> str | None:
        return self._records.outsider(network.definition, asked, timeout=left(deadline))

    def claim_aux(self, subnet: Subnet, asked: Address, deadline: float) -> Address:
        """Set an address aside for this network; other hosts may set the same one aside."""
        if asked not in subnet:
            raise Refused(f"{asked} is outside the pool {subnet}")
        me = self._records.me
        while True:
            held = self._records.lease(subnet, asked, strict=True, timeout=left(deadline))
            if held is not None and held.value.use != "aux" and not self._is_takeable(subnet, held, deadline):
                check(deadline, f"the address {asked}")
                continue
            hosts = held.value.hosts if held and held.value.use == "aux" else ()
            new = Lease(address=asked, use="aux", hosts=tuple(sorted({*hosts, me})))
            if self._write(subnet, held, new, None, deadline):
                return asked
            check(deadline, f"the address {asked}")

    # -- one address -----------------------------------------------------------------------------------------------

    def create(self, subnet: Subnet, address: Address, kind: str, network: Network | None, deadline: float) -> bool:
        with self.claiming.alone(subnet, address) as alone:
            new = Lease(address=address, use=kind, hosts=(self._records.me,))
            return alone and self._write(subnet, None, new, network, deadline)

    def _take(self, use: PoolUse, held: Held[Lease], network: Network | None, deadline: float) -> bool:
        new = Lease(address=held.value.address, use="endpoint", hosts=(self._records.me,))
        with self.claiming.alone(use.subnet, new.address) as alone:
            return alone and self._write(use.subnet, held, new, network, deadline)

    def _write(
        self, subnet: Subnet, held: Held[Lease] | None, new: Lease, network: Network | None, deadline: float
    ) -> bool:
        """Write a lease in the store, then in the journal; False where somebody was faster.

        A write that the store did not answer may be done all the same: it is then taken back in the background.
        """
        besides = network.definition if network is not None and network.outsiders else None
        try:
            done = self._records.write_lease(subnet, held, new, besides, timeout=left(deadline))
        except Unavailable:
            self._enter(subnet, new.address, "releasing", unsure=True)
            self.wanted.set()
            raise
        if done:
            self._enter(subnet, new.address, new.use)
        return done

    def _from_reserve(self, lease: LocalLease, network: Network | None, deadline: float) -> bool:
        """Use an address kept in reserve: it is promised here and written in the store later.

        Nobody else can have it, and nobody waits for a write of which no other host could know better. It is written
        first where an outsider may have come to have it, and where the store does not say that it is kept here.
        """
        besides = network.definition if network is not None and network.outsiders else None
        with self.claiming.alone(lease.subnet, lease.address) as alone:
            if not alone or self._journal.leases.get(lease_key(lease)) != lease:
                return False
            try:
                written = self._is_written(lease, besides, deadline)
            except Unreadable:
                return False
            except Unavailable as error:
                log.warning("%s is given out from the reserve of %s: %s", lease.address, lease.subnet, error)
                written = False
            if written is not None:
                self._enter(lease.subnet, lease.address, "endpoint", promised=not written)
            return written is not None

    def _is_written(self, lease: LocalLease, besides: Definition | None, deadline: float) -> bool | None:
        """Was an address of the reserve written as used? False: it is still kept here; None: another may have it."""
        new = Lease(address=lease.address, use="endpoint", hosts=(self._records.me,))
        for _ in range(2):
            held = self._records.lease(lease.subnet, lease.address, strict=True, timeout=min(1.0, left(deadline)))
            if held is not None and held.value.hosts != new.hosts:
                self._journal.leases.drop(lease_key(lease))  # another host took it under pressure
                return None
            if besides is None and held is not None and held.value.use == "reserve":
                return False
            if self._records.write_lease(lease.subnet, held, new, besides, timeout=min(1.0, left(deadline))):
                return True
            if besides is not None or held is not None:
                return None
        raise Unavailable(f"the store finds no lease of {lease.address}, and does not let it be written")

    def _enter(self, subnet: Subnet, address: Address, kind: str, promised: bool = False, unsure: bool = False) -> None:
        self._chosen.discard((subnet, address))
        lease = LocalLease(
            subnet=subnet, address=address, use=kind, at=self._now(), promised=promised, unsure=unsure
        )  # fmt: skip
        self._journal.leases.put(lease_key(lease), lease)

    def is_owed(self, lease: LocalLease) -> bool:
        """Is Docker still waited for to give it back?"""
        return lease.owed and 0 <= self._now() - lease.at < OWED

    def mark(self, lease: LocalLease, kind: str, owed: bool = False) -> LocalLease:
        """Give a lease another use in the journal, if it is the same; the store may have been told of it since."""

        def marked(now: LocalLease | None) -> LocalLease | None:
            if now is None or (now.use, now.at) != (lease.use, lease.at):
                return now
            return msgspec.structs.replace(now, use=kind, at=self._now(), promised=False, owed=owed)

        new = self._journal.leases.change(lease_key(lease), marked)
        self.wanted.set()
        return new or lease

    # -- what is here ----------------------------------------------------------------------------------------------

    def _is_used(self, network: Network | None, address: Address) -> bool:
        return network is not None and any(
            endpoint.address == address and endpoint.network == network.network
            for endpoint in self._journal.endpoints.all()
        )

    def of(self, subnet: Subnet, use: str | None = None) -> list[LocalLease]:
        """This host's leases of a pool."""
        return [one for one in self._journal.leases.all() if one.subnet == subnet and use in (None, one.use)]

    def taken(self, subnet: Subnet, leases: dict[Address, Held[Lease]], network: Network | None) -> set[Address]:
        taken = {*leases, *(lease.address for lease in self.of(subnet))}
        if network is not None and network.definition.gateway is not None:
            taken.add(network.definition.gateway)
        if network is not None and network.outsiders:
            seen = self._records.outsiders(network.definition, 0, timeout=STORE)
            taken |= getattr(seen, "addresses", frozenset())
        if network is not None:
            taken.update(self.elsewhere.listed(network))
        return taken | self.claiming.of(subnet)


def _subnet_of(pool: str) -> Subnet:
    try:
        return Subnet.from_key(pool.partition("+")[0])
    except ValueError:
        raise Unknown(f"{pool!r} is no pool of ours") from None
