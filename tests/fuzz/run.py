"""Blocks of inputs: fresh ones from a seed, a limit of time for each, and what is told of one that failed."""

from __future__ import annotations

import importlib
import signal
import threading
import time
import traceback
from collections.abc import Iterator
from random import Random
from types import FrameType
from typing import Any, NamedTuple

from tests.fuzz.tape import LENGTH, Tape
from tests.fuzz.target import Target, Wrong, right

TARGETS = ("http", "records", "netlink", "frames", "probe", "dns")
#: Inputs of one block, which begins with a target as new.
BLOCK = 5000
#: Seconds of CPU, and of waiting, that one input may take: a thousand times what most do.
LIMIT, PATIENCE = 2.0, 10.0


class Finding(NamedTuple):
    """An input that failed: the block it is of, its number there, its tape, and what it came to."""

    target: str
    seed: str
    number: int
    tape: bytes
    shown: str
    told: str
    trace: str

    def __str__(self) -> str:
        again = f"python -m tests.fuzz again {self.target} {self.seed} {self.number}"
        alone = f"python -m tests.fuzz tape {self.target} {self.tape.hex()}"
        return (
            f"{self.target}: {self.told}\n  input: {self.shown}\n  with all before it: {again}\n  alone: {alone}\n"
            f"{self.trace}"
        )


class Hung(BaseException):
    """An input took too long. No `except Exception` of the program stops it."""


def made(target: str) -> Target:
    """A target as new."""
    fresh: Target = importlib.import_module(f"tests.fuzz.{target}").Target()
    return fresh


class Watch:
    """Looks from a thread of its own at what the main thread is at, and ends an input that takes too long.

    Sleep and computing alike: a signal interrupts both. What computes in C for ever is not, and `python -m tests.fuzz`
    then says no more; its seed is printed before.
    """

    def __init__(self) -> None:
        #: Made another with each input.
        self.number = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, name="watch", daemon=True)

    def __enter__(self) -> Watch:
        self._before = signal.signal(signal.SIGUSR1, self._late)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(5)
        signal.signal(signal.SIGUSR1, self._before)

    def _look(self) -> None:
        number, since, spent = -1, 0.0, 0.0
        while not self._over.wait(0.2):
            if self.number != number:
                number, since, spent = self.number, time.monotonic(), time.process_time()
            elif time.monotonic() - since > PATIENCE or time.process_time() - spent > LIMIT:
                number = -1
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)

    @staticmethod
    def _late(_number: int, _frame: FrameType | None) -> None:
        raise Hung(f"it took more than {LIMIT:g} s of CPU or {PATIENCE:g} s")


def tapes(seed: str) -> Iterator[bytes]:
    """A block's tapes, without end."""
    random = Random(seed)
    while True:
        yield random.randbytes(LENGTH)


def block(name: str, seed: str, count: int = BLOCK, until: float = float("inf")) -> tuple[int, Finding | None]:
    """One block: how many inputs it had, and the first finding. It ends early at a moment of CPU time."""
    target = made(name)
    number, tape = 0, b""
    try:
        with Watch() as watch:
            for number, tape in zip(range(1, count + 1), tapes(seed), strict=False):
                if number % 64 == 0 and time.process_time() > until:
                    return number - 1, None
                watch.number = number
                target.check(target.make(Tape(tape)))
        bounded(target)
    except (Exception, Hung) as error:  # noqa: BLE001 - whatever it is, it is what is looked for
        return number, finding(target, name, seed, number, tape, error)
    finally:
        target.close()
    return number, None


def bounded(target: Target) -> None:
    """Raises Wrong where inputs have left more behind than they may."""
    for kind, count in target.left().items():
        limit = target.LIMITS[kind]
        right(count <= limit, f"{count} {kind} are left behind, {limit} may be")


def finding(target: Target, name: str, seed: str, number: int, tape: bytes, error: BaseException) -> Finding:
    told = str(error) if isinstance(error, Wrong) else f"{type(error).__name__}: {error}"
    trace = "".join(traceback.format_exception(error)[-6:])
    return Finding(name, seed, number, tape, target.show(target.make(Tape(tape))), told, trace)


def alone(name: str, tape: bytes) -> Finding | None:
    """One input on a target as new."""
    target: Any = made(name)
    try:
        with Watch():
            target.check(target.make(Tape(tape)))
    except (Exception, Hung) as error:  # noqa: BLE001 - see `block`
        return finding(target, name, "", 0, tape, error)
    finally:
        target.close()
    return None
