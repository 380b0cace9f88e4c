"""That the benchmark runs: one round of a few figures. What it says of speed is none of a test's business."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench import results
from bench.catalogue import FIGURES
from bench.names import DOCKER, OURS
from lab import leftovers, places

NAME = "benchtest"


@pytest.mark.timeout(180)
def test_the_short_mode_measures_its_figures(tmp_path: Path) -> None:
    """Every quick figure has one whole round, ours and Docker's are both in it, and nothing is left behind."""
    before, began, file = leftovers.snapshot(), time.monotonic(), tmp_path / "short.json"
    argv = [sys.executable, "-m", "bench", "--short", "--lab", NAME, "--out", str(file)]
    environment = {**os.environ, "PYTHONPATH": "src"}
    done = subprocess.run(
        argv, cwd=places.REPOSITORY, env=environment, capture_output=True, text=True, timeout=170, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    print(f"\nin {time.monotonic() - began:.0f} s:\n{done.stdout}")
    found = results.read(file)
    assert set(found.figures) == {figure.name for figure in FIGURES if figure.quick}
    for measured in found.figures.values():
        assert len(measured.rounds) == 1
        values = measured.rounds[0].values
        assert all(number >= 0 for one in values.values() for number in one.values())
    for name in ("tcp1", "first-ping", "docker-run"):
        assert {OURS, DOCKER} <= set(found.figures[name].contestants())
    assert "nothing can be read from it" in found.about["extent"]
    assert [line for line in leftovers.compare(before, leftovers.snapshot(), [NAME]) if NAME in line] == []
