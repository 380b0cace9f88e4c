"""The log's last lines, kept in bounded memory: where the log itself goes is somebody else's business."""

from __future__ import annotations

import logging
from collections import deque

#: Bytes of one line that are kept; a traceback fits.
LONG = 8192
#: What a line costs beside its bytes.
_OVERHEAD = 64


class LogLines(logging.Handler):
    """Keeps what all lines together may take, `limit` bytes; the oldest go first. Its own lock guards the lines."""

    def __init__(self, limit: int, form: logging.Formatter) -> None:
        super().__init__()
        self.limit = limit
        self.setFormatter(form)
        self._lines: deque[bytes] = deque()
        self._size = 0

    def emit(self, record: logging.LogRecord) -> None:
        line = self.format(record).encode("utf-8", "replace")[:LONG]
        self._lines.append(line)
        self._size += len(line) + _OVERHEAD
        while self._size > self.limit:
            self._size -= len(self._lines.popleft()) + _OVERHEAD

    @property
    def size(self) -> int:
        """Bytes that the lines take now."""
        self.acquire()
        try:
            return self._size
        finally:
            self.release()

    def kept(self) -> list[str]:
        """The lines, oldest first."""
        self.acquire()
        try:
            lines = list(self._lines)
        finally:
            self.release()
        return [line.decode("utf-8", "replace") for line in lines]
