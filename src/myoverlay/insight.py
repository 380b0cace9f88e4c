"""The composition root's part for whoever looks: the flight recorder, and the path between two containers.

thread       object             does                                              stopped by
kernel       KernelWatch        hears what becomes of overlays' links and rows    Daemon.stop

A path's questions are answered by the thread `preflight` (see clusterwide.py).
"""

from __future__ import annotations

from myoverlay.clusterwide import Of
from myoverlay.host.converge import Converger
from myoverlay.host.discover import Discovery
from myoverlay.host.hearing import KernelWatch
from myoverlay.host.loop import Loop
from myoverlay.host.misses import Lookup, MissLoop
from myoverlay.host.paths import PathAnswering, PathAsker
from myoverlay.operate.control import Method
from myoverlay.operate.overlays import OverlayList
from myoverlay.operate.recorder import Recorder
from myoverlay.operate.recording import Recording
from myoverlay.operate.seek import Seeker
from myoverlay.operate.survey import Surveyor
from myoverlay.operate.trace import Trace
from myoverlay.settings import Settings
from myoverlay.store.paths import PathRecords, SeekRecords


class Insight:
    """What a person is shown of this host's inside."""

    def __init__(self, settings: Settings, of: Of) -> None:
        me, name = of.records.me, settings.host_name
        records = PathRecords(of.records.store, settings.prefix, me)
        sight = Surveyor(me, name, of.overlays, of.links, of.beat, settings.port, of.now)
        self._hearing = KernelWatch(of.overlays, of.tally, of.now) if settings.recorder else None
        self.recorder = Recorder(settings.recorder * 1024, of.wall)
        self.recording = Recording(self.recorder, of.overlays, of.peers)
        seeks = SeekRecords(of.records.store, settings.prefix, me)
        seeker = Seeker(me, of.overlays, PathAsker(seeks, of.now), lambda: of.peers.known.present or frozenset())
        self.answering = (
            PathAnswering(records, sight.look, lambda asked: me in asked.hosts(), of.tally, of.now),
            PathAnswering(seeks, seeker.look, lambda _: True, of.tally, of.now),
        )
        self._list = OverlayList(of.overlays)
        self.trace = Trace(me, name, of.overlays, of.peers, sight, PathAsker(records, of.now), seeker)

    def connect(self, misses: MissLoop, lookup: Lookup, discovery: Discovery, converger: Converger) -> None:
        """Have noted what these hear and do."""
        misses.on_miss = self.recording.heard
        misses.on_overrun = self.recording.overran
        for one in (converger, converger.guard, converger.binding, converger.egress):
            if one is not None:
                one.on_repair = self.recording.repaired
        if self._hearing is not None:
            converger.on_write = self._hearing.wrote
            self._hearing.on_events = self.recording.happened
        lookup.on_outcome = self.recording.missed
        discovery.on_learned = self.recording.learned

    def refresh(self) -> None:
        """The overlays of this host changed."""
        if self._hearing is not None:
            self._hearing.refresh()

    def loops(self) -> tuple[Loop, ...]:
        return (self._hearing,) if self._hearing is not None else ()

    def methods(self) -> dict[str, Method]:
        return {**self.trace.methods(), **self.recording.methods(), **self._list.methods()}
