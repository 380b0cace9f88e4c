"""Metrics as Prometheus reads them: one look and the tally, by the table of `metrics`."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from myoverlay.operate.lookout import Lookout
from myoverlay.operate.metrics import ANY, METRICS, OVERLAYS, PEERS, Metric
from myoverlay.plan.concerns import concerns
from myoverlay.plan.fates import State
from myoverlay.plan.sight import OverlaySight, PeerSight, Sight
from myoverlay.tally import BOUNDS, Spread, Tally

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric as Family

#: What is written; https://prometheus.io/docs/instrumenting/exposition_formats/
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
#: A page is handed out again for so long, seconds: who asks more often gets no newer one, and costs nothing.
FRESH = 1.0

Row = tuple[tuple[str, ...], float]
Rows = Iterable[Row]


class Exposition:
    """Writes the page. `_lock` guards the last one, and lets one write at a time."""

    def __init__(
        self,
        lookout: Lookout,
        tally: Tally,
        wall: Callable[[], float] = time.time,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._lookout = lookout
        self._tally = tally
        self._wall = wall
        self._now = now
        self._lock = threading.Lock()
        self._page = b""
        self._made_at = float("-inf")
        self._registry: Any = None

    def page(self) -> bytes:
        """The page of now, or of less than a second ago."""
        with self._lock:
            if self._now() - self._made_at >= FRESH:
                self._page, self._made_at = self._write(), self._now()
            return self._page

    def _write(self) -> bytes:
        from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest  # 110 ms, once

        if self._registry is None:
            registry = CollectorRegistry(auto_describe=False)
            registry.register(self)
            ProcessCollector(registry=registry)
            self._registry = registry
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Family]:
        """What prometheus-client asks a collector for."""
        return families(self._lookout.look(), self._tally.durations(), self._wall())


def families(sight: Sight, durations: Mapping[tuple[str, str], Spread], wall: float) -> Iterator[Family]:
    """Every metric of the table, with its rows."""
    from prometheus_client import core

    for metric in METRICS:
        name = metric.exported
        if metric.kind == "counter":
            family: Any = core.CounterMetricFamily(name, metric.meaning, labels=metric.labels)
            rows = counted(metric, sight.counts)
        elif metric.kind == "histogram":
            family = core.HistogramMetricFamily(name, metric.meaning, labels=metric.labels)
            for labels, spread in lasted(metric, durations):
                family.add_metric(labels, _buckets(spread), spread.total)
            rows = ()
        elif metric.kind == "info":
            family = core.GaugeMetricFamily(name, metric.meaning, labels=metric.labels)
            rows = [((sight.version, sight.id, sight.name, sight.run), 1.0)]
        else:
            family = core.GaugeMetricFamily(name, metric.meaning, labels=metric.labels)
            rows = _started(sight, wall) if metric.name == "start_time_seconds" else GAUGES[metric.name](sight)
        for labels, value in rows:
            family.add_metric(labels, value)
        yield family


def counted(metric: Metric, counts: Mapping[tuple[str, str], int]) -> Rows:
    """A counter's rows. A fault that has not happened stands there with 0, so that its first time is an increase."""
    found = {split(label, len(metric.labels)): count for (name, label), count in counts.items() if name == metric.name}
    if not metric.labels:
        return [((), float(sum(found.values())))]
    before = {labels[:-1] for labels in found} if len(metric.labels) > 1 else {()}
    zeros = {(*first, fault): 0 for first in before for fault in metric.faults if fault != ANY}
    return [(labels, float(count)) for labels, count in sorted((zeros | found).items())]


def lasted(metric: Metric, durations: Mapping[tuple[str, str], Spread]) -> Iterator[tuple[tuple[str, ...], Spread]]:
    for (name, label), spread in sorted(durations.items(), key=lambda item: item[0]):
        if name == metric.name:
            yield split(label, len(metric.labels)), spread


def split(label: str, parts: int) -> tuple[str, ...]:
    """The tally's one label as the metric has them: the last word is the last label's."""
    if parts < 2:
        return (label,) * parts
    first, _, last = label.rpartition(" ")
    return first or last, last


