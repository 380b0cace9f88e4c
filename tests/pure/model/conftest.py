"""How many schedules were played is told at the end, whatever is captured."""

from __future__ import annotations

from typing import Any

from tests.pure.model.runner import TOLD


def pytest_terminal_summary(terminalreporter: Any, config: Any) -> None:
    for line in config.stash.get(TOLD, []):
        terminalreporter.write_line(line)
