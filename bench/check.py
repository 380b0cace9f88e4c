"""`make bench-check`: each goal, met or not, from the newest results. Status 1 where one is missed or not measured."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from bench import results
from bench.goals import judge


def main(arguments: Sequence[str]) -> int:
    """0: every goal is met; 1: one is not, or there are no results."""
    parser = argparse.ArgumentParser(prog="python -m bench.check", description=__doc__)
    parser.add_argument("--results", type=Path, default=results.LATEST, help="another file than the newest results")
    asked = parser.parse_args(arguments)
    try:
        found = results.read(asked.results)
    except (OSError, results.ResultsWrong) as error:
        print(f"bench-check: there are no results to judge, `make bench` makes them: {error}", file=sys.stderr)
        return 1
    verdicts = judge(found)
    print(", ".join(f"{name} {value}" for name, value in found.about.items()))
    print("\n".join(map(str, verdicts)))
    missed = sum(verdict.met is False for verdict in verdicts)
    lacking = sum(verdict.met is None for verdict in verdicts)
    print(f"{len(verdicts)} goals: {len(verdicts) - missed - lacking} met, {missed} not met, {lacking} not measured")
    return 1 if missed or lacking else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
