"""What is only read, on a TCP address: one thread, a few connections, each of which ends soon.

It stands apart from the plugin's own server, so that whoever opens connections here takes none of the threads that
answer Docker. Whatever is asked, nothing is read but one request line and its headers, and nothing changes.
"""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from myoverlay.host.loop import Loop
from myoverlay.tally import Tally

log = logging.getLogger(__name__)

#: So many connections at once; one more, and the one that has been asking longest is closed.
CONNECTIONS = 16
#: Seconds that a connection has for its request and for taking the answer, however slowly it goes about it.
PATIENCE = 5.0
#: Bytes of a request: its line and its headers.
REQUEST = 8192
#: Seconds until an address that could not be had is tried again, at first and at most.
REBIND = (1.0, 60.0)
_BACKLOG = 32
_CHUNK = 65536


def split_address(text: str) -> tuple[str, int]:
    """`ADDRESS:PORT`, which the settings have checked."""
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)


@dataclass(slots=True, eq=False)
class _Visitor:
    """A connection: what it has said, and what it has yet to be told."""

    sock: socket.socket
    until: float
    heard: bytes = b""
    answer: memoryview | None = None
    #: Everything was said: only the visitor's end is waited for.
    done: bool = field(default=False)


class Server(Loop):
    """Owns a thread and its sockets. What it says to a request is its heirs' business."""

    #: What is served there, and its path, in words for the log and for a person.
    what, path = "", "/"

    def __init__(
        self, name: str, address: tuple[str, int], tally: Tally, now: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(name, tally)
        self.address = address
        self.trouble = ""
        self._name = name
        self._now = now
        self._listener: socket.socket | None = None
        self._bind_at, self._rebind = float("-inf"), REBIND[0]
        self._visitors: list[_Visitor] = []
        self._selector = selectors.DefaultSelector()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._selector.register(self._wake, selectors.EVENT_READ)

    def answer(self, head: bytes) -> bytes:
        """The whole response to a request line and its headers; they are empty where there was no end of them."""
        raise NotImplementedError

    @property
    def shown(self) -> str:
        """Where it is read."""
        host, port = self.address
        return f"http://{f'[{host}]' if ':' in host else host}:{port}{self.path}"

    def wake(self) -> None:
        os.eventfd_write(self._wake, 1)

    def stop(self, timeout: float) -> None:
        super().stop(timeout)
        for visitor in list(self._visitors):
            self._end(visitor)
        if self._listener is not None:
            self._listener.close()
        self._selector.close()
        os.close(self._wake)

    def round(self) -> None:
        """Wait for what comes, and answer it."""
        if self._listener is None and self._now() >= self._bind_at:
            self._bind()
        for key, events in self._selector.select(self._wait()):
            if key.fd == self._wake:
                os.eventfd_read(self._wake)
            elif key.fileobj is self._listener:
                self._accept()
            elif isinstance(key.data, _Visitor) and key.data in self._visitors:
                self._serve(key.data, events)
        now = self._now()
        for visitor in [visitor for visitor in self._visitors if visitor.until <= now]:
            self._end(visitor)

    def _wait(self) -> float:
        ends = [visitor.until for visitor in self._visitors]
        if self._listener is None:
            ends.append(self._bind_at)
        return max(0.0, min(ends, default=self._now() + 60.0) - self._now())

    def _bind(self) -> None:
        """Listen. What fails is said once, and tried again ever more slowly: a page brings down no network."""
        host, port = self.address
        try:
            family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)[0][0]
            self._listener = socket.create_server((host, port), family=family, backlog=_BACKLOG)
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno is not None and error.errno > 0 else error.strerror
            said = f"{host} port {port} cannot be listened on: {reason}"
            if said != self.trouble:
                log.error("%s: %s", self._name, said)
            self.trouble = said
            self._bind_at, self._rebind = self._now() + self._rebind, min(REBIND[1], self._rebind * 2)
            return
        self.trouble, self._rebind = "", REBIND[0]
        self._listener.setblocking(False)
        self._selector.register(self._listener, selectors.EVENT_READ)
        log.info("%s served at %s", self.what, self.shown)

    def _accept(self) -> None:
        assert self._listener is not None
        try:
            sock, _ = self._listener.accept()
        except OSError as error:  # it went away before, or no descriptors are left: the next one may fare better
            log.info("%s: a connection could not be taken: %s", self._name, error)
            self.stopping.wait(0.01)
            return
        if len(self._visitors) >= CONNECTIONS:
            # Who wants to read has asked and gone within milliseconds: who has been here longest does not.
            self._end(min(self._visitors, key=lambda visitor: visitor.until))
        sock.setblocking(False)
        visitor = _Visitor(sock, self._now() + PATIENCE)
        self._visitors.append(visitor)
        self._selector.register(sock, selectors.EVENT_READ, visitor)

    def _serve(self, visitor: _Visitor, events: int) -> None:
        try:
            if events & selectors.EVENT_READ:
                self._hear(visitor)
            if events & selectors.EVENT_WRITE and visitor.answer is not None:
                self._tell(visitor)
        except BlockingIOError:
            return
        except OSError:
            self._end(visitor)

    def _hear(self, visitor: _Visitor) -> None:
        heard = visitor.sock.recv(REQUEST)
        if not heard:
            self._end(visitor)
            return
        if visitor.answer is not None:
            return  # what comes after the request is not read as one
        visitor.heard += heard
        head, blank, _ = visitor.heard.partition(b"\r\n\r\n")
        if not blank and len(visitor.heard) < REQUEST:
            return
        visitor.answer = memoryview(self.answer(head if blank else b""))
        self._selector.modify(visitor.sock, selectors.EVENT_READ | selectors.EVENT_WRITE, visitor)
        self._tell(visitor)

    def _tell(self, visitor: _Visitor) -> None:
        assert visitor.answer is not None
        visitor.answer = visitor.answer[visitor.sock.send(visitor.answer[:_CHUNK]) :]
        if not visitor.answer and not visitor.done:
            visitor.done = True
            # Closed at once, what it still sends would be answered by a reset, which throws away what it has not read.
            visitor.sock.shutdown(socket.SHUT_WR)
            self._selector.modify(visitor.sock, selectors.EVENT_READ, visitor)

    def _end(self, visitor: _Visitor) -> None:
        self._visitors.remove(visitor)
        self._selector.unregister(visitor.sock)
        with contextlib.suppress(OSError):
            visitor.sock.close()


def request_line(head: bytes) -> tuple[bytes, bytes] | None:
    """Method and target; None where it is no request of HTTP/1."""
    words = head.split(b"\r\n", 1)[0].split(b" ")
    return (words[0], words[1]) if len(words) == 3 and words[2].startswith(b"HTTP/1.") else None


def response(
    status: str, body: bytes, more: str = "", kind: str = "text/plain; charset=utf-8", silent: bool = False
) -> bytes:
    """What a connection is told before it ends. `more`: further headers, each with its end."""
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n{more}Connection: close\r\n\r\n"
    )
    return head.encode() + (b"" if silent else body)
