"""What must be reached, goal by goal, and whether results reach it. Pure.

A ratio of at least G is reached when its median is at least G - 0.02 and its interval's lower end at least G - 0.05; of
at most G, mirrored; of fewer than 16 rounds it is not measured. Limits are for medians, and for each round where
nothing may be lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from bench.names import AGAIN, DOCKER, HAND, NONE, OURS, PARALLEL, UNBOUND, UNGUARDED
from bench.results import Measured, Results
from bench.rounds import LEAST
from bench.spread import Spread, ratios, spread

#: What a median, and the interval's end, may miss a ratio by.
MEDIAN_SLACK, END_SLACK = 0.02, 0.05

Direction = Literal["at least", "at most"]


def reached(ratio: Spread, direction: Direction, goal: float) -> bool:
    """The rule for ratios."""
    if direction == "at least":
        return ratio.median >= goal - MEDIAN_SLACK and ratio.low >= goal - END_SLACK
    return ratio.median <= goal + MEDIAN_SLACK and ratio.high <= goal + END_SLACK


@dataclass(frozen=True)
class Verdict:
    """`met` is None where the results do not have the figure."""

    title: str
    goal: str
    found: str
    met: bool | None

    def __str__(self) -> str:
        word = {True: "met", False: "NOT MET", None: "NOT MEASURED"}[self.met]
        return f"{word:12} {self.title}: {self.goal}; {self.found}"


@dataclass(frozen=True)
class Ratio:
    """`over` against `under`, round by round; with `less` that contestant's value is taken off both first."""

    figure: str
    quantity: str
    direction: Direction
    goal: float
    over: str
    under: str
    less: str = ""

    def __str__(self) -> str:
        return f"{self.direction} {self.goal:g} × {self.under}"

    def values(self, measured: Measured) -> list[float]:
        """The ratio of each round that both took part in. Raises ValueError."""
        both = [each for each in measured.rounds if self.over in each.values and self.under in each.values]
        off = [each.of(self.less, self.quantity) if self.less else 0.0 for each in both]
        over = [each.of(self.over, self.quantity) - one for each, one in zip(both, off, strict=True)]
        under = [each.of(self.under, self.quantity) - one for each, one in zip(both, off, strict=True)]
        return ratios(over, under)

    def judge(self, measured: Measured) -> tuple[str, bool]:
        """What was found, and whether it is good enough. Raises ValueError, also where there are too few rounds."""
        found = spread(self.values(measured))
        if found.count < LEAST:
            raise ValueError(f"there are {found.count} rounds of at least {LEAST}")
        return f"{between(found)} in {found.count} rounds", reached(found, self.direction, self.goal)


@dataclass(frozen=True)
class Limit:
    """The median of one contestant's quantity is at most so much."""

    figure: str
    quantity: str
    limit: float
    contestant: str = OURS

    def __str__(self) -> str:
        return f"at most {self.limit:g} {unit(self.quantity)}".rstrip()

    def judge(self, measured: Measured) -> tuple[str, bool]:
        """What was found, and whether it is good enough. Raises ValueError."""
        values = measured.of(self.contestant, self.quantity)
        found, above = spread(values), sum(value > self.limit for value in values)
        more = f", {above} of them above" if above else ""
        return f"{between(found)} in {found.count} rounds{more}", found.median <= self.limit


class Most(Limit):
    """No round has more than so much: where a median would hide what must never be."""

    def __str__(self) -> str:
        return f"{self.quantity}: at most {self.limit:g} in any round" if self.limit else f"{self.quantity}: none"

    def judge(self, measured: Measured) -> tuple[str, bool]:
        """What was found, and whether it is good enough. Raises ValueError."""
        values = measured.of(self.contestant, self.quantity)
        if not values:
            raise ValueError("there is no round")
        return f"{max(values):g} at most, {sum(values):g} in {len(values)} rounds", max(values) <= self.limit


Rule = Ratio | Limit


@dataclass(frozen=True)
class Goal:
    """One line of the issue's table: what people call it, and the rule."""

    title: str
    rule: Rule


def unit(quantity: str) -> str:
    """The last word of a quantity's name, where that is a unit."""
    last = quantity.rpartition(" ")[2]
    return last if last in ("ms", "s", "MB", "Gbit/s", "packets/s", "/s") else ""


def between(found: Spread) -> str:
    """A median with its interval."""
    if found.low == found.high:
        return f"{found.median:.3g}"
    return f"{found.median:.3g} ({_end(found.low)} to {_end(found.high)})"


def _end(value: float) -> str:
    """Where three digits would read as 1, all that there are: whether an interval holds 1 is what is asked."""
    short = f"{value:.3g}"
    return f"{value:.6g}" if short == "1" else short


#: Figure, quantity and title of what is as fast as the path allows.
TRAFFIC = (
    ("tcp1", "Gbit/s", "TCP, 1 stream"),
    ("tcp1-back", "Gbit/s", "TCP, 1 stream, the other way"),
    ("tcp4", "Gbit/s", "TCP, 4 streams"),
    ("tcp4-back", "Gbit/s", "TCP, 4 streams, the other way"),
    ("udp64", "packets/s", "UDP, 64 B, packets that arrive"),
    ("requests", "round trips /s", "request and response, 1 B, TCP"),
)
FIRST, LOST, ANSWERED = "first answer ms", "packets lost", "until answered ms"
PER_PACKET = "CPU us/packet"

