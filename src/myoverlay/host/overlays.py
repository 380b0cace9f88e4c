"""The overlays of this host: which there are, how one is joined, and how one is left."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Callable, Collection

import msgspec

from myoverlay.errors import Clash, Late, MyoverlayError, Unavailable, Unknown
from myoverlay.host.converge import Converger
from myoverlay.host.deadline import check, left
from myoverlay.host.epoch import Epoch
from myoverlay.host.ground import Ground
from myoverlay.host.journal import Journal
from myoverlay.host.leases import Leases
from myoverlay.host.local import LocalOverlay
from myoverlay.host.pools import Pools
from myoverlay.host.request import Request
from myoverlay.host.underlay import Underlay
from myoverlay.kernel.links import Links
from myoverlay.plan import definition as plan
from myoverlay.store.records import Member, Records
from myoverlay.store.typed import Held
from myoverlay.values import Address, Definition, HostId, Network, OverlayName

log = logging.getLogger(__name__)

_BRIEFLY = 0.1


class Overlays:
    """All overlays of this host. `_lock` guards the tables; creating goes one at a time.

    `_doomed` are left overlays whose kernel side could not be taken away, `_going` those where somebody is just doing
    it, `_moved` those where the store is to be told this host's new VTEP.
    """

    def __init__(
        self,
        journal: Journal,
        records: Records,
        epoch: Epoch,
        pools: Pools,
        leases: Leases,
        links: Links,
        converger: Converger,
        underlay: Underlay,
        member: Callable[[Address], Member],
        vtep: str,
        port: int,
        eager: int,
    ) -> None:
        self._journal = journal
        self._records = records
        self._epoch = epoch
        self._pools = pools
        self._leases = leases
        self._links = links
        self._converger = converger
        self._underlay = underlay
        self._member = member
        self._vtep = vtep
        self._port = port
        self._eager = eager
        self._lock = threading.Lock()
        self._creating = threading.RLock()
        self._doomed: set[OverlayName] = set()
        self._going: set[OverlayName] = set()
        self._moved: set[OverlayName] = set()
        self._overlays: dict[str, LocalOverlay] = {}
        #: Called with an overlay that has an endpoint for the first time, and with one that goes.
        self.on_use: Callable[[LocalOverlay], None] = lambda _: None
        self.on_gone: Callable[[LocalOverlay], None] = lambda _: None
        #: Called with an overlay whose endpoints changed without a call from Docker.
        self.on_change: Callable[[LocalOverlay, Address], None] = lambda _, __: None
        #: Waits, so many seconds, until nothing of an overlay is being written to the store; is it so?
        self.rests: Callable[[OverlayName, float], bool] = lambda _, __: True
        #: Called when what an overlay holds, here or elsewhere, is not what it was.
        self.on_news: Callable[[], None] = lambda: None
        #: Why this host may not take part, in one sentence; None while it may.
        self.barred: Callable[[], str | None] = lambda: None
        self.dead_hosts: Callable[[], Collection[HostId]] = frozenset

    # -- looking up ------------------------------------------------------------------------------------------------

    def all(self) -> tuple[LocalOverlay, ...]:
        with self._lock:
            return tuple(self._overlays.values())

    def of(self, network: str) -> LocalOverlay:
        found = self.find(network)
        if found is None:
            raise Unknown(f"network {network[:12]} is not one of this host: remove it and create it again")
        return found

    def find(self, network: str) -> LocalOverlay | None:
        with self._lock:
            return self._overlays.get(network)

    def named(self, overlay: OverlayName) -> LocalOverlay | None:
        return next((one for one in self.all() if one.network.overlay == overlay), None)

    def is_sure(self, local: LocalOverlay, address: Address) -> bool:
        """Is the address a container's of this host, whatever the store says next? Leased, and nobody else has it."""
        lease, view = self._journal.leases.get(f"{local.network.subnet.key}/{address}"), local.view
        return lease is not None and lease.use == "endpoint" and view.complete and address not in view.peers

    def _local(self, network: Network) -> LocalOverlay:
        on_news, dead = lambda: self.on_news(), lambda: self.dead_hosts()
        return LocalOverlay(network, self._journal, self._converger, self._eager, on_news, dead)

    def check_allowed(self) -> None:
        """Raises Clash while this host may not take part."""
        reason = self.barred()
        if reason is not None:
            raise Clash(reason)

    # -- networks --------------------------------------------------------------------------------------------------

    def restore(self, deadline: float) -> None:
        """Rebuild everything from the journal, without the store.

        A network whose kernel side cannot be built stays known and is built at its next use.
        """
        self._attempt("leftover namespaces", lambda: self.sweep(deadline))
        for network in self._journal.networks.all():
            with self._lock:
                self._overlays[network.network] = self._local(network)
        self._attempt("this host's address", lambda: self._underlay.follow(self.all(), deadline))
        for local in self.all():
            try:
                local.build(deadline)
            except MyoverlayError as error:
                log.error("overlay %s is not rebuilt yet: %s", local.network.overlay, error)
                continue
            self.bury(local, owed=not local.is_born)
            if local.endpoints() or local.has_rows:
                # Rows that a former run left are to be kept true, whether anybody here uses them or not.
                self.on_use(local)

    @staticmethod
    def _attempt(what: str, act: Callable[[], None]) -> None:
        """At start nothing keeps the networks from being rebuilt; the reconciler tries again."""
        try:
            act()
        except MyoverlayError as error:
            log.error("%s: looked at again later: %s", what, error)

    def bury(self, local: LocalOverlay, owed: bool = True) -> None:
        """Forget an overlay's endpoints that died with their container, and free their addresses: slowly where `owed`.

        After a power loss or a crash Docker sends no clean-up calls to a legacy plugin name. One that had not joined
        is what a killed CreateEndpoint left: Docker may repeat that call, so its address is not given to others yet.
        """
        for endpoint in local.bury():
            log.warning("endpoint %s (%s) died with its container", endpoint.endpoint[:12], endpoint.address)
            if endpoint.joined:
                self._leases.free(local.network.pool, endpoint.address, owed=owed)
            self.on_change(local, endpoint.address)

    def abandon(self, local: LocalOverlay, endpoint: str, deadline: float) -> None:
        """Forget an endpoint whose interface nobody took, with its cable, and free its address."""
        gone = local.delete_endpoint(endpoint, deadline)
        if gone is not None:
            log.warning("endpoint %s (%s) was never taken by a container: it goes", endpoint[:12], gone.address)
            self._leases.free(local.network.pool, gone.address)
            self.on_change(local, gone.address)

    def create(self, request: Request, deadline: float) -> LocalOverlay:
        """A network of this host joins its overlay, which is defined if nobody has. The same call again finds it."""
        self.check_allowed()
        if not self._creating.acquire(timeout=max(0.0, deadline - time.monotonic())):
            raise Late("another network is being created: try again")
        try:
            known = self.find(request.network)
            return known if known is not None else self._create(request, deadline)
        finally:
            self._creating.release()

    def _create(self, request: Request, deadline: float) -> LocalOverlay:
        use = self._pools.use_of(request.subnet)
        name = plan.name_of(
            request.options.overlay, use.overlay if use else None, request.subnet, use.written if use else None
        )
        other = self.named(name)
        if other is not None:
            raise Clash(f"overlay {name} is joined already by network {other.network.network[:12]} of this host")
        vtep, underlay, mtu = self._links.address_of(request.options.vtep or self._vtep, deadline=deadline)
        if use is not None:
            self._pools.bind(use, name, deadline)
        held = self._agree(name, request, vtep, mtu, underlay, deadline)
        network = request.network_of(held.value, vtep, underlay, use, self._journal.networks.all())
        local = self._local(network)
        try:
            local.build(deadline)
        except BaseException:
            self._part(held.value, deadline)
            raise
        self._journal.networks.put(network.network, network)
        self._journal.leaving.drop(name)
        with self._lock:
            self._overlays[network.network] = local
        self._leases.wanted.set()
        return local

    def reassert(self, local: LocalOverlay, deadline: float) -> None:
        """See to it that the store has the overlay as this host holds it, and this host in it.

        Raises Clash where the store has come to say something else: what runs here is left as it is.
        """
        network, mine = local.network, local.network.definition
        member = self._member(network.vtep)
        for tries in itertools.count(1):
            held = self._records.definition(network.overlay, strict=True, timeout=left(deadline))
            if held is None:
                alone = msgspec.structs.replace(mine, holders=(self._records.me,))
                failed = self._records.found(alone, member, timeout=left(deadline))
                if failed is None:
                    return
                if failed == "vni":
                    raise self._vni_clash(mine.vni, deadline)
            else:
                plan.check_same(mine, held.value)
                if self._records.is_member(held, member, timeout=left(deadline)):
                    return
                if self._records.join(held, member, timeout=left(deadline)):
                    return
            check(deadline, f"overlay {network.overlay}", tries)

    def _agree(
        self, name: OverlayName, request: Request, vtep: Address, mtu: int, underlay: str, deadline: float
    ) -> Held[Definition]:
        """Join the overlay as it is defined, or define it. Raises Refused or Clash with both values.

        Before the store is written to it is noted that the overlay is to be left: whatever happens until the network
        is in the journal (a write that was not answered, the end of this process), the background takes it back.
        """
        member = self._member(vtep)
        while True:
            held = self._records.definition(name, strict=True, timeout=left(deadline))
            if held is None:
                new = self._propose(name, request, plan.carries(mtu, vtep), deadline)
                plan.check_fits(new, plan.carries(mtu, vtep), f"{underlay} of this host")
                self._journal.leaving.put(name, new)
                failed = self._records.found(new, member, timeout=left(deadline))
                if failed is None:
                    return Held(new, 0)
                if failed == "vni" and request.options.vni is not None:
                    raise self._vni_clash(request.options.vni, deadline)
                continue
            plan.agree(held.value, request.options, request.subnet, request.gateway)
            plan.check_fits(held.value, plan.carries(mtu, vtep), f"{underlay} of this host")
            self._check_paths(held.value, deadline)
            self._journal.leaving.put(name, held.value)
            if self._records.join(held, member, timeout=left(deadline)):
                return held

    def _propose(self, name: OverlayName, request: Request, carried: int, deadline: float) -> Definition:
        options = request.options
        vni = options.vni
        if vni is None:
            taken = self._records.vnis(timeout=left(deadline))
            vni = next(vni for vni in plan.vnis(name) if vni not in taken)
        return Definition(
            overlay=name,
            subnet=request.subnet,
            gateway=request.gateway,
            vni=vni,
            mtu=options.mtu or carried,
            port=options.port or self._port,
            records=options.records,
            holders=(self._records.me,),
        )

    def _vni_clash(self, vni: int, deadline: float) -> Clash:
        vnis = self._records.vnis(timeout=left(deadline))
        holder = vnis.get(vni)
        if holder is None and vni in vnis:
            return plan.vni_taken(vni, f"the key {self._records.key('vni', vni)}, which cannot be read")
        return plan.vni_taken(vni, f"overlay {holder.overlay}" if holder else "another overlay")

    def _check_paths(self, definition: Definition, deadline: float) -> None:
        for host, member in self._records.members(definition.overlay, timeout=left(deadline)).items():
            if host != self._records.me:
                carried = plan.carries(self._links.route_mtu(member.vtep, deadline=deadline), member.vtep)
                plan.check_fits(definition, carried, f"the route to host {member.name} ({member.vtep})")

    def delete(self, network: str, deadline: float) -> None:
        """The network goes, and with the last host its overlay. Unknown networks are gone already.

        With the store away this succeeds, and the store is told later.
        """
        with self._lock:
            local = self._overlays.pop(network, None)
            if local is None:
                return
            self._going.add(local.network.overlay)
        self._journal.leaving.put(local.network.overlay, local.network.definition)
        # The network last: as long as it is there nobody is given its pool, and the addresses, anew.
        for endpoint in self._journal.endpoints.all():
            if endpoint.network == network:
                self._leases.free(local.network.pool, endpoint.address)
                self._journal.endpoints.drop(endpoint.endpoint)
        self._journal.networks.drop(network)
        self.on_gone(local)
        try:
            local.remove(deadline)
        except MyoverlayError as error:
            log.error("overlay %s is taken away later: %s", local.network.overlay, error)
            with self._lock:
                self._doomed.add(local.network.overlay)
        finally:
            with self._lock:
                self._going.discard(local.network.overlay)
        self._part(local.network.definition, deadline)

    def sweep(self, deadline: float) -> None:
        """Take away namespaces that no network names: a network's that Docker removed while we could not, or a creation
        that ended half-way. Across a restart nothing but the pin remembers them.

        Never beside a creation, whose network is not in the journal yet.
        """
        if not self._creating.acquire(blocking=False):
            return
        try:
            with self._lock:
                doomed, going = set(self._doomed), set(self._going)
            asked = {network.overlay for network in self._journal.networks.all()}
            left = {gone.overlay for gone in self._journal.leaving.all()}
            for name in self._converger.sweep(asked | going, doomed - asked, left, deadline):
                with self._lock:
                    self._doomed.discard(name)
        finally:
            self._creating.release()

    def unclaimed(self) -> set[str]:
        """Containers' ends that lie in the host's namespace, by name."""
        return self._converger.unclaimed()

    def drop_loose(self, names: Collection[str], of: int, deadline: float) -> None:
        """Remove those of the cables that are nobody's."""
        self._converger.drop_loose(names, of, deadline)

    def _part(self, definition: Definition, deadline: float) -> None:
        """Leave an overlay in the store now, or have it done in the background."""
        self._journal.leaving.put(definition.overlay, definition)
        try:
            self.settle(min(deadline, time.monotonic() + 2.0))
        except (Unavailable, Late) as error:
            log.info("leaving overlay %s will be told later: %s", definition.overlay, error)
        self._leases.wanted.set()

    def settle(self, deadline: float) -> None:
        """Tell the store which overlays this host has left. Raises Unavailable or Late when it could not be told.

        Never beside a creation: that may be joining the very overlay again.
        """
        if not self._creating.acquire(timeout=_BRIEFLY):
            raise Late("a network is being created: what was left is told afterwards")
        try:
            for gone in self._journal.leaving.all():
                if self.named(gone.overlay) is None:
                    self._leave(gone, deadline)
                self._journal.leaving.drop(gone.overlay)
        finally:
            self._creating.release()

    def disown(self, deadline: float) -> None:
        """See that what the store says this host takes part in, and Docker has removed, is left: a snapshot brought it
        back. Raises Unavailable or Late.
        """
        for holder in self._records.vnis(timeout=left(deadline)).values():
            if holder is None or self.named(holder.overlay) is not None:
                continue
            held = self._records.definition(holder.overlay, timeout=left(deadline))
            if held is not None and self._records.me in held.value.holders and self.named(holder.overlay) is None:
                self._journal.leaving.put(holder.overlay, held.value)
                self._leases.wanted.set()

    def moved(self, local: LocalOverlay) -> None:
        """This host has another VTEP there: the members' list is to say so."""
        with self._lock:
            self._moved.add(local.network.overlay)
        self._leases.wanted.set()

    def tell_moved(self, deadline: float) -> None:
        """Write this host's new VTEPs into the members' lists. Raises Unavailable or Late when it could not be told."""
        for overlay in tuple(self._moved):
            local = self.named(overlay)
            if local is not None and not self._tell_member(local.network, deadline):
                continue  # the definition changed meanwhile: the next round
            with self._lock:
                self._moved.discard(overlay)

    def _tell_member(self, network: Network, deadline: float) -> bool:
        held = self._records.definition(network.overlay, timeout=left(deadline))
        return held is None or self._records.join(held, self._member(network.vtep), timeout=left(deadline))

    def depart(self, deadline: float) -> None:
        """Take no more part in any overlay, as the store has it; networks and namespaces stay. Raises as `settle`."""
        for local in self.all():
            self._leave(local.network.definition, deadline)

    def _leave(self, known: Definition, deadline: float) -> None:
        overlay = known.overlay
        if not self.rests(overlay, _BRIEFLY):
            raise Late(f"overlay {overlay} is being published: that it is left is told afterwards")
        nothing = Held(msgspec.structs.replace(known, holders=()), 0)
        while True:
            # What was rolled back may not name this host, or have no such overlay, and hold what it wrote since.
            held = self._records.definition(overlay, timeout=left(deadline)) or nothing
            withdrawn = self._records.withdraw(held.value, self._epoch.id, timeout=left(deadline))
            if withdrawn and self._records.leave(held, timeout=left(deadline)):
                return

    # -- the kernel's questions ------------------------------------------------------------------------------------

    def by_socket(self) -> dict[int, tuple[LocalOverlay, Ground]]:
        """Which overlay, and which ground of it, the miss socket with this number belongs to."""
        grounds = ((local, local.ground) for local in self.all())
        return {ground.misses.fileno(): (local, ground) for local, ground in grounds if ground is not None}
