"""The server's worker, with a limit to how long anybody may take for a request: no client can hold a thread.

gunicorn's own waits for the first byte of a request (5 s) and then, for the rest of it, as long as it takes.
"""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Callable
from typing import Any, TypeVar

from gunicorn.workers.gthread import TConn, ThreadWorker

from myoverlay.cli import heap

T = TypeVar("T")

#: Seconds for a whole request, head and body, and again for taking the answer. Docker writes its calls at once.
PATIENCE = 10.0


class Hurried:
    """A connection whose request has to be there by a deadline. Too late looks to the server like a hang-up."""

    def __init__(self, sock: socket.socket, patience: float) -> None:
        self._sock = sock
        self._patience = patience
        self._deadline = time.monotonic() + patience

    def recv(self, size: int, *flags: int) -> bytes:
        return self._within(self._deadline - time.monotonic(), lambda: self._sock.recv(size, *flags))

    def send(self, data: bytes, *flags: int) -> int:
        return self._within(self._patience, lambda: self._sock.send(data, *flags))

    def sendall(self, data: bytes, *flags: int) -> None:
        self._within(self._patience, lambda: self._sock.sendall(data, *flags))  # the time-out is for all of it

    def _within(self, left: float, act: Callable[[], T]) -> T:
        """Do it in the seconds that are left. Raises OSError, as of one who hung up, where they are too few."""
        try:
            if left > 0:
                self._sock.settimeout(left)
                return act()
        except TimeoutError:
            pass
        raise OSError(errno.ECONNRESET, "the client took too long")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


class Worker(ThreadWorker):  # type: ignore[misc]
    """The worker of many threads, each of which is hurried."""

    patience = PATIENCE
    _trim_at = 0.0

    def notify(self) -> None:
        """Called each second: tell the server that this one lives, and give memory that lies fallow back in time."""
        super().notify()
        if time.monotonic() >= self._trim_at:
            self._trim_at = time.monotonic() + heap.EVERY
            heap.give_back()

    def handle(self, conn: TConn) -> Any:
        """One request, in a thread."""
        conn.sock = Hurried(conn.sock, self.patience)
        return super().handle(conn)
