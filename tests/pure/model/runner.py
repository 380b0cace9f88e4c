"""Plays seeds in several processes at once, and shrinks a schedule that fails."""

from __future__ import annotations

import os
import selectors
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from tests.pure.model import faults
from tests.pure.model.world import EVENTS, HOSTS, Event, Outcome, draw, play

#: Where pytest keeps what is told at the end.
TOLD = pytest.StashKey[list[str]]()
ROOT = Path(__file__).parents[3]
PROCESSES = 2
_read = msgspec.json.Decoder(Outcome).decode


class Result(msgspec.Struct):
    """What became of many schedules."""

    base: int
    count: int = 0
    steps: int = 0
    containers: int = 0
    seconds: float = 0.0
    failures: list[Outcome] = []

    def told(self) -> str:
        first = (
            f"model: {self.count} schedules of {EVENTS} events on {HOSTS} hosts ({self.steps:,} steps,"
            f" {self.containers:,} containers) in {self.seconds:.0f} s, seeds from {self.base}:"
            f" {len(self.failures) or 'none'} failed"
        )
        lines = [f"  seed {one.seed}: {one.told}" for one in sorted(self.failures, key=lambda one: one.seed)]
        if lines:
            lines.append("  one of them, event by event: .venv/bin/python -m tests.pure.model one SEED")
        return "\n".join([first, *lines])


def outcomes(
    base: int, count: int, seconds: float = 0.0, fault: str = "", most: int = 1_000_000, processes: int = PROCESSES
) -> Iterator[Outcome]:
    """Outcomes as they come, of at least `count` seeds and for at least so many seconds. Ends its processes."""
    environ = {**os.environ, "PYTHONHASHSEED": "0", "PYTHONPATH": "src"}
    told = [f"--base={base}", f"--count={count}", f"--seconds={seconds}", f"--fault={fault}", f"--most={most}"]
    command = [sys.executable, "-m", "tests.pure.model", "work", *told, f"--step={processes}"]
    workers = [
        subprocess.Popen([*command, f"--first={n}"], cwd=ROOT, env=environ, stdout=subprocess.PIPE)
        for n in range(processes)
    ]
    try:
        with selectors.DefaultSelector() as ready:
            for worker in workers:
                ready.register(worker.stdout, selectors.EVENT_READ)  # type: ignore[arg-type]
            while ready.get_map():
                for key, _ in ready.select():
                    line = key.fileobj.readline()  # type: ignore[union-attr]
                    if line:
                        yield _read(line)
                    else:
                        ready.unregister(key.fileobj)
        for worker in workers:
            if worker.wait(60) != 0:
                raise RuntimeError(f"a process of the model ended with {worker.returncode}: see above")
    finally:
        for worker in workers:
            worker.kill()
            worker.wait(10)
            worker.stdout.close()  # type: ignore[union-attr]


def run(
    base: int, count: int, seconds: float = 0.0, fault: str = "", enough: Callable[[Outcome], bool] | None = None
) -> Result:
    """Play; with `enough`, only until an outcome is."""
    result, began = Result(base), time.monotonic()
    for outcome in outcomes(base, count, seconds, fault, count if seconds == 0 else 1_000_000):
        result.count += 1
        result.steps += outcome.steps
        result.containers += outcome.containers
        if outcome.invariant:
            result.failures.append(outcome)
        if enough is not None and enough(outcome):
            break
    result.seconds = time.monotonic() - began
    return result


def is_due_to_a_fault(outcome: Outcome) -> bool:
    """Does an invariant fail, and does none without the fault?"""
    return bool(outcome.invariant) and not play(outcome.seed).invariant


def proof(count: int, names: list[str]) -> int:
    """Each planted fault is found within so many schedules; a table of which needed how many, and what caught it."""
    missed = 0
    print("| fault | schedules | invariant that caught it |\n|---|---|---|")
    for fault in names or list(faults.FAULTS):
        result = run(faults.BASE, count, fault=fault, enough=is_due_to_a_fault)
        if result.failures and is_due_to_a_fault(result.failures[-1]):
            found = result.failures[-1]
            print(f"| {fault} | {result.count} | {found.invariant} |", flush=True)
            print(f"    seed {found.seed}: {found.told}"[:160], file=sys.stderr, flush=True)
        else:
            missed += 1
            print(f"| {fault} | not in {result.count} | – |", flush=True)
    return 1 if missed else 0


def shrunk(seed: int, invariant: str, patience: float = 60.0) -> list[Event]:
    """Fewer events of a schedule that fail in the same way: halves are left out, then quarters, then single ones."""
    events, until = draw(seed), time.monotonic() + patience
    size = len(events) // 2
    while size >= 1:
        place = 0
        while place < len(events):
            if time.monotonic() > until:
                return events
            fewer = events[:place] + events[place + size :]
            if play(seed, fewer).invariant == invariant:
                events = fewer
            else:
                place += size
        size //= 2
    return events
