"""What goes over the wire between this process and Consul, by the thread that asked."""

from __future__ import annotations

import socket
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

from myoverlay.store import wire

#: Bytes of TCP's payload in both directions, headers and all, and how many requests, by the thread's name.
received: Counter[str] = Counter()
sent: Counter[str] = Counter()
requests: Counter[str] = Counter()


_connect = wire._connect


class _Counted(socket.socket):
    """A socket that counts. Threads count into keys of their own."""

    def recv_into(self, *args: Any) -> int:
        length = super().recv_into(*args)
        received[threading.current_thread().name] += length
        return length

    def sendall(self, data: Any, *flags: int) -> None:
        super().sendall(data, *flags)
        name = threading.current_thread().name
        sent[name] += len(data)
        requests[name] += data[:4] in (b"GET ", b"PUT ")


def install(inside: Callable[[Callable[[], socket.socket]], socket.socket] = lambda make: make()) -> None:
    """Count from now on what the store's client opens; `inside` opens it in another network than this process's."""

    def counted(*args: Any) -> socket.socket:
        sock = inside(lambda: _connect(*args))
        return _Counted(fileno=sock.detach())

    wire._connect = counted  # type: ignore[assignment]
