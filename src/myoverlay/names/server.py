"""The resolver's loop: sockets in, sockets out. What is answered decides `plan.zone`."""

from __future__ import annotations

import os
import selectors
import socket
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from myoverlay.names import protocol, questions
from myoverlay.names.forward import Forwarder
from myoverlay.names.protocol import Alter, Close, Listen, Ping, Pong, Show
from myoverlay.names.questions import Asked
from myoverlay.names.visitors import Visitors
from myoverlay.plan import resolvers
from myoverlay.plan.zone import Directory, Forward, Ignore, Nobody, Refuse

#: Datagrams that are read from one socket before the others have their turn.
_AT_ONCE = 16
#: Seconds without a word from the daemon, who asks each second: it hangs, and where containers are is no longer known.
SILENT = 10.0
#: How often the host's list of resolvers is looked at, seconds.
_LOOK = 2.0
RESOLV_CONF = Path("/etc/resolv.conf")


class Server:
    """Ends when the daemon does: its end of `control` is closed then. `own` is the address that it answers at."""

    def __init__(
        self,
        control: socket.socket,
        own: str,
        resolv_conf: Path = RESOLV_CONF,
        port: int = 53,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._control, self._own, self._resolv_conf, self._now = control, own, resolv_conf, now
        self._selector = selectors.DefaultSelector()
        self._directory = Directory()
        self._counts: Counter[str] = Counter()
        self._sockets: dict[str, tuple[socket.socket, socket.socket]] = {}
        self._servers: tuple[str, ...] = ()
        self._looked = float("-inf")
        self._asked_at = now()
        self._forwarder = Forwarder(self, self._upstream, now, self._count, port)
        self._visitors = Visitors(self, self._serve, now)
        self._over = False
        control.setblocking(False)
        self.watch(control, selectors.EVENT_READ, self._obey)

    # -- the loop --------------------------------------------------------------------------------------------------

    def watch(self, sock: socket.socket, events: int, call: Callable[[], None]) -> None:
        self._selector.register(sock, events, call)

    def unwatch(self, sock: socket.socket) -> None:
        if sock.fileno() >= 0 and sock.fileno() in self._selector.get_map():
            self._selector.unregister(sock)

    def run(self) -> None:
        """Until the daemon has gone."""
        while not self._over:
            self.step()
        self._forwarder.close()
        for overlay in tuple(self._sockets):
            self._hang_up(overlay)
        self._selector.close()

    def step(self) -> None:
        """Wait for something, and do it."""
        due = [when for when in (self._forwarder.due(), self._visitors.due()) if when is not None]
        wait = max(0.0, min(due) - self._now()) if due else None
        for key, _events in self._selector.select(wait):
            # Not closed by one before it, nor its number given to another socket since.
            if self._selector.get_map().get(key.fd) is key:
                key.data()
        self._forwarder.tick()
        self._visitors.tick()

    def _count(self, outcome: str) -> None:
        self._counts[outcome] += 1

    # -- the daemon's orders ---------------------------------------------------------------------------------------

    def _obey(self) -> None:
        try:
            told = protocol.receive_order(self._control)
        except BlockingIOError:
            return
        except OSError:
            told = None
        if told is None:
            self._over = True
            return
        order, descriptors = told
        if isinstance(order, Ping):
            self._asked_at = self._now()
            self._pong(order.number)
        elif isinstance(order, Listen):
            self._listen(order.overlay, *(socket.socket(fileno=fd) for fd in descriptors))
        elif isinstance(order, Show):
            self._directory.show(protocol.zone_in(descriptors[0]), self._now())
            os.close(descriptors[0])
        elif isinstance(order, Alter):
            self._directory.change(protocol.change_in(descriptors[0]), self._now())
            os.close(descriptors[0])
        elif isinstance(order, Close):
            self._hang_up(order.overlay)
            self._directory.drop(order.overlay)

    def _pong(self, number: int) -> None:
        try:
            protocol.send(self._control, Pong(number, dict(self._counts)))
        except OSError:  # it does not read, and will find out by itself; or it has just ended, which is heard next
            return
        self._counts = Counter()

    def _listen(self, overlay: str, udp: socket.socket, tcp: socket.socket) -> None:
        self._hang_up(overlay)
        self._sockets[overlay] = (udp, tcp)
        udp.setblocking(False)
        tcp.setblocking(False)
        self.watch(udp, selectors.EVENT_READ, lambda: self._hear(udp, overlay))
        self.watch(tcp, selectors.EVENT_READ, lambda: self._visitors.accept(tcp, overlay))

    def _hang_up(self, overlay: str) -> None:
        self._visitors.close(overlay)
        for sock in self._sockets.pop(overlay, ()):
            self.unwatch(sock)
            sock.close()

    # -- questions -------------------------------------------------------------------------------------------------

    def _hear(self, udp: socket.socket, overlay: str) -> None:
        for _ in range(_AT_ONCE):
            try:
                raw, (source, port) = udp.recvfrom(4096)
            except BlockingIOError:
                return
            except OSError:  # what the kernel was told of an answer before: nobody takes it any more
                continue
            self._answer(udp, overlay, raw, source, port)

    def _answer(self, udp: socket.socket, overlay: str, raw: bytes, source: str, port: int) -> None:
        asked = questions.read(raw)

        def send(answer: bytes | None) -> None:
            if answer is None and isinstance(asked, Asked):
                answer = questions.failure(asked)
            elif answer is not None and isinstance(asked, Asked) and len(answer) > max(asked.message.payload, 512):
                answer = questions.cut(asked)
            if answer is not None:
                self._send(udp, answer, source, port)

        if isinstance(asked, Asked):
            self._decide(asked, overlay, source, asked.room, False, send)
        else:
            self._count("malformed")
            send(asked)

    def _send(self, udp: socket.socket, answer: bytes, source: str, port: int) -> None:
        try:
            udp.sendto(answer, (source, port))
        except (OSError, OverflowError):  # it has gone, or its buffer is full; a closed socket's number is -1
            self._count("unsent")

    def _serve(self, overlay: str, source: str, raw: bytes, reply: Callable[[bytes | None], None]) -> None:
        """A question over TCP."""
        asked = questions.read(raw)
        if not isinstance(asked, Asked):
            self._count("malformed")
            reply(asked)
            return
        known = asked
        self._decide(known, overlay, source, 65535, True, lambda raw: reply(raw or questions.failure(known)))

    def _decide(
        self,
        asked: Asked,
        overlay: str,
        source: str,
        room: int,
        over_tcp: bool,
        reply: Callable[[bytes | None], None],
    ) -> None:
        verdict = self._directory.decide(overlay, source, asked.question, self._now())
        if isinstance(verdict, Forward):
            self._count("forwarded")
            self._forwarder.ask(asked, overlay, over_tcp, reply)
        elif isinstance(verdict, Ignore):
            self._count("ignored")
        elif not isinstance(verdict, Refuse) and self._now() - self._asked_at > SILENT:
            self._count("doubted")
            reply(None)
        else:
            self._count({Nobody: "nobody", Refuse: "refused"}.get(type(verdict), "answered"))
            reply(questions.answer(asked, verdict, room))

    def _upstream(self) -> tuple[str, ...]:
        """The host's resolvers; its file is read again now and then."""
        if self._now() - self._looked >= _LOOK:
            self._looked = self._now()
            try:
                text = self._resolv_conf.read_text(errors="replace")
            except OSError:
                text = ""
            self._servers = resolvers.read(text, (self._own,))
        return self._servers
