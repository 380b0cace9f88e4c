"""In what order the contestants come, and when there are enough rounds. Pure, but for the measuring that is handed in.

A round measures each contestant once; the next one goes through them backwards (A B, B A), so that what drifts falls on
all alike. There are pairs of rounds only. When there are enough is decided by the same network measured twice (A/A)
alone: the figure under test has no say.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bench.results import Quantities, Round
from bench.spread import spread

#: The least and the most rounds; both even.
LEAST, MOST = 16, 60
#: The interval of A/A has to lie within these.
CALM = (0.95, 1.05)

Measure = Callable[[str], Quantities]


def order(contestants: Sequence[str], number: int) -> tuple[str, ...]:
    """Who comes when in round `number`, counted from 0."""
    return tuple(contestants) if number % 2 == 0 else tuple(reversed(contestants))


def calm(same: Sequence[float]) -> bool:
    """Whether ratios of a network to itself say that the noise is small enough."""
    found = spread(same)
    return CALM[0] <= found.low and found.high <= CALM[1]


def enough(same: Sequence[float], least: int = LEAST, most: int = MOST) -> bool:
    """Whether so many ratios of a network to itself end the figure. Pairs of rounds are never broken."""
    count = len(same)
    if count < least or count % 2:
        return False
    return count >= most or calm(same)


def run(
    contestants: Sequence[str],
    measure: Measure,
    same: Callable[[Sequence[Round]], Sequence[float]] | None,
    least: int = LEAST,
    most: int = MOST,
    beside: Sequence[str] = (),
) -> list[Round]:
    """Rounds until there are enough; all of them.

    `same` gives the A/A ratios of the rounds so far; without it there are `least`. `beside` are contestants that no
    goal speaks of: they take part in the first `least` rounds.
    """
    made: list[Round] = []
    while True:
        taking_part = (*contestants, *(beside if len(made) < least else ()))
        in_turn = order(taking_part, len(made))
        made.append(Round(in_turn, {name: measure(name) for name in in_turn}))
        if same is None:
            if len(made) >= least:
                return made
        elif enough(same(made), least, most):
            return made
