"""`make bench`: measures, prints as it goes, and writes bench/results/latest.json.

python -m bench                          the whole run
python -m bench --figures tcp1,storm     these alone, into bench/results/some.json (or --out)
python -m bench --figures tcp1 --merge   into the newest results, which keep what they had as `earlier`
python -m bench --short                  one round of a few figures: does it run
"""

from __future__ import annotations

import argparse
import os
import platform
import signal
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from bench import report, results
from bench.catalogue import FIGURES, chosen
from bench.figures.figure import Extent, Figure
from bench.ground import Ground
from bench.results import Measured, Results
from lab.errors import LabError


def about(versions: dict[str, str], short: bool) -> dict[str, str]:
    """What a reader of the figures has to know."""
    from myoverlay import __version__

    extent = {"extent": "short: nothing can be read from it"} if short else {}
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"), "Linux": platform.release(),
        "machine": f"{os.cpu_count()} cores, {_processor()}, {_memory()}",
        **versions, "Python": platform.python_version(), "myoverlay": __version__, **extent,
    }  # fmt: skip


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())


def _memory() -> str:
    kilobytes = int(Path("/proc/meminfo").read_text().split()[1])
    return f"{kilobytes / 1024**2:.0f} GiB"


def measure(figure: Figure, ground: Ground, extent: Extent) -> Measured:
    """One figure, with when and under which load."""
    began, clock, load = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"), time.monotonic(), os.getloadavg()[0]
    rounds = tuple(figure.measure(ground, extent))
    return Measured(rounds, began, time.monotonic() - clock, (load, os.getloadavg()[0]))


def run(
    figures: Sequence[Figure],
    extent: Extent,
    tell: Callable[[str], None],
    keep: Callable[[Results], None],
    lab: str,
    ages: tuple[str, str],
) -> tuple[Results, list[str]]:
    """All figures on one ground, and what failed: a figure that breaks leaves the others theirs.

    `keep` is given what there is after each figure, so that an interrupted run leaves that.
    """
    found: dict[str, Measured] = {}
    broken: list[str] = []
    with Ground(lab, ages) as ground:
        facts = about(ground.versions(), extent.short)
        tell(", ".join(f"{name} {value}" for name, value in facts.items()))
        for figure in figures:
            try:
                found[figure.name] = measure(figure, ground, extent)
                keep(Results(facts, found))
                tell(report.plain(figure.name, found[figure.name]))
            except (LabError, OSError, ValueError) as error:
                broken.append(f"{figure.name}: {error}")
                tell(f"# BROKEN {figure.name}: {error}")
    return Results(facts, found), broken


def main(arguments: Sequence[str]) -> int:
    """0: all was measured; 1: a figure broke, or the laboratory did; 2: bad usage."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__.partition("\n")[0])
    parser.add_argument("--figures", default="", help=f"commas between: {', '.join(one.name for one in FIGURES)}")
    parser.add_argument("--out", type=Path, help="the file; latest.json for a whole run, else some.json")
    parser.add_argument(
        "--merge", action="store_true", help="into latest.json, which keeps what it has of these figures as earlier"
    )
    parser.add_argument("--short", action="store_true", help="one round of a few figures")
    parser.add_argument("--engines", default="new,new", help="the ages of the hosts' engines: old or new")
    parser.add_argument("--lab", default="bench", help="what the laboratory is called")
    asked = parser.parse_args(arguments)
    try:
        figures = chosen(asked.figures)
        one, other = asked.engines.split(",")
    except ValueError as error:
        parser.error(str(error))
    if asked.short and asked.merge:
        parser.error("one round of a figure is none of the results: --short and --merge do not go together")
    if asked.short and not asked.figures:
        figures = [figure for figure in figures if figure.quick]
    whole = not asked.figures and not asked.short
    out = asked.out or (results.LATEST if whole or asked.merge else results.FOLDER / "some.json")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    began, partial = time.monotonic(), out.with_name(f"{out.stem}.partial.json")
    try:
        earlier = results.read(out) if asked.merge else None
        if earlier and earlier.about.get("Python") != platform.python_version():
            raise ValueError(f"{out} was measured on another Python: measure it whole")
        found, broken = run(
            figures,
            Extent(asked.short),
            lambda text: print(text, flush=True),
            lambda so_far: results.write(so_far, partial),
            asked.lab,
            (one, other),
        )
    except (LabError, OSError, ValueError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    took = f"{(time.monotonic() - began) / 60:.1f} min"
    found = earlier.with_figures(found.figures) if earlier else Results({**found.about, "took": took}, found.figures)
    results.write(found, out)
    partial.unlink(missing_ok=True)
    print(f"{out}: {len(figures) - len(broken)} figures, {took}")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
