"""Mappings that share what is the same: frozen, equal to what a dict would be, and cheap to go on from."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from myoverlay.plan.shared import Shared, apart, differing

tables = st.dictionaries(st.text(max_size=3), st.integers(), max_size=40)
changes = st.lists(st.tuples(st.text(max_size=3), st.none() | st.integers()), max_size=40)


def changed(table: Shared[str, int], steps: list[tuple[str, int | None]]) -> Shared[str, int]:
    draft = table.edit()
    for key, value in steps:
        if value is None:
            draft.drop(key)
        else:
            draft.set(key, value)
        assert draft.get(key) == value
    return draft.done()


@given(tables, changes)
def test_it_is_what_a_dict_would_be(before: dict[str, int], steps: list[tuple[str, int | None]]) -> None:
    """After any changes: the same keys, values and length; and the one before is as it was."""
    table = Shared(before)
    after = changed(table, steps)
    model = dict(before)
    for key, value in steps:
        if value is None:
            model.pop(key, None)
        else:
            model[key] = value
    assert dict(after) == model
    assert len(after) == len(model)
    assert all(key in after and after[key] == after.get(key) == value for key, value in model.items())
    assert all(key in model for key in after)
    assert dict(table) == before
    assert after == model
    assert after.get("absent", 7) == model.get("absent", 7)


@given(tables, tables, st.sets(st.text(max_size=3)))
def test_many_are_put_at_once(before: dict[str, int], more: dict[str, int], gone: set[str]) -> None:
    """As one by one: keys, values and length, also of what is dropped afterwards; the one before is as it was."""
    table = Shared(before)
    draft = table.edit()
    draft.put(more)
    for key in gone:
        draft.drop(key)
    after, model = draft.done(), {key: value for key, value in (before | more).items() if key not in gone}
    assert dict(after) == model
    assert len(after) == len(model)
    assert dict(table) == before
    assert len(table) == len(before)


@given(tables, changes)
def test_what_differs(before: dict[str, int], steps: list[tuple[str, int | None]]) -> None:
    """The keys that hold another object: told as from two plain dicts, and in both directions."""
    table = Shared(before)
    after = changed(table, steps)
    expected = differing(dict(table), dict(after))
    assert table.differing(after) == after.differing(table) == differing(table, after) == expected


def test_a_change_copies_little() -> None:
    """Of 20,000 entries all pieces but the one that changed are the same objects as before, and most rows of them."""
    table = Shared({f"key {number}": number for number in range(20_000)})
    after = changed(table, [("key 7", 8), ("another", 1)])
    rows = [(mine, theirs) for mine, theirs in zip(table._rows, after._rows, strict=True) if mine is not theirs]
    copied = sum(mine is not theirs for pair in rows for mine, theirs in zip(*pair, strict=True))
    assert len(table._rows) > 10
    assert 1 <= len(rows) <= 2
    assert 1 <= copied <= 2
    assert table.differing(after) == {"key 7", "another"}


@pytest.mark.parametrize("step", [1, 100, 4_000])
def test_it_grows(step: int) -> None:
    """From 1,000 entries to 5,000, so many at once: pieces stay small, none is lost, what was before is as it was."""
    table, model = Shared({f"old {number}": [0] for number in range(1_000)}), dict[str, list[int]]()
    model.update(table)
    course = [(table, dict(model))]
    for start in range(0, 4_000, step):
        more = {f"key {number}": [number] for number in range(start, start + step)}
        draft = table.edit()
        draft.put(more)
        draft.drop(f"old {start}")
        table = draft.done()
        model |= more
        model.pop(f"old {start}", None)
        course = [*course[-20:], (table, dict(model))]
    for made, expected in course:
        assert dict(made) == expected
        assert len(made) == len(expected)
        assert all(made[key] is value for key, value in expected.items())
    sizes = [len(piece) for row in table._rows for piece in row]
    assert max(sizes) < 50
    assert sum(sizes) > 4 * len(sizes)


def test_a_draft_ends() -> None:
    """What was made of it can be changed by nobody."""
    draft = Shared({"key": 1}).edit()
    draft.set("key", 2)
    made = draft.done()
    with pytest.raises(AttributeError):
        draft.set("key", 3)
    assert made["key"] == 2


def test_what_differs_between_a_small_one_and_what_grew_of_it() -> None:
    """They lie in other pieces: all of it is looked at."""
    small = Shared({"stays": 1, "goes": 2, "changes": 3})
    large = changed(small, [("goes", None), ("changes", 4), *((f"key {number}", number) for number in range(2_000))])
    expected = {"goes", "changes", *(f"key {number}" for number in range(2_000))}
    assert small.differing(large) == large.differing(small) == expected


def test_nothing_is_something_and_an_equal_object_another() -> None:
    """None under a key is not the same as no key; and it is the object that counts."""
    one: Shared[str, list[int] | None] = Shared({"none": None, "list": [1]})
    for other in (Shared({"list": [1]}), Shared({"list": [1], **{f"key {number}": None for number in range(2_000)}})):
        assert {"none", "list"} <= one.differing(other) & other.differing(one)


@given(st.lists(st.integers(0, 9), max_size=8), st.lists(st.integers(0, 9), max_size=8))
def test_what_only_one_of_two_sequences_holds(before: list[int], after: list[int]) -> None:
    """By identity and in order: of 100 records that stayed none is looked into, and an equal one is another."""
    objects = [[number] for number in range(10)]
    old, new = [objects[number] for number in before], [objects[number] for number in after]
    gone, come = apart(old, new)
    assert list(gone) == [one for one in old if one not in new]
    assert list(come) == [one for one in new if one not in old]


def test_equal_sequences_are_not_taken_for_each_other() -> None:
    """What was told of one pair is told again of that pair alone."""
    one, equal = [[1]], [[1]]
    assert apart(one, equal) == ((one[0],), (equal[0],))
    assert apart(one, one) == ((), ())
    assert apart(one, []) == (one, [])
    gone, come = apart(equal, one)
    assert gone[0] is equal[0]
    assert come[0] is one[0]
    assert apart(equal, one)[0] is gone


def test_long_ones_are_not_remembered() -> None:
    """A host may list thousands, in each list others: they are let go of."""
    long = [[number] for number in range(1_000)]
    gone, come = apart(long, long[1:])
    assert (list(gone), list(come)) == ([long[0]], [])
    assert apart(long, (other := long[1:]))[0] is not apart(long, other)[0]
