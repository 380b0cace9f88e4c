"""What was lost, from what was sent and what arrived. Pure: numbers and times in, figures and verdicts out.

Times are Unix times in seconds, of one kernel: all hosts of the laboratory share its clock.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

#: A sender that sent less of what was due than this did not keep its pace: its row says nothing.
PACE = 0.9

Window = tuple[float, float]


@dataclass(frozen=True)
class Direction:
    """One direction of the flow: which numbers did not arrive, and how even it was."""

    name: str
    sent: int
    due: int
    lost: tuple[int, ...] = ()
    excused: int = 0
    doubled: int = 0
    gap_ms: float = 0.0
    stall_ms: float = 0.0
    lost_from: float = 0.0
    lost_until: float = 0.0
    #: How many of the lost and excused ones the sender's own kernel refused.
    refused: int = 0

    @property
    def paced(self) -> bool:
        """Whether the sender sent what was due."""
        return self.due > 0 and self.sent >= PACE * self.due


def direction(
    name: str,
    sendings: Sequence[float],
    arrivals: Iterable[tuple[int, float]],
    due: int,
    excused: Sequence[Window] = (),
) -> Direction:
    """Compare. `sendings[n]` is when number n was sent; `due`: how many should have been.

    A negative time is that of a number which the sender's own kernel refused: that is lost as well, for nobody can be
    reached at that moment. What was sent within an `excused` window is counted apart. The longest gap is between
    arrivals, the longest stall between sendings: a gap no longer than the stall is the sender's.
    """
    came: dict[int, float] = {}
    doubled = 0
    for number, moment in arrivals:
        if number in came:
            doubled += 1
        else:
            came[number] = moment
    moments = [abs(moment) for moment in sendings]
    missing = [number for number in range(len(moments)) if number not in came]
    lost = [number for number in missing if not _within(moments[number], excused)]
    return Direction(
        name,
        len(moments),
        due,
        tuple(lost),
        len(missing) - len(lost),
        doubled,
        _longest(sorted(came.values())),
        _longest(moments),
        moments[lost[0]] if lost else 0.0,
        moments[lost[-1]] if lost else 0.0,
        sum(moment < 0 for moment in sendings),
    )


def _within(moment: float, windows: Sequence[Window]) -> bool:
    return any(begin <= moment <= end for begin, end in windows)


def _longest(moments: Sequence[float]) -> float:
    """The longest time between neighbours, ms."""
    return max((1000 * (later - earlier) for earlier, later in itertools.pairwise(moments)), default=0.0)


@dataclass(frozen=True)
class Contact:
    """One first contact: who asked whom, when, and after how many ms the answer came (None: not within a second)."""

    asker: str
    target: str
    moment: float
    ms: float | None
    #: Whether the asker's kernel held no entry for the target when it asked.
    first: bool = True


@dataclass(frozen=True)
class Start:
    """One `docker run` that pings a container of another host once and ends."""

    host: str
    moment: float
    seconds: float
    #: Why Docker did not start it; empty when it ran.
    refused: str = ""
    #: Whether its ping was answered.
    answered: bool = True
    #: When its process ran (a Unix time), as Docker says; 0 where it was not asked.
    running: float = 0.0


@dataclass(frozen=True)
class Check:
    """Something else that a row must show: what was found, what is allowed, and whether it is."""

    what: str
    found: str
    allowed: str
    good: bool

    def __str__(self) -> str:
        return f"{self.what}: {self.found}" + (f" (allowed: {self.allowed})" if self.allowed else "")


@dataclass(frozen=True)
class Bound:
    """What a row may cost; None: stated only."""

    #: Packets lost per direction, outside of excused windows: at most, and (the control row) at least.
    lost: int | None = 0
    lost_least: int = 0
    contacts: int | None = 0
    #: Containers that did not start on the third host, and the slowest start, seconds.
    refused: int | None = 0
    slowest: float | None = 15.0
    #: Containers that started and whose first ping was not answered.
    unanswered: int | None = None


@dataclass(frozen=True)
class Measured:
    """What the three loads of one row saw."""

    flow: tuple[Direction, ...] = ()
    contacts: tuple[Contact, ...] = ()
    starts: tuple[Start, ...] = ()
    excused: tuple[Window, ...] = ()

    @property
    def failed(self) -> list[Contact]:
        """First contacts that were not answered, outside of excused windows."""
        return [one for one in self.contacts if one.ms is None and not _within(one.moment, self.excused)]

    @property
    def refused(self) -> list[Start]:
        """Containers that Docker did not start."""
        return [one for one in self.starts if one.refused]

    @property
    def unanswered(self) -> list[Start]:
        """Containers that ran and reached nobody."""
        return [one for one in self.starts if not one.refused and not one.answered]

    @property
    def slowest(self) -> float:
        """The slowest start, seconds."""
        return max((one.seconds for one in self.starts), default=0.0)


@dataclass
class Result:
    """One row as it came out."""

    name: str
    title: str
    bound: Bound
    measured: Measured = field(default_factory=Measured)
    checks: list[Check] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    #: What kept the row from being run to its end.
    broken: str = ""
    seconds: float = 0.0

    def complaints(self) -> list[str]:
        """Everything that misses its bound, a sentence each; empty: the row holds."""
        found = [f"the row could not be run to its end: {self.broken}"] if self.broken else []
        found += [*self._of_flow(), *self._of_contacts(), *self._of_starts()]
        return found + [str(check) for check in self.checks if not check.good]

    @property
    def good(self) -> bool:
        """Whether the row holds."""
        return not self.complaints()

    def _of_flow(self) -> list[str]:
        flow, found = self.measured.flow, []
        if not flow:
            return ["no flow was measured"]
        for one in flow:
            lost = len(one.lost)
            if not one.paced:
                found.append(f"{one.name}: the sender sent {one.sent} of {one.due}: too busy a machine, says nothing")
            if self.bound.lost is not None and lost > self.bound.lost:
                found.append(f"{one.name}: {lost} packets lost, at most {self.bound.lost} allowed")
            if lost < self.bound.lost_least:
                found.append(f"{one.name}: {lost} packets lost, at least {self.bound.lost_least} expected")
        return found

    def _of_contacts(self) -> list[str]:
        contacts, failed = self.measured.contacts, self.measured.failed
        if not contacts:
            return ["no first contact was made"]
        found = [f"{one.asker} had an entry for {one.target} already" for one in contacts if not one.first]
        if self.bound.contacts is not None and len(failed) > self.bound.contacts:
            pairs = ", ".join(f"{one.asker}→{one.target}" for one in failed[:5])
            found.append(f"{len(failed)} first contacts failed ({pairs}), at most {self.bound.contacts} allowed")
        return found

    def _of_starts(self) -> list[str]:
        measured, bound, found = self.measured, self.bound, []
        if not measured.starts:
            return ["no container was started"]
        if bound.refused is not None and len(measured.refused) > bound.refused:
            found.append(f"{len(measured.refused)} containers did not start: {measured.refused[0].refused}")
        if bound.slowest is not None and measured.slowest > bound.slowest:
            found.append(f"a container took {measured.slowest:.1f} s to start, at most {bound.slowest:g} allowed")
        if bound.unanswered is not None and len(measured.unanswered) > bound.unanswered:
            found.append(f"{len(measured.unanswered)} new containers did not reach anybody")
        return found
