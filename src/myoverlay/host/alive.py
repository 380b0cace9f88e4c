"""That this host is there: its session in the store, and who else is.

A session only says who lives; endpoints hang on no session, so losing it takes down no traffic. A former run's session
is renewed and kept, so that a restart is not seen by anybody.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from myoverlay import __version__
from myoverlay.host.journal import Journal
from myoverlay.host.loop import Loop
from myoverlay.store.records import Member, Records
from myoverlay.tally import Tally
from myoverlay.values import Address, Alive, HostId

log = logging.getLogger(__name__)

#: Consul's minimum, seconds; it ends a session at twice that.
TTL = 10.0
_ROUND = TTL / 3


class Liveness(Loop):
    """Owns the thread `alive`. `_lock` guards `_names` and `_barred`."""

    def __init__(
        self, journal: Journal, records: Records, name: str, vteps: Callable[[], tuple[Address, ...]], tally: Tally
    ) -> None:
        super().__init__("alive", tally)
        self._journal = journal
        self._records = records
        self._name = name
        self._vteps = vteps
        self._lock = threading.Lock()
        self._names: dict[HostId, str] = {records.me: name}
        self._barred: str | None = None
        self._session: str | None = None
        self._announced: Alive | None = None
        #: Set once the host was announced.
        self.announced = threading.Event()

    def barred(self) -> str | None:
        """Why this host may not take part: another living one has its id or its VTEP."""
        with self._lock:
            return self._barred

    def name_of(self, host: HostId) -> str:
        """What a host is called; the start of its id where that is not known."""
        with self._lock:
            return self._names.get(host, host.short)

    def member(self, vtep: Address) -> Member:
        return Member(name=self._name, vtep=vtep)

    def round(self) -> None:
        """Raises Unavailable. When the loop is stopped the session stays, for the next run to take over."""
        self.step()
        self.stopping.wait(_ROUND)

    def step(self) -> None:
        """One round: learn the hosts, keep the session, be announced. Raises Unavailable."""
        hosts = self._records.alive()
        with self._lock:
            self._names.update({host: held.value.name for host, held in hosts.items()})
        mine = Alive(host=self._records.me, name=self._name, vteps=self._vteps(), version=__version__)
        if self._session is None:
            others = [held.value for host, held in hosts.items() if host != self._records.me]
            self._bar(self._clash(mine, others))
            if self.barred() is not None:
                return None
            self._session = self._adopt_session()
        elif not self._records.store.renew_session(self._session):
            self.tally.add("session", "lost")
            log.warning("this host's session was lost; another is opened")
            self._session, self._announced = None, None
            return self.step()
        if self._announced != mine or self._records.me not in hosts:
            _, holder = self._records.alive_session()
            if self._records.announce(mine, self._session, holder):
                self._announced = mine
                self.announced.set()
        return None

    def _bar(self, reason: str | None) -> None:
        with self._lock:
            if reason is not None and reason != self._barred:
                log.error("%s", reason)
            self._barred = reason

    def _clash(self, mine: Alive, others: list[Alive]) -> str | None:
        known, _ = self._records.alive_session()
        if known is not None and not _same_machine(known, mine):
            return (
                f"host {known.name} ({', '.join(known.vteps)}) lives under the same host id: if this machine was"
                " cloned, run `myoverlay host new-id` on it"
            )
        for other in others:
            shared = set(other.vteps) & set(mine.vteps)
            if shared:
                return f"host {other.name} uses the VTEP {shared.pop()} as well: give each host its own MYOVERLAY_VTEP"
        return None

    def _adopt_session(self) -> str:
        old = self._journal.session
        if old is not None and self._records.store.renew_session(old):
            self.tally.add("session", "renewed")
            return old
        session = self._records.store.open_session(f"myoverlay {self._name}", TTL)
        self._journal.session = session
        self.tally.add("session", "opened")
        return session


def _same_machine(known: Alive, mine: Alive) -> bool:
    """Was that us, before a restart? A clone has another address; at boot there may be none yet."""
    if known.vteps and mine.vteps:
        return bool(set(known.vteps) & set(mine.vteps))
    return known.name == mine.name
