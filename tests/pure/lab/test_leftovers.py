"""What counts as left behind by a laboratory."""

from __future__ import annotations

from lab.leftovers import Snapshot, compare

MINE = "laboratory test: group /sys/fs/cgroup/cpu/myo-test"
OTHER = "laboratory demo: group /sys/fs/cgroup/cpu/myo-demo"


def picture(*facts: str) -> Snapshot:
    return Snapshot(frozenset(facts))


def test_what_is_new_or_gone_is_told() -> None:
    """Both directions, whoever it belongs to."""
    assert compare(picture("a"), picture("b")) == ["left behind: b", "gone: a"]
    assert compare(picture(MINE), picture(OTHER)) == [f"left behind: {OTHER}", f"gone: {MINE}"]


def test_a_laboratory_answers_for_itself_and_the_machine() -> None:
    """Not for other laboratories, nor for what its own dead forerunner had left and it cleared."""
    assert compare(picture(), picture(MINE, OTHER, "route x"), ["test"]) == [
        f"left behind: {MINE}",
        "left behind: route x",
    ]
    assert compare(picture(MINE, OTHER, "route x"), picture(), ["test"]) == ["gone: route x"]
    assert compare(picture("process 1 (x)"), picture("process 2 (y)"), ["test"]) == []
