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
    assert 1 <= copied <= 2
    assert table.differing(after) == {"key 7", "another"}


@pytest.mark.parametrize("at_once", [True, False])
def test_it_grows(at_once: bool) -> None:
    """From nothing to 5,000 entries: pieces stay small, none is lost, and what was before is as it was."""
    entries = {f"key {number}": number for number in range(5_000)}
    draft = Shared({"key 7": 8, "another": 1}).edit()
    if at_once:
        draft.put(entries)
    else:
        for key, value in entries.items():
            draft.set(key, value)
    draft.drop("key 9")
    after = draft.done()
    model = {"another": 1, **entries}
    del model["key 9"]
    assert dict(after) == model
    assert len(after) == len(model)
    assert all(after[key] == value for key, value in model.items())
    assert max(len(piece) for row in after._rows for piece in row) < 50


def test_what_differs_between_a_small_one_and_what_grew_of_it() -> None:
    """They lie in other pieces: all of it is looked at."""
    small = Shared({"stays": 1, "goes": 2, "changes": 3})
    large = changed(small, [("goes", None), ("changes", 4), *((f"key {number}", number) for number in range(2_000))])
    expected = {"goes", "changes", *(f"key {number}" for number in range(2_000))}
    assert small.differing(large) == large.differing(small) == expected


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
    gone, come = apart(equal, one)
    assert gone[0] is equal[0]
    assert come[0] is one[0]
    assert apart(equal, one)[0] is gone
