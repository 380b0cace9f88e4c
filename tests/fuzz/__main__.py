"""Fuzzing: fresh inputs for what reads other people's bytes.

python -m tests.fuzz run [TARGET …]              a million inputs of each, or 30 minutes of CPU: what `make fuzz` runs
python -m tests.fuzz again TARGET SEED NUMBER    a block as it was, up to the input that failed
python -m tests.fuzz tape TARGET HEX             one input alone
python -m tests.fuzz coverage [TARGET …]         the branches of the decoders that are taken
python -m tests.fuzz proof                       bugs planted into the decoders are found
"""

from __future__ import annotations

import argparse
import platform
import resource
import secrets
import sys
import time
from importlib.metadata import version

from tests.fuzz import faults, measure, record, run
from tests.fuzz.run import BLOCK, TARGETS, Finding

#: What one target is stopped after: so many findings say that something is broken, and more say nothing else.
ENOUGH = 3
#: MB that the process may grow by after its first blocks.
GROWTH = 64


def one_target(target: str, seed: str, most: int, minutes: float) -> tuple[int, float, list[Finding], int]:
    """Blocks until there are so many inputs or so much CPU time is gone: both, the findings, and MB that it grew by."""
    began = time.process_time()
    until, done, number, first = began + 60 * minutes, 0, 0, 0
    findings: list[Finding] = []
    while done < most and time.process_time() < until and len(findings) < ENOUGH:
        count, finding = run.block(target, f"{seed}-{number}", min(BLOCK, most - done), until)
        done, number = done + count, number + 1
        if finding is not None:
            findings.append(finding)
            print(finding, flush=True)
        if number == 5:
            first = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    grown = max(0, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - first) // 1024 if first else 0
    return done, (time.process_time() - began) / 60, findings, grown


def fuzz(arguments: argparse.Namespace) -> int:
    failed = False
    print(f"seed {arguments.seed}", flush=True)
    for target in arguments.targets or TARGETS:
        done, minutes, findings, grown = one_target(target, arguments.seed, arguments.inputs, arguments.minutes)
        failed = failed or bool(findings) or grown > GROWTH
        print(
            f"{target:8} {done:9,} inputs, {minutes:5.1f} CPU minutes, {len(findings)} findings, grew by {grown} MB",
            flush=True,
        )
        if arguments.record:
            libraries = ", ".join(f"{name} {version(name)}" for name in ("msgspec", "flask", "dnspython"))
            record.keep(
                target,
                {
                    "date": time.strftime("%Y-%m-%d", time.gmtime()), "seed": arguments.seed, "inputs": done,
                    "minutes": round(minutes, 1), "findings": len(findings), "grown": grown,
                    "versions": f"Python {platform.python_version()}, {libraries}",
                },
            )  # fmt: skip
            record.write()
    return int(failed)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("run", "coverage", "proof"):
        command = commands.add_parser(name)
        command.add_argument("targets", nargs="*", choices=[*TARGETS, []])
        command.add_argument("--seed", default=secrets.token_hex(4))
        command.add_argument("--inputs", type=int, default=1_000_000 if name == "run" else BLOCK)
        command.add_argument("--minutes", type=float, default=30.0)
        command.add_argument("--record", action="store_true", help="write the outcome to docs/fuzzing.md")
    for name, words in (("again", ("seed", "number")), ("tape", ("tape",)), ("inputs", ("seed", "count"))):
        command = commands.add_parser(name)
        command.add_argument("target", choices=TARGETS)
        for word in words:
            command.add_argument(word)
    given = parser.parse_args()
    if given.command == "run":
        return fuzz(given)
    if given.command == "coverage":
        return 0 if measure.tell(given.seed, given.inputs, given.targets or TARGETS) else 1
    if given.command == "proof":
        return 0 if faults.proof(given.seed) else 1
    if given.command == "inputs":
        measure.inputs(given.target, given.seed, int(given.count))
        return 0
    if given.command == "again":
        _, finding = run.block(given.target, given.seed, int(given.number))
    else:
        finding = run.alone(given.target, bytes.fromhex(given.tape))
    print(finding or "it does not fail")
    return int(finding is not None)


if __name__ == "__main__":
    sys.exit(main())
