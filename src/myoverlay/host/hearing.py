"""What the kernel tells of an overlay's links and rows, whoever did it: noted for a person, and nothing else.

What is wrong the reconciler finds by itself; who was it, and when, is known only to who listens.
"""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import NamedTuple, Protocol

from myoverlay.errors import KernelRefused, MyoverlayError
from myoverlay.host.ground import Ground
from myoverlay.host.local import LocalOverlay
from myoverlay.host.loop import Loop
from myoverlay.host.overlays import Overlays
from myoverlay.kernel import observe
from myoverlay.kernel.changes import Change, Changes, LinkChange, PortChange, RowChange
from myoverlay.kernel.linkforms import Seen
from myoverlay.kernel.listener import Overrun
from myoverlay.kernel.netns import Namespace
from myoverlay.kernel.rtnetlink import Wire
from myoverlay.plan import drift, shape
from myoverlay.plan.drift import Look
from myoverlay.tally import Tally
from myoverlay.values import Address, Fdb, Neigh

log = logging.getLogger(__name__)

_ROUND, _DEADLINE, _LOOKS = 1.0, 2.0, 5
#: What the kernel tells of a row within so many seconds after we wrote it or took it away is our own doing.
OURS = 5.0
#: What is told is read so much later, seconds: most of it is our own doing, and a packet may be waiting for the rest.
_LULL = 0.02
Row = Neigh | Fdb


class Event(NamedTuple):
    """What happened, and to what, in words."""

    what: str
    thing: str


class Hears(Protocol):
    """What is heard of a namespace: `kernel.changes.Changes`."""

    def fileno(self) -> int: ...
    def read(self, device: int) -> list[Change]: ...
    def close(self) -> None: ...


def listen(namespace: Namespace) -> tuple[Hears, dict[str, Seen]]:
    """Begin to listen; and which links are there by then. Raises KernelRefused.

    What was told before the look is older than it, and would be taken for a change back: it is looked until nothing is.
    """
    changes = Changes(namespace)
    try:
        with contextlib.closing(Wire(namespace)) as wire:
            for _ in range(_LOOKS):
                there = observe.links(wire)
                if not _is_told(changes):
                    break
            return changes, there
    except BaseException:
        changes.close()
        raise


def _is_told(changes: Changes) -> bool:
    """Was anything told of links since? It is read then, and rows with it."""
    try:
        return bool(changes.read(0))
    except Overrun:
        return True


class _Ear:
    """At one overlay's ground. For the thread `kernel`."""

    def __init__(self, local: LocalOverlay, ground: Ground, changes: Hears, there: Mapping[str, Seen]) -> None:
        self.local, self.ground, self.changes = local, ground, changes
        self._names = {link.index: name for name, link in there.items()}
        self._links = {name: look for name, link in there.items() if (look := self._whole(link)) is not None}

    def _look(self, link: Seen) -> Look:
        return Look(link.up, link.mtu, self._names.get(link.master or 0, ""))

    def _whole(self, link: Seen) -> Look | None:
        """How the link looks once it is in use; None before."""
        look = self._look(link)
        return look if look.up and (link.name == shape.BRIDGE or look.master == shape.BRIDGE) else None

    def _is_wanted(self, name: str) -> bool:
        ground = self.ground
        return name in (shape.BRIDGE, shape.VXLAN) or (name in ground.ports and name not in ground.leaving)

    def judge(self, change: Change, ours: Collection[Collection[Row]]) -> Event | None:
        """What there is to note; None where it is as it should be, or our own doing."""
        match change:
            case RowChange(gone, seen, row):
                if gone and row is None:  # a neighbour that goes has lost its MAC by then (neigh_delete)
                    row = self.ground.rows.neigh.get(Address(seen.key)) if seen.table == "arp" and seen.key else None
                    change = change._replace(row=row)
                what = drift.of_row(gone, row, seen.state, self.ground.rows, ours)
                return Event(what, _words(change)) if what else None
            case PortChange(gone, mac, port):
                name = self._names.get(port, "")
                mine = gone and self._is_wanted(name) and any(one.mac == mac for one in self.local.endpoints())
                return Event(drift.BRIDGE_ROW_GONE, f"{mac} at {name}") if mine else None
            case LinkChange(gone, link):
                return self._link(gone, link)
        return None

    def _link(self, gone: bool, link: Seen) -> Event | None:
        self._names[link.index] = link.name
        if gone:
            self._names.pop(link.index, None)
        before, now = self._links.get(link.name), None if gone else self._look(link)
        if now is None:
            self._links.pop(link.name, None)
        elif before is not None or self._whole(link) is not None:
            self._links[link.name] = now
        what = drift.of_link(before, now) if self._is_wanted(link.name) else ""
        return Event(what, f"{link.name}: {now}" if now is not None else link.name) if what else None


