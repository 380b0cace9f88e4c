"""`myoverlay doctor`: takes all readings side by side, each with a time-out, and judges them by the table of checks."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

import msgspec

from myoverlay.errors import MyoverlayError, Refused
from myoverlay.host.collect import Collector
from myoverlay.operate.control import Answer, Method, Nothing
from myoverlay.plan.brake import Held
from myoverlay.plan.checkup import CHECKS
from myoverlay.plan.findings import Check, Finding, count, few, unknown

log = logging.getLogger(__name__)

#: Seconds within which every reading is taken or given up: an examination takes no longer, whatever is away.
LIMIT = 6.5
#: A reading: what is to be judged, by a deadline (`time.monotonic()`).
Reading = Callable[[float], Any]
Readings = Mapping[str, Reading]


def examine(
    readings: Readings, checks: Iterable[Check] = CHECKS, limit: float = LIMIT, why: str = "the plugin does not run"
) -> list[tuple[Check, Finding]]:
    """Take the readings that the checks need, each in a thread `doctor_n`, and judge them.

    What could not be read is `unknown`, with the reason; `why`: the reason for those that are not among the readings.
    A reading ends by its own deadline; one that does not is not waited for.
    """
    checks = tuple(checks)
    names = dict.fromkeys(check.reading for check in checks if check.reading in readings)
    deadline = time.monotonic() + limit
    pool = ThreadPoolExecutor(max(1, len(names)), thread_name_prefix="doctor")
    try:
        taken = {name: pool.submit(readings[name], deadline) for name in names}
        wait(taken.values(), limit)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    return [(check, _judged(check, taken.get(check.reading), limit, why)) for check in checks]


def _judged(check: Check, taken: Future[Any] | None, limit: float, why: str) -> Finding:
    if taken is None:
        return unknown(f"not looked at: {why}")
    if not taken.done():
        return unknown(f"it could not be read within {limit:g} s")
    try:
        return check.judge(taken.result())
    except MyoverlayError as error:
        return unknown(str(error))
    except Exception as error:  # one check's bug hides no other's finding, and is shown in its place
        log.exception("check %s: a bug in myoverlay", check.name)
        return unknown(f"this check failed, see the log: {type(error).__name__}: {error}")


def shown(findings: Iterable[tuple[Check, Finding]]) -> list[Answer]:
    """As JSON has them."""
    return [
        {
            "check": check.name,
            "level": finding.level.value,
            "saw": finding.saw,
            "means": finding.means,
            "remedy": finding.remedy,
            "fixes": check.fixes,
        }
        for check, finding in findings
    ]


class Fix(msgspec.Struct, frozen=True, kw_only=True):
    """Do what is safe about these checks."""

    checks: tuple[str, ...]


class Doctor:
    """Answers from inside the daemon. One examination at a time: `_turn` is held meanwhile."""

    def __init__(self, readings: Readings, collector: Collector) -> None:
        self._readings = readings
        self._collector = collector
        self._turn = threading.Lock()

    def methods(self) -> dict[str, Method]:
        return {"Control.Doctor": (Nothing, self.look), "Control.DoctorFix": (Fix, self.fix)}

    def look(self, call: Nothing, deadline: float) -> Answer:
        """All findings, in the table's order. Raises Refused while another examination is under way."""
        if not self._turn.acquire(blocking=False):
            raise Refused("another `myoverlay doctor` is under way on this host: wait for its end")
        try:
            limit = min(LIMIT, deadline - time.monotonic() - 0.5)
            return {"findings": shown(examine(self._readings, limit=limit))}
        finally:
            self._turn.release()

    def fix(self, call: Fix, deadline: float) -> Answer:
        """What was done about each of them, one sentence for each thing. Raises Refused for others than are safe."""
        safe = {check.name for check in CHECKS if check.fixes}
        if strange := sorted(set(call.checks) - safe):
            raise Refused(f"nothing is done by itself about {few(strange)}: about {few(sorted(safe), 9)} it is")
        acts: dict[str, Callable[[float], list[str]]] = {
            "vni": self._kernel,
            "bridge-netfilter": self._filters,
            "leftovers": self._collect,
            "stale-keys": self._collect,
        }
        did: list[str] = []
        for act in dict.fromkeys(acts[name] for name in call.checks):
            try:
                did += act(deadline)
            except MyoverlayError as error:
                did.append(f"it failed: {error}")
        return {"did": did}

    def _kernel(self, deadline: float) -> list[str]:
        self._collector.mend_kernel(deadline)
        return ["links and rows were compared with what is wanted, and put right where they could be"]

    def _filters(self, deadline: float) -> list[str]:
        overlays = self._collector.filters_off(deadline)
        return [f"bridge-nf-call-* was put off for {few(list(overlays))}"] if overlays else []

    def _collect(self, deadline: float) -> list[str]:
        gone, trouble = self._collector.collect(deadline)
        return [*map(_collected, gone), *trouble]


def _collected(gone: Held) -> str:
    where = f" of overlay {gone.overlay}" if gone.overlay else ""
    return f"{count(len(gone.names), gone.kind)}{where} collected: {few(list(gone.names))}"
