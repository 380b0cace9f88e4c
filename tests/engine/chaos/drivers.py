"""The plugin of one host, as a process or managed by the engine: what a row does to it."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from lab.engine import EngineHost
from lab.plugin_process import SOCKET, PluginProcess
from lab.processes import Known, wait_for


class Driver(Protocol):
    """What every way to run the plugin can do."""

    def start(self) -> None:
        """Start it; returns when its socket is there."""

    def kill(self) -> None:
        """SIGKILL to all its processes."""

    def words(self) -> str:
        """Its log."""


class ProcessDriver(PluginProcess):
    """`myoverlay serve` of a source folder."""

    def __init__(self, host: EngineHost, settings: Mapping[str, str], source: Path) -> None:
        super().__init__(host, {"PYTHONPATH": str(source), **settings})

    def start(self, timeout: float = 20) -> None:
        """A socket that a killed one left is no sign of life."""
        (self.host.fs / SOCKET).unlink(missing_ok=True)
        super().start(timeout)

    def kill(self) -> None:
        """The master and its worker in the same moment: neither sees the other end."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(10)
            self._process = None


class ManagedDriver:
    """The plugin as the engine runs it."""

    def __init__(self, host: EngineHost, name: str, settings: Mapping[str, str]) -> None:
        self.host = host
        self.name = name
        self.settings = [f"{variable}={value}" for variable, value in settings.items()]

    def install(self) -> None:
        """With Docker's own command, from the registry."""
        self.host.docker("plugin", "install", "--grant-all-permissions", self.name, *self.settings, timeout=120)

    def start(self) -> None:
        """`docker plugin enable`."""
        self.host.docker("plugin", "enable", self.name, timeout=60)

    def disable(self) -> None:
        """`docker plugin disable -f`."""
        self.host.docker("plugin", "disable", "-f", self.name, timeout=60)

    def upgrade(self, to: str) -> None:
        """`docker plugin upgrade`; the plugin must be disabled."""
        self.host.docker(
            "plugin", "upgrade", "--grant-all-permissions", "--skip-remote-check", self.name, to, timeout=120
        )

    def remove(self) -> None:
        """`docker plugin rm`."""
        self.host.docker("plugin", "rm", "-f", self.name, timeout=60)

    def kill(self) -> None:
        """SIGKILL to the process that the engine started; the engine starts another."""
        before = self.processes()
        Known.now(self.host.machine_pid(before[0])).signal(signal.SIGKILL)
        wait_for("another process of the plugin", 30, lambda: set(self.processes()) - set(before))

    def processes(self) -> list[int]:
        """Its processes, as the host counts: first the one that the engine started."""
        found = []
        for entry in (self.host.fs / "proc").iterdir():
            if entry.name.isdigit():
                try:
                    words = (entry / "cmdline").read_bytes().split(b"\0")
                except OSError:
                    continue
                if b"myoverlay" in words and b"serve" in words:
                    found.append(int(entry.name))
        return sorted(found)

    def words(self) -> str:
        """What the engine noted of it."""
        lines = self.host.log.read_text(errors="replace").splitlines() if self.host.log.exists() else []
        return "\n".join(line for line in lines if "plugin=" in line)