GOALS: tuple[Goal, ...] = (
    Goal("first ping, rows ahead", Ratio("first-ping", FIRST, "at most", 1.0, OURS, DOCKER)),
    Goal("first ping, rows ahead", Most("first-ping", LOST, 0)),
    Goal("first ping, by a miss, record in memory", Limit("first-ping-memory", FIRST, 3.0)),
    Goal("first ping, by a miss, record in memory", Most("first-ping-memory", LOST, 0)),
    Goal("first ping, by a miss, record only in Consul", Limit("first-ping-store", FIRST, 10.0)),
    Goal("first ping, by a miss, record only in Consul", Most("first-ping-store", LOST, 0)),
    *(Goal(title, Ratio(name, quantity, "at least", 1.0, OURS, DOCKER)) for name, quantity, title in TRAFFIC),
    *(Goal(title, Ratio(name, quantity, "at least", 0.97, OURS, HAND)) for name, quantity, title in TRAFFIC),
    Goal("TCP, 1 stream, guard on to off", Ratio("guard-tcp1", "Gbit/s", "at least", 1.0, UNBOUND, UNGUARDED)),
    Goal("UDP, 64 B, guard on to off", Ratio("guard-udp64", "packets/s", "at least", 1.0, UNBOUND, UNGUARDED)),
    Goal("CPU time per packet, guard on to off", Ratio("guard-udp64", PER_PACKET, "at most", 1.05, UNBOUND, UNGUARDED)),
    # Our own: what binding each container to its MAC and address may cost on top.
    Goal("TCP, 1 stream, bound to addresses or free", Ratio("guard-tcp1", "Gbit/s", "at least", 0.97, OURS, UNBOUND)),
    Goal("UDP, 64 B, bound to addresses or free", Ratio("guard-udp64", "packets/s", "at least", 0.9, OURS, UNBOUND)),
    Goal("what a network adds to `docker run`", Ratio("docker-run", "run ms", "at most", 0.5, OURS, DOCKER, NONE)),
    Goal("the same with `--internal`", Ratio("docker-run-internal", "run ms", "at most", 0.5, OURS, DOCKER, NONE)),
    Goal("our handlers, one container", Limit("handlers", "all calls ms", 15.0)),
    Goal("our handlers, one container of 8 at once", Limit("handlers", "all calls ms", 40.0, PARALLEL)),
    Goal("`docker run` returned, first answer", Ratio("first-answer", ANSWERED, "at most", 1.0, OURS, DOCKER)),
    Goal("socket bound after exec", Limit("socket", "bound s", 0.4)),
    Goal("`docker plugin enable`", Limit("enable", "enabled s", 1.5)),
    Goal("memory after 10,000 changes", Limit("memory", "PSS MB", 80.0)),
    Goal("root file system", Limit("size", "root MB", 70.0)),
    Goal("10,000 peers into a fresh namespace", Limit("rows", "programmed s", 0.15)),
    Goal("full reconcile of 10,000 peers", Limit("rows", "reconciled s", 0.1)),
    Goal("miss storm, the valid one", Limit("storm", FIRST, 10.0)),
    Goal("miss storm, ENOBUFS", Most("storm", "overruns", 0)),
    Goal("miss storm, questions to the store", Most("storm", "questions", 200)),
)  # fmt: skip


def judge(results: Results, goals: Sequence[Goal] = GOALS) -> list[Verdict]:
    """Every goal, in their order."""
    return [_judge(results, goal) for goal in goals]


def _judge(results: Results, goal: Goal) -> Verdict:
    measured = results.figures.get(goal.rule.figure)
    if measured is None:
        return Verdict(goal.title, str(goal.rule), "the results lack it", None)
    try:
        found, met = goal.rule.judge(measured)
    except ValueError as error:
        return Verdict(goal.title, str(goal.rule), f"the results lack it: {error}", None)
    return Verdict(goal.title, str(goal.rule), found, met)


#: The same network against itself: figure, quantity, and what is taken off first.
SAME: tuple[Ratio, ...] = (
    Ratio("first-ping", FIRST, "at most", 1.0, AGAIN, OURS),
    *(Ratio(name, quantity, "at least", 1.0, AGAIN, OURS) for name, quantity, _ in TRAFFIC),
    Ratio("guard-tcp1", "Gbit/s", "at least", 1.0, AGAIN, OURS),
    Ratio("guard-udp64", "packets/s", "at least", 1.0, AGAIN, OURS),
    Ratio("docker-run", "run ms", "at most", 1.0, AGAIN, OURS, NONE),
    Ratio("docker-run-internal", "run ms", "at most", 1.0, AGAIN, OURS, NONE),
    Ratio("first-answer", ANSWERED, "at most", 1.0, AGAIN, OURS),
)


def same(figure: str) -> Ratio | None:
    """The A/A ratio of a figure, if it has one."""
    return next((one for one in SAME if one.figure == figure), None)
