"""Which pools this host uses. A pool is one subnet that one overlay leases its addresses from, on all its hosts."""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import msgspec

from myoverlay.errors import Clash, Late, Refused, Unavailable, Unknown
from myoverlay.host.deadline import check, left
from myoverlay.host.journal import Journal
from myoverlay.plan import pools as plan
from myoverlay.store.networks import NetworkRecords
from myoverlay.store.records import Records
from myoverlay.values import Address, Network, OverlayName, Pool, PoolUse, Subnet

#: A pool's `at` once Docker released it, until the store was told.
RELEASED = 0.0
#: How long `docker network create` may take from asking for its pool until it gives up and gives it back, seconds.
CREATING = 60.0


class Pools:
    """The pools that Docker asked this host for.

    `_choosing` lets one request at a time look for a pool; it guards no data and is no lock of the order.
    """

    def __init__(
        self,
        journal: Journal,
        records: Records,
        base: Subnet,
        routes: Callable[[float], tuple[Subnet, ...]],
        now: Callable[[], float] = time.time,
    ) -> None:
        self._journal = journal
        self._records = records
        self._networks = NetworkRecords(records.store, records.prefix, records.me)
        self._base = base
        self._routes = routes
        self._now = now
        self._choosing = threading.Lock()
        #: How often this run was asked for each pool, less what was given back. Changed under the journal's lock.
        self._asked: Counter[str] = Counter()
        self._given_back: dict[str, float] = {}
        #: Called with a network whose pool Docker gave back without deleting it.
        self.on_given_back: Callable[[Network], None] = lambda _: None
        #: Set when the store is to be told something that it has not been told.
        self.wanted = threading.Event()

    def request(
        self, asked: Subnet | None, within: Subnet | None, overlay: OverlayName | None, deadline: float
    ) -> PoolUse:
        """A pool for a network that is about to be created. The same question again gets the same answer.

        Without a subnet: that of the overlay's definition, else one that overlaps neither a route of this host nor
        any overlay, nor a network that is defined for all hosts. Raises Clash where it is somebody else's, Refused
        where it makes no sense.
        """
        with self._alone(deadline):
            subnet = asked or self._defined(overlay, deadline) or self._automatic(overlay, deadline)
            if within is not None and not subnet.covers(within):
                raise Refused(f"the range {within} is outside the pool {subnet}: choose an --ip-range inside it")
            use = PoolUse(
                pool=_pool_id(subnet, within),
                subnet=subnet,
                within=within,
                written=asked is not None,
                overlay=overlay,
                at=self._now(),
            )
            self._check_bound(subnet)
            while not self._use_pool(use, deadline):
                check(deadline, f"pool {subnet}")
            self._journal.uses.change(use.pool, lambda now: self._more(use, now))
            return use

    def _defined(self, overlay: OverlayName | None, deadline: float) -> Subnet | None:
        held = self._records.definition(overlay, strict=True, timeout=left(deadline)) if overlay else None
        return held.value.subnet if held else None

    def _automatic(self, overlay: OverlayName | None, deadline: float) -> Subnet:
        taken = [held.value.subnet for held in self._records.pools(timeout=left(deadline))]
        taken += [holder.subnet for holder in self._records.vnis(timeout=left(deadline)).values() if holder is not None]
        # A plan that no host has made yet has no pool: whoever took its subnet would keep it from all of them.
        plans = self._networks.plans(timeout=left(deadline)).plans.values()
        taken += [held.value.subnet for held in plans if held.value.overlay != overlay]
        taken += self._routes(deadline)
        taken += [network.subnet for network in self._journal.networks.all()]
        return plan.choose_pool(self._base, taken)

    def _check_bound(self, subnet: Subnet) -> None:
        for network in self._journal.networks.all():
            if network.pool is None or not network.subnet.overlaps(subnet):
                continue
            if self._is_given_back(network):
                self.on_given_back(network)
            else:
                raise Clash(
                    f"pool {subnet} overlaps {network.subnet} of overlay {network.overlay}, which network"
                    f" {network.network[:12]} of this host has already joined"
                )

    def _use_pool(self, use: PoolUse, deadline: float) -> bool:
        """Enter this host as a user of the pool; False where it changed meanwhile.

        Before the store is written to it is noted that the pool is to be left: whatever happens until the pool is in
        the journal (a write that was not answered, the end of this process), the background takes it back.
        """
        held_pools = self._records.pools(timeout=left(deadline))
        plan.check_pool(use.subnet, use.overlay, (held.value for held in held_pools))
        mine = next((held for held in held_pools if held.value.subnet == use.subnet), None)
        old = mine.value if mine else Pool(subnet=use.subnet, overlay=use.overlay)
        users = tuple(sorted({*old.users, self._records.me}))
        new = msgspec.structs.replace(old, users=users, overlay=old.overlay or use.overlay)
        released = msgspec.structs.replace(use, at=RELEASED)
        self._journal.uses.change(use.pool, lambda now: now or released)
        try:
            written = self._records.write_pool(mine, new, timeout=left(deadline))
        except Unavailable:
            self.wanted.set()
            raise
        if not written and mine is None:
            self._records.pool(use.subnet, strict=True, timeout=left(deadline))
        return written

    def bind(self, use: PoolUse, overlay: OverlayName, deadline: float) -> None:
        """The pool belongs to the overlay from now on. Raises Clash where it belongs to another."""
        for tries in itertools.count(1):
            held = self._records.pool(use.subnet, strict=True, timeout=left(deadline))
            old = held.value if held else Pool(subnet=use.subnet)
            if old.overlay not in (None, overlay):
                raise Clash(f"pool {use.subnet} belongs to overlay {old.overlay}, not to {overlay}")
            users = tuple(sorted({*old.users, self._records.me}))
            new = msgspec.structs.replace(old, overlay=overlay, users=users)
            if new == old or self._records.write_pool(held, new, timeout=left(deadline)):
                return
            check(deadline, f"pool {use.subnet}", tries)

    def reassert(self, use: PoolUse, network: Network, deadline: float) -> None:
        """See to it that the store has the pool as the network here uses it. Raises Clash where it is another's."""
        self.bind(use, network.overlay, deadline)
        gateway = network.definition.gateway
        while gateway is not None:
            held = self._records.pool(use.subnet, strict=True, timeout=left(deadline))
            if held is None or held.value.gateway is not None:
                return
            new = msgspec.structs.replace(held.value, gateway=gateway)
            if self._records.write_pool(held, new, timeout=left(deadline)):
                return
            check(deadline, f"the gateway of pool {use.subnet}")

    def disown(self, deadline: float) -> None:
        """Leave the pools that the store says this host uses and Docker has released: a snapshot brought them back.

        Raises Unavailable or Late.
        """
        for held in self._records.pools(timeout=left(deadline)):
            if self._records.me in held.value.users:
                with self._alone(deadline):
                    if all(use.subnet != held.value.subnet for use in self._journal.uses.all()):
                        self._disown(held.value.subnet, deadline)

    def _disown(self, subnet: Subnet, deadline: float) -> None:
        for address, lease in self._records.leases(subnet, timeout=left(deadline)).items():
            while self._records.me in lease.value.hosts and not self._records.release(
                subnet, address, timeout=left(deadline)
            ):
                check(deadline, f"the release of {address}")
        while not self._leave(subnet, deadline):
            check(deadline, f"leaving pool {subnet}")

    def use_of(self, subnet: Subnet) -> PoolUse | None:
        """The pool Docker was given from here for a network that does not exist yet.

        Raises Clash where another `docker network create` was given the same one, and was faster.
        """
        bound = {network.pool: network for network in self._journal.networks.all()}
        fitting = [use for use in self._journal.uses.all() if use.subnet == subnet and use.at != RELEASED]
        for use in fitting:
            if use.pool in bound and self.is_asked_by_others(use):
                other = bound[use.pool]
                raise Clash(f"overlay {other.overlay} of pool {subnet} was just joined by network {other.network[:12]}")
        free = [use for use in fitting if use.pool not in bound]
        return max(free, key=lambda use: use.at, default=None)

    def release(self, pool: str) -> None:
        """Docker needs the pool no more; unknown ones are released already. The store is told in the background.

        Of two `docker network create` at once with one subnet both are given the pool, and the one that is refused
        gives it back: it stays for the other one. After CREATING whoever gives it back is its network.
        """
        self._journal.uses.change(pool, lambda use: self._less(use) if use is not None else None)
        self.wanted.set()

    def is_asked_by_others(self, use: PoolUse) -> bool:
        """Is there, or was there until just now, another `docker network create` that was given the pool?"""
        return self._asked[use.pool] > 1 and self._now() - use.at < CREATING

    def _more(self, use: PoolUse, known: PoolUse | None) -> PoolUse:
        if known is None or known.at == RELEASED:
            self._asked[use.pool] = 0
        self._asked[use.pool] += 1
        return use

    def _less(self, use: PoolUse) -> PoolUse:
        if self.is_asked_by_others(use):
            self._asked[use.pool] -= 1
            return use
        del self._asked[use.pool]
        return msgspec.structs.replace(use, at=RELEASED)

    def gateway(self, pool: str, asked: Address | None, deadline: float) -> tuple[Address, Subnet]:
        """The gateway of a pool: one address for all hosts, never leased. The first to ask decides."""
        use = self.use(pool)
        while True:
            held = self._records.pool(use.subnet, strict=True, timeout=left(deadline))
            old = held.value if held else Pool(subnet=use.subnet, users=(self._records.me,))
            if old.gateway is not None:
                if asked not in (None, old.gateway):
                    raise Refused(f"pool {use.subnet} has the gateway {old.gateway}, this host asks for {asked}")
                return old.gateway, use.subnet
            gateway = asked or self._free_gateway(use, deadline)
            plan.check_address(use.subnet, gateway, None)
            if self._records.lease(use.subnet, gateway, strict=True, timeout=left(deadline)):
                raise Clash(f"{gateway} is taken by a container: choose another --gateway")
            if self._records.write_pool(held, msgspec.structs.replace(old, gateway=gateway), timeout=left(deadline)):
                return gateway, use.subnet
            check(deadline, f"the gateway of pool {use.subnet}")

    def _free_gateway(self, use: PoolUse, deadline: float) -> Address:
        taken = self._records.leases(use.subnet, timeout=left(deadline))
        return next(plan.candidates(use.subnet, None, taken))

    def leave(self, use: PoolUse, deadline: float) -> None:
        """Use a pool no more, in the store and in the journal. Raises Unavailable or Late."""
        with self._alone(deadline):  # never beside a request, which may be asking for the very pool again
            if self._journal.uses.get(use.pool) != use:
                return
            if not self.is_shared(use):
                while not self._leave(use.subnet, deadline):
                    check(deadline, f"leaving pool {use.subnet}")
            self._journal.uses.drop(use.pool)

    def give_up(self, use: PoolUse, deadline: float) -> None:
        """Use a pool no more, in the store alone: its network may come back."""
        while not self._leave(use.subnet, deadline):
            check(deadline, f"leaving pool {use.subnet}")

    def is_shared(self, use: PoolUse) -> bool:
        """Does another pool id of this host, with another range, go on using the subnet?"""
        return any(one.subnet == use.subnet and one.at != RELEASED for one in self._journal.uses.all())

    def abandon(self, before: float) -> None:
        """Release the pools that calls which failed half-way left without a network since then."""
        for use in self._journal.uses.all():
            if RELEASED < use.at < before and self.network(use.pool) is None:
                self.release(use.pool)

        given_back = [network for network in self._journal.networks.all() if self._is_given_back(network)]
        since = {one.network: self._given_back.get(one.network, self._now()) for one in given_back}
        self._given_back = since
        for network in given_back:
            if since[network.network] < before:
                self.on_given_back(network)

    def _is_given_back(self, network: Network) -> bool:
        """Did Docker release the pool of a network that stands, and is empty?

        It does so after a CreateNetwork that was not answered, which it follows with no DeleteNetwork, and just before
        a DeleteNetwork, which it never repeats. Nobody can start a container there.
        """
        use = self._journal.uses.get(network.pool) if network.pool is not None else None
        released = network.pool is not None and (use is None or use.at == RELEASED)
        return released and all(one.network != network.network for one in self._journal.endpoints.all())

    def _leave(self, subnet: Subnet, deadline: float) -> bool:
        held = self._records.pool(subnet, timeout=left(deadline))
        if held is None:
            return True
        users = tuple(host for host in held.value.users if host != self._records.me)
        new = msgspec.structs.replace(held.value, users=users)
        return self._records.write_pool(held, new, timeout=left(deadline))

    def use(self, pool: str) -> PoolUse:
        """What Docker was told under this pool id. Raises Unknown."""
        use = self._journal.uses.get(pool)
        if use is None:
            raise Unknown(f"pool {pool!r} is not one that this host was given")
        return use

    def network(self, pool: str) -> Network | None:
        """The network that stands on the pool, once it exists."""
        return next((network for network in self._journal.networks.all() if network.pool == pool), None)

    @contextmanager
    def _alone(self, deadline: float) -> Iterator[None]:
        if not self._choosing.acquire(timeout=left(deadline)):
            raise Late("another request for a pool takes too long: try again")
        try:
            yield
        finally:
            self._choosing.release()


def _pool_id(subnet: Subnet, within: Subnet | None) -> str:
    return f"{subnet.key}+{within.key}" if within else subnet.key
