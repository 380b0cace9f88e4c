"""Puts the table of build/chaos.md (`make chaos`) into README, between `<!-- chaos -->` and `<!-- /chaos -->`."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.engine.chaos.table import ROWS

ROOT = Path(__file__).parents[3]
MADE, README = ROOT / "build" / "chaos.md", ROOT / "README.md"
_FIRST, _LAST = "<!-- chaos -->\n", "<!-- /chaos -->\n"


def block(text: str) -> str:
    """What README holds between the markers. Raises ValueError where one is missing."""
    _, first, rest = text.partition(_FIRST)
    inside, last, _ = rest.partition(_LAST)
    if not first or not last:
        raise ValueError(f"README lacks the lines {_FIRST.strip()} and {_LAST.strip()}")
    return inside


def renewed(text: str, table: str) -> str:
    """README's text with this table. Raises ValueError where a marker, or a row of the table, is missing."""
    absent = missing(table)
    if absent:
        raise ValueError(f"the table lacks rows: {'; '.join(absent)}")
    return text.replace(f"{_FIRST}{block(text)}{_LAST}", f"{_FIRST}{table}{_LAST}")


def missing(table: str) -> list[str]:
    """Titles of rows that a table does not have."""
    begun = [line[2:] for line in table.splitlines() if line.startswith("| ")]
    return [row.title for row in ROWS if not any(line.startswith(row.title) for line in begun)]


def main() -> int:
    """0: README is as the last whole run; 1: there is none, or it has not all rows."""
    try:
        README.write_text(renewed(README.read_text(), MADE.read_text()))
    except FileNotFoundError:
        print("README's table of what is lost stays: `make chaos` has not been run here", file=sys.stderr)
        return 1
    except ValueError as error:
        print(f"README's table of what is lost stays: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
