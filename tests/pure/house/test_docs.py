"""What people read is what the code holds."""

from __future__ import annotations

import pytest

from tests.pure.house.tables import TABLES, block, markdown, page_of, renewed


@pytest.mark.parametrize("name", TABLES)
def test_a_page_holds_the_table_of_the_code(name: str) -> None:
    """Between its markers a page has each row as the code has it (`python -m tests.pure.house.tables --write`)."""
    page = page_of(name)
    text = page.read_text()
    assert text.count(f"<!-- {name} -->\n") == text.count(f"<!-- /{name} -->\n") == 1, f"{page} lacks markers of {name}"
    assert block(name) in text


def test_the_check_sees_a_table_that_is_old() -> None:
    """A README with a row too few, or without a marker, does not pass."""
    good = "# x\n" + "\n".join(map(block, TABLES))
    assert renewed(good) == good
    old = good.replace("| `vni` |", "| `nvi` |", 1)
    assert block("options") not in old
    assert renewed(old) == good
    with pytest.raises(ValueError, match="<!-- settings -->"):
        renewed(good.replace("<!-- settings -->", ""))


def test_a_bar_ends_no_cell() -> None:
    """A meaning may hold a bar."""
    assert markdown(("a",), [("x|y",)]) == "| a |\n| --- |\n| x\\|y |\n"
