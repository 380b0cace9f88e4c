"""Mappings that share what is the same: frozen, equal to what a dict would be, and cheap to go on from."""

from __future__ import annotations

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
    """Of 20,000 entries all pieces but the one that changed are the same objects as before."""
    table = Shared({f"key {number}": number for number in range(20_000)})
    after = changed(table, [("key 7", 8), ("another", 1)])
    copied = sum(mine is not theirs for mine, theirs in zip(table._pieces, after._pieces, strict=True))
    assert 1 <= copied <= 2
    assert table.differing(after) == {"key 7", "another"}


@given(st.lists(st.integers(0, 9), max_size=8), st.lists(st.integers(0, 9), max_size=8))
def test_what_only_one_of_two_sequences_holds(before: list[int], after: list[int]) -> None:
    """By identity and in order: of 100 records that stayed none is looked into, and an equal one is another."""
    objects = [[number] for number in range(10)]
    old, new = [objects[number] for number in before], [objects[number] for number in after]
    gone, come = apart(old, new)
    assert gone == [one for one in old if one not in new]
    assert come == [one for one in new if one not in old]
    assert apart([[1]], [[1]]) == ([[1]], [[1]])
