"""The composition root's part for what is seen of this host: status, metrics, reports.

thread       object             does                                              stopped by
metrics      Exporter           metrics on a TCP address (setting)                Daemon.stop
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from myoverlay.docker.app import Page
from myoverlay.host.loop import Loop
from myoverlay.operate import report
from myoverlay.operate.control import Method
from myoverlay.operate.exporter import Exporter, split_address
from myoverlay.operate.exposition import CONTENT_TYPE, Exposition
from myoverlay.operate.lookout import Lookout, Of
from myoverlay.operate.status import Status
from myoverlay.operate.veil import Veil
from myoverlay.settings import Settings


class Overview:
    """What there is to be seen, and who shows it."""

    def __init__(self, settings: Settings, of: Of, log_lines: Callable[[], list[str]]) -> None:
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

    def loops(self) -> tuple[Loop, ...]:
        return (self._exporter,) if self._exporter is not None else ()

    def methods(self) -> dict[str, Method]:
        return {**self._status.methods(), **self._report.methods()}

    def pages(self) -> dict[str, Page]:
        """What is read by GET on the plugin's own sockets."""
        return {"metrics": lambda: (CONTENT_TYPE, self._exposition.page())}

    def _notes(self) -> list[bytes]:
        return self.notes()

    def _served(self) -> tuple[str, str]:
        return (self._exporter.shown, self._exporter.trouble) if self._exporter is not None else ("", "")
