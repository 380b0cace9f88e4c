"""The brake, by tables: what goes by itself, what waits for a person, and until when."""

from __future__ import annotations

import pytest

from myoverlay.plan.brake import FLOOR, LIMIT, WINDOW, Brake, is_too_much


def names(count: int, start: int = 0) -> set[str]:
    return {f"n{number:04}" for number in range(start, start + count)}


@pytest.mark.parametrize(
    ("count", "of", "too_much"),
    [
        (1, 1, False),
        (3, 3, False),  # below the floor half says nothing
        (2, 4, False),  # half is not more than half
        (3, 4, True),
        (4, 4, True),
        (50, 100, False),
        (50, 99, True),
        (50, 1000, False),
        (51, 1000, True),
        (0, 0, False),
    ],
)
def test_the_rule(count: int, of: int, too_much: bool) -> None:
    """More than 50, or more than half from four objects on."""
    assert is_too_much(count, of) is too_much
    assert FLOOR == 4


@pytest.mark.parametrize(("count", "of"), [(1, 1), (3, 3), (2, 4), (50, 200)])
def test_little_goes_by_itself(count: int, of: int) -> None:
    """Candidates within the rule go at once and nothing waits."""
    brake = Brake()
    assert brake.release("link", "demo", names(count), of, 0.0) == names(count)
    assert brake.held() == ()


@pytest.mark.parametrize(("count", "of"), [(51, 2000), (3, 4), (4, 4)])
def test_much_is_held_whole(count: int, of: int) -> None:
    """Above the rule nothing goes, not even a part, and what waits can be read."""
    brake = Brake()
    assert brake.release("link", "demo", names(count), of, 0.0) == frozenset()
    (held,) = brake.held()
    assert (held.kind, held.overlay, set(held.names), held.of) == ("link", "demo", names(count), of)


def test_a_word_lets_go_what_was_held_and_no_more() -> None:
    """After the word the held ones go, also when tried again; what comes later is judged anew."""
    brake = Brake()
    brake.release("link", "demo", names(60), 100, 0.0)
    (let,) = brake.let_go()
    assert set(let.names) == names(60)
    assert brake.held() == ()
    later = names(60) | names(55, 100)
    assert brake.release("link", "demo", later, 200, 3.0) == names(60)
    assert set(brake.held()[0].names) == names(55, 100)
    assert brake.release("link", "demo", names(60), 100, 6.0) == names(60)
    assert brake.held() == ()


def test_the_word_ends_with_the_object() -> None:
    """A name that was let go, went, and comes again is not covered by the old word."""
    brake = Brake()
    brake.release("link", "demo", names(60), 100, 0.0)
    brake.let_go()
    brake.release("link", "demo", set(), 40, 3.0)
    assert brake.release("link", "demo", names(60), 100, 6.0) == frozenset()


def test_a_word_before_the_alarm_is_worth_nothing() -> None:
    """Nobody lets go what is not held yet."""
    brake = Brake()
    assert brake.let_go() == ()
    assert brake.release("link", "demo", names(60), 100, 0.0) == frozenset()


def test_what_was_held_stays_held_while_it_shrinks() -> None:
    """The alarm is not undone by some of the candidates going another way; only when all have gone."""
    brake = Brake()
    brake.release("link", "demo", names(60), 1000, 0.0)
    assert brake.release("link", "demo", names(5), 1000, 1000.0) == frozenset()
    assert brake.release("link", "demo", set(), 1000, 1001.0) == frozenset()
    assert brake.held() == ()
    assert brake.release("link", "demo", names(5), 1000, 1002.0) == names(5)


def test_many_small_steps_are_a_big_one() -> None:
    """Fifty overlays with one leftover each pass; the next within the minute are held, and go a minute later."""
    brake = Brake()
    for number in range(LIMIT):
        assert brake.release("link", f"o{number}", {"p"}, 1, float(number) / 10) == {"p"}
    assert brake.release("link", "o50", {"p"}, 1, 6.0) == frozenset()
    assert brake.release("namespace", "", {"p"}, 1, 6.0) == {"p"}, "kinds are counted apart"
    assert brake.release("link", "o51", {"p"}, 1, WINDOW + 6.0) == {"p"}
    assert brake.release("link", "o50", {"p"}, 1, WINDOW + 6.0) == frozenset(), "held once, held until the word"


def test_trying_again_is_not_more() -> None:
    """A removal that the kernel refuses is tried each round and counts once."""
    brake = Brake()
    for number in range(LIMIT + 10):
        assert brake.release("link", "demo", {"p1"}, 100, float(number) / 10) == {"p1"}


def test_what_is_in_use_needs_a_word_at_any_number() -> None:
    """A candidate that somebody visibly uses is held while others beside it go."""
    brake = Brake()
    assert brake.release("namespace", "", {"a", "b"}, 9, 0.0, in_use={"b"}) == {"a"}
    assert brake.held()[0].names == ("b",)
    brake.let_go()
    assert brake.release("namespace", "", {"b"}, 8, 1.0, in_use={"b"}) == {"b"}


def test_an_overlay_that_left_waits_for_nobody() -> None:
    """What was held of it is no longer asked about; other overlays' is."""
    brake = Brake()
    for overlay in ("demo", "other"):
        brake.release("link", overlay, names(60), 60, 0.0)
    brake.forget("demo")
    assert [held.overlay for held in brake.held()] == ["other"]
