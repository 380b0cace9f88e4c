"""What the rows came to, as a Markdown table and as JSON. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from tests.engine.chaos.counting import Direction, Result

HEAD = ("event", "packets lost (longest gap)", "first contacts failed / made", "new containers", "verdict")


def cells(result: Result) -> tuple[str, ...]:
    """One row of the table."""
    measured = result.measured
    starts = f"{len(measured.starts)} started, slowest {measured.slowest:.1f} s"
    if measured.refused:
        starts = f"{len(measured.refused)} of {len(measured.starts)} not started, slowest {measured.slowest:.1f} s"
    if measured.unanswered:
        starts += f", {len(measured.unanswered)} reached nobody at first"
    contacts = f"{len(measured.failed)} / {len(measured.contacts)}"
    asked_anyway = sum(one.ms is None for one in measured.contacts) - len(measured.failed)
    if asked_anyway:
        contacts += f" (and {asked_anyway} during the event)"
    said = [*(str(check) for check in result.checks if check.good), *result.notes]
    event = result.title + ("<br>" + "; ".join(said) if said else "")
    complaints = result.complaints()
    verdict = "**FAILS**: " + "; ".join(complaints) if complaints else "holds"
    return event, "<br>".join(map(direction, measured.flow)) or "–", contacts, starts, verdict


def direction(one: Direction) -> str:
    """What one direction of the flow lost."""
    text = f"{one.name} {len(one.lost)}"
    if one.excused:
        text += f" + {one.excused} during the event"
    gap = f"{one.gap_ms:.0f} ms"
    if one.stall_ms > one.gap_ms / 2 and one.stall_ms > 50:
        gap += f", the sender's own pause {one.stall_ms:.0f} ms"
    return f"{text} of {one.sent} ({gap})"


def line(values: Sequence[str]) -> str:
    """A line of a Markdown table; a bar or a line's end inside a cell would end it."""
    return "| " + " | ".join(value.replace("|", "\\|").replace("\n", " ") for value in values) + " |"


def head() -> str:
    """The first two lines of the table."""
    return line(HEAD) + "\n" + line(["---"] * len(HEAD))


def markdown(results: Sequence[Result], about: Mapping[str, str]) -> str:
    """The table with what it was measured on."""
    facts = "; ".join(f"{name} {value}" for name, value in about.items())
    failed = sum(not result.good for result in results)
    summary = f"{len(results)} rows, {failed} of them miss their bound." if failed else f"{len(results)} rows hold."
    return "\n".join([f"{facts}. {summary}", "", head(), *(line(cells(result)) for result in results), ""])


def as_json(results: Sequence[Result], about: Mapping[str, str]) -> str:
    """Everything, for whoever wants to compare two runs."""
    return json.dumps({"about": dict(about), "rows": [_row(result) for result in results]}, indent=1)


def _row(result: Result) -> dict[str, Any]:
    row = asdict(result)
    for one in row["measured"]["flow"]:
        one["lost_count"] = len(one["lost"])
        one["lost"] = one["lost"][:20]
    return row | {"good": result.good, "complaints": result.complaints()}
