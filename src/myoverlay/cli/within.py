"""Where a command that stays works: a namespace by its name, a device in it, and the wish to end."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from myoverlay.errors import KernelRefused, Refused, Unknown

if TYPE_CHECKING:
    from myoverlay.cli.words import Places
    from myoverlay.kernel.linkforms import Seen
    from myoverlay.kernel.netns import Namespace


def open_namespace(text: str, places: Places) -> Namespace:
    """The namespace that `text` means: `current`, a path, or a name. Raises Unknown, naming what there is."""
    from myoverlay.kernel import netns

    if text == "current":
        return netns.current()
    if "/" in text:
        return netns.open_path(Path(text))
    for folder in (places.named, places.plugin):
        if netns.is_pinned(folder / text):
            return netns.open_path(folder / text)
    there = sorted(_names(places.named) + _names(places.plugin))
    raise Unknown(
        f"there is no namespace {text}: {'there are ' + ', '.join(there) if there else 'none has a name here'};"
        " `myoverlay overlay create` makes one, a path or `current` will do too"
    )


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def tunnel(links: dict[str, Seen], name: str, where: str) -> Seen:
    """The VXLAN device of that name. Raises Unknown or Refused, naming what there is."""
    tunnels = [link.name for link in links.values() if link.kind == "vxlan"]
    other = f"; VXLAN devices there: {', '.join(tunnels) or 'none'}"
    if name not in links:
        raise Unknown(f"there is no device {name} in {where}{other}")
    if links[name].kind != "vxlan":
        raise Refused(f"{name} in {where} is a {links[name].kind or 'plain'} device, no VXLAN one{other}")
    return links[name]


class Stop:
    """The wish to end, as a file to select on: from SIGINT, SIGTERM, or whoever calls `set`."""

    def __init__(self) -> None:
        self._fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self.wanted = False

    def fileno(self) -> int:
        return self._fd

    def set(self) -> None:
        self.wanted = True
        os.eventfd_write(self._fd, 1)

    def close(self) -> None:
        os.close(self._fd)


@contextlib.contextmanager
def until_told() -> Iterator[Stop]:
    """What ends a command that stays. Both signals only ask; what must be put back is put back."""
    stop = Stop()

    def ask(_number: int, _frame: Any) -> None:
        stop.set()

    # Signals are the main thread's alone; another thread's work is ended by `set`.
    mine = threading.current_thread() is threading.main_thread()
    numbers = (signal.SIGINT, signal.SIGTERM) if mine else ()
    before = {number: signal.signal(number, ask) for number in numbers}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        stop.close()


@contextlib.contextmanager
def asking_userland(ns: Namespace, device: str) -> Iterator[None]:
    """Have the kernel ask by netlink, too, for the neighbours of a device (`app_solicit`); put back afterwards.

    Raises Unknown where there is no such device, KernelRefused where the value cannot be set.
    """
    name = f"net/ipv4/neigh/{device}/app_solicit"
    if "/" in device or device in (".", ".."):
        raise Unknown(f"{device!r} is no device's name")
    try:
        before = ns.call(lambda: Path("/proc/sys", name).read_text().strip())
    except FileNotFoundError:
        raise Unknown(f"there is no device {device} in that namespace") from None
    failed = ns.sysctls({name: "1"})
    if failed:
        raise KernelRefused(f"setting {name}", failed[name], os.strerror(failed[name]))
    try:
        yield
    finally:
        ns.sysctl(name, before)  # a device that has gone meanwhile took its value along
