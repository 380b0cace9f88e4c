"""Control groups of a host: one below every hierarchy of the machine, seen from inside as the root of that hierarchy.

A host's first process is moved there and only then takes a cgroup namespace of its own: whatever an engine names its
groups, two hosts cannot clash, and all of it can be removed by name.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from lab import places

LEAF = "machine"
"""Where a host's own processes live; cgroup v2 allows none in a group whose children have controllers."""


_NOT_CONTROLLERS = ("rw", "ro", "seclabel", "clone_children", "xattr", "release_agent", "noprefix", "cpuset_v2_mode")


@dataclass(frozen=True)
class Hierarchy:
    """A mounted cgroup file system of the machine."""

    mounted_at: str
    kind: str
    options: str

    def as_dict(self) -> dict[str, str]:
        """For the configuration of a host's first process."""
        return asdict(self)


def hierarchies() -> list[Hierarchy]:
    """What the machine has: several for cgroup v1, one for v2, both when mixed."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        mounted_at = left.split()[4]
        kind, _, options = right.split(" ", 2)
        if kind in ("cgroup", "cgroup2"):
            kept = [word for word in options.split(",") if word.partition("=")[0] not in _NOT_CONTROLLERS]
            found.append(Hierarchy(mounted_at, kind, ",".join(kept) if kind == "cgroup" else ""))
    return found


def create(lab: str, host: str) -> list[Path]:
    """Make a host's groups; the files to write a pid to, to move a process into its leaf and above it."""
    doors = []
    for hierarchy in hierarchies():
        folder = Path(hierarchy.mounted_at)
        for name in (places.cgroup_name(lab), host, LEAF):
            above, folder = folder, folder / name
            folder.mkdir(exist_ok=True)
            _pass_on(above, folder)
        doors.append(folder.parent / "cgroup.procs")
    return doors


def _pass_on(above: Path, folder: Path) -> None:
    """cpuset (v1) gives a new group neither CPUs nor memory nodes; v2 has in it only the controllers passed on."""
    for name in ("cpuset.cpus", "cpuset.mems"):
        if (above / "cgroup.clone_children").exists() and (folder / name).exists():
            (folder / name).write_text((above / name).read_text())
    if (folder / "cgroup.controllers").exists() and folder.name.startswith(places.PREFIX + "-"):
        offered = (folder / "cgroup.controllers").read_text().split()
        (folder / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in offered))


def remove(lab: str, host: str = "") -> list[str]:
    """Remove the groups of a host, or of a whole laboratory; names what could not be removed."""
    left = []
    for hierarchy in hierarchies():
        top = Path(hierarchy.mounted_at) / places.cgroup_name(lab) / host
        for folder, _, _ in os.walk(top, topdown=False):
            try:
                os.rmdir(folder)
            except FileNotFoundError:
                continue
            except OSError as error:
                left.append(f"{folder}: {error.strerror}")
    return left


def members(lab: str, host: str = "") -> set[int]:
    """Machine-wide pids of every process in the groups of a laboratory, or of one of its hosts."""
    found: set[int] = set()
    for hierarchy in hierarchies():
        top = Path(hierarchy.mounted_at) / places.cgroup_name(lab) / host
        for folder, _, _ in os.walk(top):
            with contextlib.suppress(OSError):
                found |= {int(word) for word in (Path(folder) / "cgroup.procs").read_text().split()}
    return found
