"""This host leaves: nothing in the store is its own any more, and the others go on without waiting for it."""

from __future__ import annotations

import logging
from collections.abc import Callable

import msgspec

from myoverlay.errors import Clash, Late
from myoverlay.host.alive import Liveness
from myoverlay.host.graves import Graves
from myoverlay.host.holdings import Holdings
from myoverlay.host.journal import Journal
from myoverlay.host.overlays import Overlays
from myoverlay.host.peers import Heartbeat
from myoverlay.values import OverlayName

log = logging.getLogger(__name__)

#: Seconds that the heartbeat's device may take to go.
_RETIRE = 3.0


class Departed(msgspec.Struct, frozen=True):
    """What was given up; of the overlays that are `kept` containers use the namespaces."""

    overlays: tuple[OverlayName, ...]
    endpoints: int
    kept: tuple[OverlayName, ...]


class Departure:
    """`myoverlay host leave`. May be done again: what is gone already is no failure."""

    def __init__(
        self,
        journal: Journal,
        overlays: Overlays,
        holdings: Holdings,
        graves: Graves,
        liveness: Liveness,
        beat: Heartbeat,
        take_back: Callable[[float], None],
    ) -> None:
        """`take_back`: what else this host has said in the store."""
        self._journal = journal
        self._overlays = overlays
        self._holdings = holdings
        self._graves = graves
        self._liveness = liveness
        self._beat = beat
        self._take_back = take_back
        #: Called when nothing of this host is in the store any more, to take away what serves nobody then.
        self.on_left: Callable[[], None] = lambda: None
        #: Nothing of this host is in the store any more.
        self.done = False

    def leave(self, force: bool, deadline: float) -> Departed:
        """Withdraw from every overlay, free all addresses, end the session, take away the heartbeat's device and the
        namespaces that no container uses. The networks stay in Docker and in the journal.

        Raises Clash while containers are there and `force` is not given, or where this host is barred; Unavailable or
        Late where the store could not be told of all of it: the host then stays barred, and the call may be made again.
        """
        self._check_allowed()
        names = tuple(sorted(local.network.overlay for local in self._overlays.all()))
        endpoints = len(self._journal.endpoints.all())
        if endpoints and not force:
            raise Clash(
                f"{endpoints} containers of this host are on overlays ({', '.join(names)}): stop them first; --force"
                " withdraws them all the same, and nobody reaches them any more"
            )
        self._liveness.bar_for_good()
        self._overlays.settle(deadline)
        self._overlays.depart(deadline)
        self._holdings.give_up(deadline)
        self._graves.retract(deadline)
        self._take_back(deadline)
        self._liveness.leave()
        self.on_left()
        kept = self._vacate(deadline)
        if not self._beat.retire(_RETIRE):
            raise Late("this host has left, but its heartbeat's device is not gone yet: ask again")
        self.done = True
        log.log(
            logging.WARNING if names else logging.INFO,
            "this host has left (it was on %s) and takes no more part until its plugin is started again",
            ", ".join(names) or "no overlay",
        )
        return Departed(names, endpoints, kept)

    def _vacate(self, deadline: float) -> tuple[OverlayName, ...]:
        """Nothing would take them away any more once the plugin is gone. Returns those that stay."""
        kept = []
        for local in self._overlays.all():
            if local.vacate(deadline):
                self._overlays.on_gone(local)
            else:
                kept.append(local.network.overlay)
        return tuple(sorted(kept))

    def _check_allowed(self) -> None:
        """A host that may not take part, such as a clone, must not give up in another's name."""
        reason = self._liveness.barred()
        if reason is not None and not self._liveness.has_left:
            raise Clash(reason)
