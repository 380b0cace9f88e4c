"""What dead hosts leave in the store: their addresses become free, their lists and memberships go.

A host is buried by whoever shares an overlay with it, once it was dead for the lease grace, as far as they share one.
Somebody else may still hear a host that this one cannot reach: who hears one that is cut off from the store says so
there (`witness`), and that stops the clock of everybody.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable

import msgspec

from myoverlay.errors import Clash, Unknown
from myoverlay.host.deadline import check, left
from myoverlay.host.epoch import Epoch
from myoverlay.host.peers import Fates, PeerWatch
from myoverlay.plan.fates import State
from myoverlay.store.estate import Estate, named
from myoverlay.store.presence import Presence
from myoverlay.store.records import Records
from myoverlay.values import HostId, OverlayName, Subnet

log = logging.getLogger(__name__)


class Buried(msgspec.Struct, frozen=True):
    """What `forget` took away. `kept`: keys below this stay, because this host's token may not write them."""

    host: HostId
    name: str
    overlays: tuple[OverlayName, ...]
    pools: tuple[Subnet, ...]
    kept: str = ""


class Graves:
    """Used by the reconciler's thread, and by `forget` from a call; both only do what may be done twice."""

    def __init__(
        self,
        records: Records,
        presence: Presence,
        watch: PeerWatch,
        fates: Fates,
        epoch: Epoch,
        pool_of: Callable[[OverlayName], Subnet | None],
        lease_grace: float,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._records = records
        self._presence = presence
        self._watch = watch
        self._fates = fates
        self._epoch = epoch
        self._pool_of = pool_of
        self._every = lease_grace / 4
        self._now = now
        self._said_at: dict[HostId, float] = {}
        self._said_under = ""
        self._seen: dict[HostId, str | None] = {}
        self._listening = now()
        #: Dead hosts whose burial was told. It is done again while anybody calls them dead: it may not have been whole.
        self._buried: set[HostId] = set()
        #: Those of them whose own keys stay in the store: there is nothing more that may be done.
        self._kept: set[HostId] = set()

    def listen_anew(self) -> None:
        """The store was away: who hears one of the dead could not say so, and is given the time to."""
        self._listening = self._now()

    def settle(self, deadline: float) -> None:
        """Witness for hosts that are cut off, bury those whose time is over. Raises Unavailable or Late.

        A store that lost something may have lost what others said: it is said again, and nobody is buried until the
        doubt is over. Nor is anybody until the store was there for twice the time in which each word is said again.
        """
        if self._said_under != self._epoch.id:
            self._said_at, self._said_under = dict.fromkeys(self._said_at, -self._every), self._epoch.id
        for host in self._fates.cut_off():
            if self._now() - self._said_at.get(host, -self._every) >= self._every:
                self._presence.bear_witness(host, timeout=left(deadline))
                self._said_at[host] = self._now()
        fates = self._fates.all()
        # They are back, or left for good; what was said in the meantime would stay.
        self._retract(
            [host for host in tuple(self._said_at) if host not in fates or fates[host].state is State.ALIVE], deadline
        )
        dead = {host for host, fate in fates.items() if fate.state is State.DEAD}
        self._seen = {host: seen for host, seen in self._seen.items() if host in dead}
        self._buried &= dead
        self._kept &= dead
        for host in dead - self._seen.keys():
            self._seen[host] = self._presence.witness(host, timeout=left(deadline))
        if self._epoch.in_doubt() or self._now() - self._listening < 2 * self._every:
            return
        for host in (self._fates.expired() & self._seen.keys()) - self._kept:
            self._bury_or_wait(host, deadline)

    def retract(self, deadline: float) -> None:
        """Be nobody's witness any more, for a host that leaves. Raises Unavailable or Late."""
        self._retract(tuple(self._said_at), deadline)

    def _retract(self, hosts: Iterable[HostId], deadline: float) -> None:
        for host in hosts:
            self._presence.end_witness(host, timeout=left(deadline))
            self._said_at.pop(host, None)

    def _bury_or_wait(self, host: HostId, deadline: float) -> None:
        witness = self._presence.witness(host, timeout=left(deadline))
        if witness != self._seen[host]:
            log.warning("host %s is dead to this one, but another hears it: it keeps its addresses", self._name(host))
            self._fates.respite(host)
            self._seen[host] = witness
            return
        overlays = self._watch.sharing().get(host, frozenset())
        pools = {pool for pool in map(self._pool_of, overlays) if pool is not None}
        self._bury(Estate(self._records, self._presence, host), overlays, pools, deadline)
        self._watch.refresh()

    def _bury(self, estate: Estate, overlays: Iterable[OverlayName], pools: Iterable[Subnet], deadline: float) -> bool:
        """First the lists, so that nobody has rows any more, then the addresses; False where the host is back."""
        for overlay in overlays:
            while not estate.leave(overlay, self._epoch.id, timeout=left(deadline)):
                if self._is_back(estate.host, deadline):
                    return False
                check(deadline, f"overlay {overlay}")
        for pool in pools:
            while not estate.leave_pool(pool, timeout=left(deadline)):
                if self._is_back(estate.host, deadline):
                    return False
                check(deadline, f"pool {pool}")
        estate.leave_networks(timeout=left(deadline))
        self._presence.end_witness(estate.host, timeout=left(deadline))
        if estate.host not in self._buried:
            log.warning(
                "host %s is buried: its addresses are free%s",
                self._name(estate.host),
                f"; the keys below {estate.kept} stay, the token may not delete them" if estate.kept else "",
            )
        if estate.kept:
            self._kept.add(estate.host)
        self._buried.add(estate.host)
        return True

    def _is_back(self, host: HostId, deadline: float) -> bool:
        return bool(self._presence.alive_of([host], timeout=left(deadline)))

    def _name(self, host: HostId) -> str:
        return self._watch.known.names.get(host, host.short)

    def forget(self, name: str, force: bool, deadline: float) -> Buried:
        """Bury a host at once, on a person's word. `name`: its name, or its id or the start of it.

        Raises Unknown where there is none, Clash where it is alive, or answers the heartbeat and `force` is not given.
        """
        host, called = self._find(name, deadline)
        alive = Clash(f"host {name} is alive: stop its plugin, or run `myoverlay host leave` there")
        if self._is_back(host, deadline):
            raise alive
        fate = self._fates.fate(host)
        if fate is not None and fate.state is not State.DEAD and not force:
            raise Clash(
                f"host {name} is {fate.state.value}: its containers may still run and be reached; --force forgets it"
                " all the same"
            )
        estate = Estate(self._records, self._presence, host)
        overlays, pools = estate.overlays(timeout=left(deadline)), estate.pools(timeout=left(deadline))
        if not self._bury(estate, overlays, pools, deadline):
            raise alive
        self._watch.refresh()
        return Buried(host, called, tuple(sorted(overlays)), tuple(sorted(pools)), estate.kept)

    def _find(self, name: str, deadline: float) -> tuple[HostId, str]:
        """Which host is meant, and what it is called: by who was there and whom the store names anywhere."""
        names = named(self._records, timeout=left(deadline)) | dict(self._watch.known.names)
        hosts = names.keys() - {self._records.me}
        found = {host for host in hosts if names[host] == name != ""}
        found = found or {host for host in hosts if len(name) >= 6 and host.startswith(name)}
        if not found:
            raise Unknown(f"no host is called {name!r}, and no id begins so: `myoverlay host ls` names those known")
        if len(found) > 1:
            ids = ", ".join(sorted(host.short for host in found))
            raise Clash(f"{len(found)} hosts are called {name}: use an id, one of {ids}")
        host = found.pop()
        return host, names.get(host) or host.short
