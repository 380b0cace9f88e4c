"""The composition root's part for what is seen of this host: status, names, metrics.

thread       object             does                                              stopped by
metrics      Exporter           metrics on a TCP address (setting)                Daemon.stop
"""

from __future__ import annotations

from myoverlay.docker.app import Page
from myoverlay.host.loop import Loop
from myoverlay.operate.control import Method
from myoverlay.operate.exporter import Exporter, split_address
from myoverlay.operate.exposition import CONTENT_TYPE, Exposition
from myoverlay.operate.lookout import Lookout, Of
from myoverlay.operate.status import Status
from myoverlay.settings import Settings


class Overview:
    """What there is to be seen, and who shows it."""

    def __init__(self, settings: Settings, of: Of) -> None:
        lookout = Lookout(of, self._served)
        self._exposition = Exposition(lookout, of.tally)
        self._status = Status(lookout)
        self._exporter: Exporter | None = None
        if settings.metrics:
            self._exporter = Exporter(split_address(settings.metrics), self._exposition.page, of.tally)

    def loops(self) -> tuple[Loop, ...]:
        return (self._exporter,) if self._exporter is not None else ()

    def methods(self) -> dict[str, Method]:
        return self._status.methods()

    def pages(self) -> dict[str, Page]:
        """What is read by GET on the plugin's own sockets."""
        return {"metrics": lambda: (CONTENT_TYPE, self._exposition.page())}

    def _served(self) -> tuple[str, str]:
        return (self._exporter.shown, self._exporter.trouble) if self._exporter is not None else ("", "")
