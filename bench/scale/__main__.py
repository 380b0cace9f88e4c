"""`python -m bench.scale`: measure, write the results, draw them."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.scale import capacity, counted, plots
from bench.scale.measure import Plan, Size, as_json, measure
from bench.scale.promise import ENDPOINTS, RATES, promises
from lab.lab import Lab

RESULTS = Path(__file__).parents[1] / "results"
#: With 100 endpoints per host; the watching hosts come on top.
FULL = Plan(
    sizes=tuple(Size(endpoints // 100, 100) for endpoints in ENDPOINTS),
    watchers=20,
    few=2,
    rates=tuple(zip(RATES, (15.0, 10.0, 8.0), strict=True)),
    idle=8.0,
)
SHORT = Plan(sizes=(Size(1, 20), Size(4, 20)), watchers=2, few=2, rates=((10.0, 3.0),), idle=1.0)


def main(arguments: list[str]) -> int:
    """0: all promises are kept; 1: one is broken (a short run measures too little to tell)."""
    parser = argparse.ArgumentParser(prog="python -m bench.scale", description=__doc__)
    parser.add_argument("--short", action="store_true", help="small sizes: does it run?")
    parser.add_argument("--sizes", help="hosts, each with 100 endpoints: 1,10,100")
    parser.add_argument("--capacity", action="store_true", help="only what Consul carries")
    parser.add_argument("--watchers", type=int)
    parser.add_argument("--out", type=Path, help="where the results go; default: bench/results/scale.json")
    parsed = parser.parse_args(arguments)
    plan = SHORT if parsed.short else FULL
    if parsed.sizes:
        plan = plan._replace(sizes=tuple(Size(int(hosts), 100) for hosts in parsed.sizes.split(",")))
    if parsed.watchers:
        plan = plan._replace(watchers=parsed.watchers)
    if parsed.capacity:
        plan = plan._replace(sizes=())
    began = time.monotonic()
    results = run(plan, parsed.capacity or not parsed.sizes)
    results["took_s"] = time.monotonic() - began
    out = parsed.out or (None if parsed.short else RESULTS / "scale.json")
    if out is not None:
        out.parent.mkdir(exist_ok=True)
        if (parsed.sizes or parsed.capacity) and out.exists():
            results = merged(json.loads(out.read_text()), results)
        out.write_bytes(as_json(results))
        plots.draw(results, out.parent)
    found = promises(results)
    for met, sentence in found:
        say(f"{'met    ' if met else 'NOT MET'}  {sentence}")
    return 0 if all(met for met, _ in found) or parsed.short else 1


def say(line: str) -> None:
    print(line, flush=True)


def merged(before: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """Sizes measured now in place of those of before."""
    sizes = {one["endpoints"]: one for one in (*before["sizes"], *now["sizes"])}
    capacity = now["capacity"] or before["capacity"]
    return {**now, "sizes": [sizes[each] for each in sorted(sizes)], "capacity": capacity}


def run(plan: Plan, with_capacity: bool) -> dict[str, Any]:
    """All sizes, on a laboratory of its own; and what its Consul carries."""
    linux = ".".join(platform.release().split(".")[:2])
    about = {
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "machine": f"{os.cpu_count()} CPUs, Linux {linux}, Python {platform.python_version()}",
    }
    sizes = []
    with tempfile.TemporaryDirectory(prefix="scale-") as folder, Lab(f"scale{os.getpid() % 10000}") as lab:
        counted.install(lab.consul.host.inside)
        for size in plan.sizes:
            sizes.append(measure(lab.consul, size, plan, Path(folder), say))
        carried = capacity.measure(lab.consul, plan is SHORT, say) if with_capacity else None
    return {"about": about, "sizes": sizes, "capacity": carried}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
