"""What is promised about size, held against what was measured."""

from __future__ import annotations

from typing import Any

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
    return [*map(_bytes, sizes), *(_cpu(sizes, rate) for rate in rates), _memory(sizes[-1])]


def _bytes(size: dict[str, Any]) -> tuple[bool, str]:
    row = min(size["rates"], key=lambda row: row["rate"])
    cost, listed = row["bytes"]["max"], size["list_wire_bytes"]
    told = (
        f"{size['endpoints']} endpoints: one change costs {cost / 1000:.1f} kB, the changed host's list"
        f" ({listed / 1000:.1f} kB) and {(cost - listed) / 1000:.1f} kB of at most {BYTES / 1000:g}"
    )
    return cost - listed <= BYTES, told


def _cpu(sizes: list[dict[str, Any]], rate: float) -> tuple[bool, str]:
    costs = {
        size["endpoints"]: row["cpu_ms"]["median"] for size in sizes for row in size["rates"] if row["rate"] == rate
    }
    least, most = min(costs), max(costs, key=lambda endpoints: costs[endpoints])
    times = costs[most] / costs[least]
    told = (
        f"{rate:g} changes/s: {costs[least]:.2f} ms of CPU a change with {least} endpoints, at most"
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
