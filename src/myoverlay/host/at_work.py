"""Which overlay is being written to the store just now: whoever leaves one waits until that is over.

A write that began before an overlay was left, and ends after it, would bring keys back that nobody takes away again.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from myoverlay.values import OverlayName


class AtWork:
    """One writer, who says what it is at before it looks whether the overlay is still there. `_turn` guards `_on`."""

    def __init__(self) -> None:
        self._turn = threading.Condition()
        self._on: OverlayName | None = None

    @contextmanager
    def on(self, overlay: OverlayName) -> Iterator[None]:
        """The writer is at this overlay meanwhile."""
        with self._turn:
            self._on = overlay
        try:
            yield
        finally:
            with self._turn:
                self._on = None
                self._turn.notify_all()

    def rests(self, overlay: OverlayName, patience: float) -> bool:
        """Wait until the writer is at something else, at most `patience` seconds; is it?"""
        with self._turn:
            return self._turn.wait_for(lambda: self._on != overlay, patience)
