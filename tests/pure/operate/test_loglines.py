"""The log's last lines in bounded memory."""

from __future__ import annotations

import logging

from myoverlay.operate.loglines import LONG, LogLines
from tests.pure.kit import together


def logger(lines: LogLines) -> logging.Logger:
    made = logging.Logger("myoverlay.test")
    made.addHandler(lines)
    return made


def test_the_oldest_go_first() -> None:
    """What is kept are the last lines, and never more bytes than allowed."""
    lines = LogLines(4096, logging.Formatter("%(message)s"))
    log = logger(lines)
    for number in range(1000):
        log.info("line %d", number)
        assert lines.size <= lines.limit
    kept = lines.kept()
    assert 20 < len(kept) < 1000
    assert kept == [f"line {number}" for number in range(1000 - len(kept), 1000)]


def test_a_long_line_is_cut() -> None:
    """One line never takes the place of all."""
    lines = LogLines(4 * LONG, logging.Formatter("%(message)s"))
    log = logger(lines)
    log.info("short")
    log.info("x" * 1_000_000)
    assert [len(line) for line in lines.kept()] == [5, LONG]


def test_nothing_is_kept_where_nothing_is_allowed() -> None:
    """A limit of 0 keeps no line, and one that is larger than the limit is not kept either."""
    for limit in (0, 10):
        lines = LogLines(limit, logging.Formatter("%(message)s"))
        logger(lines).info("hello")
        assert (lines.kept(), lines.size) == ([], 0)


def test_many_threads_lose_no_line() -> None:
    """Eight at once, and the size is that of what is kept."""
    lines = LogLines(1 << 20, logging.Formatter("%(message)s"))
    log = logger(lines)

    def work() -> None:
        for number in range(200):
            log.info("n %d", number)

    together(*[work] * 8)
    assert len(lines.kept()) == 1600
    assert lines.size == sum(len(line) + 64 for line in lines.kept())
