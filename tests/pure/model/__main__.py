"""`python -m tests.pure.model`: one seed, told event by event."""

from __future__ import annotations

import sys
import time

from tests.pure.model.world import HARD, KINDS, draw, play

if __name__ == "__main__":
    first, count = int(sys.argv[1]), int(sys.argv[2])
    kinds = {k: w for k, w in KINDS.items() if k not in HARD} if "easy" in sys.argv else KINDS
    began = time.process_time()
    bad = 0
    import faulthandler
    for seed in range(first, first + count):
        faulthandler.dump_traceback_later(15, exit=True)
        outcome = play(seed, draw(seed, kinds), count == 1)
        if outcome.invariant:
            bad += 1
            print(seed, outcome.told, f"{outcome.steps} steps {outcome.containers} containers {outcome.refusals} refusals", flush=True)
            if count == 1:
                print("\n".join(outcome.notes))
                print(outcome.trace)
        elif count == 1:
            print("\n".join(outcome.notes[-30:]))
    print(f"{bad} of {count} fail, {(time.process_time() - began) / count:.2f} s each")
