"""Results for people: lines while it runs, and README's table. Pure."""

from __future__ import annotations

from bench.goals import between, same
from bench.results import Measured
from bench.spread import spread


def plain(name: str, measured: Measured) -> str:
    """One figure in a few lines: each contestant's medians, and the noise."""
    lines = [f"{name}: {len(measured.rounds)} rounds in {measured.seconds:.0f} s, load {measured.load[1]:.1f}"]
    for contestant in measured.contestants():
        quantities = next(each.values[contestant] for each in measured.rounds if contestant in each.values)
        told = (f"{kind} {between(spread(measured.of(contestant, kind)))}" for kind in quantities)
        lines.append(f"  {contestant:22} {'; '.join(told)}")
    ratio = same(name)
    if ratio is not None:
        lines.append(f"  A/A {between(spread(ratio.values(measured)))}")
    return "\n".join(lines)
