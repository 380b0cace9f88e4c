"""Whether small packets, and packets of a given size, reach hosts and come back: whom to ask when, and the result."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from myoverlay.values import Address, HostId

#: A host that has not answered both is asked again after this, seconds.
AGAIN = 0.3


class Reach(enum.Enum):
    """How far one gets."""

    WHOLE = "packets of that size come back"
    NARROW = "only small packets come back"
    SILENT = "nothing comes back"
    UNASKED = "nothing could be sent"


@dataclass(slots=True)
class _Target:
    due: float
    asked: bool = False
    heard: bool = False
    carried: bool = False


class Measurement:
    """Time is an argument, in monotonic seconds. Not safe for many threads: its owner locks."""

    def __init__(self, targets: Mapping[HostId, Address], size: int, now: float, until: float) -> None:
        self.targets: Mapping[HostId, Address] = MappingProxyType(dict(targets))
        self.size = size
        self._until = until
        self._state = {host: _Target(now) for host in targets}

    def due(self, now: float) -> list[HostId]:
        """Whom to ask now, those first who wait longest."""
        waiting = [(one.due, host) for host, one in self._state.items() if one.due <= now and not one.carried]
        return [host for _, host in sorted(waiting)]

    def tried(self, host: HostId, sent: bool, now: float) -> None:
        """A question was sent, or could not be."""
        self._state[host].asked |= sent
        self._state[host].due = now + AGAIN

    def heard(self, host: HostId) -> bool:
        """A small packet came back. False where none had been asked for."""
        one = self._state.get(host)
        if one is None or not one.asked:
            return False
        one.heard = True
        return True

    def carried(self, host: HostId) -> bool:
        """One of full size did. False as `heard`."""
        one = self._state.get(host)
        if one is None or not one.asked:
            return False
        one.carried = True
        return True

    def is_over(self, now: float) -> bool:
        return now >= self._until or all(one.carried for one in self._state.values())

    def wait(self, now: float) -> float:
        """Seconds until `due` or `is_over` may have something new."""
        dues = [one.due for one in self._state.values() if not one.carried]
        return max(0.0, min([*dues, self._until]) - now)

    def results(self) -> dict[HostId, Reach]:
        return {host: _reach(one) for host, one in self._state.items()}


def _reach(one: _Target) -> Reach:
    if one.carried:
        return Reach.WHOLE
    if not one.asked:
        return Reach.UNASKED
    return Reach.NARROW if one.heard else Reach.SILENT


def hosts_of(measurements: Iterable[Measurement]) -> dict[HostId, Address]:
    """All that are being measured, and where."""
    return {host: vtep for one in measurements for host, vtep in one.targets.items()}
