"""A second view of a host: another root file system (an engine's, or the store's) beside the machine's own.

Run as `python3 -m lab.rootview CONFIGURATION` inside a host. It stays behind as a sleeping process that holds the view;
whoever enters its mount namespace has the other root, and the host's own /run, /dev, /sys, the repository and /tmp at
the same paths. /run stays in one peer group with the host's: a namespace pinned in one view is seen in the other.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from pathlib import Path

from lab import syscalls
from lab.syscalls import MS_BIND, MS_NODEV, MS_NOEXEC, MS_NOSUID, MS_PRIVATE, MS_REC, MS_SHARED


def main(file: str) -> None:
    """Build the view in a child that stays; say its pid (as the host counts) when it is ready."""
    configuration = json.loads(Path(file).read_text())
    reader, writer = os.pipe()
    child = os.fork()
    if child:
        os.close(writer)
        if os.read(reader, 1) != b"r":
            sys.exit(1)
        print(child, flush=True)
        return
    os.close(reader)
    os.setsid()
    _build(Path(configuration["root"]), Path(configuration["folder"]), configuration["same"])
    os.write(writer, b"r")
    with open(os.devnull, "r+b") as nothing:
        for descriptor in (0, 1, 2):
            os.dup2(nothing.fileno(), descriptor)
    os.close(writer)
    while True:
        signal.pause()


def _build(lower: Path, disk: Path, same: list[str]) -> None:
    """Mount the other root writable over the host's disk, bring the shared places in, and make it the root."""
    syscalls.unshare(syscalls.CLONE_NEWNS)
    root, upper, work = disk / "root", disk / "upper" / "root", disk / "work" / "root"
    for folder in (root, upper, work):
        folder.mkdir(parents=True, exist_ok=True)
    syscalls.mount("overlay", str(root), "overlay", 0, f"lowerdir={lower},upperdir={upper},workdir={work}")
    for name in ("run", "dev", "sys", "tmp", *(path.lstrip("/") for path in same)):
        (root / name).mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            syscalls.mount(f"/{name}", str(root / name), "", MS_BIND | MS_REC)
    syscalls.mount("proc", str(root / "proc"), "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    (root / ".old").mkdir(exist_ok=True)
    os.chdir(root)
    syscalls.pivot_root(".", ".old")
    os.chdir("/")
    # Private first: taking away a shared /run would take the mounts below it away from the host as well.
    syscalls.mount("", "/.old", "", MS_REC | MS_PRIVATE)
    syscalls.umount("/.old")
    syscalls.mount("", "/", "", MS_REC | MS_SHARED)


if __name__ == "__main__":
    main(sys.argv[1])
