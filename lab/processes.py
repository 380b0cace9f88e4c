"""Processes by pid *and* start time, so that a pid the kernel gave away again is never touched."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from lab.errors import TookTooLong

T = TypeVar("T")


def start_time(pid: int) -> int | None:
    """The kernel's start time of a living process (clock ticks since boot); None when there is none, or a zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])


def holds_nothing(pid: int) -> bool:
    """Whether a process is gone, or has given back its memory and only waits for its parent to bury it."""
    try:
        os.readlink(f"/proc/{pid}/exe")
    except OSError:
        return True
    return False


@dataclass(frozen=True)
class Known:
    """A process we started."""

    pid: int
    start: int

    @classmethod
    def now(cls, pid: int) -> Known:
        """Remember a process that lives right now."""
        return cls(pid, start_time(pid) or 0)

    def alive(self) -> bool:
        """Whether this very process still runs."""
        return self.start != 0 and start_time(self.pid) == self.start

    def signal(self, number: int) -> None:
        """Send a signal to this very process; nothing happens when it is gone."""
        if self.alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL."""
        self.signal(signal.SIGKILL)


def wait_for(what: str, seconds: float, ask: Callable[[], T | None], pause: float = 0.02) -> T:
    """Ask until the answer is true, or say what did not happen in time."""
    deadline = time.monotonic() + seconds
    while True:
        answer = ask()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise TookTooLong(f"waited {seconds:g} s for {what}")
        time.sleep(pause)


def pid_namespace_members(identity: str) -> list[int]:
    """Machine-wide pids of the processes whose own PID namespace is `pid:[…]`, read from /proc."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/{entry}/ns/pid") == identity:
                    found.append(int(entry))
    return found