def _buckets(spread: Spread) -> list[tuple[str, float]]:
    return list(zip((*map(str, BOUNDS), "+Inf"), map(float, accumulate(spread.counts)), strict=True))


def _started(sight: Sight, wall: float) -> Rows:
    return [((), wall - sight.started)]


def _one(value: float | None) -> Rows:
    return [] if value is None else [((), float(value))]


def _largest(sight: Sight) -> list[OverlaySight]:
    return sorted(sight.overlays, key=lambda one: (-one.endpoints, one.overlay))[:OVERLAYS]


def _foremost(sight: Sight) -> list[PeerSight]:
    """Those in trouble first, then by name."""
    return sorted(sight.peers, key=lambda one: (not one.wrong, one.name, one.id))[:PEERS]


def _of_overlays(value: Callable[[OverlaySight], float | None]) -> Callable[[Sight], Rows]:
    def rows(sight: Sight) -> Rows:
        return [((one.overlay,), float(found)) for one in _largest(sight) if (found := value(one)) is not None]

    return rows


def _of_peers(value: Callable[[PeerSight], float | None]) -> Callable[[Sight], Rows]:
    def rows(sight: Sight) -> Rows:
        # Two hosts of one name would be one series twice, which no scraper takes.
        names = Counter(peer.name for peer in sight.peers)
        labelled = [
            (one.name if one.name and names[one.name] == 1 else one.id[:12], value(one)) for one in _foremost(sight)
        ]
        return [((label,), float(known)) for label, known in labelled if known is not None]

    return rows


def _by_kind(sight: Sight) -> Rows:
    kinds = {"link": 0, "namespace": 0, "endpoint": 0, "lease": 0, "key": 0}
    for one in sight.held:
        kinds[one.kind] = kinds.get(one.kind, 0) + one.count
    return [((kind,), float(count)) for kind, count in sorted(kinds.items())]


def _by_state(sight: Sight) -> Rows:
    return [((state.value,), float(sum(peer.state is state for peer in sight.peers))) for state in State]


def _resolver(sight: Sight) -> Rows:
    resolver = sight.names.get("resolver")
    return _one(None if resolver is None else bool(resolver["process"]))


def _docker(sight: Sight) -> Rows:
    docker = sight.names.get("docker")
    return _one(None if docker is None else bool(docker["followed"]))


GAUGES: dict[str, Callable[[Sight], Rows]] = {
    "concerns": lambda sight: _one(len(concerns(sight))),
    "barred": lambda sight: _one(sight.barred is not None),
    "held": _by_kind,
    "store_answers": lambda sight: _one(sight.store.answers),
    "store_silent_seconds": lambda sight: _one(sight.store.answered),
    "store_in_doubt": lambda sight: _one(sight.store.in_doubt),
    "store_untold_addresses": lambda sight: _one(sight.store.untold),
    "store_unreadable_keys": lambda sight: _one(len(sight.store.unreadable)),
    "has_session": lambda sight: _one(sight.session),
    "overlays": lambda sight: _one(len(sight.overlays)),
    "overlays_down": lambda sight: _one(sum(not one.built for one in sight.overlays)),
    "endpoints": _of_overlays(lambda one: one.endpoints),
    "remote_endpoints": _of_overlays(lambda one: one.peers),
    "watch_silence_seconds": _of_overlays(lambda one: one.heard),
    "overlays_unlisted": lambda sight: _one(max(0, len(sight.overlays) - OVERLAYS)),
    "reconcile_age_seconds": lambda sight: _one(sight.compared),
    "drift": lambda sight: _one(sight.drift),
    "peers": _by_state,
    "peer_rtt_seconds": _of_peers(lambda peer: peer.rtt),
    "peer_heard_seconds": _of_peers(lambda peer: peer.heard),
    "peer_full_size": _of_peers(lambda peer: peer.carries),
    "peers_unlisted": lambda sight: _one(max(0, len(sight.peers) - PEERS)),
    "heartbeat_works": lambda sight: _one(not sight.heartbeat_trouble),
    "journal_bytes": lambda sight: _one(sight.journal_bytes),
    "names_answered": _resolver,
    "docker_heard": _docker,
}
