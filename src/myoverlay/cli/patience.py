"""The server's worker, with a limit to how long anybody may take for a request: no client can hold a thread.

gunicorn's own waits for the first byte of a request (5 s) and then, for the rest of it, as long as it takes.
"""

from __future__ import annotations

import errno
import socket
import time
from typing import Any

from gunicorn.workers.gthread import TConn, ThreadWorker

#: Seconds for a whole request, head and body, and again for taking the answer. Docker writes its calls at once.
PATIENCE = 10.0


class Hurried:
    """A connection whose request has to be there by a deadline. Too late looks to the server like a hang-up."""

    def __init__(self, sock: socket.socket, patience: float) -> None:
        self._sock = sock
        self._patience = patience
        self._deadline = time.monotonic() + patience

    def recv(self, size: int, *flags: int) -> bytes:
        self._hurry(self._deadline - time.monotonic())
        try:
            return self._sock.recv(size, *flags)
        except TimeoutError:
            raise _late() from None

    def send(self, data: bytes, *flags: int) -> int:
        self._hurry(self._patience)
        try:
            return self._sock.send(data, *flags)
        except TimeoutError:
            raise _late() from None

    def sendall(self, data: bytes, *flags: int) -> None:
        self._hurry(self._patience)
        try:
            self._sock.sendall(data, *flags)  # the time-out is for all of it
        except TimeoutError:
            raise _late() from None

    def _hurry(self, left: float) -> None:
        if left <= 0:
            raise _late()
        self._sock.settimeout(left)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


def _late() -> OSError:
    return OSError(errno.ECONNRESET, "the client took too long")


class Worker(ThreadWorker):  # type: ignore[misc]
    """The worker of many threads, each of which is hurried."""

    patience = PATIENCE

    def handle(self, conn: TConn) -> Any:
        """One request, in a thread."""
        conn.sock = Hurried(conn.sock, self.patience)
        return super().handle(conn)
