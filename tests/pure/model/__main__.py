"""Many schedules, in as many processes as asked for: what `make model` and `make model-proof` run.

python -m tests.pure.model run --count 1000           new seeds (MODEL_SEED=… begins with that one)
python -m tests.pure.model run --seconds 60           as many as fit, at least --count
python -m tests.pure.model one 4711                   one seed, told event by event; a failure is shrunk
python -m tests.pure.model proof                      each planted fault is found
"""

from __future__ import annotations

import argparse
import faulthandler
import os
import sys
import time
from random import SystemRandom

import msgspec

from tests.pure.model import faults, runner, world

#: One schedule takes a fraction of a second; one that takes this long hangs.
HANGS = 60


def work(arguments: argparse.Namespace) -> None:
    """One process of many: plays every n-th seed and writes an outcome a line."""
    ends = time.monotonic() + arguments.seconds
    with faults.planted(arguments.fault):
        for number in range(arguments.first, arguments.most, arguments.step):
            if time.monotonic() >= ends and number >= arguments.count:
                return
            faulthandler.dump_traceback_later(HANGS, exit=True)
            outcome = world.play(arguments.base + number)
            faulthandler.cancel_dump_traceback_later()
            if not outcome.invariant:
                outcome.notes = []
            sys.stdout.write(msgspec.json.encode(outcome).decode() + "\n")
            sys.stdout.flush()


def one(seed: int) -> int:
    """Tell one schedule; where it fails, the fewest of its events that were found to do so."""
    outcome = world.play(seed, wordy=True)
    print("\n".join(outcome.notes))
    if not outcome.invariant:
        print(f"seed {seed}: every invariant holds")
        return 0
    print(outcome.trace)
    print(outcome.state)
    print(f"seed {seed}: {outcome.told}")
    events = runner.shrunk(seed, outcome.invariant)
    print(f"\nthe same invariant fails with {len(events)} of {len(world.draw(seed))} events:")
    print("\n".join(world.play(seed, events, wordy=True).notes))
    for event in events:
        print(f"  +{event.gap:.2f} s {event.kind}")
    return 1


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.pure.model")
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("run", "work"):
        command = commands.add_parser(name)
        command.add_argument("--count", type=int, default=0)
        command.add_argument("--seconds", type=float, default=0.0)
        command.add_argument("--base", type=int, default=int(os.environ.get("MODEL_SEED", "-1")))
        command.add_argument("--fault", default="")
        command.add_argument("--first", type=int, default=0)
        command.add_argument("--step", type=int, default=1)
        command.add_argument("--most", type=int, default=1_000_000)
    commands.add_parser("one").add_argument("seed", type=int)
    proof = commands.add_parser("proof")
    proof.add_argument("--count", type=int, default=1000)
    proof.add_argument("names", nargs="*")
    arguments = parser.parse_args()
    if getattr(arguments, "base", 0) < 0:
        arguments.base = SystemRandom().randrange(1_000_000_000)
    if arguments.command == "work":
        work(arguments)
        return 0
    if arguments.command == "one":
        return one(arguments.seed)
    if arguments.command == "proof":
        return runner.proof(arguments.count, arguments.names)
    result = runner.run(arguments.base, arguments.count, arguments.seconds)
    print(result.told())
    return 1 if result.failures else 0


if __name__ == "__main__":
    if os.environ.get("PYTHONHASHSEED") != "0":  # the order of a set is part of a history
        os.execve(
            sys.executable,
            [sys.executable, "-m", "tests.pure.model", *sys.argv[1:]],
            {**os.environ, "PYTHONHASHSEED": "0"},
        )
    sys.exit(main())
