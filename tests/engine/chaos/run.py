"""Runs rows: the ground under them, the loads around them; a ground that a row left broken is made anew."""

from __future__ import annotations

import contextlib
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from lab.errors import LabError
from tests.engine.chaos.counting import Result
from tests.engine.chaos.ground import GRACE, KINDS, LEASE_GRACE, Ground, eventually
from tests.engine.chaos.loads import one_start
from tests.engine.chaos.scene import Scene, ping
from tests.engine.chaos.table import Row

#: Seconds that the loads run before the event, and after its last step.
BEFORE, AFTER = 3.0, 3.0


def run_row(ground: Ground, row: Row) -> Result:
    """One row, whatever goes wrong in it."""
    result = Result(row.name, row.title, row.bound)
    began = time.monotonic()
    loads = ground.loads()
    scene = Scene(ground, loads)
    try:
        try:
            loads.start()
            scene.last(BEFORE)
            row.do(scene)
            scene.last(AFTER)
        finally:
            loads.stop()
    except Exception as error:  # noqa: BLE001 - a row that breaks is a row that fails; the others still run
        result.broken = f"{type(error).__name__}: {error}"
    with contextlib.suppress(LabError, OSError, ValueError):
        result.measured = loads.measured()
    loads.clear()
    result.checks, result.notes = scene.checks, scene.notes
    result.seconds = time.monotonic() - began
    return result


def sound(ground: Ground) -> str:
    """Why the next row could say nothing on this ground; empty where it is as it was in the beginning."""
    try:
        for host, other in ((ground.h1, ground.h2), (ground.h2, ground.h1)):
            view = {"net": f"/proc/{host.container_pid('flow')}/ns/net"}
            target = ground.addresses[other.name, "flow"]
            eventually(f"{host.name} reaches {other.name}", partial(ping, view, target), 10)
        eventually(
            "a container starts on h3 and is answered",
            lambda: one_start(ground.h3, "sound", ground.addresses["h1", "flow"]).answered, 20,
        )  # fmt: skip
    except (LabError, OSError) as error:
        return str(error)
    return ""


def run(
    rows: Sequence[Row],
    tell: Callable[[str], None],
    done: Callable[[Result], None],
    name: str,
    source: Path | None = None,
) -> Iterator[dict[str, str]]:
    """All rows, kind after kind; yields what each ground was made of."""
    for kind in KINDS:
        waiting = [row for row in rows if row.kind == kind]
        while waiting:
            tell(f"# a laboratory with the plugin as {'a process' if kind == 'process' else 'the engine manages it'}")
            began = time.monotonic()
            with Ground(kind, name, source) as ground:
                yield ground.versions
                tell(f"# up in {time.monotonic() - began:.0f} s")
                while waiting:
                    row = waiting.pop(0)
                    result = run_row(ground, row)
                    done(result)
                    if not result.good:
                        keep_words(ground, row)
                    trouble = sound(ground) if waiting else ""
                    if trouble:
                        tell(f"# made anew after `{row.name}`: {trouble}")
                        break


def keep_words(ground: Ground, row: Row) -> None:
    """The plugins' logs of a row that fails."""
    folder = Path("build/chaos")
    folder.mkdir(parents=True, exist_ok=True)
    for name, driver in ground.drivers.items():
        (folder / f"{row.name}-{name}.log").write_text(driver.words()[-200_000:])


def about(versions: dict[str, str]) -> dict[str, str]:
    """What a reader of the figures has to know."""
    engines = sorted({text.removeprefix("Engine ") for name, text in versions.items() if name != "consul"})
    return {
        "measured on": datetime.now(UTC).strftime("%Y-%m-%d"),
        "Linux": platform.release(),
        "Engine": " and ".join(engines),
        "Consul": versions.get("consul", "").removeprefix("Consul "),
        "MYOVERLAY_GRACE": str(GRACE),
        "MYOVERLAY_LEASE_GRACE": str(LEASE_GRACE),
    }
