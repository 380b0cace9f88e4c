"""What is a name, and what becomes of texts that are none, wherever they come from."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from myoverlay.naming import MAX_NAMES, MAX_TOGETHER, clean, left_out, name_of
from myoverlay.values import HostId, HostList, Record, decoder, encode
from tests.pure.kit import ANN, DEMO, record


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Web-1", "web-1"),
        ("my_app.example.com.", "my_app.example.com"),
        ("a" * 63, "a" * 63),
        ("", None),
        (".", None),
        ("a..b", None),
        ("a" * 64, None),
        ("a b", None),
        ("ä", None),
        ("\u212aelvin", None),  # its lower case is an ASCII letter
        ("a\n", None),
        (".".join(["a" * 60] * 5), None),
    ],
)
def test_names_are_labels_of_letters_digits_dashes_and_underscores(text: str, name: str | None) -> None:
    """In lower case, without the last dot; anything else is no name."""
    assert name_of(text) == name


@given(st.lists(st.text(max_size=300)))
def test_what_is_cleaned_is_bounded_and_clean(texts: list[str]) -> None:
    """Whatever comes in, few short names come out, each once, and cleaning them changes nothing."""
    names = clean(texts)
    assert len(names) <= MAX_NAMES
    assert sum(map(len, names)) <= MAX_TOGETHER
    assert len(set(names)) == len(names)
    assert clean(names) == names
    assert {*names, *left_out(texts)} == {name_of(text) for text in texts} - {None}
    assert left_out(names) == ()


def test_the_first_names_are_kept() -> None:
    """The container's own name comes first, and is not crowded out by aliases."""
    assert clean(["Web", "web", "alias", *(f"n{n}" for n in range(20))])[:3] == ("web", "alias", "n0")


def test_a_record_with_bad_names_keeps_its_address() -> None:
    """Names of another version's rules, or of a hostile writer, withdraw no endpoint."""
    known = record("10.5.0.2")
    read = decoder(Record)(encode(known)[:-1] + b',"names":["good","no good","X",""]}')
    assert read.names == ("good", "x")
    assert (read.address, read.mac) == (known.address, known.mac)


def test_lists_without_names_are_as_before() -> None:
    """What older versions wrote is read, and what has no names is written as they write it."""
    listed = HostList(host=HostId(ANN), overlay=DEMO, vtep=record("192.0.2.1").address, records=(record("10.5.0.2"),))
    assert b"names" not in encode(listed)
    assert decoder(HostList)(encode(listed)) == listed
