"""docs/by-hand.md is true: every command in it runs as written, and what it says must fail fails."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lab import leftovers
from lab.lab import Lab
from tests.engine.by_hand import COLUMNS, NAME, PAGE, WAYS, PageWrong, Walk, chapters, laboratory, read


@pytest.fixture(scope="module")
def by_hand_lab() -> Iterator[Lab]:
    before = leftovers.snapshot()
    with laboratory() as lab:
        yield lab
    assert leftovers.compare(before, leftovers.snapshot(), [NAME]) == []


@pytest.mark.parametrize("way", WAYS)
def test_the_page_is_true(by_hand_lab: Lab, way: str) -> None:
    """From the first step to the last on two hosts, with ip and bridge and with our commands."""
    Walk(by_hand_lab, way).run(read(PAGE.read_text()))


def test_each_step_has_three_columns() -> None:
    """With ip, with our command, what the driver does: in each numbered chapter, once, in that order."""
    numbered = {head: text for head, text in chapters(PAGE.read_text()).items() if head[:1].isdigit()}
    assert len(numbered) >= 10
    for head, text in numbered.items():
        places = [text.find(column) for column in COLUMNS]
        assert [text.count(column) for column in COLUMNS] == [1, 1, 1], head
        assert places == sorted(places), head


def test_the_page_asserts_failures_too() -> None:
    """Both ways see pings and commands fail, and both see them work."""
    steps = read(PAGE.read_text())
    for way in WAYS:
        walked = [step for step in steps if step.way in ("", way)]
        assert sum(step.fails for step in walked) >= 6
        assert sum("ping" in step.script and not step.fails for step in walked) >= 6


def test_an_outcome_that_differs_is_told() -> None:
    """A step that fails where it must work, or prints something else than the page shows, is complained of."""
    (step,) = read('## 1. A\n```sh h1 prints "two" not "four" first<=20\nx\n```\n```output\none … three\n```\n')
    good = "one two three\n64 bytes from 192.168.0.3: icmp_seq=1 ttl=64 time=12.5 ms\n"
    assert step.complaint(0, good) == ""
    for status, said in (
        (1, good),
        (0, good + "four"),
        (0, good.replace("12.5", "22.5")),
        (0, good.replace("e t", "e")),
    ):
        assert step.complaint(status, said), said
    (step,) = read("```sh h1 fails\nx\n```")
    assert step.complaint(0, "")
    assert not step.complaint(2, "")


@pytest.mark.parametrize(
    "text", ["```sh\nx\n```", "```sh h1 somtimes\nx\n```", "```sh h1 prints\nx\n```", "```sh h1\nx"]
)
def test_a_block_that_is_not_understood_is_refused(text: str) -> None:
    """Nothing in the page is passed over in silence."""
    with pytest.raises(PageWrong):
        read(text)
