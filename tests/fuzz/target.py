"""What a target of the fuzzing is, and when it has failed."""

from __future__ import annotations

from typing import Any, Protocol

from tests.fuzz.tape import Tape


class Wrong(Exception):
    """Something was accepted, said or kept that must not be."""


def right(condition: object, told: str) -> None:
    """Raises Wrong where it does not hold. (Not `assert`: its sentence is the point.)"""
    if not condition:
        raise Wrong(told)


class Target(Protocol):
    """One room's decoders. An object of it is used for one block of inputs: what they leave behind is part of them."""

    LIMITS: dict[str, int]

    def make(self, tape: Tape) -> Any:
        """An input; equal tapes make equal ones."""

    def check(self, given: Any) -> None:
        """Decode it. Whatever this raises is a finding."""

    def show(self, given: Any) -> str:
        """The input for a person."""

    def left(self) -> dict[str, int]:
        """How many things of a kind the inputs so far have left behind; each kind has its limit in `LIMITS`."""

    def close(self) -> None: ...
