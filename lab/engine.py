"""A Docker engine on a host: an old or a new one, from its own root file system, with its own CLI."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from lab import cgroups, fetch, images, places
from lab.errors import LabError
from lab.host import Host
from lab.processes import Known, wait_for
from lab.view import RootView


class EngineHost(Host):
    """A host with an engine; with `age` None a bare one, whose engine methods say that there is none."""

    def __init__(
        self,
        lab: str,
        name: str,
        address: str,
        age: str | None,
        *,
        live_restore: bool = False,
        registry: str = "",
        extra: Sequence[str] = (),
    ) -> None:
        super().__init__(lab, name, address)
        self.age = age
        self.live_restore = live_restore
        self.registry = registry
        self.extra = tuple(extra)
        self._view = RootView(self, fetch.engine_root(age)) if age else None

    @property
    def engine(self) -> RootView:
        """The host as its engine sees it."""
        if self._view is None:
            raise LabError(f"{self.name} has no engine")
        return self._view

    @property
    def holder(self) -> int:
        """The process that holds the engine's view, as the host counts; 0 when there is none."""
        return self._view.holder if self._view else 0

    @holder.setter
    def holder(self, pid: int) -> None:
        if self._view is not None:
            self._view.holder = pid

    # -- the engine's life --------------------------------------------------------------------------------------------

    @property
    def log(self) -> Path:
        """What the engine says (at level debug)."""
        return self.folder / "dockerd.log"

    @property
    def socket(self) -> Path:
        """The engine's socket as the machine reaches it."""
        return self.fs / "run/docker.sock"

    def start_engine(self, timeout: float = 60) -> None:
        """Start the engine and wait until it answers."""
        if self.engine_running():
            return
        if not self.engine.holder:
            self.engine.build()
        data = self.folder / "docker"
        data.mkdir(exist_ok=True)
        argv = [
            "dockerd",
            "--host",
            "unix:///run/docker.sock",
            "--data-root",
            str(data),
            "--storage-driver",
            "overlay2",
            "--pidfile",
            "/run/docker.pid",
            "--log-level",
            "debug",
            "--exec-opt",
            "native.cgroupdriver=cgroupfs",
        ]
        argv += ["--live-restore"] if self.live_restore else []
        argv += ["--insecure-registry", self.registry] if self.registry else []
        daemon = self.engine.start_daemon([*argv, *self.extra], self.log)
        try:
            wait_for(f"the engine on {self.name}", timeout, lambda: self._answers() or self._must_live(daemon))
        except LabError as error:
            raise LabError(f"{error}; its last words: {self._last_words()}") from None

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(5)
            connection.connect(str(self.socket))
            connection.sendall(b"GET /_ping HTTP/1.0\r\nHost: d\r\n\r\n")
            return b" 200 " in connection.recv(64)
        return False

    def _must_live(self, daemon: int) -> bool:
        if not self.has_process(daemon):
            raise LabError(f"the engine on {self.name} ended while starting")
        return False

    def engine_pid(self) -> int:
        """The engine's pid as the host counts; 0 when it does not run."""
        with contextlib.suppress(OSError, ValueError):
            pid = int((self.fs / "run/docker.pid").read_text())
            if (self.fs / f"proc/{pid}/comm").read_text().strip() == "dockerd":
                return pid
        return 0

    def engine_running(self) -> bool:
        """Whether the engine's process is there."""
        return self.engine_pid() != 0

    def stop_engine(self, kill: bool = False, timeout: float = 60) -> None:
        """End the engine: politely, or (`kill`) with SIGKILL to it alone, so that containers and shims go on."""
        pid = self.engine_pid()
        if not pid:
            return
        process = Known.now(self.machine_pid(pid))
        process.signal(signal.SIGKILL if kill else signal.SIGTERM)
        wait_for(f"the end of the engine on {self.name}", timeout, lambda: not process.alive())
        if kill:
            (self.fs / "run/docker.pid").unlink(missing_ok=True)

    def kill_engine_and_containers(self) -> None:
        """SIGKILL to the engine, its containerd, all shims, plugins and containers; other processes stay."""
        spared = {1, self.engine.holder}
        pids = [int(entry.name) for entry in (self.fs / "proc").iterdir() if entry.name.isdigit()]
        for pid in pids:
            with contextlib.suppress(OSError, LabError):
                if pid not in spared and self._in_engine_view(pid):
                    Known.now(self.machine_pid(pid)).kill()

    def _in_engine_view(self, pid: int) -> bool:
        """Whether a process belongs to the engine: it sees the engine's root or lives in a group the engine made."""
        root = self.fs / "proc"
        view = (root / str(self.engine.holder) / "ns/mnt").readlink()
        if (root / str(pid) / "ns/mnt").readlink() == view:
            return True
        groups = (root / str(pid) / "cgroup").read_text().splitlines()
        own = f"/{places.cgroup_name(self.lab)}/{self.name}/"
        return any(own in line and f"{own}{cgroups.LEAF}" not in line for line in groups)

    def restart_engine(self, wipe_run: bool = False, kill: bool = False) -> None:
        """Stop and start the engine; with `wipe_run` its /run is empty in between, as after a reboot."""
        self.stop_engine(kill=kill)
        if wipe_run:
            self.kill_engine_and_containers()
            self.wipe_run()
        self.start_engine()

    def power_off(self) -> None:
        """As for every host; the engine's view goes with it."""
        super().power_off()
        self.holder = 0

    def _last_words(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return " | ".join(lines[-5:]) or "none"

    # -- using it -----------------------------------------------------------------------------------------------------

    def docker(
        self,
        *arguments: str,
        timeout: float = 60,
        check: bool = True,
        input: str = "",
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
    ) -> str:
        """The engine's own `docker`; its output, stripped. It sees the repository and /tmp."""
        return self.docker_complete(
            *arguments, timeout=timeout, check=check, input=input, env=env, cwd=cwd
        ).stdout.strip()

    def docker_complete(
        self,
        *arguments: str,
        timeout: float = 60,
        check: bool = False,
        input: str = "",
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Like `docker`, with status, output and errors apart."""
        return self.engine.run(["docker", *arguments], env=env, text=input, timeout=timeout, check=check, cwd=cwd)

    @property
    def engine_version(self) -> str:
        """What the engine calls itself."""
        return self.docker("version", "--format", "{{.Server.Version}}")

    def load_image(self, image: str) -> None:
        """Load an image from the laboratory's own files."""
        self.docker("load", "--input", str(images.tar_of(image)))

    def container_pid(self, name: str, of_machine: bool = True) -> int:
        """A container's first process, as the machine counts, or as the host (and `docker inspect`) counts."""
        pid = int(self.docker("inspect", "--format", "{{.State.Pid}}", name))
        if not pid:
            raise LabError(f"{self.name}: container {name} does not run")
        return self.machine_pid(pid) if of_machine else pid

    def in_container(self, name: str, argv: Sequence[str], timeout: float = 60, check: bool = True) -> str:
        """Run a command of the machine in a container's network namespace (its other namespaces are the host's)."""
        pid = self.container_pid(name, of_machine=False)
        return self.run(["nsenter", f"--net=/proc/{pid}/ns/net", *argv], timeout=timeout, check=check)

    def in_engine(self, argv: Sequence[str], timeout: float = 60, check: bool = True) -> str:
        """Run a command of the engine's root file system."""
        return self.engine.run(argv, timeout=timeout, check=check).stdout.rstrip("\n")

    def dump(self) -> str:
        """As for every host, with the engine's containers, networks and last words."""
        parts = [super().dump()]
        if self._view is None:
            return parts[0]
        for arguments in (("ps", "-a"), ("network", "ls"), ("plugin", "ls")):
            try:
                parts.append(f"--- docker {' '.join(arguments)}\n{self.docker(*arguments, timeout=10)}")
            except LabError as error:
                parts.append(str(error))
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return "\n".join([*parts, "--- dockerd.log", *lines[-80:]])
