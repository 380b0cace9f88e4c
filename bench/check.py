"""`make bench-check`: each goal, met or not, from the newest results, and each promise about size.

Status 1 where one is missed or not measured.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from bench import results
from bench.goals import judge
from bench.scale.plots import RESULTS as SCALE
from bench.scale.promise import lacking, promises


def main(arguments: Sequence[str]) -> int:
    """0: every goal is met and every promise about size kept; 1: one is not, or there are no results."""
    parser = argparse.ArgumentParser(prog="python -m bench.check", description=__doc__)
    parser.add_argument("--results", type=Path, default=results.LATEST, help="another file than the newest results")
    parser.add_argument("--scale", type=Path, default=SCALE, help="another file than the newest of `make bench-scale`")
    asked = parser.parse_args(arguments)
    return max(_beside_docker(asked.results), _about_size(asked.scale))


def _beside_docker(file: Path) -> int:
    try:
        found = results.read(file)
    except (OSError, results.ResultsWrong) as error:
        print(f"bench-check: there are no results to judge, `make bench` makes them: {error}", file=sys.stderr)
        return 1
    verdicts = judge(found)
    print(", ".join(f"{name} {value}" for name, value in found.about.items()))
    print("\n".join(map(str, verdicts)))
    missed = sum(verdict.met is False for verdict in verdicts)
    none = sum(verdict.met is None for verdict in verdicts)
    print(f"{len(verdicts)} goals: {len(verdicts) - missed - none} met, {missed} not met, {none} not measured")
    return 1 if missed or none else 0


def _about_size(file: Path) -> int:
    try:
        found = json.loads(file.read_text())
        about, kept, missing = found["about"], promises(found), lacking(found)
    except (OSError, ValueError, LookupError, TypeError) as error:
        print(
            f"bench-check: there is nothing about size to judge, `make bench-scale` makes it: {error!r}",
            file=sys.stderr,
        )
        return 1
    print(f"about size: {', '.join(f'{name} {value}' for name, value in about.items())}")
    print("\n".join(f"{'met' if met else 'NOT MET':12} {sentence}" for met, sentence in kept))
    if missing:
        print(f"NOT MEASURED {missing}")
    return 1 if missing or not all(met for met, _ in kept) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
