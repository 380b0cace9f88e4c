"""Metrics on a TCP address, for a scraper."""

from __future__ import annotations

import time
from collections.abc import Callable

from myoverlay.operate.exposition import CONTENT_TYPE
from myoverlay.operate.serving import Server, request_line, response
from myoverlay.tally import Tally


class Exporter(Server):
    """Owns the thread `metrics` and its sockets."""

    what, path = "metrics are", "/metrics"

    def __init__(
        self,
        address: tuple[str, int],
        page: Callable[[], bytes],
        tally: Tally,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__("metrics", address, tally, now)
        self._page = page

    def answer(self, head: bytes) -> bytes:
        """The page, to whoever asks for it by GET."""
        asked = request_line(head)
        if asked is None:
            return response("400 Bad Request", b"this is no HTTP request\n")
        method, path = asked
        if path.partition(b"?")[0] != b"/metrics":
            return response("404 Not Found", b"here is /metrics and nothing else\n")
        if method not in (b"GET", b"HEAD"):
            return response("405 Method Not Allowed", b"/metrics is read by GET\n", "Allow: GET, HEAD\r\n")
        return response("200 OK", self._page(), kind=CONTENT_TYPE, silent=method == b"HEAD")
