"""One look at this host, taken from memory: no call to the store, to Docker or to the kernel."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from myoverlay import __version__
from myoverlay.host.alive import Liveness
from myoverlay.host.discover import Discovery
from myoverlay.host.epoch import Epoch
from myoverlay.host.journal import Journal
from myoverlay.host.leftovers import Leftovers
from myoverlay.host.local import LocalOverlay
from myoverlay.host.overlays import Overlays
from myoverlay.host.peers import Fates, Heartbeat, PeerWatch
from myoverlay.host.reconcile import Reconciler
from myoverlay.operate.names import Names
from myoverlay.plan.concerns import Terms, explained
from myoverlay.plan.sight import HeldSight, OverlaySight, PeerSight, Sight, StoreSight
from myoverlay.store.metered import Metered
from myoverlay.store.records import Records
from myoverlay.tally import Tally

#: Seconds that a key which could not be read is told of: the slow re-listing reads it again within 5 min.
UNREADABLE = 900.0


class Of(NamedTuple):
    """What is looked at: the daemon's own. `where`: the store's kind, and its address without secrets."""

    records: Records
    store: Metered
    where: tuple[str, str]
    journal: Journal
    overlays: Overlays
    discovery: Discovery
    peers: PeerWatch
    fates: Fates
    beat: Heartbeat
    liveness: Liveness
    epoch: Epoch
    leftovers: Leftovers
    reconciler: Reconciler
    names: Names
    tally: Tally
    terms: Terms
    now: Callable[[], float]


class Lookout:
    """Looks. `metrics` says where metrics are served, and what keeps them from it."""

    def __init__(self, of: Of, metrics: Callable[[], tuple[str, str]] = lambda: ("", "")) -> None:
        self._of = of
        self._metrics = metrics
        self._run = uuid.uuid4().hex[:16]
        self._started = of.now()

    def look(self) -> Sight:
        """What is so now. Costs some milliseconds for hundreds of hosts, and takes no lock for longer than a copy."""
        of, now = self._of, self._of.now()
        standing, compared = of.beat.state(), of.reconciler.compared_at
        metrics_at, metrics_trouble = self._metrics()
        return Sight(
            id=of.records.me,
            name=of.liveness.name,
            version=__version__,
            run=self._run,
            started=now - self._started,
            session=of.liveness.has_session,
            barred=of.liveness.barred(),
            store=self._store(now),
            overlays=tuple(self._overlay(local) for local in _sorted(of.overlays.all())),
            peers=self._peers(now, standing.mtu),
            held=tuple(HeldSight(kind=h.kind, overlay=h.overlay, count=len(h.names)) for h in of.leftovers.held()),
            counts=of.tally.all(),
            ages=of.tally.ages(),
            compared=now - compared if compared is not None else None,
            drift=of.reconciler.drift,
            journal_bytes=self._journal_bytes(),
            heartbeat_trouble=standing.trouble,
            heartbeat_mtu=standing.mtu,
            unguarded=of.reconciler.unguarded,
            names=of.names.standing(),
            metrics_at=metrics_at,
            metrics_trouble=metrics_trouble,
        )

    def _store(self, now: float) -> StoreSight:
        health, (kind, where) = self._of.store.health, self._of.where
        return StoreSight(
            kind=kind,
            where=where,
            answers=health.answers,
            since=now - health.since,
            answered=_before(now, health.answered),
            failure=health.failure,
            failed=_before(now, health.failed),
            in_doubt=self._of.epoch.looked.is_set() and self._of.epoch.in_doubt(),
            unreadable=self._of.records.unreadable(UNREADABLE),
            untold=self._of.journal.untold(),
        )

    def _overlay(self, local: LocalOverlay) -> OverlaySight:
        network, view = local.network, local.view
        return OverlaySight(
            overlay=network.overlay,
            network=network.network[:12],
            vni=network.definition.vni,
            port=network.definition.port,
            mtu=network.definition.mtu,
            subnet=network.definition.subnet,
            vtep=network.vtep,
            endpoints=len(local.endpoints()),
            peers=len(view.peers),
            hosts=len(view.lists or ()),
            eager=local.eager,
            built=local.ground is not None,
            complete=view.complete,
            heard=self._of.discovery.heard(local),
            unbound=local.unbound,
        )

    def _peers(self, now: float, mtu: int) -> tuple[PeerSight, ...]:
        of = self._of
        known, sharing, where = of.peers.known, of.peers.sharing(), of.peers.where()
        fates = of.fates.all()
        found = []
        for host, fate in fates.items():
            pulse = of.beat.pulse(host)
            seen = PeerSight(
                id=host,
                name=plain(known.names.get(host, "")),
                vtep=where.get(host),
                version=plain(known.versions.get(host, "")),
                state=fate.state,
                since=now - fate.since,
                heard=_before(now, pulse.heard),
                rtt=pulse.rtt,
                carries=pulse.carries,
                overlays=tuple(sorted(sharing.get(host, ()))),
            )
            found.append(explained(seen, len(fates), mtu, of.terms))
        return tuple(sorted(found, key=lambda peer: (peer.name, peer.id)))

    def _journal_bytes(self) -> int | None:
        try:
            return self._of.journal.path.stat().st_size
        except OSError:  # a journal in memory, or a disk that is gone: None says that it is not known
            return None


def plain(text: str) -> str:
    """What another host says of itself, fit for a terminal and a label: 64 printable characters at most."""
    return "".join(char if char.isprintable() else "?" for char in text[:64])


def _before(now: float, at: float | None) -> float | None:
    return now - at if at is not None else None


def _sorted(overlays: tuple[LocalOverlay, ...]) -> list[LocalOverlay]:
    return sorted(overlays, key=lambda local: local.network.overlay)


def shown(sight: Sight) -> dict[str, Any]:
    """The look as JSON has it; counters as `Control.Counters` shows them."""
    counters: dict[str, dict[str, int]] = {}
    for (name, label), count in sorted(sight.counts.items()):
        counters.setdefault(name, {})[label] = count
    fields = {name: getattr(sight, name) for name in sight.__struct_fields__ if name not in ("counts", "ages")}
    answer: dict[str, Any] = msgspec.to_builtins(fields, enc_hook=str)
    return {**answer, "counters": counters}