def _words(change: RowChange) -> str:
    seen = change.seen
    if change.row is not None:
        return str(change.row)
    to = f" {'dst' if seen.table == 'fdb' else 'lladdr'} {seen.to}" if seen.to else ""
    return f"{seen.key}{to} {seen.state}"


class KernelWatch(Loop):
    """Owns the thread `kernel`. It changes nothing, and nobody waits for it."""

    def __init__(
        self,
        overlays: Overlays,
        tally: Tally,
        now: Callable[[], float] = time.monotonic,
        listen: Callable[[Namespace], tuple[Hears, dict[str, Seen]]] = listen,
    ) -> None:
        super().__init__("kernel", tally)
        self._listen = listen
        self._overlays = overlays
        self._now = now
        self._selector = selectors.DefaultSelector()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._selector.register(self._wake, selectors.EVENT_READ)
        self._ears: dict[Ground, _Ear] = {}
        # Added to by whoever writes, dropped by this thread: single steps on a deque.
        self._written: deque[tuple[float, Ground, Collection[Row], bool]] = deque()
        #: Called with what happened on an overlay.
        self.on_events: Callable[[LocalOverlay, list[Event]], None] = lambda *_: None

    def wake(self) -> None:
        os.eventfd_write(self._wake, 1)

    def refresh(self) -> None:
        """The overlays of this host changed."""
        if not self.stopping.is_set():  # afterwards the number may be somebody else's
            self.wake()

    def stop(self, timeout: float) -> None:
        super().stop(timeout)
        for ear in self._ears.values():
            ear.changes.close()
        self._ears.clear()
        self._selector.close()
        os.close(self._wake)

    def wrote(self, ground: Ground, rows: Collection[Row], gone: bool) -> None:
        """These are about to be written, or taken away (`gone`). From any thread."""
        if rows and ground in self._ears:
            self._written.append((self._now(), ground, frozenset(rows), gone))

    def round(self) -> None:
        ready = self._selector.select(_ROUND)
        if any(isinstance(key.data, _Ear) for key, _ in ready):
            self.stopping.wait(_LULL)
        for key, _ in ready:
            if key.fd == self._wake:
                os.eventfd_read(self._wake)
            elif isinstance(key.data, _Ear):
                self.step(key.data)
        self._register()
        while self._written and self._now() - self._written[0][0] > OURS:
            self._written.popleft()

    def _register(self) -> None:
        """Listen where overlays came, or were made anew; let go where they went."""
        grounds = {ground: local for local in self._overlays.all() if (ground := local.ground) is not None}
        for ground in self._ears.keys() - grounds.keys():
            self._drop(ground)
        for ground, local in grounds.items():
            if ground not in self._ears:
                self._open(local, ground)

    def _open(self, local: LocalOverlay, ground: Ground) -> None:
        try:
            heard = local.inside(self._listen, time.monotonic() + _DEADLINE)
        except MyoverlayError as error:  # it is tried again in the next round
            log.info("overlay %s: its links and rows are not listened to: %s", local.network.overlay, error)
            return
        if heard is not None:
            ear = self._ears[ground] = _Ear(local, ground, *heard)
            self._selector.register(ear.changes, selectors.EVENT_READ, ear)

    def _drop(self, ground: Ground) -> None:
        ear = self._ears.pop(ground)
        self._selector.unregister(ear.changes)
        ear.changes.close()

    def step(self, ear: _Ear) -> None:
        """Note what one overlay's socket holds."""
        try:
            changes = ear.changes.read(ear.ground.ifindex)
        except Overrun:
            self.on_events(ear.local, [Event("overrun", "more was told of links and rows than could be heard")])
            return
        except (OSError, KernelRefused) as error:
            log.info("overlay %s: what is told of it is not heard: %s", ear.local.network.overlay, error)
            self._drop(ear.ground)
            return
        if ear.local.ground is ear.ground:  # else it is being taken away, or made anew: by us
            events = list(self._judged(ear, changes))
            if events:
                self.on_events(ear.local, events)

    def _judged(self, ear: _Ear, changes: list[Change]) -> Iterator[Event]:
        written = [(rows, gone) for _, ground, rows, gone in tuple(self._written) if ground is ear.ground]
        for change in changes:
            # That a row goes which we wrote just now, perhaps because it went, is not our doing.
            event = ear.judge(change, [rows for rows, gone in written if gone == change.gone])
            if event is not None:
                yield event
