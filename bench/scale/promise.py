"""What is promised about size, held against what was measured."""

from __future__ import annotations

from typing import Any

#: What a whole run measures: endpoints, and changes a second.
ENDPOINTS, RATES = (100, 1000, 10_000, 100_000), (1.0, 10.0, 100.0)
#: So much of the last rate is reached where few watch.
REACHED = 0.9
#: Bytes beyond the changed host's own list; times the CPU of the smallest size; bytes of memory of one host.
BYTES, TIMES, MEMORY = 16_000, 2.0, 200_000_000


def promises(results: dict[str, Any]) -> list[tuple[bool, str]]:
    """Each promise, whether it is kept, and the figures.

    Bytes are those of single changes: at the lowest rate, where no two are taken together.
    """
    sizes = results["sizes"]
    if not sizes:
        return []
    rates = sorted({row["rate"] for size in sizes for row in size["rates"]})
    costs = [_cpu(f"{rate:g} changes/s", {size["endpoints"]: at_rate(size, rate) for size in sizes}) for rate in rates]
    few = {size["endpoints"]: size["few"] for size in sizes}
    watchers = sizes[0]["few"]["watchers"]
    costs.append(_cpu(f"{rates[-1]:g} changes/s, watched by {watchers} alone", few))
    return [*map(_bytes, sizes), *costs, _reached(few), _memory(sizes[-1]), _bugs(sizes)]


def lacking(results: dict[str, Any]) -> str:
    """What a whole run measures and these results do not have; empty where they have it all."""
    there = {(size["endpoints"], row["rate"]) for size in results["sizes"] for row in size["rates"]}
    missing = [f"{rate:g}/s at {size}" for size in ENDPOINTS for rate in RATES if (size, rate) not in there]
    return ", ".join(missing)


def at_rate(size: dict[str, Any], rate: float) -> dict[str, Any]:
    """What was measured of a size at so many changes a second. Raises KeyError."""
    return {row["rate"]: row for row in size["rates"]}[rate]  # type: ignore[no-any-return]


def _reached(few: dict[int, dict[str, Any]]) -> tuple[bool, str]:
    least = min(few, key=lambda endpoints: few[endpoints]["reached"] / few[endpoints]["rate"])
    row = few[least]
    told = f"{row['reached']:.3g} of {row['rate']:g} changes/s are reached where few watch (with {least} endpoints)"
    return row["reached"] >= REACHED * row["rate"], told


def _bytes(size: dict[str, Any]) -> tuple[bool, str]:
    row = min(size["rates"], key=lambda row: row["rate"])
    cost, listed = row["bytes"]["max"], size["list_wire_bytes"]
    told = (
        f"{size['endpoints']} endpoints: one change costs {cost / 1000:.1f} kB, the changed host's list"
        f" ({listed / 1000:.1f} kB) and {(cost - listed) / 1000:.1f} kB of at most {BYTES / 1000:g}"
    )
    return cost - listed <= BYTES, told


def _cpu(what: str, rows: dict[int, dict[str, Any]]) -> tuple[bool, str]:
    """`rows`: what was measured with so many endpoints."""
    costs = {endpoints: row["cpu_ms"]["median"] for endpoints, row in rows.items()}
    least, most = min(costs), max(costs, key=lambda endpoints: costs[endpoints])
    times = costs[most] / costs[least]
    told = (
        f"{what}: {costs[least]:.2f} ms of CPU a change with {least} endpoints, at most"
        f" {costs[most]:.2f} ms (with {most}): {times:.2f} × of at most {TIMES:g}"
    )
    return times <= TIMES, told


def _memory(size: dict[str, Any]) -> tuple[bool, str]:
    names = size["memory_names"]["max"]
    memory = size["memory"]["max"] + names
    told = (
        f"{size['hosts']} hosts with {size['endpoints']} endpoints: {memory / 1e6:.0f} MB on a host, its resolver's"
        f" {names / 1e6:.0f} among them, of at most {MEMORY / 1e6:.0f}"
    )
    return memory <= MEMORY, told


def _bugs(sizes: list[dict[str, Any]]) -> tuple[bool, str]:
    found = [f"{one} with {size['endpoints']} endpoints" for size in sizes for one in size["bugs"]]
    return not found, f"bugs that the watching hosts counted: {'; '.join(found) or 'none'}"
