"""What people read is what the code holds."""

from __future__ import annotations

import re

import pytest

from lab.places import REPOSITORY
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


def named_tests(page: str) -> set[tuple[str, str]]:
    """The tests that a page names: their files and functions."""
    return set(re.findall(r"`(tests/[a-z_/]+\.py)::(test_[a-z0-9_]+)`", page))


def test_what_is_said_of_security_is_shown_by_tests_that_are_there() -> None:
    """Each line of SECURITY.md names a test that exists, or says that there is none."""
    page = (REPOSITORY / "SECURITY.md").read_text()
    found = named_tests(page)
    assert len(found) >= 15
    lacking = [f"{file}::{name}" for file, name in found if f"\ndef {name}(" not in (REPOSITORY / file).read_text()]
    assert lacking == []
    claims = re.split(r"\n(?=- )", page)[1:]
    bare = [
        claim for claim in claims if not named_tests(claim) and "Not tested" not in claim and "same test" not in claim
    ]
    assert bare == []
