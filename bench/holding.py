"""Consul for one host, with its watches held back: what changes it hears of only where it asks.

All requests pass as they are, but for those that wait for a change of an overlay's rings: these are kept and never
answered, as over a connection that has gone silent. A watch gives one up after a minute; a measurement must end before.
"""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from types import TracebackType
from typing import Self

from lab.engine import EngineHost
from lab.fault_proxy import dial, listen
from lab.lab import Lab

_WATCH = re.compile(rb"^GET \S*/changes/\S*[?&]index=[1-9]")
_LENGTH = re.compile(rb"\r\ncontent-length:\s*(\d+)", re.I)
_MOST = 1 << 22


def is_watch(head: bytes) -> bool:
    """Whether a request waits for a change of the rings."""
    return _WATCH.match(head) is not None


class Holding:
    """Serves on a host's loopback from its making until the block ends, two threads a connection."""

    def __init__(self, lab: Lab, host: EngineHost) -> None:
        self._dial = dial(lab.consul)
        self._listener = host.inside(lambda: listen("127.0.0.1"))
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._over = False
        #: How many waits have been held back so far.
        self.kept = 0
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, name="holding", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with self._lock:
            self._over = True
            ends = [self._listener, *self._open]
        for sock in ends:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        self._thread.join(10)
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                store = self._dial()
            except OSError:
                client.close()
                continue
            for sock in (client, store):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sock.settimeout(None)
            with self._lock:
                if self._over:
                    return
                self._open |= {client, store}
            threading.Thread(target=self._ask, args=(client, store), daemon=True).start()
            threading.Thread(target=self._answer, args=(store, client), daemon=True).start()

    def _ask(self, client: socket.socket, store: socket.socket) -> None:
        """Requests, one after the other: the client sends none before it has the answer to the last."""
        held = b""
        with contextlib.suppress(OSError):
            while more := client.recv(65536):
                held += more
                if len(held) > _MOST:
                    break
                head, ended, body = held.partition(b"\r\n\r\n")
                length = _LENGTH.search(head)
                if not ended or len(body) < (int(length.group(1)) if length else 0):
                    continue
                if is_watch(head):
                    with self._lock:
                        self.kept += 1
                else:
                    store.sendall(held)
                held = b""
        self._end(client, store)

    def _answer(self, store: socket.socket, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while some := store.recv(65536):
                client.sendall(some)
        self._end(client, store)

    def _end(self, *socks: socket.socket) -> None:
        """Both threads of a connection come here; the second finds it done."""
        for sock in socks:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            with self._lock:
                mine = sock in self._open
                self._open.discard(sock)
            if mine:
                sock.close()
