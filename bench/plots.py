"""Pictures of the results, as SVG beside them: each ratio with its interval and its noise, and all rounds."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from bench import results
from bench.goals import SAME, Ratio
from bench.names import DOCKER, HAND, OURS
from bench.report import ROWS, Row
from bench.results import Results
from bench.spread import Spread, spread

#: So that the same results give the same file.
_SETTINGS = {"svg.hashsalt": "bench", "svg.fonttype": "none", "font.size": 9}
_COLOURS = {DOCKER: "tab:blue", HAND: "tab:green", OURS: "tab:gray"}


def bars(found: Results) -> list[tuple[str, str, Spread]]:
    """What the first picture shows: title, who is compared with, and the ratio. OURS stands for A/A."""
    shown = []
    for row in ROWS:
        measured = found.figures.get(row.figure)
        if measured is None:
            continue
        for other in (DOCKER, HAND):
            if other in row.others:
                ratio = Ratio(row.figure, row.quantity, "at most", 1.0, OURS, other, row.less)
                shown.append((row.title, other, spread(ratio.values(measured))))
        noise = next(one for one in SAME if one.figure == row.figure)
        shown.append((row.title, OURS, spread(noise.values(measured))))
    return shown


def draw(found: Results, folder: Path) -> list[Path]:
    """Write the pictures; their files."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    with pyplot.rc_context(_SETTINGS):
        written = [_ratios(pyplot, found, folder / "ratios.svg")]
        rows = [row for row in ROWS if row.figure in found.figures]
        if rows:
            written.append(_rounds(pyplot, found, rows, folder / "rounds.svg"))
    return written


def _ratios(pyplot: Any, found: Results, file: Path) -> Path:
    shown = bars(found)
    picture, axes = pyplot.subplots(figsize=(9, 1 + 0.26 * len(shown)))
    for height, (_, other, ratio) in enumerate(reversed(shown)):
        ends = [[ratio.median - ratio.low], [ratio.high - ratio.median]]
        axes.errorbar(ratio.median, height, xerr=ends, fmt="o", color=_COLOURS[other], capsize=3, markersize=4)
    names = [f"{title}, {'A/A' if other == OURS else '÷ ' + other}" for title, other, _ in reversed(shown)]
    axes.set_yticks(range(len(shown)), names)
    axes.axvline(1.0, color="black", linewidth=0.8)
    axes.set_xscale("log")
    axes.set_xlabel("myoverlay ÷ other: median of paired rounds and its 95 % interval")
    axes.grid(axis="x", alpha=0.3)
    return _saved(pyplot, picture, file)


def _rounds(pyplot: Any, found: Results, rows: list[Row], file: Path) -> Path:
    picture, axes = pyplot.subplots(len(rows), 1, figsize=(9, 2.2 * len(rows)), squeeze=False)
    for row, one in zip(rows, axes[:, 0], strict=True):
        measured = found.figures[row.figure]
        for contestant in measured.contestants():
            places = [n for n, each in enumerate(measured.rounds) if contestant in each.values]
            one.plot(places, measured.of(contestant, row.quantity), ".-", linewidth=0.6, label=contestant)
        one.set_title(f"{row.title} ({row.quantity})", fontsize=9)
        one.set_ylim(bottom=0)
        one.legend(fontsize=7, ncol=3)
    axes[-1, 0].set_xlabel("round")
    return _saved(pyplot, picture, file)


def _saved(pyplot: Any, picture: Any, file: Path) -> Path:
    picture.tight_layout()
    file.parent.mkdir(parents=True, exist_ok=True)
    picture.savefig(file, format="svg", metadata={"Date": None})
    pyplot.close(picture)
    return file


def main(arguments: list[str]) -> int:
    """0: the pictures are as the results; 1: there are none, or nothing to draw with."""
    file = Path(arguments[0]) if arguments else results.LATEST
    try:
        for written in draw(results.read(file), file.parent):
            print(written)
    except (OSError, ValueError, ImportError) as error:
        print(f"no pictures: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
