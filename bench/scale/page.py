"""The tables of `docs/scale.md`, from the results: `python -m bench.scale.page` writes them."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from bench.scale.plots import RESULTS
from bench.scale.promise import at_rate

PAGE = Path(__file__).parents[2] / "docs" / "scale.md"
#: How many hosts on one overlay what Consul carries is divided by.
_HOSTS = (100, 300, 1000)


def _rows(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    cells = [list(head), ["---"] * len(list(head)), *(list(row) for row in rows)]
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)


def _rates(size: dict[str, Any], of: Callable[[dict[str, Any]], str]) -> str:
    return " / ".join(of(row) for row in sorted(size["rates"], key=lambda row: row["rate"]))


def sizes(results: dict[str, Any]) -> str:
    """One row per size; figures at 1, 10 and 100 changes a second are behind each other."""
    head = (
        "endpoints",
        "hosts",
        "rows ahead",
        "kB a change (its list)",
        "CPU a change, ms",
        "until programmed, ms: median",
        "99 % within",
        "memory, MB (resolver)",
        "CPU without changes, ms/s",
    )
    body = []
    for size in results["sizes"]:
        listed, names = size["list_wire_bytes"] / 1000, size["memory_names"]["median"] / 1e6
        body.append(
            (
                f"{size['endpoints']:,}",
                f"{size['hosts']:,} + {size['watchers']}",
                "yes" if size["eager"] else "no",
                _rates(size, lambda row: f"{row['bytes']['median'] / 1000:.1f}") + f" ({listed:.1f})",
                _rates(size, lambda row: f"{row['cpu_ms']['median']:.1f}"),
                _rates(size, lambda row: f"{row['seconds']['p50'] * 1000:.0f}"),
                _rates(size, lambda row: f"{row['seconds']['p99'] * 1000:.0f}"),
                f"{size['memory']['median'] / 1e6:.0f} ({names:.0f})",
                f"{size['idle']['cpu_ms_per_s']['median']:.1f}",
            )
        )
    about = results["about"]
    reached = "; ".join(
        f"{size['endpoints']:,}: " + _rates(size, lambda row: f"{row['reached']:.3g}") for size in results["sizes"]
    )
    measured = (
        f"Measured {about['date']}: {about['machine']}; figures are medians of the watchers. Changes a second that were"
        f" reached with so many endpoints: {reached}."
    )
    return f"{_rows(head, body)}\n\n{measured}"


def few(results: dict[str, Any]) -> str:
    """The last rate, watched by few, so that it is reached."""
    head = (
        "endpoints",
        "watched by",
        "changes a second",
        "kB a change",
        "CPU a change, ms",
        "until programmed, ms",
        "99 % within",
    )
    body = (
        (
            f"{size['endpoints']:,}",
            f"{row['watchers']}",
            f"{row['reached']:.3g}",
            f"{row['bytes']['median'] / 1000:.1f}",
            f"{row['cpu_ms']['median']:.2f}",
            f"{row['seconds']['p50'] * 1000:.0f}",
            f"{row['seconds']['p99'] * 1000:.0f}",
        )
        for size in results["sizes"]
        for row in (size["few"],)
    )
    return _rows(head, body)


def load(results: dict[str, Any]) -> str:
    """What all hosts of a size ask of Consul: what one watcher asks, times hosts."""
    rates = sorted({row["rate"] for size in results["sizes"] for row in size["rates"]})
    head = ("hosts on the overlay", "without changes", *(f"{rate:g} changes/s" for rate in rates))
    body = []
    for size in results["sizes"]:
        idle = size["idle"]["requests_per_s"]["median"]
        rows = [at_rate(size, rate) for rate in rates[:-1]] + [size["few"]]
        asked = [idle, *(idle + row["watch_requests"]["median"] * row["rate"] for row in rows)]
        body.append((f"{size['hosts']:,}", *(f"{one * size['hosts']:,.0f}" for one in asked)))
    return _rows(head, body)


def fan_out(results: dict[str, Any]) -> str:
    """How many changes a second what Consul carries is enough for."""
    carried = results["capacity"]["rounds_per_s"]
    body = ((f"{hosts:,}", f"{carried / hosts:.1f}") for hosts in _HOSTS)
    return _rows(("hosts on the overlay", f"changes a second, of {carried:g} rounds"), body)


def renewed(text: str, results: dict[str, Any]) -> str:
    """The page with its tables between their markers. Raises ValueError where one lacks them."""
    for name, table in {"sizes": sizes, "few": few, "load": load, "fan-out": fan_out}.items():
        text, count = re.subn(
            f"(<!-- {name} -->\n).*?(<!-- /{name} -->)", rf"\g<1>{table(results)}\n\g<2>", text, flags=re.S
        )
        if count != 1:
            raise ValueError(f"the page has no place for the table of {name}")
    return text


if __name__ == "__main__":
    PAGE.write_text(renewed(PAGE.read_text(), json.loads(RESULTS.read_text())))
    sys.exit(0)
