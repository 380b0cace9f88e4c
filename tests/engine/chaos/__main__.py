"""`make chaos`: every row, a table on the way, build/chaos.json and build/chaos.md, status 1 where a row fails."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from pathlib import Path

from lab.errors import LabError
from tests.engine.chaos import report
from tests.engine.chaos.counting import Result
from tests.engine.chaos.run import about, run
from tests.engine.chaos.table import ROWS, chosen

BUILD = Path("build")


def main(arguments: list[str]) -> int:
    """0: every row holds; 1: one does not; 2: bad usage."""
    parser = argparse.ArgumentParser(prog="python -m tests.engine.chaos", description=__doc__)
    parser.add_argument("--rows", default="", help="names with commas between; all where it is left out")
    parser.add_argument("--list", action="store_true", help="the rows' names and what happens in them")
    parser.add_argument("--lab", default="chaos", help="what the laboratory is called")
    asked = parser.parse_args(arguments)
    if asked.list:
        for row in ROWS:
            print(f"{row.name:16} {row.title}")
        return 0
    try:
        rows = chosen(asked.rows)
    except ValueError as error:
        parser.error(str(error))
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    began = time.monotonic()
    results: list[Result] = []
    versions: dict[str, str] = {}

    def done(result: Result) -> None:
        results.append(result)
        print(report.line(report.cells(result)), f"<!-- {result.seconds:.0f} s -->", flush=True)

    print(report.head(), flush=True)
    try:
        for made_of in run(rows, lambda text: print(text, file=sys.stderr, flush=True), done, asked.lab):
            versions = made_of
    except LabError as error:
        print(f"chaos: {error}", file=sys.stderr)
        return 1
    facts = about(versions) | {"took": f"{(time.monotonic() - began) / 60:.1f} min"}
    BUILD.mkdir(exist_ok=True)
    (BUILD / "chaos.json").write_text(report.as_json(results, facts))
    (BUILD / "chaos.md").write_text(report.markdown(results, facts))
    print("\n" + report.markdown(results, facts))
    return 0 if all(result.good for result in results) and len(results) == len(rows) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
