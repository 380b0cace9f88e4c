"""One overlay as this host holds it: its endpoints, its peers, its kernel side, under one lock."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

import msgspec

from myoverlay.errors import Clash, KernelRefused, Late, Unknown
from myoverlay.host import hearsay
from myoverlay.host.converge import Converger
from myoverlay.host.ground import Ground
from myoverlay.host.journal import Journal
from myoverlay.host.programming import Programming
from myoverlay.host.view import View
from myoverlay.kernel.netns import Namespace
from myoverlay.plan import shape, signposts
from myoverlay.plan.claims import Said, said_outside
from myoverlay.plan.guard import live
from myoverlay.plan.newcomer import check_newcomer
from myoverlay.store.typed import Held
from myoverlay.values import COUNT_LIMIT, Address, Endpoint, HostId, HostList, Mac, Network, Peer, Record

log = logging.getLogger(__name__)

T = TypeVar("T")

#: How many looks for dead containers an endpoint outlives that Docker is deleting: a minute of rounds.
LEFT = 20


class LocalOverlay:
    """One overlay as this host holds it.

    `_lock` guards the ground, the view's replacement and the journal's endpoints of this overlay; it is never held
    across a store call, and never together with another overlay's.
    """

    def __init__(
        self,
        network: Network,
        journal: Journal,
        converger: Converger,
        eager: int,
        on_news: Callable[[], None] = lambda: None,
        dead: Callable[[], Collection[HostId]] = frozenset,
    ) -> None:
        """`on_news`: called, also with the lock held, when endpoints anywhere changed. `dead`: hosts that are so."""
        self.network = network
        self._on_news = on_news
        self._dead = dead
        self.view = View()
        #: Set when all peers were listed once; what is heard of one host before that sets nothing.
        self.listed, self._has_listing = threading.Event(), False
        self._journal = journal
        self._converger = converger
        self._programming = Programming(converger, eager, self.present)
        self._lock = threading.RLock()
        self._ground: Ground | None = None
        #: Endpoints that Docker is about to delete itself, and how often they are still passed over.
        self._left: dict[str, int] = {}
        self._removed = False
        #: Who may send to this host, by the view; None where that is to be gathered.
        self._live: frozenset[Address] | None = None
        #: Endpoints that a former run of ours made.
        self._inherited = frozenset(one.endpoint for one in self.endpoints())

    # -- life ------------------------------------------------------------------------------------------------------

    def build(self, deadline: float) -> None:
        """Make the kernel's side, or adopt it."""
        with self._locked(deadline):
            self._stand(deadline)

    def _stand(self, deadline: float) -> Ground:
        if self._removed:
            raise Unknown(f"overlay {self.network.overlay} was taken away from this host")
        if self._ground is None:
            self._ground = self._converger.overlay(self.network, self.endpoints(), deadline)
            self._programming.meet(self._ground)
            self._let_in(True, self.view.complete)
            self._lead(self._ground)
        return self._ground

    def check(self, deadline: float) -> bool:
        """Compare the kernel's side with what is wanted, in both directions, and put it right; build what is missing.

        Looks without the lock, and takes it only where something is wrong. True where endpoints died with their
        container, so that somebody should `bury` them.
        """
        with self._locked(deadline):
            if self._removed:
                return False
            ground = self._stand(deadline)
            self._converger.keep_pinned(ground, self.network.overlay)
        try:
            finding = self._converger.inspect(ground, self.network, self.endpoints(), deadline)
            if finding.wrong:
                self._mend(ground, deadline)
            self._bind(ground, deadline)
            with self._locked(deadline):
                self._lead(ground)
            self.compare()
        except (ValueError, KernelRefused):
            if self._ground is ground:
                raise
            return False  # closed under our hands: the network was removed meanwhile
        return finding.dead

    def _mend(self, ground: Ground, deadline: float) -> None:
        with self._locked(deadline):
            if self._ground is ground:
                self._ground = self._converger.mend(ground, self.network, self.endpoints(), deadline)

    def _bind(self, ground: Ground, deadline: float) -> None:
        """See that containers are bound to their addresses. Looks without the lock, as `check`."""
        binding = self._converger.binding
        if binding is not None and not binding.is_as_left(ground.bound, ground.overlay):
            with self._locked(deadline):
                if self._ground is ground:
                    binding.check(ground.bound, ground.overlay, self.endpoints())

    def _lead(self, ground: Ground) -> None:
        """See that the way to the outside is there."""
        if self._converger.egress is not None and self._ground is ground:
            self._converger.egress.lead(ground.namespace, self.network)

    @property
    def gateway(self) -> Address | None:
        """By which address its containers reach the outside; None where Docker's own bridge leads there."""
        return self._converger.egress.gateway(self.network) if self._converger.egress is not None else None

    def move(self, network: Network, deadline: float) -> None:
        """From now on this host has another VTEP there: the device is made anew, its rows are kept."""
        with self._locked(deadline):
            self._journal.networks.change(network.network, lambda known: network if known is not None else None)
            self.network = network
            if self._ground is not None:
                self._ground = self._converger.mend(self._ground, network, self.endpoints(), deadline)

    def bury(self) -> list[Endpoint]:
        """Forget endpoints whose cable is gone: their container's namespace took it along when it died.

        One that Docker has called Leave for is passed over for some rounds: its DeleteEndpoint and ReleaseAddress
        follow, and a release that comes late would free the address of whoever has been given it meanwhile.
        """
        with self._lock:
            if self._ground is None:
                return []
            self._converger.cabling.look(self._ground)
            gone = [one for one in self.endpoints() if one.port not in self._ground.ports | self._ground.coming.keys()]
            dead = [one for one in gone if not self._left.get(one.endpoint)]
            self._left = {one.endpoint: self._left[one.endpoint] - 1 for one in gone if self._left.get(one.endpoint)}
            for endpoint in dead:
                self._journal.endpoints.drop(endpoint.endpoint)
            if dead:
                self._programming.own(self._ground, self.view, dead)
            for endpoint in dead:
                self._programming.tell_peer(self._ground, self.view, endpoint.address)
            self._on_news()
            return dead

    def remove(self, deadline: float) -> None:
        """Take the kernel's side away."""
        with self._locked(deadline):
            self._removed = True
            ground, self._ground = self._ground, None
            self._converger.nothing(ground, self.network.overlay, deadline)

    def vacate(self, deadline: float) -> bool:
        """Take the kernel's side away if no endpoint needs it, until the next start; True where it went."""
        with self._locked(deadline):
            if self.endpoints():
                return False
            self.remove(deadline)
            return True

    def close(self) -> None:
        """Let go of the kernel's side; it stays as it is."""
        with self._lock:
            ground, self._ground = self._ground, None
            if ground is not None:
                ground.close()

    # -- endpoints -------------------------------------------------------------------------------------------------

    def endpoints(self) -> list[Endpoint]:
        return [one for one in self._journal.endpoints.all() if one.network == self.network.network]

    def records(self) -> tuple[Record, ...]:
        """This host's endpoints as the others are told them."""
        return _records(self.endpoints())

    def present(self) -> tuple[Record, ...]:
        """Those that have joined, so that they are reached over the bridge.

        Before that another host may still have the address, and be in the right: its rows stay until Join.
        """
        return _records(one for one in self.endpoints() if one.joined)

    def endpoint(self, endpoint: str) -> Endpoint:
        """Raises Unknown."""
        known = self._journal.endpoints.get(endpoint)
        if known is None:
            raise Unknown(f"endpoint {endpoint[:12]} does not exist on overlay {self.network.overlay}")
        return known

    def add_endpoint(
        self,
        endpoint: str,
        address: Address,
        mac: Mac | None,
        now: int,
        deadline: float,
        names: tuple[str, ...] = (),
    ) -> Endpoint:
        """An endpoint, and its cable begun. The same call again finds it; `now` is the least generation, in ms."""
        with self._locked(deadline):
            known = self._journal.endpoints.get(endpoint)
            new = Endpoint(
                endpoint=endpoint,
                network=self.network.network,
                address=address,
                mac=mac or Mac.of(address),
                generation=self._generation(address, now),
                names=names,
            )
            if known is not None:
                if (known.network, known.address, known.mac) != (new.network, new.address, new.mac):
                    raise Clash(f"endpoint {endpoint[:12]} exists with {known.address} and {known.mac}")
                new = known
            else:
                self._make_room(new)
                check_newcomer(new, self.network.definition, self.endpoints())
            self._journal.endpoints.put(endpoint, new)
            try:
                ground = self._stand(deadline)
                self._converger.cabling.begin(ground, self.network, new, self.endpoints, deadline)
            except BaseException:
                if known is None:
                    self._journal.endpoints.drop(endpoint)
                raise
            return new

    def _generation(self, address: Address, now: int) -> int:
        peer = self.view.peers.get(address)
        return max(now, min(peer.generation + 1, COUNT_LIMIT) if peer else 0)

    def _make_room(self, new: Endpoint) -> None:
        """A container that died with its engine keeps no address: Docker may start it anew before we noticed."""
        if any(other.address == new.address or other.mac == new.mac for other in self.endpoints()):
            self.bury()

    @property
    def resolver(self) -> Address | None:
        """Where this overlay's containers ask for names; None where they are not answered."""
        return shape.resolver_in(self.network, self._converger.resolver)

    def join(self, endpoint: str, deadline: float, sandbox: str = "") -> Endpoint:
        """Docker is about to put the endpoint's interface into a container, that of the sandbox."""
        self._converger.cabling.expect(self._ground, self.endpoint(endpoint), deadline)
        with self._locked(deadline):
            known, ground = self.endpoint(endpoint), self._stand(deadline)
            self._converger.cabling.begin(ground, self.network, known, self.endpoints, deadline)
            self._converger.cabling.finish(ground, known, deadline)
            with self._journal.lock:  # the container's other networks must not get the same route
                known = self.endpoint(endpoint)
                route = signposts.length_for(known, sandbox, self._journal.endpoints.all()) if self.resolver else 0
                joined = msgspec.structs.replace(known, joined=True, sandbox=sandbox, route=route)
                self._journal.endpoints.put(endpoint, joined)
            self._programming.own(ground, self.view, [joined])
            self._on_news()
            self._programming.tell_own(ground, joined)
            return joined

    def name(self, endpoint: str, names: tuple[str, ...]) -> bool:
        """Docker says what the endpoint's container is called; is that news?"""
        with self._journal.lock:
            known = self._journal.endpoints.get(endpoint)
            if known is None or known.network != self.network.network or known.names == names:
                return False
            self._journal.endpoints.put(endpoint, msgspec.structs.replace(known, names=names))
        self._on_news()
        return True

    def leave(self, endpoint: str, deadline: float) -> None:
        """The container goes: take the cable by our end, wherever the other is. Unknown endpoints have left already."""
        with self._locked(deadline):
            known = self._journal.endpoints.get(endpoint)
            if known is not None and self._ground is not None:
                self._left[endpoint] = LEFT
                self._converger.cabling.without(self._ground, known, deadline)

    def delete_endpoint(self, endpoint: str, deadline: float) -> Endpoint | None:
        """Forget an endpoint, with its cable. Returns what it was, None where it is unknown."""
        with self._locked(deadline):
            known = self._journal.endpoints.drop(endpoint)
            if known is not None and self._ground is not None:
                self._converger.cabling.without(self._ground, known, deadline)
                self._programming.own(self._ground, self.view, [known])
                self._programming.tell_peer(self._ground, self.view, known.address)
            self._on_news()
            return known

    def drop_unanswered(self, address: Address, deadline: float) -> Endpoint | None:
        """Forget an endpoint of a former run that no container has; None where there is none with this address."""
        with self._locked(deadline):
            old = [one for one in self.endpoints() if one.address == address and one.endpoint in self._inherited]
            if not old or self._ground is None:
                return None
            idle = self._converger.cabling.outside(self._ground, deadline)
            return next((self.delete_endpoint(one.endpoint, deadline) for one in old if one.port in idle), None)

    # -- peers -----------------------------------------------------------------------------------------------------

    def learn(
        self,
        lists: Mapping[HostId, Held[HostList]],
        anew: bool,
        left: Collection[HostId] = (),
        incarnation: str = "",
        doubt: bool = False,
    ) -> None:
        """These hosts' lists read so, and these hosts have left the overlay: program it. `anew`: these are all.

        A list read before a newer one is passed over. One not written under the store's `incarnation` withdraws
        nothing: a snapshot may have brought it back.
        """
        with self._lock:
            self._has_listing = self._has_listing or anew
            before = self.view.lists
            after = hearsay.heard(before, lists, anew, left, incarnation, doubt)
            hosts = {*lists, *left}
            said = hearsay.news(self.network.definition, hosts, before, after)
            self._programming.accused = hearsay.accused(self._programming.accused, hosts, before, after)
            if anew or hearsay.have_moved(hosts, before, after):
                self._live = None
            self._see(msgspec.structs.replace(self.view, lists=after), said, whole=anew and not doubt)

    def learn_outsiders(self, outsiders: tuple[Peer, ...]) -> None:
        """These are all outsiders: program them."""
        with self._lock:
            said = said_outside(self.view.outsiders or (), outsiders)
            self._live = None
            self._see(msgspec.structs.replace(self.view, outsiders=outsiders), [said], self.view.whole)

    def judge(self) -> None:
        """Another host is dead by now, or is no more: what others claim of it is judged anew."""
        with self._lock:
            self._see(self.view, None, self.view.whole)

    def _see(self, view: View, said: Iterable[Said] | None, whole: bool) -> None:
        """From now on this is known: `view`, and what was `said` otherwise than before (None: others are dead now)."""
        before, dead = self.view, self._dead()
        touched = self._programming.judge(dead) if said is None else self._programming.hear(said, dead)
        listed = self._has_listing and (view.outsiders is not None or not self.network.outsiders)
        # What the kernel holds from before this run may be all that is left of peers whom the store lost.
        whole = whole or view.whole
        peers = self._programming.claims
        self.view = View(view.lists, view.outsiders, peers.peers, peers.macs, listed and whole, whole, peers)
        if self._ground is not None:
            moved = self._live is None or self.view.complete != before.complete
            self._let_in(moved, complete=False)
            self._programming.follow(self._ground, before, self.view, touched)
            self._let_in(moved, self.view.complete)
        self._programming.listed = self._has_listing
        if listed:
            self.listed.set()
        self._on_news()

    def _let_in(self, moved: bool, complete: bool) -> None:
        """See that the guard lets in who is known to be there; where that is complete, nobody else."""
        guard = self._converger.guard
        if guard is None or not moved:
            return
        if self._live is None:
            self._live = live(self.view.lists or {}, self.view.outsiders or ())
        (guard.keep if complete else guard.admit)(self.network.overlay, self._live)

    def answer(self, peer: Peer, learned: bool = False) -> None:
        """Somebody here asked for this peer, of whom the store told since (`learned`), or not."""
        with self._lock:
            if self._ground is not None:
                self._programming.answer(self._ground, peer, self.view if learned else None)

    def compare(self) -> int:
        """Compare the tables with what is wanted and put them right; returns how many rows that took."""
        ground, complete = self._ground, self.view.complete
        if ground is None or not self._converger.has_strayed(
            ground, self._programming.wanted(self.view), complete, self.present()
        ):
            return 0
        with self._lock:
            if self._ground is not ground:
                return 0
            want, complete = self._programming.wanted(self.view), self.view.complete
            return self._converger.compare(ground, self.network, want, complete, self.present())

    @property
    def eager(self) -> bool:
        """Are the peers programmed before anybody asks?"""
        return self._programming.is_eager(self.view)

    @property
    def has_rows(self) -> bool:
        """Are peers programmed, by whichever run of ours?"""
        ground = self._ground
        return ground is not None and bool(ground.rows.neigh or ground.rows.fdb)

    @property
    def ground(self) -> Ground | None:
        return self._ground

    def inside(self, act: Callable[[Namespace], T], deadline: float) -> T | None:
        """Do something with the namespace, which is not taken away meanwhile; None where it is not there."""
        with self._locked(deadline):
            return act(self._ground.namespace) if self._ground is not None else None

    @property
    def unbound(self) -> str:
        """Why its containers may speak under any address though they should not, in one sentence; else empty."""
        binding = self._converger.binding
        return binding.trouble.get(self.network.overlay, "") if binding is not None else ""

    @property
    def is_born(self) -> bool:
        """Was its namespace made by this run? Then all that was in one of before died with the power."""
        return self._ground is not None and self._ground.born

    @contextmanager
    def _locked(self, deadline: float) -> Iterator[None]:
        if not self._lock.acquire(timeout=max(0.0, deadline - time.monotonic())):
            raise Late(f"overlay {self.network.overlay} is busy: try again")
        try:
            yield
        finally:
            self._lock.release()


def _records(endpoints: Iterable[Endpoint]) -> tuple[Record, ...]:
    return tuple(
        Record(address=one.address, mac=one.mac, generation=one.generation, names=one.names)
        for one in sorted(endpoints, key=lambda one: one.address.number)
    )
