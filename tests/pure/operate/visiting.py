"""A server of ours on a free port of the loopback, and whoever visits it."""

from __future__ import annotations

import http.client
import socket
from typing import Any

from myoverlay.operate.serving import Server
from tests.pure.kit import until


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


class Visited:
    """It listens, until `end`."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._server.start()
        until(lambda: self._server._listener is not None)
        self.sockets: list[socket.socket] = []

    def dial(self) -> socket.socket:
        sock = socket.create_connection(self._server.address, timeout=10)
        self.sockets.append(sock)
        return sock

    def ask(self, path: str, method: str = "GET", **headers: str) -> Any:
        """The answer, with all of its `body`; `a_b` is the header `a-b`."""
        connection = http.client.HTTPConnection(*self._server.address, timeout=10)
        try:
            connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
            answer = connection.getresponse()
            answer.body = answer.read()  # type: ignore[attr-defined]
            return answer
        finally:
            connection.close()

    def raw(self, request: bytes) -> bytes:
        """What is answered until the end."""
        sock = self.dial()
        sock.sendall(request)
        parts = []
        while part := sock.recv(65536):
            parts.append(part)
        return b"".join(parts)

    def end(self) -> None:
        for sock in self.sockets:
            sock.close()
        self._server.stop(10)
