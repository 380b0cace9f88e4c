"""The composition root's part for what is seen of this host: status, metrics, reports.

thread       object             does                                              stopped by
metrics      Exporter           metrics on a TCP address (setting)                Daemon.stop
web          Page               the web page on a TCP address (setting)           Daemon.stop
onlooker     Onlooker           asks all hosts what they see while a page is open Daemon.stop
tracer       Tracing            traces a pair that a page's button asks for       Daemon.stop
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from myoverlay.clusterwide import Clusterwide
from myoverlay.docker.app import Page as Read
from myoverlay.host.loop import Loop
from myoverlay.host.outlooks import Onlooker
from myoverlay.operate import report
from myoverlay.operate.control import Answer, Method
from myoverlay.operate.exporter import Exporter
from myoverlay.operate.exposition import CONTENT_TYPE, Exposition
from myoverlay.operate.lookout import Lookout, Of
from myoverlay.operate.serving import split_address
from myoverlay.operate.status import Status
from myoverlay.operate.trace import Ask
from myoverlay.operate.veil import Veil
from myoverlay.operate.web.page import Page
from myoverlay.operate.web.picture import Of as Seen
from myoverlay.operate.web.picture import Picture
from myoverlay.operate.web.tracing import Tracing
from myoverlay.settings import Settings


class Overview:
    """What there is to be seen, and who shows it."""

    def __init__(
        self,
        settings: Settings,
        of: Of,
        log_lines: Callable[[], list[str]],
        clusterwide: Clusterwide,
        trace: Callable[[Ask, float], Answer],
    ) -> None:
        """`trace`: `operate.trace.Trace.trace`."""
        lookout = Lookout(of, self._served)
        self._exposition = Exposition(lookout, of.tally)
        self._status = Status(lookout)
        veil = Veil((settings.token,), Path(settings.token_file) if settings.token_file else None)
        told = report.Of(
            self._status, self._exposition, of.names, of.journal, settings.shown(), log_lines, self._notes, veil
        )  # fmt: skip
        self._report = report.Report(told)
        #: What the flight recorder holds, as JSON, oldest first.
        self.notes: Callable[[], list[bytes]] = list
        self._exporter: Exporter | None = None
        if settings.metrics:
            self._exporter = Exporter(split_address(settings.metrics), self._exposition.page, of.tally)
        self._web = self._served_page(settings, of, lookout, clusterwide, trace) if settings.web else ()

    @staticmethod
    def _served_page(
        settings: Settings, of: Of, lookout: Lookout, clusterwide: Clusterwide, trace: Callable[[Ask, float], Answer]
    ) -> tuple[Loop, ...]:
        known = of.peers
        onlooker = Onlooker(
            clusterwide.outlooks,
            clusterwide.observatory.look,
            lambda: known.known.present or frozenset(),
            of.tally,
            of.now,
        )
        seen = Seen(of.records.me, settings.host_name, lookout, of.overlays, of.peers, of.fates, onlooker, of.now)
        tracing = Tracing(trace, of.tally, of.now)
        return onlooker, tracing, Page(split_address(settings.web), Picture(seen), tracing.ask, of.tally)

    def loops(self) -> tuple[Loop, ...]:
        return (*((self._exporter,) if self._exporter is not None else ()), *self._web)

    def methods(self) -> dict[str, Method]:
        return {**self._status.methods(), **self._report.methods()}

    def pages(self) -> dict[str, Read]:
        """What is read by GET on the plugin's own sockets."""
        return {"metrics": lambda: (CONTENT_TYPE, self._exposition.page())}

    def _notes(self) -> list[bytes]:
        return self.notes()

    def _served(self) -> tuple[str, str]:
        return (self._exporter.shown, self._exporter.trouble) if self._exporter is not None else ("", "")
