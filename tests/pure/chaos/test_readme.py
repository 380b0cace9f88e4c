"""README's table of what is lost."""

from __future__ import annotations

import pytest

from tests.engine.chaos import readme
from tests.engine.chaos.counting import Result
from tests.engine.chaos.report import markdown
from tests.engine.chaos.table import ROWS

WHOLE = markdown([Result(row.name, row.title, row.bound) for row in ROWS], {"Linux": "6.18"})


def test_readme_has_every_row() -> None:
    """Whoever adds a row runs `make chaos` and `make chaos-docs`."""
    assert readme.missing(readme.block(readme.README.read_text())) == []


def test_a_whole_table_takes_the_old_one_s_place() -> None:
    """What stands around it stays."""
    old = "# x\n<!-- chaos -->\nold\n<!-- /chaos -->\nafter\n"
    assert readme.renewed(old, WHOLE) == f"# x\n<!-- chaos -->\n{WHOLE}<!-- /chaos -->\nafter\n"
    assert readme.missing(WHOLE) == []


def test_a_part_of_the_table_is_refused() -> None:
    """A run of some rows does not go into README, nor into one without its place."""
    part = "\n".join(line for line in WHOLE.splitlines() if ROWS[3].title not in line)
    with pytest.raises(ValueError, match="lacks rows"):
        readme.renewed("<!-- chaos -->\n<!-- /chaos -->\n", part)
    with pytest.raises(ValueError, match="README lacks"):
        readme.renewed("# x\n", WHOLE)
