"""One watching host in a process of its own: the real daemon, told what to measure by lines on standard input.

    python -m bench.scale.watcher CONSUL NUMBER FOLDER EAGER

`look` is answered with one line of JSON: what it has cost so far. `end` ends it.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

from bench.scale import counted
from bench.scale.paper import PaperBeat, PaperGround, PaperLinks, paper_doors
from bench.scale.site import OVERLAY, SUBNET, address_of, now_us, vtep_of
from myoverlay.cli import heap
from myoverlay.daemon import Daemon, Parts
from myoverlay.host import resolver
from myoverlay.host.journal import Journal
from myoverlay.host.request import Request
from myoverlay.plan.definition import Options
from myoverlay.settings import load
from myoverlay.values import Address, HostId
from tests.pure.model.kernel import FakeBoundTable, FakeFenceTable, FakePins, Kernel

#: Watching hosts are numbered above all that write.
FIRST = 4000


class Watcher:
    """The daemon, and what is noted of it."""

    def __init__(self, consul: str, number: int, folder: Path, eager: int) -> None:
        counted.install()
        resolver.open_doors = paper_doors  # type: ignore[attr-defined, assignment]
        kernel = Kernel(vtep_of(FIRST + number))
        settings = load(
            {
                "CONSUL_HTTP_ADDR": consul,
                "MYOVERLAY_HOST_NAME": f"watcher-{number}",
                "MYOVERLAY_EAGER_LIMIT": str(eager),
                "MYOVERLAY_STATE": str(folder),
                "MYOVERLAY_RUN": str(folder / "run"),
                # A kernel on paper tells nobody of its changes: there is nothing to listen to.
                "MYOVERLAY_RECORDER": "0",
            }
        )
        folder.mkdir(parents=True)
        parts = Parts(
            journal=Journal(folder),
            links=PaperLinks(kernel),  # type: ignore[arg-type]
            pins=FakePins(kernel),  # type: ignore[arg-type]
            open_ground=partial(PaperGround, kernel),  # type: ignore[arg-type]
            heartbeat=PaperBeat(),
            fence=FakeFenceTable(kernel),
            bounds=FakeBoundTable,
        )
        self.daemon = Daemon(settings, parts=parts)
        self.number = number
        self.taken: list[float] = []
        self._since = now_us()
        self._newest: dict[HostId, int] = {}

    def begin(self) -> None:
        """Start, and have a container on the overlay."""
        self.daemon.start()
        soon = time.monotonic() + 60
        self.daemon.liveness.announced.wait(30)
        request = Request(
            network="n" * 64,
            options=Options(overlay=OVERLAY),
            subnet=SUBNET,
            gateway=Address("10.64.0.1"),
            internal=False,
        )
        local = self.daemon.overlays.create(request, soon)
        self._note(local)
        for place in range(2):
            endpoint = f"{place}e{self.number}".ljust(64, "0")
            local.add_endpoint(endpoint, address_of(FIRST + self.number, place), None, now_us(), soon)
            self.daemon.overlays.on_use(local)
            local.join(endpoint, soon)
        self.daemon.publisher.offer(OVERLAY)
        if not local.listed.wait(120):
            raise SystemExit("the overlay was not listed")
        self.local = local

    def _note(self, local: Any) -> None:
        """When each change was there, rows and all: its stamp is the record's generation."""
        learn = local.learn

        def noted(lists: Any, *args: Any, **more: Any) -> None:
            learn(lists, *args, **more)
            if args and args[0]:  # a first listing
                return
            now = now_us()
            for host, held in lists.items():
                before = max(self._since, self._newest.get(host, 0))
                stamps = [record.generation for record in held.value.records if record.generation > before]
                self.taken += [(now - stamp) / 1e6 for stamp in stamps]
                self._newest[host] = max([before, *stamps])

        local.learn = noted

    def mark(self) -> None:
        """Changes that are stamped later count from now on."""
        self.taken, self._since = [], now_us()

    def look(self) -> dict[str, Any]:
        names = {str(thread.native_id): thread.name for thread in threading.enumerate()}
        threads = {
            names.get(task.name, "other"): int((task / "schedstat").read_text().split()[0]) / 1e9
            for task in Path("/proc/self/task").iterdir()
        }
        answerer = self.daemon.naming.resolver._answerer if self.daemon.naming.resolver else None
        names_pid = answerer.pid if answerer is not None else 0
        view = self.local.view
        taken, self.taken = self.taken, []
        return {
            "cpu": time.process_time(),
            "threads": threads,
            "names_cpu": _cpu(names_pid),
            "received": dict(counted.received),
            "sent": dict(counted.sent),
            "requests": dict(counted.requests),
            "peers": len(view.peers),
            "hosts": len(view.lists or ()),
            "eager": self.local.eager,
            "rows": self.local.ground.tables.written if self.local.ground else 0,  # type: ignore[attr-defined]
            "rounds": {label: n for (name, label), n in self.daemon.tally.all().items() if name == "watch_rounds"},
            "bugs": {label: n for (name, label), n in self.daemon.tally.all().items() if name == "bugs"},
            "taken": taken,
            "memory": memory(os.getpid()),
            "names_memory": memory(names_pid) if names_pid else {},
        }


def _cpu(pid: int) -> float:
    """Seconds that a process has run, all its threads."""
    if not pid:
        return 0.0
    return sum(int((t / "schedstat").read_text().split()[0]) for t in Path(f"/proc/{pid}/task").iterdir()) / 1e9


def memory(pid: int) -> dict[str, int]:
    """A process's memory in bytes: its share (PSS), and all it has mapped that is there (RSS)."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    found = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines[1:] if line.endswith("kB")}
    return {"pss": found["Pss"], "rss": found["Rss"], "anonymous": found["Anonymous"]}


def _give_back() -> None:
    while True:
        time.sleep(heap.EVERY)
        heap.give_back()


def main(consul: str, number: str, folder: str, eager: str) -> None:
    logging.basicConfig(level=logging.ERROR)
    # The heap is kept as `myoverlay serve` keeps it.
    heap.in_one_arena()
    threading.Thread(target=_give_back, daemon=True).start()
    watcher = Watcher(consul, int(number), Path(folder), int(eager))
    watcher.begin()
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        word = line.strip()
        if word == "end":
            break
        if word == "mark":
            watcher.mark()
            print("{}", flush=True)
        elif word == "collect":
            gc.collect()
            print("{}", flush=True)
        elif word.startswith("profile"):
            print(json.dumps({"profile": profile(watcher, float(word.split()[1]))}), flush=True)
        else:
            print(json.dumps(watcher.look()), flush=True)
    os._exit(0)  # all that it holds is in the laboratory's namespaces


def profile(watcher: Watcher, seconds: float) -> str:
    """Where the watching thread spends its time."""
    import cProfile
    import io
    import pstats

    watch = watcher.daemon.discovery.watch_of(watcher.local)
    assert watch is not None
    step, seen = watch.fetch, cProfile.Profile()
    watch.fetch = lambda *args, **more: seen.runcall(step, *args, **more)  # type: ignore[method-assign]
    time.sleep(seconds)
    watch.fetch = step  # type: ignore[method-assign]
    time.sleep(0.5)
    out = io.StringIO()
    pstats.Stats(seen, stream=out).sort_stats("cumulative").print_stats(28)
    return out.getvalue()


if __name__ == "__main__":
    main(*sys.argv[1:])
