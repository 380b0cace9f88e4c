"""Readings of the store: from the daemon, and from a command's own process where there is no daemon."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from myoverlay.errors import Denied, MyoverlayError, Unavailable
from myoverlay.operate.doctor import Readings
from myoverlay.plan import check_store
from myoverlay.store.estate import named
from myoverlay.store.metered import consul_behind
from myoverlay.store.presence import Presence
from myoverlay.store.records import Records
from myoverlay.values import Address, HostId, OverlayName, Subnet

#: Seconds for one question.
_ASK = 2.0
#: What seems to be without an owner is looked at again after so many seconds: a container may just be starting.
_AGAIN = 1.5


class Known(NamedTuple):
    """What only the daemon knows: what the heartbeat says of other hosts, and what this host holds of a pool."""

    fates: Callable[[], Mapping[HostId, str]] = dict
    held: Callable[[Subnet], Iterable[Address]] | None = None


class StoreReadings:
    """`records` and `presence` are of this host; `places`: other places where its overlays' records lie."""

    def __init__(
        self,
        records: Records,
        presence: Presence,
        places: Callable[[], Iterable[str]],
        catalogue: bool,
        known: Known = Known(),  # noqa: B008 - it is frozen
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._records = records
        self._presence = presence
        self._places = places
        self._catalogue = catalogue
        self._known = known
        self._wall = wall
        self._never = threading.Event()

    def readings(self) -> Readings:
        return {
            "store": self.store,
            "store-rights": self.rights,
            "store-clock": self.clock,
            "stale-keys": self.estates,
        }

    def store(self, deadline: float) -> check_store.StoreSeen:
        """One read that needs the leader."""
        consul = consul_behind(self._records.store)
        began = time.monotonic()
        try:
            self._presence.incarnation(timeout=min(3.0, deadline - began))
        except Denied:
            pass  # whether the token may read the key is another check's
        except Unavailable as error:
            return check_store.StoreSeen(consul.address if consul else "", error=str(error))
        return check_store.StoreSeen(consul.address if consul else "", time.monotonic() - began)

    def rights(self, deadline: float) -> check_store.Rights:
        consul = consul_behind(self._records.store)
        if consul is None:
            return check_store.Rights(embedded=True)
        from myoverlay.store.allowed import asked

        prefix, me = self._records.prefix, self._records.me
        try:
            found = asked(consul, prefix, me, self._places(), self._catalogue, timeout=_ASK)
        except Unavailable as error:
            return check_store.Rights(error=str(error))
        return check_store.Rights(tuple(check_store.Right(one.rule, one.denied) for one in found))

    def clock(self, deadline: float) -> check_store.Clocks:
        """Consul's time is told in whole seconds, so a second is no difference."""
        consul = consul_behind(self._records.store)
        if consul is None:
            return check_store.Clocks()
        before = self._wall()
        try:
            told = consul.clock(timeout=_ASK)
        except Unavailable as error:
            return check_store.Clocks(error=str(error))
        return check_store.Clocks((check_store.Clock("Consul", ahead(told, before - 1.0, self._wall())),))

    def estates(self, deadline: float) -> check_store.Estates:
        try:
            alive = {host: held.value.name for host, held in self._presence.alive(timeout=_ASK).items()}
            names = named(self._records, timeout=_ASK)
            strays, loose = self._unowned(names | alive, alive)
            if strays or loose:
                self._never.wait(max(0.0, min(_AGAIN, deadline - time.monotonic() - _ASK)))
                strays_again, loose_again = self._unowned(names | alive, alive)
                strays, loose = strays & strays_again, loose & loose_again
        except MyoverlayError as error:
            return check_store.Estates(error=str(error))
        fates = self._known.fates()
        gone = [
            check_store.Gone(name or host.short, fates.get(host, ""))
            for host, name in sorted(names.items())
            if host not in alive and host != self._records.me
        ]
        return check_store.Estates(tuple(gone), tuple(sorted(strays)), tuple(sorted(loose)))

    def _unowned(self, names: Mapping[HostId, str], alive: Mapping[HostId, str]) -> tuple[set[str], set[str]]:
        """Leases of this host that it does not know of; and those of living ones that they list no container for."""
        strays, loose = set[str](), set[str]()
        me = self._records.me
        for pool in self._records.pools(timeout=_ASK):
            leases = self._records.leases(pool.value.subnet, timeout=_ASK)
            used = {address: held.value.hosts[0] for address, held in leases.items() if held.value.use == "endpoint"}
            if self._known.held is not None:
                mine = {address for address, held in leases.items() if me in held.value.hosts}
                strays |= {str(address) for address in mine.difference(self._known.held(pool.value.subnet))}
            loose |= self._unlisted(pool.value.overlay, used, names, alive.keys() - {me})
        return strays, loose

    def _unlisted(
        self,
        overlay: OverlayName | None,
        used: Mapping[Address, HostId],
        names: Mapping[HostId, str],
        hosts: Iterable[HostId],
    ) -> set[str]:
        others = set(used.values()).intersection(hosts)
        if overlay is None or not others:
            return set()
        lists = self._records.lists(overlay, others, timeout=_ASK)
        listed = {host: {record.address for record in held.value.records} for host, held in lists.items()}
        return {
            f"{address} ({names.get(host) or host.short})"
            for address, host in used.items()
            if host in others and address not in listed.get(host, ())
        }


def ahead(told: float, before: float, after: float) -> float:
    """By how many seconds a clock is ahead at least, which told its time somewhere between two moments of ours."""
    if told > after:
        return told - after
    return min(0.0, told - before)
