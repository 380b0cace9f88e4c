"""The plugin as a process of a host: `myoverlay serve`, without packaging."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from lab import places
from lab.errors import LabError
from lab.host import Host
from lab.processes import wait_for

SOCKET = "run/docker/plugins/myoverlay.sock"


class PluginProcess:
    """Starts, stops and kills the plugin of one host; its log lies in the host's folder."""

    def __init__(self, host: Host, settings: Mapping[str, str], python: str = sys.executable) -> None:
        self.host = host
        self.settings = dict(settings)
        self.python = python
        self.log: Path = host.folder / "myoverlay.log"
        self._process: subprocess.Popen[str] | None = None

    def start(self, timeout: float = 20) -> None:
        """Start it and wait until its socket is bound."""
        environment = {
            "PYTHONPATH": str(places.REPOSITORY / "src"),
            # An installed plugin has its bytecode; without it every start would compile for 0.3 s.
            "PYTHONDONTWRITEBYTECODE": "",
            "PYTHONPYCACHEPREFIX": str(places.HOME / "pycache"),
            "MYOVERLAY_LOG_LEVEL": "debug",
            **self.settings,
        }
        with self.log.open("ab") as log:
            self._process = self.host.popen(
                [self.python, "-m", "myoverlay", "serve"], env=environment, stdout=log, stderr=log
            )
        wait_for(f"the plugin on {self.host.name}", timeout, self._bound)

    def _bound(self) -> bool:
        if self._process is not None and self._process.poll() is not None:
            raise LabError(f"the plugin on {self.host.name} ended: {self.words()[-500:]}")
        # The file alone says nothing: one that was killed leaves its own behind.
        socket_file = self.host.fs / SOCKET
        with contextlib.suppress(FileNotFoundError, ConnectionRefusedError), socket.socket(socket.AF_UNIX) as dialled:
            folder = os.open(socket_file.parent, os.O_PATH)  # a path of any length is dialled by it
            try:
                dialled.connect(f"/proc/self/fd/{folder}/{socket_file.name}")
                return True
            finally:
                os.close(folder)
        return False

    @property
    def pid(self) -> int:
        """Its first process, as the machine counts."""
        if self._process is None:
            raise LabError(f"the plugin on {self.host.name} is not running")
        return self._process.pid

    def stop(self, how: int = signal.SIGTERM, timeout: float = 30) -> None:
        """End it with a signal and wait for its end."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(how)
            self._process.wait(timeout)
        self._process = None

    def words(self) -> str:
        """Its log so far."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""
