"""The form of bench/results/latest.json: every round of every figure, and what it was measured on.

    {"form": 1, "about": {…}, "figures": {NAME: {"began": …, "seconds": …, "load": […], "rounds": [ROUND, …]}}}
    ROUND: {"order": [CONTESTANT, …], "values": {CONTESTANT: {QUANTITY: NUMBER}}}

Names of quantities end in their unit, as in `round trip ms`. A figure that was measured again has `earlier` too, a list
of what it was before: no round is dropped.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

FORM = 1
FOLDER = Path(__file__).with_name("results")
LATEST = FOLDER / "latest.json"

Quantities = dict[str, float]


@dataclass(frozen=True)
class Round:
    """Each contestant measured once, in this order."""

    order: tuple[str, ...]
    values: Mapping[str, Quantities]

    def of(self, contestant: str, quantity: str) -> float:
        """One number. Raises ValueError where it was not measured."""
        try:
            return self.values[contestant][quantity]
        except KeyError:
            raise ValueError(f"a round has no {quantity!r} of {contestant!r}") from None


@dataclass(frozen=True)
class Measured:
    """A figure: all its rounds. `load`: the machine's over one minute, before and after.

    `earlier`: what it was measured to be before, the first first.
    """

    rounds: tuple[Round, ...]
    began: str = ""
    seconds: float = 0.0
    load: tuple[float, float] = (0.0, 0.0)
    earlier: tuple[Measured, ...] = ()

    def after(self, before: Measured | None) -> Measured:
        """This, measured in place of what was `before`."""
        return replace(self, earlier=(*before.earlier, replace(before, earlier=()))) if before is not None else self

    def of(self, contestant: str, quantity: str) -> list[float]:
        """One quantity of one contestant, of the rounds that it took part in."""
        return [each.of(contestant, quantity) for each in self.rounds if contestant in each.values]

    def contestants(self) -> list[str]:
        """Everybody who took part in any round."""
        return list(dict.fromkeys(name for each in self.rounds for name in sorted(each.values)))


@dataclass(frozen=True)
class Results:
    """A run. `about`: what a reader of the figures has to know, in words."""

    about: Mapping[str, str]
    figures: Mapping[str, Measured] = field(default_factory=dict)

    def with_figures(self, more: Mapping[str, Measured]) -> Results:
        """These in place of those of the same name, which are kept as `earlier`."""
        newer = {name: one.after(self.figures.get(name)) for name, one in more.items()}
        return Results(self.about, {**self.figures, **newer})


class ResultsWrong(ValueError):
    """A file is no results of ours."""


def encode(results: Results) -> str:
    """As text, a round on a line: a difference between two runs can be read."""
    figures = [f"  {json.dumps(name)}: {_figure(one)}" for name, one in results.figures.items()]
    about = json.dumps(dict(results.about), indent=1, ensure_ascii=False).replace("\n", "\n ")
    return f'{{\n "form": {FORM},\n "about": {about},\n "figures": {{\n' + ",\n".join(figures) + "\n }\n}\n"


def _figure(one: Measured) -> str:
    head = {"began": one.began, "seconds": round(one.seconds, 1), "load": [round(each, 2) for each in one.load]}
    rounds = ",\n   ".join(json.dumps({"order": each.order, "values": _short(each.values)}) for each in one.rounds)
    earlier = ",\n  ".join(map(_figure, one.earlier))
    return (
        f'{json.dumps(head)[:-1]}, "rounds": [\n   {rounds}\n  ]'
        + (f', "earlier": [{earlier}]' if earlier else "")
        + "}"
    )


def _short(values: Mapping[str, Quantities]) -> dict[str, Quantities]:
    return {name: {kind: float(f"{value:.6g}") for kind, value in one.items()} for name, one in values.items()}


def decode(text: str) -> Results:
    """Back from text. Raises ResultsWrong, which says what is wrong with it."""
    try:
        found = json.loads(text)
        if found["form"] != FORM:
            raise ResultsWrong(f"the results have form {found['form']}, this is made for {FORM}")
        figures = {name: _measured(one) for name, one in found["figures"].items()}
        return Results({str(name): str(value) for name, value in found["about"].items()}, figures)
    except ResultsWrong:
        raise
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ResultsWrong(f"these are no results of `make bench`: {type(error).__name__} {error}") from None


def _measured(found: Any) -> Measured:
    rounds = tuple(_round(each) for each in found["rounds"])
    before, after = found["load"]
    earlier = tuple(_measured(each) for each in found.get("earlier", ()))
    return Measured(rounds, str(found["began"]), float(found["seconds"]), (float(before), float(after)), earlier)


def _round(found: Any) -> Round:
    values = {
        str(name): {str(kind): _number(value) for kind, value in one.items()} for name, one in found["values"].items()
    }
    order = tuple(str(name) for name in found["order"])
    if sorted(order) != sorted(values):
        raise ResultsWrong("a round's order names others than were measured")
    return Round(order, values)


def _number(value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise ResultsWrong(f"{value!r} is no figure")
    return float(value)


def read(path: Path = LATEST) -> Results:
    """The results of a file. Raises ResultsWrong and OSError."""
    return decode(path.read_text())


def write(results: Results, path: Path = LATEST) -> None:
    """Beside its place first: what is there stays until the new ones are whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_text(encode(results))
    unfinished.rename(path)
