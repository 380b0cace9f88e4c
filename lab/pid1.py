"""The first process of a host: makes the host's view of the machine, then only waits and buries the dead.

Run as `python3 -m lab.pid1 CONFIGURATION`, in a new PID namespace, by `lab.namespaces`. It waits for one byte on
standard input before it does anything, so that a creator who dies first leaves nothing. The host sees the machine's
root file system (read and write, but for /etc and /var/lib, whose changes are its own), with a /run of its own that is
shared (`rshared`) with the engine's view.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
from pathlib import Path

from lab import syscalls
from lab.syscalls import MS_NODEV, MS_NOEXEC, MS_NOSUID, MS_PRIVATE, MS_REC, MS_SHARED

_PLAIN = MS_NOSUID | MS_NODEV | MS_NOEXEC


def main(file: str) -> None:
    """Wait for leave to begin, build the host, say so on standard output, bury the dead for ever."""
    if os.read(0, 1) != b"g":
        sys.exit("the creator went away before it had noted this process")
    configuration = json.loads(Path(file).read_text())
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    syscalls.unshare(
        syscalls.CLONE_NEWNS
        | syscalls.CLONE_NEWNET
        | syscalls.CLONE_NEWUTS
        | syscalls.CLONE_NEWIPC
        | syscalls.CLONE_NEWCGROUP
    )
    syscalls.mount("", "/", "", MS_REC | MS_PRIVATE)
    socket.sethostname(configuration["hostname"])
    syscalls.mount("proc", "/proc", "proc", _PLAIN)
    syscalls.mount("sysfs", "/sys", "sysfs", _PLAIN)
    _mount_cgroups(configuration["cgroups"])
    _own_folders(Path(configuration["folder"]))
    _own_run()
    os.write(1, b"ready\n")
    with open(os.devnull, "r+b") as nothing:
        os.dup2(nothing.fileno(), 0)
        os.dup2(nothing.fileno(), 1)
    _bury_the_dead()


def _mount_cgroups(hierarchies: list[dict[str, str]]) -> None:
    """The machine's hierarchies at the same places; the cgroup namespace makes our own group their root."""
    top = "/sys/fs/cgroup"
    if all(hierarchy["mounted_at"] != top for hierarchy in hierarchies):
        syscalls.mount("tmpfs", top, "tmpfs", _PLAIN, "mode=755")
    for hierarchy in hierarchies:
        if hierarchy["mounted_at"].startswith(top):
            os.makedirs(hierarchy["mounted_at"], exist_ok=True)
            syscalls.mount("cgroup", hierarchy["mounted_at"], hierarchy["kind"], _PLAIN, hierarchy["options"])
            procs = Path(hierarchy["mounted_at"]) / "machine" / "cgroup.procs"
            procs.write_text("0")


def _own_folders(disk: Path) -> None:
    """What a host writes below /etc and /var/lib is its own and stays on its disk over a reboot."""
    for name in ("etc", "var/lib"):
        upper, work = disk / "upper" / name, disk / "work" / name
        upper.mkdir(parents=True, exist_ok=True)
        work.mkdir(parents=True, exist_ok=True)
        syscalls.mount("overlay", f"/{name}", "overlay", 0, f"lowerdir=/{name},upperdir={upper},workdir={work}")
    Path("/var/lib/myoverlay").mkdir(exist_ok=True)


def _own_run() -> None:
    """As on a machine with systemd: an empty tmpfs whose mounts reach whoever shares it."""
    syscalls.mount("tmpfs", "/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=755")
    syscalls.mount("", "/run", "", MS_REC | MS_SHARED)
    for name in ("docker/plugins", "lock", "netns"):
        Path("/run", name).mkdir(parents=True, mode=0o755)


def _bury_the_dead() -> None:
    while True:
        signal.sigwaitinfo({signal.SIGCHLD})
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


if __name__ == "__main__":
    main(sys.argv[1])
