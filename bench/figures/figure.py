"""What a figure is: a name, and how its rounds are made."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench import rounds
from bench.goals import same
from bench.ground import Ground
from bench.names import AGAIN, OURS
from bench.results import Measured, Quantities, Round


@dataclass(frozen=True)
class Extent:
    """How much is measured: a whole run, or just enough to see that it works."""

    short: bool = False

    @property
    def least(self) -> int:
        """Rounds at least."""
        return 1 if self.short else rounds.LEAST

    def rounds(
        self, figure: str, contestants: Sequence[str], measure: rounds.Measure, beside: Sequence[str] = ()
    ) -> list[Round]:
        """Rounds of a figure, as many as its A/A asks for, where it has one."""
        ratio = same(figure)
        if self.short or ratio is None:
            return rounds.run(contestants, measure, None, self.least, beside=beside)
        return rounds.run(contestants, measure, lambda made: ratio.values(Measured(tuple(made))), beside=beside)

    def alone(self, measure: Callable[[], Quantities], count: int = 0, name: str = OURS) -> list[Round]:
        """Rounds of one contestant, of which an absolute figure is wanted."""
        return [Round((name,), {name: measure()}) for _ in range(1 if self.short else count or rounds.LEAST)]


def network_of(contestant: str) -> str:
    """The network a contestant is measured on: the same twice is ours."""
    return OURS if contestant == AGAIN else contestant


Measurement = Callable[[Ground, Extent], list[Round]]


@dataclass(frozen=True)
class Figure:
    """`quick`: it is part of what `make test` runs. `ground`: it wants the laboratory with all networks."""

    name: str
    measure: Measurement
    quick: bool = False
