"""`make bench-docs`: the table of the newest results into README, between `<!-- bench -->` and `<!-- /bench -->`."""

from __future__ import annotations

import sys
from pathlib import Path

from bench import results
from bench.report import table

README = Path(__file__).parents[1] / "README.md"
FIRST, LAST = "<!-- bench -->\n", "<!-- /bench -->\n"


def renewed(text: str, made: str) -> str:
    """README's text with this table. Raises ValueError where a marker is missing."""
    before, first, rest = text.partition(FIRST)
    _, last, after = rest.partition(LAST)
    if not first or not last:
        raise ValueError(f"README lacks the lines {FIRST.strip()} and {LAST.strip()}")
    return before + FIRST + made + LAST + after


def main() -> int:
    """0: README is as the newest results; 1: there are none."""
    try:
        README.write_text(renewed(README.read_text(), table(results.read())))
    except (OSError, ValueError) as error:
        print(f"README's table of figures stays: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
