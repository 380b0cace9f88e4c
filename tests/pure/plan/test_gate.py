"""The gate before the store: each question once, and not too many."""

from __future__ import annotations

from myoverlay.plan.gate import Gate


def test_a_question_is_asked_once_until_its_time_is_over() -> None:
    """Within the quiet time it is not asked again, after it is; one that was answered may be asked at once."""
    gate = Gate(10, 10.0, 2.0)
    assert gate.admits("a", 0.0)
    assert not gate.admits("a", 1.9)
    assert gate.admits("b", 1.9)
    assert gate.admits("a", 2.0)
    gate.answered("a")
    assert gate.admits("a", 2.1)


def test_many_questions_are_asked_at_a_rate() -> None:
    """So many at once, then so many a second, and the store of permissions does not grow beyond its size."""
    gate = Gate(10, 5.0, 2.0)
    assert sum(gate.admits(n, 0.0) for n in range(100)) == 10
    assert sum(gate.admits(n, 1.0) for n in range(100, 200)) == 5
    assert sum(gate.admits(n, 1000.0) for n in range(200, 300)) == 10


def test_there_is_room_until_all_that_may_be_asked_was() -> None:
    """Who asks whether there is room asks for nothing by that."""
    gate = Gate(1, 1.0, 60.0)
    assert [gate.has_room(0.0), gate.has_room(0.0), gate.admits("a", 0.0), gate.has_room(0.5)] == [
        True,
        True,
        True,
        False,
    ]
    assert gate.has_room(1.1)


def test_a_refused_question_may_be_asked_later() -> None:
    """Who was turned away for the rate is not held for asked."""
    gate = Gate(1, 1.0, 60.0)
    assert gate.admits("a", 0.0)
    assert not gate.admits("b", 0.5)
    assert gate.admits("b", 1.1)
