"""This host as a person asks for it: `myoverlay status`."""

from __future__ import annotations

from myoverlay.operate.control import Answer, Method, Nothing
from myoverlay.operate.lookout import Lookout, shown
from myoverlay.plan.concerns import concerns


class Status:
    """Answers what is so here, and what of it needs a person."""

    def __init__(self, lookout: Lookout) -> None:
        self._lookout = lookout

    def methods(self) -> dict[str, Method]:
        return {"Control.Status": (Nothing, self.show)}

    def show(self, call: Nothing, deadline: float) -> Answer:
        """The whole look, and the concerns with what helps against each."""
        sight = self._lookout.look()
        return {**shown(sight), "concerns": [one._asdict() for one in concerns(sight)]}
