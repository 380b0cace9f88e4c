"""Attacks on real namespaces, each once with its defence off and once with it on."""

from __future__ import annotations

import os

import pytest

from tests.attack.board import ROWS, board, lines
from tests.kernel.conftest import nothing_left, spaces
from tests.kernel.host.conftest import hosts

__all__ = ["board", "hosts", "nothing_left", "spaces"]

if os.geteuid() != 0:
    collect_ignore_glob = ["test_*"]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    rows = config.stash.get(ROWS, [])
    if rows:
        terminalreporter.section("attacks")
        for line in lines(rows):
            terminalreporter.write_line(line)
