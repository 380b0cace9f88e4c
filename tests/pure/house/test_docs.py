"""What people read is what the code holds."""

from __future__ import annotations

import pytest

from tests.pure.house.tables import ROOT, TABLES, block, markdown, renewed

README = ROOT / "README.md"


@pytest.mark.parametrize("name", TABLES)
def test_readme_holds_the_table_of_the_code(name: str) -> None:
    """Between its markers README has each row as the code has it (`python -m tests.pure.house.tables --write`)."""
    text = README.read_text()
    assert text.count(f"<!-- {name} -->\n") == text.count(f"<!-- /{name} -->\n") == 1, f"README lacks markers of {name}"
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
