"""The daemon's own requests, through the same application as Docker's."""

from __future__ import annotations

import json
import logging
from types import SimpleNamespace
from typing import Any

import pytest

from myoverlay.docker.app import create_app
from myoverlay.docker.driver import NetworkDriver
from myoverlay.docker.ipam import IpamDriver
from myoverlay.host.leftovers import Leftovers
from myoverlay.operate.control import Control
from myoverlay.plan.brake import Held
from myoverlay.tally import Tally
from tests.pure.kit import ANN

NAMES = [f"p{number:02}" for number in range(60)]


class Here:
    """An application with nothing below it but what the control requests need."""

    def __init__(self) -> None:
        self.tally = Tally()
        self.leftovers = Leftovers(self.tally, lambda: 0.0)
        control = Control(self.leftovers, self.tally, ANN, "ann", self._collect)
        nobody: Any = SimpleNamespace()
        network, ipam = NetworkDriver(nobody, nobody, nobody), IpamDriver(nobody, nobody, nobody)
        self.client = create_app(network, ipam, self.tally, control.methods()).test_client()

    def _collect(self, deadline: float) -> tuple[tuple[Held, ...], tuple[str, ...]]:
        mark = self.leftovers.mark()
        self.leftovers.release("link", "demo", NAMES, 100)
        return self.leftovers.since(mark), ("the store is away",)

    def ask(self, method: str, body: str = "{}") -> tuple[int, Any]:
        answer = self.client.post(f"/{method}", data=body)
        return answer.status_code, json.loads(answer.text)


@pytest.fixture
def here() -> Here:
    return Here()


def test_gc_lists_and_lets_go(here: Here) -> None:
    """Without a word what is held is shown and stays; with it the same is let go and whoever collects is woken."""
    woken: list[bool] = []
    here.leftovers.on_let_go = lambda: woken.append(True)
    nothing = {"held": [], "let_go": False, "collected": [], "unsure": []}
    assert here.ask("Control.Gc") == (200, nothing)
    assert here.leftovers.release("link", "demo", NAMES, 100) == frozenset()
    held = [{"kind": "link", "overlay": "demo", "names": NAMES, "of": 100}]
    assert here.ask("Control.Gc") == (200, nothing | {"held": held})
    assert here.leftovers.release("link", "demo", NAMES, 100) == frozenset()
    assert not woken
    assert here.ask("Control.Gc", '{"yes": true}') == (200, nothing | {"held": held, "let_go": True})
    assert woken == [True]
    assert here.leftovers.release("link", "demo", NAMES, 100) == set(NAMES)
    assert here.ask("Control.Gc") == (200, nothing)


def test_gc_collects_and_says_what_went(here: Here) -> None:
    """What was held is let go first, so that it is among what is collected; what could not be looked at is told."""
    here.leftovers.release("link", "demo", NAMES, 100)
    (held,) = (one for one in here.ask("Control.Gc")[1]["held"])
    unsure = {"unsure": ["the store is away"]}
    assert here.ask("Control.Gc", '{"collect": true}')[1] == {"held": [held], "let_go": False, "collected": []} | unsure
    status, answer = here.ask("Control.Gc", '{"collect": true, "yes": true}')
    assert (status, answer) == (200, {"held": [held], "let_go": True, "collected": [held]} | unsure)
    assert here.ask("Control.Gc")[1]["held"] == []


def test_the_alarm_is_told_once(here: Here, caplog: pytest.LogCaptureFixture) -> None:
    """One error and one count per object, however many rounds it is held; more objects are told anew."""
    with caplog.at_level(logging.ERROR):
        for _ in range(3):
            here.leftovers.release("link", "demo", NAMES[:55], 100)
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "overlay demo: 55 of 100 links" in caplog.text
    assert "p00, p01, p02 and 52 more" in caplog.text
    assert "myoverlay gc --yes" in caplog.text
    assert here.tally.get("braked", "link") == 55
    here.leftovers.release("link", "demo", NAMES, 100)
    assert here.tally.get("braked", "link") == 60


def test_counters_are_told_by_name_and_label(here: Here) -> None:
    """What was counted is there; what never happened is not."""
    here.tally.add("repairs", "missing row", 2)
    here.tally.add("overruns")
    status, answer = here.ask("Control.Counters")
    assert status == 200
    assert answer == {"overruns": {"": 1}, "repairs": {"missing row": 2}}


def test_the_host_says_who_it_is(here: Here) -> None:
    """Id and name."""
    assert here.ask("Control.Host") == (200, {"id": ANN, "name": "ann"})


@pytest.mark.parametrize(("method", "body"), [("Control.Gc", ""), ("Control.Gc", '{"yes": 1}'), ("Control.Host", "[]")])
def test_a_bad_body_is_one_sentence(here: Here, method: str, body: str) -> None:
    """An empty or wrong body is refused in the shape of Docker's calls, and nothing is let go."""
    here.leftovers.release("link", "demo", NAMES, 100)
    status, answer = here.ask(method, body)
    assert status == 400
    assert answer["Err"] == answer["Error"] != ""
    assert here.leftovers.held()


def test_an_unknown_request_is_refused(here: Here) -> None:
    """What is in no table is 404."""
    status, answer = here.ask("Control.Reboot")
    assert status == 404
    assert "Control.Reboot is not a method" in answer["Err"]
