"""A host's ways to the outside on paper: `kernel.egress` without a kernel."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any

from myoverlay.egress import Crossing, Leg
from myoverlay.errors import KernelRefused
from myoverlay.host.egress import Egress
from myoverlay.tally import Tally
from myoverlay.values import Address


class Paper:
    """A kernel: the bridge, cables that are in order, and the tables. `refuses`: what it says no to."""

    def __init__(self) -> None:
        self.there: tuple[Address, int] | None = (Address("172.17.0.1"), 1500)
        self.cables: dict[str, Leg] = {}
        self.inner = 0
        self.outer: Crossing | None = None
        self.refuses = ""
        self.untouched = True

    def check(self, what: str) -> None:
        if what == self.refuses:
            raise KernelRefused(what, errno.EPERM, "Operation not permitted")

    def bridge(self, _name: str) -> tuple[Address, int] | None:
        return self.there

    def faults(self, _ns: Any, leg: Leg) -> tuple[str, ...]:
        return () if self.cables.get(leg.link) == leg else ("its cable",)

    def make(self, _ns: Any, leg: Leg) -> None:
        self.check("laying")
        self.cables[leg.link] = leg

    def remove(self, leg: Leg) -> None:
        self.check("removing")
        self.cables.pop(leg.link, None)


class Inner:
    """The rules in a namespace."""

    def __init__(self, paper: Paper, _home: Callable[[], Any]) -> None:
        self._paper = paper

    def lay(self, value: bool) -> None:
        self._paper.check("inner")
        self._paper.inner += value

    def is_untouched(self) -> bool:
        return self._paper.untouched

    def look(self) -> bool | None:
        return None

    def close(self) -> None: ...


class Outer:
    """The rules on the host."""

    def __init__(self, paper: Paper) -> None:
        self._paper = paper

    def held(self) -> Crossing:
        return self._paper.outer or Crossing()

    def lay(self, value: Crossing) -> None:
        self._paper.check("outer")
        self._paper.outer = value

    def is_untouched(self) -> bool:
        return self._paper.outer is not None

    def look(self) -> Crossing | None:
        return self._paper.outer

    def remove(self) -> None:
        self._paper.outer = None

    def close(self) -> None: ...


def on_paper(paper: Paper, tally: Tally) -> Egress:
    return Egress("docker0", paper, Outer(paper), lambda home: Inner(paper, home), tally)
