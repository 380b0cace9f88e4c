"""What each attack came to without its defence and with it: printed as a table at the end of `make attack`."""

from __future__ import annotations

from typing import NamedTuple

import pytest


class Row(NamedTuple):
    """An attack in a few words, and what became of it."""

    attack: str
    before: str
    after: str


ROWS = pytest.StashKey[list[Row]]()


class Board:
    """Where a test writes what it saw."""

    def __init__(self, rows: list[Row]) -> None:
        self._rows = rows

    def write(self, attack: str, before: str, after: str) -> None:
        self._rows.append(Row(attack, before, after))


@pytest.fixture
def board(pytestconfig: pytest.Config) -> Board:
    """What was seen is written here."""
    return Board(pytestconfig.stash.setdefault(ROWS, []))


def lines(rows: list[Row]) -> list[str]:
    """The table as Markdown."""
    listed = [Row("attack", "before (defence off)", "after"), *rows]
    widths = [max(map(len, column)) for column in zip(*listed, strict=True)]
    made = [
        "| " + " | ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) + " |" for row in listed
    ]
    return [made[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *made[1:]]
