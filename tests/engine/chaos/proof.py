"""`make chaos-proof`: the rows on code with a part taken out; those named beforehand must turn red, and say why.

Each fault is one replacement in a copy of the source, whose text must be there exactly once: code that moved on is a
refusal, never a fault that was not planted. All named rows are run on the untouched source first, where they must not
say it.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from lab import places
from lab.errors import LabError
from tests.engine.chaos.counting import Result
from tests.engine.chaos.faults import FAULTS, Fault
from tests.engine.chaos.report import line
from tests.engine.chaos.run import run
from tests.engine.chaos.table import chosen


class Outcome(NamedTuple):
    """What one row named by a fault came to under it."""

    fault: Fault
    row: str
    before: list[str]
    complaints: list[str]

    @property
    def found(self) -> bool:
        """Whether the row says what was named beforehand with the fault, and did not without it."""
        foretold = self.fault.rows[self.row]
        return any(foretold in text for text in self.complaints) and not any(foretold in text for text in self.before)


def planted(fault: Fault, source: Path, target: Path) -> Path:
    """A copy of the source with the fault in it. Raises ValueError where its text is not there exactly once."""
    text = (source / fault.file).read_text()
    times = text.count(fault.old)
    if times != 1:
        raise ValueError(f"fault {fault.name}: its text is {times} times in {fault.file}, not once")
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    (target / fault.file).write_text(text.replace(fault.old, fault.new))
    return target


def measured(names: str, source: Path) -> list[Result]:
    """These rows on that source."""
    results: list[Result] = []

    def done(result: Result) -> None:
        results.append(result)
        print(f"  {result.name}: {'; '.join(result.complaints()) or 'holds'}", flush=True)

    for _ in run(chosen(names), lambda text: print(text, file=sys.stderr, flush=True), done, "chaosproof", source):
        pass
    return results


def prove(faults: Sequence[Fault]) -> int:
    """0 where every named row fails under its fault as was said, and not on the source as it is."""
    source = places.REPOSITORY / "src"
    print("the source as it is:", flush=True)
    names = ",".join({name for fault in faults for name in fault.rows})
    plain = {result.name: result.complaints() for result in measured(names, source)}
    outcomes = []
    for fault in faults:
        print(f"{fault.name}: {fault.meaning}", flush=True)
        with tempfile.TemporaryDirectory(prefix="chaos-proof-") as folder:
            spoilt = planted(fault, source, Path(folder) / "src")
            for result in measured(",".join(fault.rows), spoilt):
                before = plain.get(result.name, ["it was not run without the fault"])
                outcomes.append(Outcome(fault, result.name, before, result.complaints()))
    print("\n" + table(outcomes))
    expected = sum(len(fault.rows) for fault in faults)
    return 0 if len(outcomes) == expected and all(outcome.found for outcome in outcomes) else 1


def table(outcomes: Sequence[Outcome]) -> str:
    """What came of it, as Markdown."""
    lines = [line(("taken out", "row named beforehand", "without the fault", "with it", "verdict")), line(["---"] * 5)]
    for one in outcomes:
        verdict = "found" if one.found else "**NOT FOUND**"
        said = ["; ".join(complaints) or "holds" for complaints in (one.before, one.complaints)]
        lines.append(line((f"{one.fault.name}: {one.fault.meaning}", one.row, *said, verdict)))
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    """0: all found; 1: not; 2: bad usage."""
    parser = argparse.ArgumentParser(prog="python -m tests.engine.chaos.proof", description=__doc__)
    parser.add_argument("--faults", default="", help="names with commas between; all where it is left out")
    asked = [name for name in parser.parse_args(arguments).faults.split(",") if name]
    unknown = set(asked) - {fault.name for fault in FAULTS}
    if unknown:
        parser.error(f"no such fault: {', '.join(unknown)}; there are {', '.join(fault.name for fault in FAULTS)}")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return prove([fault for fault in FAULTS if not asked or fault.name in asked])
    except (LabError, ValueError) as error:
        print(f"chaos-proof: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
