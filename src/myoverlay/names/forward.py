"""Questions that are not ours, put to the host's resolvers.

Each goes from a socket of its own, connected, so from a random port and answered by that server alone; under a random
number; and its answer must repeat it. The next server is asked when one is silent for a while or refuses at once, and
whoever answers first is believed. Nobody in time, or too many under way: SERVFAIL, which lets the asker go on to his
next server at once, where silence would cost him four seconds.
"""

from __future__ import annotations

import heapq
import itertools
import secrets
import selectors
import socket
import struct
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Protocol

from myoverlay.names import questions
from myoverlay.names.questions import Asked

#: Seconds that a question may take over UDP and over TCP, and that a server may be silent before the next is asked.
PATIENCE, PATIENCE_TCP, STAGGER = 1.0, 2.0, 0.3
#: Questions under way: of all, and of one overlay, so that one busy network does not use up what all have.
OUTSTANDING, OUTSTANDING_EACH = 512, 128
_LENGTH = struct.Struct("!H")


class Registry(Protocol):
    """What is needed of the loop: tell when a socket can be read or written, and of one unwatched nothing any more."""

    def watch(self, sock: socket.socket, events: int, call: Callable[[], None]) -> None: ...
    def unwatch(self, sock: socket.socket) -> None: ...


class _Errand:
    """One question under way: its sockets, one for each server asked so far."""

    def __init__(self, asked: Asked, overlay: str, over_tcp: bool, reply: Callable[[bytes | None], None]) -> None:
        self.asked, self.overlay, self.over_tcp, self.reply = asked, overlay, over_tcp, reply
        self.number = secrets.randbelow(1 << 16)
        self.servers: list[str] = []
        self.sockets: list[socket.socket] = []
        self.done = False


