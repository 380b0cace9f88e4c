"""The tables of README.md and docs/, from the code: `.venv/bin/python -m tests.pure.house.tables` prints them.

A page holds a table between `<!-- NAME -->` and `<!-- /NAME -->`; with `--write` they are put there.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from pathlib import Path

ROOT = Path(__file__).parents[3]
sys.path[:0] = [str(ROOT / "src")] if __name__ == "__main__" else []

from myoverlay.operate.metrics import ANY, METRICS, Metric  # noqa: E402
from myoverlay.plan.checkup import CHECKS  # noqa: E402
from myoverlay.plan.definition import OPTIONS  # noqa: E402
from myoverlay.settings import SETTINGS  # noqa: E402


def markdown(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """A Markdown table; a bar inside a cell would end it."""
    lines = [head, tuple("---" for _ in head), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def code(text: str) -> str:
    return f"`{text}`" if text else ""


def options() -> str:
    """`docker network create -o`."""
    return markdown(("option", "meaning"), ((code(row.name), row.meaning) for row in OPTIONS))


def settings() -> str:
    """The environment of the plugin."""
    rows = ((code(row.env), code(row.default), row.meaning) for row in SETTINGS)
    return markdown(("variable", "default", "meaning"), rows)


def metrics() -> str:
    """What Prometheus reads."""
    rows = (
        (code(one.exported), one.kind, ", ".join(map(code, one.labels)), one.meaning, _faults(one), one.remedy)
        for one in METRICS
    )
    return markdown(("metric", "type", "labels", "meaning", "a fault is", "what to do"), rows)


def _faults(metric: Metric) -> str:
    return "each" if metric.faults == (ANY,) else ", ".join(map(code, metric.faults))


def checks() -> str:
    """What `myoverlay doctor` looks at."""
    rows = ((code(row.name), row.meaning, row.remedy, "yes" if row.fixes else "", _PROOFS[row.proof]) for row in CHECKS)
    return markdown(("check", "ok where", "else", "`--fix`", "tried by"), rows)


#: How a check is proved.
_PROOFS = {"fault": "the fault, made", "reading": "its reading, handed in"}


TABLES: dict[str, Callable[[], str]] = {
    "options": options,
    "settings": settings,
    "metrics": metrics,
    "checks": checks,
}
#: Where a table stands that does not stand in README.
ELSEWHERE = {"metrics": "docs/metrics.md", "checks": "docs/doctor.md"}


def page_of(name: str) -> Path:
    return ROOT / ELSEWHERE.get(name, "README.md")


def block(name: str) -> str:
    """A table with its markers, as README holds it."""
    return f"<!-- {name} -->\n{TABLES[name]()}<!-- /{name} -->\n"


def renewed(text: str, names: Iterable[str] = TABLES) -> str:
    """The text with each table between its markers as the code has it. Raises ValueError where a marker is missing."""
    for name in names:
        before, first, rest = text.partition(f"<!-- {name} -->\n")
        _, last, after = rest.partition(f"<!-- /{name} -->\n")
        if not first or not last:
            raise ValueError(f"the lines <!-- {name} --> and <!-- /{name} --> are missing")
        text = before + block(name) + after
    return text


if __name__ == "__main__":
    if sys.argv[1:] == ["--write"]:
        for page in {page_of(name) for name in TABLES}:
            page.write_text(renewed(page.read_text(), [name for name in TABLES if page_of(name) == page]))
    else:
        print("\n".join(map(block, TABLES)), end="")
