"""What the daemon puts into a bug report: `Control.Report`. Every text has passed the veil before it leaves."""

from __future__ import annotations

import json
import platform
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata
from typing import Any, NamedTuple

import msgspec

from myoverlay import __version__
from myoverlay.host.journal import Journal
from myoverlay.operate.control import Answer, Method, Nothing
from myoverlay.operate.exposition import Exposition
from myoverlay.operate.names import Names
from myoverlay.operate.status import Status
from myoverlay.operate.veil import Veil


class Of(NamedTuple):
    """What is told. `settings`: each variable as it may be shown; `log` and `notes`: the lines that are kept."""

    status: Status
    exposition: Exposition
    names: Names
    journal: Journal
    settings: Mapping[str, str]
    log: Callable[[], list[str]]
    notes: Callable[[], list[bytes]]
    veil: Veil


class Report:
    """Answers with one text for each file of the report."""

    def __init__(self, of: Of) -> None:
        self._of = of

    def methods(self) -> dict[str, Method]:
        return {"Control.Report": (Nothing, self.collect)}

    def collect(self, call: Nothing, deadline: float) -> Answer:
        """Files by name. One that cannot be made says why, and keeps no other from being made."""
        files = {}
        for name, make in self._parts(deadline):
            try:
                text = make()
            except Exception as error:  # noqa: BLE001 - asked for where something is broken: the rest is wanted anyway
                text = "".join(traceback.format_exception(error))
            files[name] = self._of.veil.thoroughly(text)
        return {"files": files}

    def _parts(self, deadline: float) -> Iterator[tuple[str, Callable[[], str]]]:
        of = self._of
        yield "versions.json", lambda: _json(_versions())
        yield "settings.json", lambda: _json(dict(of.settings))
        yield "status.json", lambda: _json(of.status.show(Nothing(), deadline))
        yield "names.json", lambda: _json(of.names.show(Nothing(), deadline))
        yield "metrics.txt", lambda: of.exposition.page().decode()
        yield "journal.json", lambda: _json(_journal(of.journal))
        yield "threads.txt", _threads
        yield "log.txt", lambda: "".join(f"{line}\n" for line in of.log())
        yield "recorder.jsonl", lambda: "".join(f"{note.decode('utf-8', 'replace')}\n" for note in of.notes())


def _json(value: Any) -> str:
    return json.dumps(msgspec.to_builtins(value, enc_hook=str), indent=1) + "\n"


def _versions() -> dict[str, Any]:
    packages = {dist.metadata["Name"]: dist.version for dist in metadata.distributions()}
    return {
        "myoverlay": __version__,
        "python": sys.version,
        "kernel": platform.release(),
        "machine": platform.machine(),
        "packages": dict(sorted(packages.items())),
    }


def _journal(journal: Journal) -> dict[str, Any]:
    """What Docker asked for. Not the session's id, by which whoever has Consul could end it."""
    return {
        "networks": journal.networks.all(),
        "endpoints": journal.endpoints.all(),
        "pools": journal.uses.all(),
        "leases": journal.leases.all(),
        "leaving": journal.leaving.all(),
    }


def _threads() -> str:
    """Where each thread is."""
    frames, found = sys._current_frames(), []
    for thread in threading.enumerate():
        frame = frames.get(thread.ident or 0)
        stack = "".join(traceback.format_stack(frame)) if frame is not None else "  it has just ended\n"
        found.append(f"{thread.name}\n{stack}\n")
    return "".join(found)
