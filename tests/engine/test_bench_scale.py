"""The benchmark of size runs: real watchers on a real Consul hear every change. Its figures are no test."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from lab.places import REPOSITORY


def test_it_runs(tmp_path: Path) -> None:
    """A small site: every watcher hears every change and writes its rows; bytes and CPU are counted; nothing fails."""
    out = tmp_path / "scale.json"
    command = [sys.executable, "-m", "bench.scale", "--short", "--out", str(out)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=170)
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads(out.read_text())
    assert [size["hosts"] for size in results["sizes"]] == [1, 4]
    for size in results["sizes"]:
        (row,), few = size["rates"], size["few"]
        assert size["peers"] >= size["endpoints"]
        assert size["eager"]
        assert not size["bugs"]
        assert 0.95 <= row["seen"] <= 1.05
        assert 0 < row["reached"] <= 10
        assert (few["watchers"], few["rate"]) == (2, 10)
        assert 0.95 <= few["seen"] <= 1.05
        assert row["rows"]["min"] > 0
        assert row["bytes"]["min"] > 0
        assert row["cpu_ms"]["min"] > 0
        assert size["memory"]["min"] > 10_000_000
        assert size["memory_names"]["min"] > 1_000_000
    assert results["capacity"]["rounds_per_s"] > 0
