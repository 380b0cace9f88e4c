"""What a running plugin says of itself: its metrics, and the time of each of Docker's calls from its log."""

from __future__ import annotations

import http.client
import json
import os
import socket
from collections.abc import Iterator
from typing import Any

from lab.host import Host
from lab.plugin_process import SOCKET, PluginProcess


class _Dialled(http.client.HTTPConnection):
    def __init__(self, host: Host, timeout: float = 10) -> None:
        super().__init__("plugin", timeout=timeout)
        self._file = host.fs / SOCKET

    def connect(self) -> None:
        self.sock = dial(self._file.parent, self._file.name, self.timeout or 10)


def dial(folder: Any, name: str, timeout: float) -> socket.socket:
    """A connection to a socket file of any length of path. Raises OSError."""
    sock, place = socket.socket(socket.AF_UNIX), os.open(folder, os.O_PATH)
    try:
        sock.settimeout(timeout)
        sock.connect(f"/proc/self/fd/{place}/{name}")
    except OSError:
        sock.close()
        raise
    finally:
        os.close(place)
    return sock


def metrics(host: Host) -> dict[str, float]:
    """The plugin's page of metrics, by the name and labels that Prometheus sees."""
    connection = _Dialled(host)
    try:
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
    finally:
        connection.close()
    pairs = (line.rpartition(" ") for line in text.splitlines() if line and not line.startswith("#"))
    return {name: float(value) for name, _, value in pairs}


def total(found: dict[str, float], name: str) -> float:
    """A counter over all its labels."""
    return sum(value for key, value in found.items() if key.partition("{")[0] == name)


class Calls:
    """Docker's calls since this was made, from a plugin's log of form json."""

    def __init__(self, plugin: PluginProcess) -> None:
        self._plugin = plugin
        self._from = plugin.log.stat().st_size

    def lines(self) -> Iterator[dict[str, Any]]:
        """One for each call that was answered: `method`, `ms`, what it was about."""
        with self._plugin.log.open("rb") as log:
            log.seek(self._from)
            for raw in log:
                if raw.startswith(b"{") and b'"method"' in raw:
                    found: dict[str, Any] = json.loads(raw)
                    yield found
