"""Many rows at once, and many questions at once."""

from __future__ import annotations

import json

from bench import readings
from bench.figures.figure import Extent, Figure
from bench.figures.first_ping import RESIDENTS, fresh, wait_until_known
from bench.goals import FIRST
from bench.ground import Ground
from bench.inside import start
from bench.names import OURS
from bench.results import Quantities, Round
from lab.errors import LabError
from lab.processes import wait_for

PEERS, QUESTIONS = 10_000, 20_000
#: 32,768 addresses of the ground's subnet that nobody has.
_NOBODYS = "10.5.128.1"
#: Reads of the store, whatever came of them.
_ASKED = 'myoverlay_store_call_seconds_count{operation="get",'


def _rows(ground: Ground, extent: Extent) -> list[Round]:
    said = start.run(ground.h1, "peers", PEERS, extent.least)
    measured = map(json.loads, said.splitlines())
    return [Round(tuple(each), each) for each in measured]  # who was first stands first


def _storm(ground: Ground, extent: Extent) -> list[Round]:
    """The valid one is known from the watch, and its row is pulled by its miss: above the eager limit, 0 here."""
    host, asker = ground.h1, ground.paths[OURS].near

    def once() -> Quantities:
        wait_until_known([host], RESIDENTS)
        with fresh(ground, ground.h2, OURS) as far:
            wait_until_known([host], RESIDENTS + 1)
            before = readings.metrics(host)
            said = json.loads(start.run(host, "storm", _NOBODYS, QUESTIONS, far.address, 1.0, netns=asker.netns))
            after = _settled(ground, before)
        questions, heard = _asked(after) - _asked(before), _heard(after) - _heard(before)
        overruns = readings.total(after, _OVERRUNS) - readings.total(before, _OVERRUNS)
        more = {"questions": questions, "unheard": max(0.0, QUESTIONS - heard), "storm s": said["storm s"]}
        return {FIRST: said["answer ms"], "overruns": overruns, **more}  # unanswered: how long was waited

    with ground.other_plugins({"h1": {"MYOVERLAY_EAGER_LIMIT": "0"}}):
        return extent.alone(once)


_OVERRUNS = "myoverlay_overruns_total"
#: Misses by what was done at once; `found` and `unknown` tell how one of those that were `asked` came out.
_AT_ONCE = frozenset(
    f'myoverlay_misses_total{{kind="{kind}"}}' for kind in ("local", "late", "pull", "asked", "limited")
)


def _asked(found: dict[str, float]) -> float:
    asked = [value for name, value in found.items() if name.startswith(_ASKED)]
    if not asked:
        raise LabError(f"no metric is called {_ASKED}…}}: what the store was asked cannot be told")
    return sum(asked)


def _heard(found: dict[str, float]) -> float:
    return sum(value for name, value in found.items() if name in _AT_ONCE)


def _settled(ground: Ground, before: dict[str, float]) -> dict[str, float]:
    """The metrics when all questions were read, or when no more are."""
    last = before

    def calm() -> dict[str, float] | None:
        nonlocal last
        now, earlier = readings.metrics(ground.h1), last
        last = now
        return now if _heard(now) - _heard(before) >= QUESTIONS or _heard(now) == _heard(earlier) else None

    try:
        return wait_for("the storm to be over", 20, calm, pause=1.5)
    except LabError:
        return last


FIGURES = (Figure("rows", _rows, quick=True), Figure("storm", _storm))
