"""Whom to ask when, and what answers and silence come to."""

from __future__ import annotations

from myoverlay.plan.measure import AGAIN, Measurement, Reach
from myoverlay.values import Address
from tests.pure.kit import ANN, BOB, EVE

VTEP = Address("192.0.2.1")


def measurement(until: float = 10.0) -> Measurement:
    return Measurement(dict.fromkeys((ANN, BOB, EVE), VTEP), 1450, 0.0, until)


def test_who_has_not_answered_whole_is_asked_again() -> None:
    """All at once, then again after a pause those whose packet of full size has not come back."""
    one = measurement()
    assert one.due(0.0) == [ANN, BOB, EVE]
    for host in one.due(0.0):
        one.tried(host, True, 0.0)
    assert one.due(AGAIN / 2) == []
    assert one.heard(ANN)
    assert one.carried(BOB)
    assert one.due(AGAIN) == [ANN, EVE]
    assert one.wait(AGAIN / 2) == AGAIN / 2


def test_the_four_results() -> None:
    """Whole, narrow, silent, and what could not even be asked."""
    one = Measurement(dict.fromkeys((ANN, BOB, EVE), VTEP), 1450, 0.0, 10.0)
    one.tried(ANN, True, 0.0)
    one.tried(BOB, True, 0.0)
    one.tried(EVE, False, 0.0)
    assert one.heard(ANN)
    assert one.results() == {ANN: Reach.NARROW, BOB: Reach.SILENT, EVE: Reach.UNASKED}
    assert one.carried(ANN)
    assert one.results()[ANN] is Reach.WHOLE


def test_answers_to_nothing_count_for_nothing() -> None:
    """Of a host that was not asked, or that is no target."""
    one = Measurement({ANN: VTEP}, 1450, 0.0, 10.0)
    assert not one.heard(ANN)
    assert not one.carried(ANN)
    assert not one.heard(BOB)
    assert one.results() == {ANN: Reach.UNASKED}


def test_it_is_over_with_the_last_answer_or_the_time() -> None:
    """Whichever comes first; without targets at once."""
    one = measurement()
    for host in (ANN, BOB, EVE):
        one.tried(host, True, 0.0)
        assert not one.is_over(1.0)
        one.carried(host)
    assert one.is_over(1.0)
    assert measurement().is_over(10.0)
    assert Measurement({}, 1450, 0.0, 10.0).is_over(0.0)
