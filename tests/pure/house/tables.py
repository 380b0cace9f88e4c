"""The tables of README.md, printed from the code: `python3 -m tests.pure.house.tables [options|settings]`.

README holds them between `<!-- options -->` and `<!-- /options -->`, `<!-- settings -->` and `<!-- /settings -->`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from pathlib import Path

ROOT = Path(__file__).parents[3]
sys.path[:0] = [str(ROOT / "src")] if __name__ == "__main__" else []

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


TABLES: dict[str, Callable[[], str]] = {"options": options, "settings": settings}


def block(name: str) -> str:
    """A table with its markers, as README holds it."""
    return f"<!-- {name} -->\n{TABLES[name]()}<!-- /{name} -->\n"


if __name__ == "__main__":
    print("\n".join(block(name) for name in sys.argv[1:] or TABLES), end="")
