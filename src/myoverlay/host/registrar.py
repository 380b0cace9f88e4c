"""This host's names in Consul's catalogue (setting), so that NAME.service.consul is known to whoever asks Consul."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

from myoverlay.errors import Late, MyoverlayError, Unavailable
from myoverlay.host.loop import Loop
from myoverlay.host.overlays import Overlays
from myoverlay.host.peers import Fates, PeerWatch
from myoverlay.store.catalogue import Registered, Service, services_of
from myoverlay.tally import Tally
from myoverlay.values import HostId

log = logging.getLogger(__name__)

#: Seconds: changes are taken together; what stands there is compared; after a failure, at most.
COALESCE, COMPARE, LONGEST = 0.2, 60.0, 60.0
#: What taking all back may take, as this host leaves.
_RETIRE = 4.0


class Catalogue(Protocol):
    """What is needed of `store.catalogue`. Each raises Unavailable."""

    def read(self, host: HostId, *, timeout: float = 3.0) -> Registered | None: ...
    def hosts(self, *, timeout: float = 3.0) -> frozenset[HostId]: ...
    def write(
        self, host: HostId, vtep: str, put: frozenset[Service], drop: frozenset[Service], *, timeout: float = 3.0
    ) -> dict[Service, str]: ...
    def remove(self, host: HostId, *, timeout: float = 3.0) -> None: ...
    def heard(self, host: HostId, *, timeout: float = 3.0) -> int: ...
    def collect(self, host: HostId, heard: int = 0, *, timeout: float = 3.0) -> bool: ...


class Registrar(Loop):
    """Owns the thread `catalogue`, which alone asks for it: nothing waits for it, and nothing else fails with it."""

    longest = LONGEST

    def __init__(
        self,
        catalogue: Catalogue,
        me: HostId,
        overlays: Overlays,
        peers: PeerWatch,
        fates: Fates,
        may_act: Callable[[], bool],
        in_doubt: Callable[[], bool],
        patience: float,
        tally: Tally,
        now: Callable[[], float] = time.monotonic,
        on: bool = True,
    ) -> None:
        """`patience`: seconds that the node of a host which shares nothing with this one stays after its session.

        Not `on`: what a former run has registered goes, and the thread ends.
        """
        super().__init__("catalogue", tally)
        self._catalogue, self._me, self._overlays = catalogue, me, overlays
        self._peers, self._fates = peers, fates
        self._may_act, self._in_doubt = may_act, in_doubt
        self._patience, self._now, self._on = patience, now, on
        self._hurried = threading.Event()
        self._retiring, self._retired = False, threading.Event()
        self._shown: tuple[str, frozenset[Service]] | None = None
        self._compare_at = float("-inf")
        # Not all hosts at once: each look costs a line for every host there is.
        self._survey_at = now() + patience * random.uniform(0.1, 1.0)
        self._absent: dict[HostId, float] = {}
        #: When it is looked what each dead host has there; and of those that somebody said he hears: when he said it,
        #: as the store's index, and since when he has said no more.
        self._collect_at: dict[HostId, float] = {}
        self._heard: dict[HostId, tuple[int, float]] = {}
        self._refused: dict[Service, str] = {}
        self._trouble = "it was not asked yet"

    # -- asked by others -------------------------------------------------------------------------------------------

    def wake(self) -> None:
        """Names may be others. From any thread."""
        self._hurried.set()

    def retire(self, deadline: float) -> None:
        """The host leaves: nothing of it stays registered, until the next start. Raises Late."""
        self._retiring = True
        self.retry()
        self.wake()
        if self._on and not self._retired.wait(min(_RETIRE, max(0.0, deadline - time.monotonic()))):
            raise Late("this host's names are not out of Consul's catalogue yet: ask again")

    def state(self) -> dict[str, Any]:
        """For a person: how many names are registered, and what stands in the way."""
        count = len(self._shown[1]) if self._shown is not None else 0
        refused = [f"{one.name}: {said}" for one, said in sorted(self._refused.items())]
        return {"registered": count - len(refused), "refused": refused, "trouble": self._trouble}

    # -- the thread ------------------------------------------------------------------------------------------------

    def round(self) -> None:
        if self._retired.is_set():
            self.stopping.wait()
            return
        self._hurried.wait(max(0.0, min(COMPARE, self._compare_at - self._now())))
        self.stopping.wait(0.0 if self._retiring else COALESCE)
        if not self.stopping.is_set():
            self.step()

    def step(self) -> None:
        """Do what is due. Raises Unavailable, and then it is still due."""
        self._hurried.clear()
        try:
            self._settle()
        except MyoverlayError as error:
            self._trouble = str(error)
            self._heard = {}  # who could not reach the store either has said nothing
            self._hurried.set()
            raise
        self._trouble = ""

    def _settle(self) -> None:
        if self._retiring:
            self._catalogue.remove(self._me)
            self._shown = None
            self._retired.set()
        elif not self._may_act():
            self._compare_at = self._now() + 1.0
        elif not self._on:
            self._tidy()
            self.stopping.set()
        else:
            self._register()
            self._collect()

    def _tidy(self) -> None:
        """Tried once: where this was never on, the token may have no right to look."""
        try:
            if self._catalogue.read(self._me) is not None:
                self._catalogue.remove(self._me)
        except Unavailable as error:
            log.info("names that a former run registered may stay in Consul's catalogue: %s", error)

    def _register(self) -> None:
        """What should stand there, and nothing else of this host; read before it is written, where it may differ."""
        vtep, wanted = self._wanted()
        if (vtep, wanted) == self._shown and self._now() < self._compare_at:
            return
        there = self._catalogue.read(self._me)
        have = there.services if there is not None else frozenset()
        refused: dict[Service, str] = {}
        if not wanted and there is not None:
            self._catalogue.remove(self._me)
        elif wanted and (there is None or have != wanted or there.vtep != vtep):
            ids = {one.id for one in wanted}
            drop = frozenset(one for one in have if one.id not in ids)
            refused = self._catalogue.write(self._me, vtep, wanted - have, drop)
        self.tally.add("catalogue", "registered", len(wanted - have - refused.keys()))
        self.tally.add("catalogue", "withdrawn", len(have - wanted))
        self._tell(refused)
        self._shown, self._compare_at = (vtep, wanted), self._now() + COMPARE

    def _wanted(self) -> tuple[str, frozenset[Service]]:
        """The VTEP of one of the overlays, and every name of every container that runs here."""
        found: set[Service] = set()
        vteps: set[str] = set()
        for local in self._overlays.all():
            vteps.add(str(local.network.vtep))
            for one in local.endpoints():
                if one.joined:
                    found |= services_of(local.network.overlay, one.address, one.names)
        return min(vteps, default=""), frozenset(found)

    def _tell(self, refused: dict[Service, str]) -> None:
        """Of names that Consul does not take, once for each."""
        for one, said in sorted(refused.items()):
            if self._refused.get(one) != said:
                self.tally.add("catalogue", "refused")
                log.warning("%s of overlay %s is not registered: Consul says: %s", one.name, one.tags[0], said)
        self._refused = refused

    def _collect(self) -> None:
        """Take away what dead hosts have there. In a doubt of the store nobody is dead."""
        if self._in_doubt():
            return
        self._collect_at = {host: self._collect_at.get(host, self._now()) for host in self._fates.lost()}
        for host, at in self._collect_at.items():
            if self._now() >= at:
                self._collect_at[host] = float("inf") if self._take(host) else self._now() + COMPARE
        if self._now() >= self._survey_at:
            self._survey()
            self._survey_at = self._now() + self._patience / 2
        self._heard = {h: seen for h, seen in self._heard.items() if h in self._collect_at or h in self._absent}

    def _survey(self) -> None:
        """Hosts that share no overlay with this one are judged by their session alone, as it has long been gone."""
        present = self._peers.known.present
        if present is None:
            return
        strangers = self._catalogue.hosts() - present - {self._me} - self._fates.all().keys()
        self._absent = {host: self._absent.get(host, self._now()) for host in strangers}
        for host, since in self._absent.items():
            if self._now() - since >= self._patience:
                self._take(host)

    def _take(self, host: HostId) -> bool:
        """Is nothing left there of the host? Not as long as it is there, or somebody hears it."""
        if self._catalogue.read(host) is None:
            return True
        heard = self._catalogue.heard(host)
        if self._is_spared(host, heard) or not self._catalogue.collect(host, heard):
            return False
        self.tally.add("catalogue", "collected")
        log.warning("host %s is dead: its names are out of Consul's catalogue", host.short)
        return True

    def _is_spared(self, host: HostId, heard: int) -> bool:
        """Who hears a host that is cut off says so again and again (`graves`); what he said stays until it is buried.

        So it is waited twice as long as he waits between.
        """
        before, since = self._heard.get(host, (0, 0.0))
        if heard != before:
            since = self._now()
            self._heard[host] = heard, since
        return heard != 0 and self._now() - since < self._patience / 2