class Forwarder:
    """For one thread. `servers`: whom to ask now, in order; `port` is theirs."""

    def __init__(
        self,
        registry: Registry,
        servers: Callable[[], Sequence[str]],
        now: Callable[[], float],
        count: Callable[[str], None],
        port: int = 53,
    ) -> None:
        self._registry, self._servers, self._now, self._count, self._port = registry, servers, now, count, port
        self._timers: list[tuple[float, int, _Errand, bool]] = []
        self._numbers = itertools.count()
        self._busy: dict[str, int] = {}
        self.outstanding = 0

    def ask(self, asked: Asked, overlay: str, over_tcp: bool, reply: Callable[[bytes | None], None]) -> None:
        """`reply` is called once, now or later: with the answer, or with None for a failure."""
        servers = list(self._servers())
        if not servers:
            self._count("no server")
            reply(None)
            return
        if self.outstanding >= OUTSTANDING or self._busy.get(overlay, 0) >= OUTSTANDING_EACH:
            self._count("too many")
            reply(None)
            return
        errand = _Errand(asked, overlay, over_tcp, reply)
        errand.servers = servers
        self.outstanding += 1
        self._busy[overlay] = self._busy.get(overlay, 0) + 1
        self._at(self._now() + (PATIENCE_TCP if over_tcp else PATIENCE), errand, last=True)
        self._next_server(errand)

    def due(self) -> float | None:
        """When `tick` has something to do."""
        return self._timers[0][0] if self._timers else None

    def tick(self) -> None:
        """Ask the next server where one was silent; give up what took too long."""
        now = self._now()
        while self._timers and self._timers[0][0] <= now:
            _, _, errand, last = heapq.heappop(self._timers)
            if errand.done:
                continue
            if last:
                self._count("late")
                self._finish(errand, None)
            else:
                self._next_server(errand)

    def close(self) -> None:
        for _, _, errand, _ in self._timers:
            self._shut(errand)
        self._timers.clear()

    def _at(self, when: float, errand: _Errand, *, last: bool = False) -> None:
        heapq.heappush(self._timers, (when, next(self._numbers), errand, last))

    def _next_server(self, errand: _Errand) -> None:
        """Ask one more server; those asked before may still answer."""
        while errand.servers:
            server = errand.servers.pop(0)
            with suppress(OSError):  # no route, no IPv6, no descriptor left: then the next
                self._send(errand, server)
                if errand.servers:
                    self._at(self._now() + STAGGER, errand)
                return
        if not errand.sockets:
            self._count("unreachable")
            self._finish(errand, None)

    def _send(self, errand: _Errand, server: str) -> None:
        family = socket.AF_INET6 if ":" in server else socket.AF_INET
        raw = questions.numbered(errand.asked.raw, errand.number)
        sock = socket.socket(family, socket.SOCK_STREAM if errand.over_tcp else socket.SOCK_DGRAM)
        try:
            sock.setblocking(False)
            if errand.over_tcp:
                call = _Stream(self, errand, sock, _LENGTH.pack(len(raw)) + raw)
                with suppress(BlockingIOError):
                    sock.connect((server, self._port))
                self._registry.watch(sock, selectors.EVENT_WRITE, call)
            else:
                sock.connect((server, self._port))
                sock.send(raw)
                self._registry.watch(sock, selectors.EVENT_READ, lambda: self._heard(errand, sock))
        except BaseException:
            sock.close()
            raise
        errand.sockets.append(sock)

    def _heard(self, errand: _Errand, sock: socket.socket) -> None:
        try:
            raw = sock.recv(65535)
        except BlockingIOError:
            return
        except OSError:  # nobody listens there
            self.lost(errand, sock)
            return
        self.take(errand, raw)

    def take(self, errand: _Errand, raw: bytes) -> bool:
        """An answer from one of the servers; whatever is none is passed over."""
        if not questions.is_answer(errand.asked, errand.number, raw):
            self._count("false answers")
            return False
        self._finish(errand, questions.numbered(raw, questions.number_of(errand.asked.raw)))
        return True

    def lost(self, errand: _Errand, sock: socket.socket) -> None:
        """One of the servers cannot be asked."""
        errand.sockets.remove(sock)
        self._registry.unwatch(sock)
        sock.close()
        self._next_server(errand)

    def watch(self, sock: socket.socket, events: int, call: Callable[[], None]) -> None:
        self._registry.unwatch(sock)
        self._registry.watch(sock, events, call)

    def _finish(self, errand: _Errand, raw: bytes | None) -> None:
        errand.done = True
        self._shut(errand)
        self.outstanding -= 1
        left = self._busy[errand.overlay] - 1
        if left:
            self._busy[errand.overlay] = left
        else:
            del self._busy[errand.overlay]
        errand.reply(raw)

    def _shut(self, errand: _Errand) -> None:
        for sock in errand.sockets:
            self._registry.unwatch(sock)
            sock.close()
        errand.sockets.clear()


class _Stream:
    """A question to one server over TCP, as far as it has come. Called when its socket is ready."""

    def __init__(self, forwarder: Forwarder, errand: _Errand, sock: socket.socket, out: bytes) -> None:
        self._forwarder, self._errand, self._sock = forwarder, errand, sock
        self._out, self._in = out, b""

    def __call__(self) -> None:
        try:
            if self._out:
                self._out = self._out[self._sock.send(self._out) :]
                if not self._out:
                    self._forwarder.watch(self._sock, selectors.EVENT_READ, self)
                return
            got = self._sock.recv(65537)
        except BlockingIOError:
            return
        except OSError:
            self._forwarder.lost(self._errand, self._sock)
            return
        self._in += got
        length = _LENGTH.unpack_from(self._in)[0] if len(self._in) >= _LENGTH.size else 65535
        if len(self._in) - _LENGTH.size >= length:
            if not self._forwarder.take(self._errand, self._in[_LENGTH.size : _LENGTH.size + length]):
                self._forwarder.lost(self._errand, self._sock)
        elif not got:
            self._forwarder.lost(self._errand, self._sock)
