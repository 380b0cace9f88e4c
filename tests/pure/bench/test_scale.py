"""What `make bench-scale` concludes from figures."""

from __future__ import annotations

from typing import Any

import pytest

from bench.scale.__main__ import merged
from bench.scale.measure import summary
from bench.scale.page import renewed
from bench.scale.promise import promises


def size(endpoints: int, **changes: Any) -> dict[str, Any]:
    """A size that keeps every promise, but for the changes."""
    figures = {"bytes": 29_000.0, "cpu": 4.0, "memory": 100e6, "names": 60e6} | changes
    row = {"rate": 1.0, "bytes": summary([figures["bytes"]]), "cpu_ms": summary([figures["cpu"]])}
    busy = {**row, "rate": 100.0, "bytes": summary([1e9])}
    return {
        "endpoints": endpoints,
        "hosts": endpoints // 100,
        "list_wire_bytes": 14_000,
        "rates": [busy, row],
        "memory": summary([figures["memory"]]),
        "memory_names": summary([figures["names"]]),
    }


def kept(*sizes: dict[str, Any]) -> list[bool]:
    return [met for met, _ in promises({"sizes": list(sizes)})]


def test_promises_are_kept() -> None:
    """Bytes of each size, CPU of each rate, memory of the largest; single changes alone count for bytes."""
    assert kept(size(100), size(100_000, cpu=7.9)) == [True, True, True, True, True]


@pytest.mark.parametrize(
    ("broken", "which"),
    [({"bytes": 30_001.0}, 1), ({"cpu": 8.1}, 2), ({"memory": 141e6}, 4)],
)
def test_a_broken_promise_is_told(broken: dict[str, float], which: int) -> None:
    """Each limit, by a little more than it allows."""
    found = kept(size(100), size(100_000, **broken))
    assert not found[which]
    assert found[0]


def test_a_size_measured_again_takes_the_place_of_the_one_before() -> None:
    """Sizes can be measured in several runs; what is not measured stays."""
    before = {"sizes": [size(100), size(1000)], "capacity": {"rounds_per_s": 5}}
    now = {"sizes": [size(1000, cpu=9.0), size(10_000)], "capacity": None, "about": "now"}
    both = merged(before, now)
    assert [one["endpoints"] for one in both["sizes"]] == [100, 1000, 10_000]
    assert both["sizes"][1]["rates"][1]["cpu_ms"]["median"] == 9.0
    assert both["capacity"] == {"rounds_per_s": 5}
    assert both["about"] == "now"


def test_the_page_has_the_figures() -> None:
    """Both tables stand between their markers, in place of what stood there; a page without markers is refused."""
    one = size(100) | {"watchers": 20, "eager": True}
    for row in one["rates"]:
        row["seconds"] = {"p50": 0.02, "p99": 0.05}
    results = {
        "sizes": [one],
        "capacity": {"rounds_per_s": 600},
        "about": {"date": "today", "machine": "a machine"},
    }
    page = "a\n<!-- sizes -->\nold\n<!-- /sizes -->\nb\n<!-- fan-out -->\n<!-- /fan-out -->\nc\n"
    new = renewed(page, results)
    assert "| 100 | 1 + 20 | yes | 29.0 / 1000000.0 (14.0) | 4.0 / 4.0 | 20 / 20 | 50 / 50 | 100 (60) |" in new
    assert "| 1,000 | 0.6 |" in new
    assert "old" not in new
    assert renewed(new, results) == new
    with pytest.raises(ValueError, match="fan-out"):
        renewed("<!-- sizes -->\n<!-- /sizes -->\n", results)
