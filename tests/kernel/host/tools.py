"""Small things the laboratory of hosts is made with."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from myoverlay.kernel import netns
from myoverlay.kernel.netns import Namespace

IFF_RUNNING = 0x40


def until(condition: Callable[[], Any], seconds: float = 5.0, what: str = "the condition") -> Any:
    """Ask again and again until the answer is true; fail after so many seconds."""
    deadline = time.monotonic() + seconds
    pause = threading.Event()
    while not (answer := condition()):
        assert time.monotonic() < deadline, f"{what} did not come true in {seconds:g} s"
        pause.wait(0.001)
    return answer


def run_in(ns: Namespace, *command: str, text: str | None = None) -> str:
    """A command inside a namespace; its words where it fails."""
    done = ns.call(lambda: subprocess.run(command, input=text, capture_output=True, text=True, check=False))
    assert done.returncode == 0, f"{' '.join(command)}: {text or ''} {done.stdout}{done.stderr}"
    return done.stdout


def ip(ns: Namespace, *lines: str) -> None:
    """Lines of `ip`, in one batch."""
    run_in(ns, "ip", "-batch", "-", text="\n".join(lines) + "\n")


def link_names(ns: Namespace) -> set[str]:
    return {name for _, name in ns.call(socket.if_nameindex)}


def is_running(probe: socket.socket, name: str) -> bool:
    request = struct.pack("16sh22x", name.encode(), 0)
    (flags,) = struct.unpack_from("h", fcntl.ioctl(probe, netns.SIOCGIFFLAGS, request), 16)
    return bool(flags & IFF_RUNNING)


def in_parallel(*acts: Callable[[], Any]) -> list[Any]:
    """Do all at once, each in a thread; their results in order, or the first failure."""
    results: list[Any] = [None] * len(acts)
    failures: list[BaseException] = []

    def do(place: int) -> None:
        try:
            results[place] = acts[place]()
        except BaseException as error:  # noqa: BLE001 - raised below
            failures.append(error)

    threads = [threading.Thread(target=do, args=(place,), daemon=True) for place in range(len(acts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    if failures:
        raise failures[0]
    return results


def left_behind() -> dict[str, Any]:
    """What a test could leave on the machine: mounts of namespaces, links of the machine's own namespace."""
    mounts = Path("/proc/self/mounts").read_text().splitlines()
    ours = ("mo", "vxlan", "veth", "inside")
    return {
        "mounts": {line.split()[1] for line in mounts if line.startswith("nsfs ")},
        "links": {name for _, name in socket.if_nameindex() if name.startswith(ours)},
        "shares": os.readlink("/proc/self/ns/net"),
    }
