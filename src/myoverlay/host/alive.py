"""That this host is there: its session in the store, under which it is announced.

A session only says who lives; endpoints hang on no session, so losing it takes down no traffic. A former run's session
is renewed and kept, so that a restart is not seen by anybody.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from myoverlay import __version__
from myoverlay.errors import MyoverlayError, Unavailable
from myoverlay.host.epoch import Epoch
from myoverlay.host.journal import Journal
from myoverlay.host.loop import Loop
from myoverlay.store.presence import Presence
from myoverlay.store.records import Member
from myoverlay.tally import Tally
from myoverlay.values import Address, Alive

log = logging.getLogger(__name__)

#: Consul's minimum, seconds; it ends a session at twice that.
TTL = 10.0
_ROUND = TTL / 3


class Liveness(Loop):
    """Owns the thread `alive`. `_lock` guards `_barred`."""

    # It tells all the others that the store is back.
    longest = 2.0

    def __init__(
        self,
        journal: Journal,
        presence: Presence,
        epoch: Epoch,
        name: str,
        vteps: Callable[[], tuple[Address, ...]],
        tally: Tally,
    ) -> None:
        super().__init__("alive", tally)
        self.name = name
        self._journal = journal
        self._presence = presence
        self._epoch = epoch
        self._vteps = vteps
        self._lock = threading.Lock()
        self._barred: str | None = None
        self._session: str | None = None
        self._announced: Alive | None = None
        self.has_left = False
        self._away = True
        #: Called when the store answers again after it did not, and at the first answer.
        self.on_back: Callable[[], None] = lambda: None
        #: Set once the host was announced.
        self.announced = threading.Event()
        #: Called when a session was opened anew: while there was none the others may have taken this host for dead.
        self.on_reborn: Callable[[], None] = lambda: None

    def barred(self) -> str | None:
        """Why this host may not take part: another living one has its id or its VTEP, or it was told to leave."""
        with self._lock:
            return self._barred

    @property
    def has_session(self) -> bool:
        """Is this host announced under a session, as far as the last round could tell?"""
        return self._announced is not None and not self._away

    def member(self, vtep: Address) -> Member:
        return Member(name=self.name, vtep=vtep)

    def bar_for_good(self) -> None:
        """Take no more part, until the next start."""
        self.has_left = True
        with self._lock:
            self._barred = "this host has left (`myoverlay host leave`): start its plugin again to take part"

    def leave(self) -> None:
        """End the session. Raises Unavailable; it then ends by itself."""
        session, self._session = self._session or self._journal.session, None
        if session is not None:
            self._presence.store.close_session(session)
        self._journal.session = ""

    def round(self) -> None:
        """Raises Unavailable. When the loop is stopped the session stays, for the next run to take over."""
        try:
            self.step()
        except MyoverlayError:
            self._away = True
            raise
        if self._away:
            self._away = False
            self.on_back()
        self.stopping.wait(_ROUND)

    def step(self) -> None:
        """One round: keep the session, be announced, see whether the store lost something. Raises Unavailable."""
        if self.has_left:
            return
        if self._session is not None and not self._presence.store.renew_session(self._session):
            self.tally.add("session", "lost")
            log.warning("this host's session was lost; another is opened")
            self._session = self._announced = None
        mine = Alive(host=self._presence.me, name=self.name, vteps=self._vteps(), version=__version__)
        known, holder = self._presence.own()
        if self._session is None:
            self._bar(self._clash(mine, known, holder))
            if self.barred() is not None:
                return
            self._session = self._adopt_session()
        if self._announced != mine or known is None or holder != self._session:
            self._announce(mine, holder)
        self._epoch.look()

    def _announce(self, mine: Alive, holder: str | None) -> None:
        assert self._session is not None
        if not self._presence.announce(mine, self._session, holder):
            # Its session, or the former one, ended meanwhile. Nothing of this host is written before it is announced:
            # the next try must not wait for the next round.
            raise Unavailable("a session ended while this host was being announced")
        if self._journal.announced != self._session:
            self._journal.announced = self._session
        self._presence.end_witness(mine.host)
        self.announced.set()
        # Last: whatever failed before is done again in the next round.
        self._announced = mine

    def _bar(self, reason: str | None) -> None:
        with self._lock:
            if reason is not None and reason != self._barred:
                log.error("%s", reason)
            self._barred = reason

    def _clash(self, mine: Alive, known: Alive | None, holder: str | None) -> str | None:
        # Its address may have changed while the plugin was down: then what this machine remembers tells that it was us.
        ours = holder is not None and holder == self._journal.announced
        if known is not None and not ours and not _same_machine(known, mine):
            return (
                f"host {known.name} ({', '.join(known.vteps)}) lives under the same host id: if this machine was"
                " cloned, run `myoverlay host new-id` on it"
            )
        for host, held in self._presence.alive().items():
            shared = set(held.value.vteps) & set(mine.vteps)
            if host != mine.host and shared:
                return (
                    f"host {held.value.name} uses the VTEP {shared.pop()} as well: give each host its own"
                    " MYOVERLAY_VTEP"
                )
        return None

    def _adopt_session(self) -> str:
        old = self._journal.session
        if old is not None and self._presence.store.renew_session(old):
            self.tally.add("session", "renewed")
            return old
        session = self._presence.store.open_session(f"myoverlay {self.name}", TTL)
        self._journal.session = session
        self.tally.add("session", "opened")
        self.on_reborn()
        return session


def _same_machine(known: Alive, mine: Alive) -> bool:
    """Was that us, before a restart? A clone has another address; at boot there may be none yet."""
    if known.vteps and mine.vteps:
        return bool(set(known.vteps) & set(mine.vteps))
    return known.name == mine.name
