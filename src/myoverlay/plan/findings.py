"""What a check of `doctor` says: how it stands, what was seen, what that means, what to do about it."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec


class Level(enum.Enum):
    """How it stands. Only `bad` makes `doctor` end with exit code 1."""

    OK = "ok"
    #: It works, and something is to be known about it.
    WARN = "warn"
    BAD = "bad"
    #: It could not be looked at; `saw` says why.
    UNKNOWN = "unknown"


class Finding(msgspec.Struct, frozen=True):
    """`remedy`: what to do, commands between back quotes and each on one line; empty where nothing is to be done."""

    level: Level
    saw: str
    means: str = ""
    remedy: str = ""


class Check(NamedTuple):
    """One row of the table that `doctor`, its tests and README are made of.

    `reading`: which one it judges. `fixes`: does `doctor --fix` do the remedy? `proof`: is its fault really made in a
    test (`fault`), or is the reading of it handed in, because it cannot be made in a laboratory (`reading`)?
    """

    name: str
    reading: str
    judge: Callable[[Any], Finding]
    meaning: str
    remedy: str
    fixes: bool = False
    proof: str = "fault"


def ok(saw: str) -> Finding:
    return Finding(Level.OK, saw)


def warn(saw: str, means: str, remedy: str) -> Finding:
    return Finding(Level.WARN, saw, means, remedy)


def bad(saw: str, means: str, remedy: str) -> Finding:
    return Finding(Level.BAD, saw, means, remedy)


def unknown(saw: str, remedy: str = "") -> Finding:
    return Finding(Level.UNKNOWN, saw, "", remedy)


def count(number: int, one: str, many: str = "") -> str:
    """`1 host`, `2 hosts`."""
    return f"{number} {one if number == 1 else many or one + 's'}"


def few(names: list[str], most: int = 5) -> str:
    """The first of them, and how many more."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
