"""What Consul knows us by: a text, or a file that may change at any time."""

from __future__ import annotations

import threading
from pathlib import Path

from myoverlay.errors import Unavailable


class Token:
    """What Consul knows us by, from a text or from a file that may change at any time."""

    def __init__(self, text: str | None, path: Path | None) -> None:
        self._path = path
        self._lock = threading.Lock()  # guards the two below
        self._text = text or None
        self._stamp: tuple[int, int, int] | None = None

    def read(self) -> str | None:
        """The token of now. Raises Unavailable where its file cannot be read or holds none, without showing it."""
        with self._lock:
            if self._path is not None:
                self._text, self._stamp = self._load(self._path)
            if self._text is not None and not (self._text.isascii() and self._text.isprintable()):
                # http.client would refuse it with a text that shows it.
                raise Unavailable("Consul's token holds characters that no HTTP header takes")
            return self._text

    def _load(self, path: Path) -> tuple[str | None, tuple[int, int, int]]:
        try:
            status = path.stat()
            stamp = (status.st_mtime_ns, status.st_ino, status.st_size)
            text = self._text if stamp == self._stamp else path.read_text("ascii").strip()
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is no ASCII text"
            raise Unavailable(f"the token file {path} cannot be read: {reason}") from None
        if not text:
            # Half-way through being written anew; to go on would be to ask as anonymous.
            raise Unavailable(f"the token file {path} is empty")
        return text, stamp
