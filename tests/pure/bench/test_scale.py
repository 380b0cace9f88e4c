"""What `make bench-scale` concludes from figures."""

from __future__ import annotations

import itertools
import threading
from typing import Any

import pytest

from bench.scale.__main__ import merged
from bench.scale.measure import summary
from bench.scale.page import renewed
from bench.scale.paper import PaperTables
from bench.scale.promise import ENDPOINTS, lacking, promises
from myoverlay.values import Address, Mac, Neigh


def whole(**changes: Any) -> dict[str, Any]:
    """Results of all sizes and rates, that keep every promise but for the changes of the largest."""
    sizes = [size(endpoints, **(changes if endpoints == ENDPOINTS[-1] else {})) for endpoints in ENDPOINTS]
    for one in sizes:
        one["rates"].append({**one["rates"][0], "rate": 10.0})
    return {"about": {"date": "today", "machine": "a machine"}, "sizes": sizes}


def size(endpoints: int, **changes: Any) -> dict[str, Any]:
    """A size that keeps every promise, but for the changes."""
    figures = {"bytes": 29_000.0, "cpu": 4.0, "memory": 100e6, "names": 60e6} | changes
    row = {"rate": 1.0, "bytes": summary([figures["bytes"]]), "cpu_ms": summary([figures["cpu"]]), "reached": 1.0}
    busy = {**row, "rate": 100.0, "bytes": summary([1e9]), "reached": 30.0}
    few = {**busy, "watchers": 2, "reached": figures.get("reached", 99.5), "cpu_ms": summary([figures.get("few", 2.0)])}
    return {
        "endpoints": endpoints,
        "hosts": endpoints // 100,
        "list_wire_bytes": 14_000,
        "rates": [busy, row],
        "few": few,
        "bugs": [{"reconcile": 1}] if "bug" in figures else [],
        "memory": summary([figures["memory"]]),
        "memory_names": summary([figures["names"]]),
    }


def kept(*sizes: dict[str, Any]) -> list[bool]:
    return [met for met, _ in promises({"sizes": list(sizes)})]


def test_promises_are_kept() -> None:
    """Bytes of each size, CPU of each rate and with few watchers, memory of the largest, and no bug counted; single
    changes alone count for bytes.
    """
    assert kept(size(100), size(100_000, cpu=7.9)) == [True] * 8


def test_what_a_run_leaves_out_is_named() -> None:
    """A run of some sizes breaks no promise, and keeps none of the others."""
    assert lacking(whole()) == ""
    part = whole()
    del part["sizes"][1], part["sizes"][0]["rates"][2]
    assert lacking(part) == "10/s at 100, 1/s at 1000, 10/s at 1000, 100/s at 1000"


@pytest.mark.parametrize(
    ("broken", "which"),
    [
        ({"bytes": 30_001.0}, 1),
        ({"cpu": 8.1}, 2),
        ({"few": 4.1}, 4),
        ({"reached": 89.0}, 5),
        ({"memory": 141e6}, 6),
        ({"bug": True}, 7),
    ],
)
def test_a_broken_promise_is_told(broken: dict[str, float], which: int) -> None:
    """Each limit, by a little more than it allows."""
    found = kept(size(100), size(100_000, **broken))
    assert not found[which]
    assert found[0]


def test_rows_on_paper_are_read_while_they_are_written() -> None:
    """The reconciler reads the paper tables while the watch writes: as with the kernel's that is no error."""
    tables, done = PaperTables(), threading.Event()

    def write() -> None:
        for number in itertools.takewhile(lambda _: not done.is_set(), itertools.count()):
            place = number % 500  # 500 is no multiple of 3: each row comes and goes
            row = Neigh(address=Address(f"10.5.{place // 250}.{place % 250}"), mac=Mac("02:42:0a:05:00:02"))
            (tables.set if number % 3 else tables.unset)([row])

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(2000):
            tables.dump()
    finally:
        done.set()
        writer.join()


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
    """The tables stand between their markers, in place of what stood there; a page without markers is refused."""
    one = size(100) | {"watchers": 20, "eager": True}
    one["idle"] = {"cpu_ms_per_s": summary([4.2]), "requests_per_s": summary([1.5])}
    for row in (*one["rates"], one["few"]):
        row["watch_requests"] = summary([2.0])
        row["seconds"] = {"p50": 0.02, "p99": 0.05}
    results = {
        "sizes": [one],
        "capacity": {"rounds_per_s": 600},
        "about": {"date": "today", "machine": "a machine"},
    }
    page = "a\n<!-- sizes -->\nold\n<!-- /sizes -->\nb\n<!-- fan-out -->\n<!-- /fan-out -->\nc\n"
    page += "".join(f"<!-- {name} -->\n<!-- /{name} -->\n" for name in ("few", "load"))
    new = renewed(page, results)
    assert "| 100 | 1 + 20 | yes | 29.0 / 1000000.0 (14.0) | 4.0 / 4.0 | 20 / 20 | 50 / 50 | 100 (60) | 4.2 |" in new
    assert "reached with so many endpoints: 100: 1 / 30." in new
    assert "| 100 | 2 | 99.5 | 1000000.0 | 2.00 | 20 | 50 |" in new
    assert "| 1 | 2 | 4 | 202 |" in new
    assert "| 1,000 | 0.6 |" in new
    assert "old" not in new
    assert renewed(new, results) == new
    with pytest.raises(ValueError, match="few"):
        renewed("<!-- sizes -->\n<!-- /sizes -->\n", results)
