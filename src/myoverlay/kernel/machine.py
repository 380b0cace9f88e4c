"""What the machine says of itself in files: its kernel, mounts, disks. Read only."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from myoverlay.kernel.netns import refusal


class Room(NamedTuple):
    """Of a file system, in bytes. `inodes`: free ones, None where it has no fixed number of them."""

    free: int
    total: int
    inodes: int | None
    read_only: bool


def release() -> str:
    """What the kernel calls itself."""
    return os.uname().release


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
