"""What the machine says of itself in files: its kernel, the limits of the neighbour table, mounts, disks. Read only."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from myoverlay.errors import KernelRefused
from myoverlay.kernel.netns import refusal

_THRESHOLDS = "/proc/sys/net/ipv4/neigh/default/gc_thresh{}"
_STATISTICS = Path("/proc/net/stat/arp_cache")


class NeighbourTable(NamedTuple):
    """`entries` and `fulls` (times the table was full since boot) are of all namespaces together."""

    thresholds: tuple[int, int, int]
    entries: int
    fulls: int


class Room(NamedTuple):
    """Of a file system, in bytes. `inodes`: free ones, None where it has no fixed number of them."""

    free: int
    total: int
    inodes: int | None
    read_only: bool


def release() -> str:
    """What the kernel calls itself."""
    return os.uname().release


def neighbour_table() -> NeighbourTable:
    """The machine's limits, and what is used of them. Raises KernelRefused, also in any namespace but the first.

    They are of all namespaces together, and shown in the machine's first alone (net/core/neighbour.c).
    """
    if not Path(_THRESHOLDS.format(1)).exists():
        raise KernelRefused("reading the neighbour table's limits", errno.ENOENT, "this is not the machine's namespace")
    try:
        first, second, third = (int(Path(_THRESHOLDS.format(n)).read_text()) for n in (1, 2, 3))
        entries, fulls = read_statistics(_STATISTICS.read_text().splitlines())
    except (OSError, ValueError) as error:
        raise KernelRefused("reading the neighbour table's limits", 0, str(error)) from error
    return NeighbourTable((first, second, third), entries, fulls)


def read_statistics(lines: Iterable[str]) -> tuple[int, int]:
    """Entries, and times the table was full: a line of hexadecimal counts for each CPU below a line of names.

    Entries stand in each line alike, the others are each CPU's own (net/core/neighbour.c, neigh_stat_seq_show).
    Raises ValueError.
    """
    names, *counts = [line.split() for line in lines]
    if not counts:
        raise ValueError("no counts")
    fulls = names.index("table_fulls") if "table_fulls" in names else None
    return int(counts[0][names.index("entries")], 16), sum(int(row[fulls], 16) for row in counts) if fulls else 0


def room(path: Path) -> Room:
    """That of the file system which `path`, or the nearest directory above it, is on. Raises KernelRefused."""
    there = next(parent for parent in (path, *path.parents) if parent.exists())
    try:
        found = os.statvfs(there)
    except OSError as error:
        raise refusal(f"looking at the file system of {there}", error) from error
    inodes = found.f_favail if found.f_files else None
    read_only = bool(found.f_flag & os.ST_RDONLY)
    return Room(found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize, inodes, read_only)


def is_shared(path: Path, mounts: str | None = None) -> bool:
    """Do mounts below this path reach others who share it? `mounts`: of this process, as /proc/self/mountinfo has them.

    The line whose mount point is the longest above the path says so, by a field `shared:N` (proc(5)).
    """
    text = Path("/proc/self/mountinfo").read_text() if mounts is None else mounts
    best, shared = -1, False
    for fields in map(str.split, text.splitlines()):
        point = Path(fields[4].encode().decode("unicode_escape"))
        if (path == point or point in path.parents) and len(point.parts) >= best:
            best = len(point.parts)
            shared = any(field.startswith("shared:") for field in fields[6 : fields.index("-")])
    return shared


def owner_only(path: Path) -> int:
    """A file's permissions. Raises OSError."""
    return path.stat().st_mode & 0o7777
