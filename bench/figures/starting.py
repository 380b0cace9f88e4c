"""How long the plugin takes to be there: as a process until its socket is bound, managed until it is enabled."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time

from bench.figures.figure import Extent, Figure
from bench.ground import Ground
from bench.readings import dial
from bench.results import Quantities, Round
from lab import places
from lab.engine import EngineHost
from lab.errors import LabError
from lab.plugin_process import SOCKET, PluginProcess
from lab.processes import wait_for

#: Where the plugin is built for the benchmark, beside whatever `make plugin` has left.
FOLDER = places.REPOSITORY / "build" / "bench-plugin"
_NAME = "bench-plugin"
_PATIENCE = 20.0


def built() -> int:
    """Build the plugin; the size of its root file system in bytes, as Docker counts it: what its files hold."""
    command = [sys.executable, "-m", "plugin", "build", "--target", str(FOLDER)]
    done = subprocess.run(command, cwd=places.REPOSITORY, capture_output=True, text=True, timeout=600, check=False)
    if done.returncode:
        raise LabError(f"the plugin could not be built: {done.stderr.strip()}")
    files = (FOLDER / "rootfs").rglob("*")
    return sum(file.lstat().st_size for file in files if file.is_file() and not file.is_symlink())


def _size(_: Ground, __: Extent) -> list[Round]:
    return [Round(("myoverlay",), {"myoverlay": {"root MB": built() / 1e6}})]


def _socket(ground: Ground, extent: Extent) -> list[Round]:
    host = ground.h1

    def once() -> Quantities:
        ground.stop_plugins([host])
        (host.fs / SOCKET).unlink(missing_ok=True)
        return {"bound s": _start(ground, host)}

    return extent.alone(once)


def _start(ground: Ground, host: EngineHost) -> float:
    """Start the plugin; seconds from exec until its socket takes a connection."""
    plugin = ground.plugins[host.name] = _Watched(host, ground.settings)
    plugin.start()
    return plugin.bound


class _Watched(PluginProcess):
    """Tells when its socket was bound, looked at every millisecond. `bound`: seconds after its start."""

    bound = 0.0

    def start(self, timeout: float = _PATIENCE) -> None:
        self._began = time.perf_counter()
        super().start(timeout)

    def _bound(self) -> bool:
        file = self.host.fs / SOCKET

        def takes() -> bool:
            with contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
                dial(file.parent, file.name, 5).close()
                return True
            return False

        wait_for(f"the socket of {self.host.name}", _PATIENCE, takes, pause=0.001)
        self.bound = time.perf_counter() - self._began
        return super()._bound()


def _enable(ground: Ground, extent: Extent) -> list[Round]:
    """On h2, with the process of before out of the way: both would serve the same socket."""
    host = ground.h2
    built()
    ground.stop_plugins([host])
    try:
        host.docker("plugin", "create", _NAME, str(FOLDER), timeout=120)
        host.docker("plugin", "set", _NAME, f"CONSUL_HTTP_ADDR={ground.settings['CONSUL_HTTP_ADDR']}")

        def once() -> Quantities:
            began = time.perf_counter()
            host.docker("plugin", "enable", _NAME)
            took = time.perf_counter() - began
            host.docker("plugin", "disable", "-f", _NAME)
            return {"enabled s": took}

        return extent.alone(once)
    finally:
        host.docker("plugin", "rm", "-f", _NAME, check=False)
        ground.start_plugins([host])


FIGURES = (Figure("socket", _socket, quick=True), Figure("enable", _enable), Figure("size", _size))
