"""Cost against size, as pictures beside the results: `python -m bench.scale.plots [FILE]`."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parents[1] / "results" / "scale.json"


def draw(results: dict[str, Any], folder: Path) -> bool:
    """Write `scale.svg`; False where the drawing library (dependency group `bench`) is not there."""
    try:
        importlib.import_module("matplotlib").use("svg")
    except ImportError:
        print("no picture is drawn: matplotlib is not there (dependency group bench)")
        return False
    plt: Any = importlib.import_module("matplotlib.pyplot")
    sizes = results["sizes"]
    across = [size["endpoints"] for size in sizes]
    figure, panes = plt.subplots(2, 2, figsize=(9, 6.5), constrained_layout=True)
    parts: tuple[tuple[Any, str, Callable[[dict[str, Any]], float]], ...] = (
        (panes[0][0], "bytes per change, kB", lambda row: row["bytes"]["median"] / 1000),
        (panes[0][1], "CPU per change, ms", lambda row: row["cpu_ms"]["median"]),
        (panes[1][0], "until programmed, ms (median)", lambda row: row["seconds"]["p50"] * 1000),
    )
    for pane, title, of in parts:
        for number, rate in enumerate(sorted({row["rate"] for size in sizes for row in size["rates"]})):
            points = [(size["endpoints"], of(row)) for size in sizes for row in size["rates"] if row["rate"] == rate]
            pane.plot(*zip(*points, strict=True), marker="os^"[number % 3], label=f"{rate:g} changes/s")
        pane.set_title(title)
        pane.set_ylim(bottom=0)
    panes[0][0].plot(
        across, [(16000 + size["list_wire_bytes"]) / 1000 for size in sizes], "k--", label="promised at most"
    )
    panes[1][0].set_yscale("log")
    pane = panes[1][1]
    pane.plot(across, [size["memory"]["median"] / 1e6 for size in sizes], marker="o", label="daemon")
    both = [(size["memory"]["median"] + size["memory_names"]["median"]) / 1e6 for size in sizes]
    pane.plot(across, both, marker="s", label="with its resolver")
    pane.axhline(200, color="k", linestyle="--", label="promised at most")
    pane.set_title("memory, MB (PSS)")
    pane.set_ylim(bottom=0)
    for pane in panes.flat:
        pane.set_xscale("log")
        pane.set_xlabel("endpoints of the overlay")
        pane.legend(fontsize="small")
    figure.savefig(folder / "scale.svg")
    plt.close(figure)
    return True


if __name__ == "__main__":
    where = Path(sys.argv[1]) if len(sys.argv) > 1 else RESULTS
    sys.exit(0 if draw(json.loads(where.read_text()), where.parent) else 1)
