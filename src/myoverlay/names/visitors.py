"""Who asks over TCP: connections with limits, a question at a time."""

from __future__ import annotations

import selectors
import socket
import struct
from collections import Counter
from collections.abc import Callable

from myoverlay.names.forward import Registry
from myoverlay.names.questions import QUESTION_LIMIT

#: Connections at once: of all, and of one asker. Seconds that one may be idle, or take over a question or an answer.
VISITORS, VISITORS_EACH = 64, 8
IDLE = 5.0
#: Questions on one connection.
QUESTIONS = 100
_LENGTH = struct.Struct("!H")

#: Called with the overlay, the asker's address, a question, and what takes the answer (None: hang up).
Serve = Callable[[str, str, bytes, Callable[[bytes | None], None]], None]


class _Visitor:
    def __init__(self, sock: socket.socket, overlay: str, source: str, until: float) -> None:
        self.sock, self.overlay, self.source, self.until = sock, overlay, source, until
        self.read, self.out = b"", b""
        self.asked = 0
        #: An answer of his is sought; his questions are being gone through; he has left.
        self.waits = self.served = self.gone = False


class Visitors:
    """For one thread."""

    def __init__(self, registry: Registry, serve: Serve, now: Callable[[], float]) -> None:
        self._registry, self._serve, self._now = registry, serve, now
        self._all: dict[_Visitor, None] = {}
        self._of: Counter[tuple[str, str]] = Counter()

    def accept(self, listener: socket.socket, overlay: str) -> None:
        """Somebody has come. Who comes too often, or in a crowd, is sent away."""
        try:
            sock, (source, _port) = listener.accept()
        except OSError:
            return
        if len(self._all) >= VISITORS or self._of[overlay, source] >= VISITORS_EACH:
            sock.close()
            return
        sock.setblocking(False)
        visitor = _Visitor(sock, overlay, source, self._now() + IDLE)
        self._all[visitor] = None
        self._of[overlay, source] += 1
        self._registry.watch(sock, selectors.EVENT_READ, lambda: self._hear(visitor))

    def due(self) -> float | None:
        return min((visitor.until for visitor in self._all), default=None)

    def tick(self) -> None:
        now = self._now()
        for visitor in [one for one in self._all if one.until <= now]:
            self._leave(visitor)

    def close(self, overlay: str | None = None) -> None:
        """Send away those of an overlay, or all."""
        for visitor in [one for one in self._all if overlay is None or one.overlay == overlay]:
            self._leave(visitor)

    def _hear(self, visitor: _Visitor) -> None:
        try:
            got = visitor.sock.recv(4096)
        except BlockingIOError:
            return
        except OSError:
            got = b""
        if not got:
            self._leave(visitor)
            return
        visitor.read += got
        self._go_on(visitor)

    def _go_on(self, visitor: _Visitor) -> None:
        """Serve what is there whole. A question that is answered at once does not come by here a second time."""
        if visitor.served:
            return
        visitor.served = True
        while not visitor.gone and not visitor.waits and not visitor.out and self._next(visitor):
            pass
        visitor.served = False
        self._watch(visitor)

    def _next(self, visitor: _Visitor) -> bool:
        """Take the next question; False where it is not there whole."""
        if len(visitor.read) < _LENGTH.size:
            return False
        length = _LENGTH.unpack_from(visitor.read)[0]
        if length > QUESTION_LIMIT or visitor.asked >= QUESTIONS:
            self._leave(visitor)
            return False
        if len(visitor.read) < _LENGTH.size + length:
            return False
        raw, visitor.read = visitor.read[_LENGTH.size :][:length], visitor.read[_LENGTH.size + length :]
        visitor.asked += 1
        visitor.waits = True
        visitor.until = self._now() + IDLE
        self._serve(visitor.overlay, visitor.source, raw, lambda answer: self._answer(visitor, answer))
        return True

    def _answer(self, visitor: _Visitor, raw: bytes | None) -> None:
        if visitor.gone:
            return
        visitor.waits = False
        if raw is None:
            self._leave(visitor)
            return
        visitor.out = _LENGTH.pack(len(raw)) + raw
        self._write(visitor)

    def _write(self, visitor: _Visitor) -> None:
        try:
            visitor.out = visitor.out[visitor.sock.send(visitor.out) :]
        except BlockingIOError:
            pass
        except OSError:
            self._leave(visitor)
            return
        if not visitor.out:
            visitor.until = self._now() + IDLE
        self._go_on(visitor)

    def _watch(self, visitor: _Visitor) -> None:
        """While an answer is sought nothing more is read: who asks faster than he is answered waits."""
        self._registry.unwatch(visitor.sock)
        if visitor.out:
            self._registry.watch(visitor.sock, selectors.EVENT_WRITE, lambda: self._write(visitor))
        elif not visitor.waits and not visitor.gone:
            self._registry.watch(visitor.sock, selectors.EVENT_READ, lambda: self._hear(visitor))

    def _leave(self, visitor: _Visitor) -> None:
        if visitor.gone:
            return
        visitor.gone, visitor.out = True, b""
        del self._all[visitor]
        self._of[visitor.overlay, visitor.source] -= 1
        if not self._of[visitor.overlay, visitor.source]:
            del self._of[visitor.overlay, visitor.source]
        self._registry.unwatch(visitor.sock)
        visitor.sock.close()
