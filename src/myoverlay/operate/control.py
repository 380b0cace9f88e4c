"""What a person may ask the daemon, over the plugin's own sockets: `POST /Control.<Name>`, JSON in and out.

The sockets are root's alone (0600). A refusal has the shape that Docker's calls get, so one client reads both. Another
request is a struct, a method of Control, and a row of its table.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from myoverlay.host.leftovers import Leftovers
from myoverlay.plan.brake import Held
from myoverlay.tally import Tally
from myoverlay.values import HostId

Answer = dict[str, Any]
#: Seconds of a deadline that are left for the answer itself.
_MARGIN = 0.5
#: The struct of the body, which every request has (`{}` at least), and who answers: `act(call, deadline)`.
Method = tuple[type[msgspec.Struct], Callable[[Any, float], Answer]]


class Nothing(msgspec.Struct, frozen=True, kw_only=True):
    """A request that says nothing but its name."""


class Gc(msgspec.Struct, frozen=True, kw_only=True):
    """What waits for a person's word; with `yes` it is given. `collect`: what needs no word is taken away now."""

    yes: bool = False
    collect: bool = False


class Control:
    """Answers the daemon's own commands."""

    def __init__(
        self,
        leftovers: Leftovers,
        tally: Tally,
        me: HostId,
        name: str,
        collect: Callable[[float], tuple[tuple[Held, ...], tuple[str, ...]]],
    ) -> None:
        """`collect`: have collected, by a deadline, what may go; what that was, and what could not be looked at."""
        self._collect = collect
        self._leftovers = leftovers
        self._tally = tally
        self._me = me
        self._name = name

    def methods(self) -> dict[str, Method]:
        """Every request by its path."""
        return {
            "Control.Gc": (Gc, self.gc),
            "Control.Counters": (Nothing, self.counters),
            "Control.Host": (Nothing, self.host),
        }

    def gc(self, call: Gc, deadline: float) -> Answer:
        """What went (`collected`), and what is held, or, with `yes`, was and is let go.

        `unsure`: what could not be looked at, so that more may be there.
        """
        listed = self._leftovers.let_go() if call.yes else ()
        gone, unsure = self._collect(deadline - _MARGIN) if call.collect else ((), ())
        if not call.yes:
            listed = self._leftovers.held()
        return {
            "held": [_shown(one) for one in listed],
            "let_go": call.yes,
            "collected": [_shown(one) for one in gone],
            "unsure": list(unsure),
        }

    def counters(self, call: Nothing, deadline: float) -> Answer:
        """All counters that were ever raised: name, then label (empty where a counter has none), then count."""
        found: dict[str, dict[str, int]] = {}
        for (name, label), count in sorted(self._tally.all().items()):
            found.setdefault(name, {})[label] = count
        return found

    def host(self, call: Nothing, deadline: float) -> Answer:
        """Who this host is."""
        return {"id": self._me, "name": self._name}


def _shown(held: Held) -> Answer:
    return {"kind": held.kind, "overlay": held.overlay, "names": list(held.names), "of": held.of}
