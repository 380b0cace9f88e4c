"""A daemon on a bare host of its own at an address of the underlay: the store and the registry."""

from __future__ import annotations

import http.client
import signal
import socket
from collections.abc import Mapping
from pathlib import Path

from lab.errors import LabError
from lab.host import Host
from lab.processes import Known, wait_for
from lab.view import RootView


class NetnsConnection(http.client.HTTPConnection):
    """HTTP from this process to a server that only a host's network namespace reaches."""

    def __init__(self, host: Host, address: str, port: int, timeout: float = 10) -> None:
        super().__init__(address, port, timeout=timeout)
        self._through = host

    def connect(self) -> None:
        """Open the socket inside; it stays there, whoever uses it."""
        self.sock = self._through.inside(lambda: socket.create_connection((self.host, self.port), self.timeout))


class Service:
    """One daemon: start, stop, kill, freeze, and questions over HTTP."""

    port = 80

    def __init__(self, host: Host, root: Path) -> None:
        self.host = host
        self.view = RootView(host, root)
        self.daemon: Known | None = None

    @property
    def address(self) -> str:
        """As a host reaches it: `172.30.0.254:8500`."""
        return f"{self.host.address}:{self.port}"

    @property
    def url(self) -> str:
        """As a host reaches it, as a URL."""
        return f"http://{self.address}"

    @property
    def log(self) -> Path:
        """What it says."""
        return self.host.folder / "service.log"

    def command(self) -> list[str]:
        """What is started."""
        raise NotImplementedError

    def ready(self) -> bool:
        """Whether it answers as it should."""
        raise NotImplementedError

    def start(self, timeout: float = 30) -> None:
        """Start it, with the data of before, and wait until it is ready."""
        if self.running:
            return
        if not self.view.holder:
            self.view.build()
        pid = self.view.start_daemon(self.command(), self.log)
        self.daemon = Known.now(self.host.machine_pid(pid))
        try:
            wait_for(f"{self.host.name} at {self.address}", timeout, self._ready_or_ended)
        except LabError as error:
            lines = self.log.read_text(errors="replace").splitlines()
            raise LabError(f"{error}; its last words: {' | '.join(lines[-4:])}") from None

    def _ready_or_ended(self) -> bool:
        if not self.running:
            raise LabError(f"{self.host.name} ended while starting")
        try:
            return self.ready()
        except (OSError, http.client.HTTPException):
            return False

    @property
    def running(self) -> bool:
        """Whether the daemon lives."""
        return self.daemon is not None and self.daemon.alive()

    def stop(self, kill: bool = False, timeout: float = 30) -> None:
        """End it; its data stays."""
        daemon = self.daemon
        if daemon is not None:
            daemon.signal(signal.SIGKILL if kill else signal.SIGTERM)
            wait_for(f"the end of {self.host.name}", timeout, lambda: not daemon.alive())

    def kill(self) -> None:
        """End it as a crash does."""
        self.stop(kill=True)

    def freeze(self) -> None:
        """Let it hang: connections are accepted by the kernel and never answered."""
        if self.daemon is not None:
            self.daemon.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        if self.daemon is not None:
            self.daemon.signal(signal.SIGCONT)

    def request(
        self, method: str, path: str, body: bytes | None = None, timeout: float = 10
    ) -> tuple[int, bytes, dict[str, str]]:
        """Ask it from this process: status, body, headers in lower case."""
        return self.ask(method, path, body, timeout)

    def ask(
        self, method: str, path: str, body: bytes | None, timeout: float, headers: Mapping[str, str] | None = None
    ) -> tuple[int, bytes, dict[str, str]]:
        """The same with headers of one's own."""
        connection = NetnsConnection(self.host, self.host.address, self.port, timeout)
        try:
            connection.request(method, path, body, dict(headers or {}))
            answer = connection.getresponse()
            return answer.status, answer.read(), {name.lower(): value for name, value in answer.getheaders()}
        finally:
            connection.close()
