"""What a machine needs for the laboratory; one sentence for each thing that is missing."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

from lab import apt, cgroups, fetch, namespaces, places, syscalls
from lab.errors import LabError

DISK = 6 * 1024**3
MEMORY = 3 * 1024**3


def demand() -> None:
    """Raise with every missing thing; cheap enough for each `up`."""
    missing = [sentence for check in (_root, _memory, _cgroups, _tools, _fetched) for sentence in check()]
    if missing:
        raise LabError(" ".join(missing))


def demand_to_fetch() -> None:
    """Raise with everything that would be missing even after a fetch, which brings the rest."""
    missing = _root() or [sentence for check in (_disk, _memory, _cgroups, _tools) for sentence in check()]
    if missing:
        raise LabError(" ".join(missing))


def complaints() -> list[str]:
    """Everything that is missing on this machine; empty when the laboratory will run."""
    first = _root()
    if first:
        return first
    return [sentence for check in _CHECKS for sentence in check()]


def _root() -> list[str]:
    return [] if os.geteuid() == 0 else ["The laboratory must run as root, because it makes namespaces and mounts."]


def _disk() -> list[str]:
    folder = places.HOME if places.HOME.exists() else places.REPOSITORY
    free = shutil.disk_usage(folder).free
    there = any(places.ROOTS.glob("[a-z]*"))
    needed = DISK if not there else DISK // 2
    if free >= needed:
        return []
    return [f"{folder} has {free / 1024**3:.1f} GB free, the laboratory needs {needed / 1024**3:.0f} GB."]


def _memory() -> list[str]:
    lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    available = int(lines["MemAvailable"].split()[0]) * 1024
    if available >= MEMORY:
        return []
    return [f"{available / 1024**3:.1f} GB of memory is available, the laboratory needs {MEMORY / 1024**3:.0f} GB."]


def _cgroups() -> list[str]:
    found = cgroups.hierarchies()
    if not found:
        return ["No cgroup file system is mounted, and engines start no container without one."]
    closed = [hierarchy.mounted_at for hierarchy in found if not os.access(hierarchy.mounted_at, os.W_OK)]
    return [f"These cgroup file systems are read-only: {', '.join(closed)}."] if closed else []


def _tools() -> list[str]:
    commands = ("nsenter", "apt-get", "apt-config", "dpkg-deb", "tar", "chroot")
    missing = [command for command in commands if not apt.installed(command)]
    return [f"The machine lacks {', '.join(missing)}."] if missing else []


def _fetched() -> list[str]:
    missing = [command for command in fetch.MACHINE_TOOLS if not apt.installed(command)]
    return [f"The machine lacks {', '.join(missing)}: run `python3 -m lab fetch`."] if missing else []


def _in_scratch_namespaces(work: Callable[[], None], what: str) -> list[str]:
    def unshare_and_work() -> None:
        syscalls.unshare(syscalls.CLONE_FS)
        syscalls.unshare(syscalls.CLONE_NEWNS | syscalls.CLONE_NEWNET | syscalls.CLONE_NEWUTS | syscalls.CLONE_NEWIPC)
        syscalls.mount("", "/", "", syscalls.MS_REC | syscalls.MS_PRIVATE)
        work()

    try:
        namespaces.inside({}, unshare_and_work)
    except (OSError, LabError, subprocess.CalledProcessError) as error:
        return [f"{what}: {error}."]
    return []


def _namespaces() -> list[str]:
    def nothing() -> None:
        return

    missing = [kind for kind in namespaces.KINDS if not Path(f"/proc/self/ns/{kind}").exists()]
    if missing:
        return [f"The kernel has no namespaces of kind {', '.join(missing)}."]
    return _in_scratch_namespaces(nothing, "New namespaces cannot be made")


def _overlayfs() -> list[str]:
    scratch = places.HOME / "preflight"

    def mount() -> None:
        for name in ("lower", "upper", "work", "merged"):
            (scratch / name).mkdir(parents=True, exist_ok=True)
        data = f"lowerdir={scratch / 'lower'},upperdir={scratch / 'upper'},workdir={scratch / 'work'}"
        syscalls.mount("overlay", str(scratch / "merged"), "overlay", 0, data)

    try:
        return _in_scratch_namespaces(mount, f"overlayfs cannot be mounted on top of {places.HOME}")
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _links() -> list[str]:
    if not apt.installed("ip"):
        return []  # fetch brings it; then this is asked again
    missing = []
    for kind, words in {
        "veth": "type veth peer name pre1",
        "bridge": "type bridge",
        "vxlan": "type vxlan id 5 dstport 4789 local 127.0.0.1",
    }.items():
        command = ["ip", "link", "add", "pre0", *words.split()]
        problem = _in_scratch_namespaces(lambda command=command: _run(command), f"The kernel makes no {kind} link")  # type: ignore[misc]
        missing += problem
    return missing


def _nft() -> list[str]:
    if not apt.installed("nft"):
        return []
    rules = "add table inet pre; add chain inet pre c { type filter hook prerouting priority -1; };"
    return _in_scratch_namespaces(lambda: _run(["nft", rules]), "nftables does not work")


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise LabError(done.stderr.strip().splitlines()[0] if done.stderr.strip() else f"status {done.returncode}")


def _host_name() -> list[str]:
    return [] if hasattr(socket, "sethostname") else ["This Python cannot set a host name."]


_CHECKS = (_disk, _memory, _cgroups, _tools, _namespaces, _overlayfs, _links, _nft, _host_name)
