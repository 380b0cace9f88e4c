"""A fault is planted exactly once or not at all, and counts as found only where its row says what was foretold."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.engine.chaos.faults import FAULTS, Fault
from tests.engine.chaos.proof import Outcome, planted, table
from tests.engine.chaos.table import ROWS

SOURCE = Path(__file__).parents[3] / "src"
FAULT = Fault("x", "y", "a.py", "good", "bad", {"kill": "lost"})


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_each_fault_fits_the_code(fault: Fault, tmp_path: Path) -> None:
    """Its text is in the code exactly once, the copy differs in it alone and still compiles, its rows exist."""
    copy = planted(fault, SOURCE, tmp_path / "src")
    compile((copy / fault.file).read_text(), fault.file, "exec")
    changed = [
        path for path in SOURCE.rglob("*.py") if path.read_text() != (copy / path.relative_to(SOURCE)).read_text()
    ]
    assert changed == [SOURCE / fault.file]
    assert set(fault.rows) <= {row.name for row in ROWS if row.kind == "process"}


@pytest.mark.parametrize("text", ["", "good good"])
def test_a_fault_that_does_not_fit_is_refused(text: str, tmp_path: Path) -> None:
    """Code that has moved on is no fault planted."""
    (tmp_path / "a.py").write_text(text)
    with pytest.raises(ValueError, match="not once"):
        planted(FAULT, tmp_path, tmp_path / "copy")


def test_found_is_only_what_was_foretold() -> None:
    """A row that holds, that fails for another reason, or that failed so without the fault has not found it."""
    assert Outcome(FAULT, "kill", ["a container took 20 s"], ["5 packets lost"]).found
    assert not Outcome(FAULT, "kill", [], []).found
    assert not Outcome(FAULT, "kill", [], ["a container took 20 s"]).found
    assert not Outcome(FAULT, "kill", ["1 packets lost"], ["5 packets lost"]).found


def test_the_table_says_what_was_not_found() -> None:
    """Each row as it was without the fault, and what it said with it."""
    text = table([Outcome(FAULT, "kill", ["slow"], []), Outcome(FAULT, "kill", [], ["lost"])])
    assert text.splitlines()[2:] == [
        "| x: y | kill | slow | holds | **NOT FOUND** |",
        "| x: y | kill | holds | lost | found |",
    ]
