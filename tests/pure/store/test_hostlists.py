"""Lists that are read again: what they say as before is taken from before, and nothing else is."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from myoverlay.store.hostlists import reader_after
from myoverlay.values import Address, HostList, Mac, Record, decoder, encode
from tests.pure.kit import ANN, DEMO

VTEP = Address("192.0.2.1")
ADDRESSES = [Address(text) for text in ("10.5.0.2", "10.5.0.3", "10.5.0.4", "fd00::2")]
NAMES = st.lists(st.sampled_from(["db", "DB", "web", "no name"]), max_size=3).map(tuple)

records = st.builds(
    Record,
    address=st.sampled_from(ADDRESSES),
    mac=st.sampled_from(ADDRESSES).map(Mac.of),
    generation=st.integers(0, 2),
    names=NAMES,
)
lists = st.builds(
    HostList,
    host=st.just(ANN),
    overlay=st.just(DEMO),
    vtep=st.just(VTEP),
    records=st.lists(records, max_size=6).map(tuple),
    incarnation=st.sampled_from(["", "f" * 32]),
    serial=st.integers(0, 3),
    tentative=st.lists(st.sampled_from(ADDRESSES), max_size=2).map(tuple),
    accuses=st.lists(st.just(ANN), max_size=1).map(tuple),
)
#: What no value of ours would write: other forms of the same words, and what is none.
words = st.sampled_from(["10.5.0.2", "10.5.0.02", "FD00::2", "fd00::2", "02:42:0A:05:00:02", "02:42:0a:05:00:02", "x"])
lines = st.fixed_dictionaries(
    {"address": words | st.none(), "mac": words | st.just(7)},
    optional={
        "generation": st.sampled_from([0, 1, -1, 1 << 60, 1.5, "1", True]),
        "names": st.lists(st.sampled_from(["db", "DB", "no name", 4]), max_size=2) | st.just("db"),
        "later": st.just([1]),
    },
)


def listed(*entries: Record, **more: Any) -> HostList:
    return HostList(host=ANN, overlay=DEMO, vtep=VTEP, records=entries, **more)


def record(address: Address, generation: int = 1, *names: str) -> Record:
    return Record(address=address, mac=Mac.of(address), generation=generation, names=names)


def outcome(read: Callable[[bytes], HostList], raw: bytes) -> HostList | str:
    try:
        return read(raw)
    except ValueError as error:
        return str(error)


@given(lists, lists)
def test_a_list_is_what_it_says_whatever_was_read_before(before: HostList, now: HostList) -> None:
    """Any list is read alike after any other one."""
    assert reader_after(before)(encode(now)) == now


@given(lists, st.lists(lines, max_size=4), st.dictionaries(st.sampled_from(["vtep", "serial", "accuses"]), words))
def test_a_bad_list_is_refused_with_the_same_words(before: HostList, told: list[Any], more: dict[str, str]) -> None:
    """What an enemy writes is read, or refused, as by who has read nothing before."""
    raw = json.dumps({"host": ANN, "overlay": DEMO, "vtep": VTEP, "records": told, **more}).encode()
    assert outcome(reader_after(before), raw) == outcome(decoder(HostList), raw)


@given(lists, st.binary(max_size=40))
def test_no_list_is_refused_with_the_same_words(before: HostList, raw: bytes) -> None:
    """Bytes that are no list, or no JSON, are refused as by any reader."""
    assert outcome(reader_after(before), raw) == outcome(decoder(HostList), raw)


@pytest.mark.parametrize(
    "told",
    [
        '"records":[{"address":"x","address":"10.5.0.2","mac":"02:42:0a:05:00:02"}]',
        '"records":[{"address":"10.5.0.2","mac":7,"mac":"02:42:0a:05:00:02"}]',
        '"records":[{"address":"10.5.0.2","mac":"x","mac":"02:42:0a:05:00:02"}]',
        '"records":[{"address":"x","mac":"02:42:0a:05:00:02","addr\\u0065ss":"10.5.0.2"}]',
        '"records":[{"address":"10.5.0.2","mac":"x"}],"records":[{"address":"10.5.0.2","mac":"02:42:0a:05:00:02"}]',
        '"records":[{"address":"10.5.0.2","mac":"x"}],"r\\u0065cords":[]',
        '"records":[{"address":"10.5.0.2","mac":"02:42:0a:05:00:02","generation":-1}],"records":[]',
    ],
)
def test_what_is_said_twice_is_checked_twice(told: str) -> None:
    """Of a repeated key JSON takes the last, and any reader checks the others: one that knows more believes no more."""
    raw = f'{{"host":"{ANN}","overlay":"demo","vtep":"192.0.2.1",{told}}}'.encode()
    assert isinstance(outcome(decoder(HostList), raw), str)
    for before in (listed(), listed(record(ADDRESSES[0]))):
        assert outcome(reader_after(before), raw) == outcome(decoder(HostList), raw)


def test_what_is_said_twice_and_right_is_read() -> None:
    """The last one counts, as for any reader."""
    words = '"address":"10.5.0.3","address":"10.5.0.2","mac":"02:42:0a:05:00:02"'
    raw = f'{{"host":"{ANN}","overlay":"demo","vtep":"192.0.2.1","records":[{{{words}}}]}}'.encode()
    assert reader_after(listed())(raw) == decoder(HostList)(raw) == listed(record(ADDRESSES[0], 0))


def test_what_nests_without_end_is_refused() -> None:
    """A list that is nested too deeply for the reader's stack is refused with a ValueError too."""
    with pytest.raises(ValueError, match="nested too deeply"):
        reader_after(listed())(b'{"later": ' + b"[" * 100_000)


def test_a_record_that_stays_is_the_one_of_before() -> None:
    """Of three records one goes, one stays, one has another generation and one comes: what stays is not made anew."""
    here, goes, older = record(ADDRESSES[0], 1, "db"), record(ADDRESSES[1]), record(ADDRESSES[2])
    now = listed(here, record(ADDRESSES[2], 2), record(ADDRESSES[3]))
    read = reader_after(listed(here, goes, older))(encode(now))
    assert read == now
    assert [one is here for one in read.records] == [True, False, False]


@pytest.mark.parametrize(
    "other",
    [
        Record(address=ADDRESSES[0], mac=Mac("02:42:0a:05:00:09"), generation=1, names=("db",)),
        record(ADDRESSES[0], 2, "db"),
        record(ADDRESSES[0], 1, "web"),
        record(ADDRESSES[0], 1),
    ],
    ids=["mac", "generation", "names", "no names"],
)
def test_a_record_that_says_something_else_is_read(other: Record) -> None:
    """A record at an address of before, with another MAC, generation or name, is that one."""
    before = listed(record(ADDRESSES[0], 1, "db"))
    assert reader_after(before)(encode(listed(other))).records == (other,)
