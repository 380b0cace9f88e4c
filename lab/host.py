"""A host: one process tree in namespaces of its own, with a disk below `.lab/hosts`.

Everything of it hangs on its first process (`lab.pid1`): when that ends, the kernel ends all others of its PID
namespace, and with them go namespaces, mounts and links. Nothing is pinned anywhere on the machine.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, TypeVar

from lab import cgroups, namespaces, places, syscalls
from lab.errors import CommandFailed, LabError, TookTooLong
from lab.processes import Known, holds_nothing, pid_namespace_members, wait_for

T = TypeVar("T")

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_OF_THE_MACHINE = re.compile(r"(DOCKER|CONSUL|PYTEST)_|.*_proxy$", re.I)
_ALL = ("pid", "ipc", "uts", "net", "cgroup", "mnt")


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """What a command on a host sees: the machine's environment without what points at services of the machine."""
    kept = {name: value for name, value in os.environ.items() if not _OF_THE_MACHINE.match(name)}
    kept["PATH"] = f"{kept.get('PATH', '')}:{PATH}"
    kept.setdefault("HOME", "/root")
    return kept | dict(extra or {})


class Host:
    """A bare host: namespaces, a disk, processes. `lab.engine.Engine` adds Docker."""

    def __init__(self, lab: str, name: str, address: str = "") -> None:
        self.lab = lab
        self.name = name
        self.address = address
        self.folder = places.host_dir(lab, name)
        self.first: Known | None = None
        self._children: list[subprocess.Popen[Any]] = []
        self._lock = threading.Lock()
        self._refuse = False

    # -- life ---------------------------------------------------------------------------------------------------------

    def start(self, note: Callable[[], None] = lambda: None) -> None:
        """Bring the host up; `note` is called between knowing its pid and letting it do anything."""
        self.folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(self.folder / "work", ignore_errors=True)
        doors = cgroups.create(self.lab, self.name)
        configuration = {
            "hostname": self.name,
            "folder": str(self.folder),
            "cgroups": [hierarchy.as_dict() for hierarchy in cgroups.hierarchies()],
        }
        noted = self.folder / "pid1.json"
        noted.write_text(json.dumps(configuration))
        argv = [sys.executable, "-S", "-m", "lab.pid1", str(noted)]
        log = self.folder / "pid1.log"
        with self._lock, log.open("ab") as errors:
            if self._refuse:
                raise LabError(f"{self.name}: the laboratory is going down")
            process = namespaces.spawn_first(argv, env=python_environment(), stderr=errors)
            self.first = Known.now(process.pid)
            self._children.append(process)
        note()
        for door in doors:
            door.write_text(str(process.pid))
        assert process.stdin is not None
        assert process.stdout is not None
        with process.stdin as leave, process.stdout as answer:
            leave.write(b"g")
            leave.flush()
            if answer.readline() != b"ready\n":
                raise LabError(f"{self.name} did not come up: {_last_line(log)}")

    def refuse(self) -> None:
        """From now on this host is not started again (the laboratory goes down while others still start it)."""
        with self._lock:
            self._refuse = True

    def power_off(self) -> None:
        """End every process of the host at once, as when the power goes; its disk stays."""
        first = self.first
        if first is not None:
            first.kill()
            wait_for(f"the end of {self.name}", 20, lambda: self._ended(first))
            self._await_children()
        for _ in range(50):
            if not cgroups.remove(self.lab, self.name):
                break
            time.sleep(0.02)  # the kernel empties a group a moment after its last process ended

    def _ended(self, first: Known) -> bool:
        """Whether all is over. Dead children of a process that does not bury them keep the first one in the table."""
        for child in self._children:
            child.poll()
        return not first.alive() or all(holds_nothing(pid) for pid in cgroups.members(self.lab, self.name))

    def _await_children(self) -> None:
        """Bury all of them, the first process last: the kernel keeps it until no other is left in its namespace."""
        for child in reversed(self._children):
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(10)
            for stream in (child.stdin, child.stdout, child.stderr):
                if stream is not None:
                    with contextlib.suppress(OSError):
                        stream.close()
        self._children = [child for child in self._children if child.returncode is None]

    @property
    def alive(self) -> bool:
        """Whether the host is up."""
        return self.first is not None and self.first.alive()

    @property
    def pid(self) -> int:
        """The first process, as the machine counts; `/proc/<pid>/ns/net` is the host's network namespace."""
        if self.first is None:
            raise LabError(f"{self.name} is not up")
        return self.first.pid

    @property
    def netns(self) -> str:
        """The host's network namespace, for `nsenter --net=`."""
        return f"/proc/{self.pid}/ns/net"

    @property
    def fs(self) -> Path:
        """The host's file system as seen from the machine: `host.fs / "run/docker.sock"`."""
        return Path(f"/proc/{self.pid}/root")

    # -- processes ----------------------------------------------------------------------------------------------------

    def view(self, kinds: Sequence[str]) -> dict[str, str]:
        """Paths of the host's namespaces, with the machine's root file system."""
        return {kind: f"/proc/{self.pid}/ns/{kind}" for kind in kinds}

    def spawn_in(self, kinds: Sequence[str], argv: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        """Start a command in some of the host's namespaces only."""
        return self.spawn(self.view(kinds), argv, **options)

    def popen(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        stdin: int | IO[Any] | None = subprocess.DEVNULL,
        stdout: int | IO[Any] | None = subprocess.DEVNULL,
        stderr: int | IO[Any] | None = subprocess.DEVNULL,
        text: bool = True,
    ) -> subprocess.Popen[Any]:
        """Start a command of the machine on this host; it ends with the host at the latest.

        `env` is added to the environment. The pid of the answer is the machine's; the command itself sees the host's.
        """
        return self.spawn(
            self.view(_ALL),
            argv,
            env=environment(env),
            cwd=str(cwd or places.REPOSITORY),
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            text=text,
        )

    def run(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        input: str = "",
        timeout: float = 60,
        check: bool = True,
    ) -> str:
        """Run a command of the machine on this host; its output without the last newline."""
        return self.complete(argv, env=env, cwd=cwd, input=input, timeout=timeout, check=check).stdout.rstrip("\n")

    def complete(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        input: str = "",
        timeout: float = 60,
        check: bool = False,
    ) -> subprocess.CompletedProcess[str]:
        """Like `run`, with status, output and errors apart."""
        process = self.popen(
            argv, env=env, cwd=cwd, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        return self.finish(process, argv, input, timeout, check)

    def finish(
        self, process: subprocess.Popen[Any], argv: Sequence[str], text: str, timeout: float, check: bool
    ) -> subprocess.CompletedProcess[str]:
        """Wait for a command that was started with pipes; one that does not end in time is killed."""
        try:
            out, err = process.communicate(text, timeout=timeout)
        except BaseException as error:
            process.kill()
            out, err = process.communicate()
            if isinstance(error, subprocess.TimeoutExpired):
                said = (err or out).strip()
                raise TookTooLong(f"{self.name}: `{' '.join(argv)}` did not end in {timeout:g} s: {said}") from None
            raise
        finally:
            self._forget(process)
        if check and process.returncode:
            raise CommandFailed(self.name, list(argv), process.returncode, out, err)
        return subprocess.CompletedProcess(list(argv), process.returncode, out, err)

    def spawn(self, view: Mapping[str, str], argv: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        """Start a command in a view of this host (kind of namespace to path); it is remembered and buried."""
        if not self.alive:
            raise LabError(f"{self.name} is not up")
        process = namespaces.spawn(view, argv, **options)
        with self._lock:
            self._children = [child for child in self._children if child.returncode is None]
            self._children.append(process)
        return process

    def _forget(self, process: subprocess.Popen[Any]) -> None:
        with self._lock:
            if process in self._children and process.returncode is not None:
                self._children.remove(process)

    def inside(self, work: Callable[[], T], kinds: Sequence[str] = ("net",)) -> T:
        """Do a piece of Python in the host's namespaces, such as opening a socket."""
        return namespaces.inside(self.view(kinds), work)

    def has_process(self, pid: int) -> bool:
        """Whether a process lives, by the host's own count."""
        return (self.fs / f"proc/{pid}/exe").is_symlink() and "Z (" not in (self.fs / f"proc/{pid}/status").read_text()

    def machine_pid(self, pid: int) -> int:
        """What the machine calls the process that this host calls `pid`."""
        identity = os.readlink(f"/proc/{self.pid}/root/proc/{pid}/ns/pid")
        depth = self._depth(self.pid)
        for candidate in pid_namespace_members(identity):
            with contextlib.suppress(OSError):
                numbers = _numbers(candidate)
                if len(numbers) > depth and numbers[depth] == pid and self._mine(candidate):
                    return candidate
        raise LabError(f"{self.name} has no process {pid}")

    def _depth(self, pid: int) -> int:
        return len(_numbers(pid)) - 1

    def _mine(self, pid: int) -> bool:
        return f"/{places.cgroup_name(self.lab)}/{self.name}" in Path(f"/proc/{pid}/cgroup").read_text()

    # -- the host's own file system -----------------------------------------------------------------------------------

    def wipe_run(self) -> None:
        """Empty /run as a reboot does: unmount what was mounted there, remove the files, keep the empty folders."""

        def wipe() -> None:
            points = [line.split()[4] for line in Path("/proc/1/mountinfo").read_text().splitlines()]
            for point in reversed([point for point in points if point.startswith("/run/")]):
                with contextlib.suppress(OSError):
                    syscalls.umount(point)
            for entry in Path("/run").iterdir():
                if entry.is_dir() and not entry.is_symlink():
                    shutil.rmtree(entry)
                else:
                    entry.unlink()
            for name in ("docker/plugins", "lock", "netns"):
                Path("/run", name).mkdir(parents=True)

        namespaces.inside(self.view(("mnt",)), wipe)

    def dump(self) -> str:
        """What a failed test wants to know about this host."""
        commands = [
            ["ip", "-d", "-s", "link"],
            ["ip", "address"],
            ["ip", "route"],
            ["bridge", "fdb"],
            ["ip", "neigh"],
            ["nft", "list", "ruleset"],
            ["ss", "-tulpn"],
            ["ps", "-eo", "pid,ppid,stat,lstart,args"],
        ]
        parts = [f"===== {self.name} ({self.address}) ====="]
        parts += [self._said(command) for command in commands]
        for pin in self._pinned():
            parts += [self._said(["nsenter", f"--net={pin}", *command]) for command in commands[:5]]
        return "\n".join(parts)

    def _pinned(self) -> list[str]:
        lines = (self.fs / "proc/1/mountinfo").read_text().splitlines()
        return sorted({line.split()[4] for line in lines if " - nsfs " in line and line.split()[4].startswith("/run/")})

    def _said(self, argv: list[str]) -> str:
        try:
            done = self.complete(argv, timeout=10)
        except (LabError, OSError) as error:
            return f"--- {' '.join(argv)}\n{error}"
        return f"--- {' '.join(argv)}\n{(done.stdout + done.stderr).rstrip()}"


def _numbers(pid: int) -> list[int]:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("NSpid:"):
            return [int(word) for word in line.split()[1:]]
    return []


def python_environment() -> dict[str, str]:
    """For the helpers of ours that run inside: this package, and nothing of a virtual environment's settings."""
    return {"PATH": PATH, "PYTHONPATH": str(places.REPOSITORY), "PYTHONDONTWRITEBYTECODE": "1", "LC_ALL": "C.UTF-8"}


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"
