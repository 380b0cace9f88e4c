"""The record of the last run of each target, and the page that shows it: docs/fuzzing.md."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.fuzz import faults, measure
from tests.fuzz.run import TARGETS

FILE = Path(__file__).parent / "record.json"
PAGE = Path(__file__).parents[2] / "docs" / "fuzzing.md"
_BEGIN, _END = "<!-- {} -->", "<!-- /{} -->"


def stored() -> dict[str, dict[str, Any]]:
    """By target: date, versions, seed, inputs, CPU minutes, findings, MB that the process grew by."""
    found: dict[str, dict[str, Any]] = json.loads(FILE.read_text()) if FILE.exists() else {}
    return found


def keep(target: str, outcome: dict[str, Any]) -> None:
    """Another run's outcome takes the place of the one before."""
    text = json.dumps({**stored(), target: outcome}, indent=1, sort_keys=True)
    FILE.write_text(text + "\n")


def is_whole(one: dict[str, Any]) -> bool:
    """Was it as long as `make fuzz` makes it?"""
    return bool(one["inputs"] >= 1_000_000 or one["minutes"] >= 30)


def table() -> str:
    """The last run of each target, a line each; one that was shorter than `make fuzz` makes it is called a part."""
    rows = [
        "| target | inputs | CPU minutes | findings | grew by | date | seed | on |",
        "| --- | --: | --: | --: | --: | --- | --- | --- |",
    ]
    for target in TARGETS:
        one = stored().get(target)
        if one is not None:
            part = "" if is_whole(one) else " (a part)"
            rows.append(
                f"| {target} | {one['inputs']:,}{part} | {one['minutes']:.1f} | {one['findings']} | {one['grown']} MB |"
                f" {one['date']} | `{one['seed']}` | {one['versions']} |"
            )
    return "\n".join(rows)


def decoders() -> str:
    """What counts as a target's decoders."""
    rows = ["| target | decoders |", "| --- | --- |"]
    for target, parts in measure.DECODERS.items():
        names = ", ".join(f"`{module}`" + (f" ({', '.join(of)})" if of else "") for module, of in parts.items())
        rows.append(f"| {target} | {names} |")
    return "\n".join(rows)


def planted() -> str:
    """The bugs that are planted into the code, and must be found."""
    rows = ["| target | bug |", "| --- | --- |"]
    rows += [f"| {one.target} | {name} |" for name, one in faults.FAULTS.items()]
    return "\n".join(rows)


PARTS = {"runs": table, "decoders": decoders, "planted": planted}


def page(text: str) -> str:
    """The page with its tables as they should be."""
    for name, made in PARTS.items():
        begin, end = _BEGIN.format(name), _END.format(name)
        head, _, rest = text.partition(begin)
        text = f"{head}{begin}\n{made()}\n{end}{rest.partition(end)[2]}"
    return text


def write() -> None:
    PAGE.write_text(page(PAGE.read_text()))
