"""What a host's list says when the store may have lost something: nothing is withdrawn by an old one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from myoverlay.plan.believe import latest, united, withdraws
from myoverlay.values import Address, HostList, Record
from tests.pure.kit import BOB, DEMO, record

VTEP = Address("192.0.2.2")


def listed(*records: Record, incarnation: str = "", **changes: object) -> HostList:
    fields: dict[str, object] = {"host": BOB, "overlay": DEMO, "vtep": VTEP, "records": records}
    return HostList(**(fields | {"incarnation": incarnation} | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("written", "store", "doubt", "withdrawn"),
    [
        ("one", "one", False, True),
        ("one", "one", True, True),  # its host knows already what the store went through
        ("old", "one", False, False),
        ("old", "one", True, False),
        ("", "one", False, True),  # an older version's, which names none
        ("", "one", True, False),
        ("old", "", False, True),  # the store's own was not read yet: the list is all there is
        ("", "", False, True),
    ],
)
def test_a_list_withdraws_under_the_stores_present_id(written: str, store: str, doubt: bool, withdrawn: bool) -> None:
    """Only a list whose host knew of the store's loss takes away what it lacks."""
    assert withdraws(listed(incarnation=written), store, doubt) is withdrawn


@pytest.mark.parametrize(
    ("serial", "written", "doubt", "counts"),
    [
        (6, "old", True, "known"),  # what a snapshot brought back of a host that is cut off
        (7, "old", True, "read"),
        (8, "old", True, "read"),  # a later word of the host's own, whatever it knew of the store
        (6, "one", False, "known"),  # a snapshot of a moment ago, from within the doubt
        (0, "old", True, "both"),  # by a version that did not number them
    ],
)
def test_the_later_of_two_lists_counts(serial: int, written: str, doubt: bool, counts: str) -> None:
    """Of two numbered lists that are not to be believed the later one says what is, and what was withdrawn."""
    a, b = record("10.5.0.9"), record("10.5.0.10")
    known, read = listed(a, incarnation="old", serial=7), listed(b, incarnation=written, serial=serial)
    both = listed(a, b, incarnation="old", serial=7)
    assert latest(known, read, "one", doubt) == {"known": known, "read": read, "both": both}[counts]


def test_the_later_of_two_records_stays() -> None:
    """An address in both lists is had by the record of the higher generation, by the known one where they are equal."""
    older, newer = record("10.5.0.3", "02:00:00:00:00:01", 1), record("10.5.0.3", "02:00:00:00:00:02", 2)
    same = record("10.5.0.3", "02:00:00:00:00:03", 2)
    assert united(listed(older), listed(newer)).records == (newer,)
    assert united(listed(newer), listed(older)).records == (newer,)
    assert united(listed(newer), listed(same)).records == (newer,)


def test_what_is_only_in_one_list_stays() -> None:
    """Neither list takes away what the other has, in the order of the addresses."""
    a, b, c = (record(f"10.5.0.{last}") for last in (9, 10, 11))
    assert united(listed(c, a), listed(b, a)).records == (a, b, c)


def test_a_union_is_of_the_known_lists_time() -> None:
    """Everything but the records is the known list's: the one that was read may be older."""
    known = listed(incarnation="now", vtep=Address("192.0.2.9"))
    assert united(known, listed(record("10.5.0.3"), incarnation="then")) == listed(
        record("10.5.0.3"), incarnation="now", vtep=Address("192.0.2.9")
    )


lists = st.lists(
    st.builds(
        lambda last, mac, generation: record(f"10.5.0.{last}", f"02:00:00:00:00:0{mac}", generation),
        st.integers(2, 6),
        st.integers(1, 3),
        st.integers(1, 4),
    ),
    max_size=5,
    unique_by=lambda one: one.address,
).map(lambda records: listed(*records))


@given(lists, lists, lists)
def test_a_union_forgets_no_address_and_no_generation(one: HostList, two: HostList, three: HostList) -> None:
    """However lists are united, each address is there once, with the highest generation that any of them knew."""
    whole = united(united(one, two), three)
    every = (*one.records, *two.records, *three.records)
    best: dict[str, int] = {}
    for entry in every:
        best[entry.address] = max(best.get(entry.address, 0), entry.generation)
    assert {entry.address: entry.generation for entry in whole.records} == best
    assert len(whole.records) == len(best)
    assert set(whole.records) <= set(every)


@given(lists, lists)
def test_a_union_with_the_same_changes_nothing(one: HostList, two: HostList) -> None:
    """The same old list read again and again leaves what is known as it is."""
    once = united(one, two)
    assert united(once, two) == once
    assert united(one, one).records == tuple(sorted(one.records, key=lambda entry: entry.address.number))
