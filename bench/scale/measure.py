"""One size: a site is written, watchers come, and each rate of changes is measured on every one of them."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from bench.scale import counted
from bench.scale.site import OVERLAY, Site
from lab import places
from lab.consul import Consul
from lab.errors import LabError
from lab.host import Host, environment
from lab.processes import wait_for
from myoverlay.store.records import Records

#: Seconds that a watcher may take to begin, and to answer.
_PATIENCE = 240.0


class Size(NamedTuple):
    """Hosts that write, and endpoints of each."""

    hosts: int
    each: int

    @property
    def endpoints(self) -> int:
        return self.hosts * self.each


class Plan(NamedTuple):
    """What is measured. `rates`: changes a second, and for how many seconds. `few`: so many watchers are left for the
    last rate once more, which all of them together keep the machine from reaching.
    """

    sizes: tuple[Size, ...]
    watchers: int
    few: int
    rates: tuple[tuple[float, float], ...]
    idle: float
    eager: int = 4000


class Remote:
    """A watcher's process."""

    def __init__(self, host: Host, consul: str, number: int, folder: Path, eager: int) -> None:
        # In the network of the store's host, and nowhere else: it reads its own numbers in the machine's /proc.
        argv = [sys.executable, "-m", "bench.scale.watcher", consul, str(number), str(folder / str(number)), str(eager)]
        self._process = host.spawn_in(
            ("net",),
            argv,
            env=environment({"PYTHONPATH": f"{places.REPOSITORY}/src:{places.REPOSITORY}"}),
            cwd=str(places.REPOSITORY),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL if not os.environ.get("SCALE_ERRORS") else None,
            text=True,
        )

    def tell(self, word: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{word}\n")
        self._process.stdin.flush()

    def hear(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"a watcher ended ({self._process.wait(5)}); SCALE_ERRORS=1 shows what it said")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def end(self) -> None:
        self._process.kill()
        self._process.wait(10)
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()


class Watchers:
    """All of them, asked at once."""

    def __init__(self, consul: Consul, count: int, folder: Path, eager: int) -> None:
        self._all = [Remote(consul.host, consul.address, number, folder, eager) for number in range(count)]

    def begin(self) -> None:
        for one in self._all:
            one.hear()

    def ask(self, word: str) -> list[dict[str, Any]]:
        for one in self._all:
            one.tell(word)
        return [one.hear() for one in self._all]

    def ask_first(self, word: str) -> dict[str, Any]:
        self._all[0].tell(word)
        return self._all[0].hear()

    def keep(self, count: int) -> None:
        """End all others."""
        for one in self._all[count:]:
            one.end()
        del self._all[count:]

    def end(self) -> None:
        self.keep(0)


def measure(consul: Consul, size: Size, plan: Plan, folder: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """Everything about one size. The store is emptied before."""
    consul.wipe()
    site = Site(consul.address, size.hosts, size.each)
    watchers = None
    try:
        began = time.monotonic()
        site.appear(index=True)
        say(f"{size.endpoints:>7} endpoints on {size.hosts} hosts: written in {time.monotonic() - began:.1f} s")
        began = time.monotonic()
        watchers = Watchers(consul, plan.watchers, folder / str(size.endpoints), plan.eager)
        watchers.begin()
        listed = time.monotonic() - began
        _calm_down(watchers)
        return _measured(site, watchers, size, plan, listed, say)
    finally:
        if watchers is not None:
            watchers.end()
        site.close()


def _calm_down(watchers: Watchers) -> None:
    """Until what follows a start has ended everywhere: each spends little of a second, and little of the next ones."""
    calm = 0
    for _ in range(90):
        spent = _spent(watchers, lambda: time.sleep(2.0))
        calm = calm + 1 if max((one.cpu + one.names_cpu) / one.seconds for one in spent) < 0.05 else 0
        if calm == 3:
            return
    raise LabError("the watchers did not calm down in three minutes: what they spend without changes is not known")


def _measured(
    site: Site, watchers: Watchers, size: Size, plan: Plan, listed: float, say: Callable[[str], None]
) -> dict[str, Any]:
    first = watchers.ask("look")
    wire_list = list_on_the_wire(site)
    idle = _spent(watchers, lambda: time.sleep(plan.idle))
    rates = [_at_rate(rate, seconds, site, watchers, idle, say) for rate, seconds in plan.rates]
    last = watchers.ask("look")
    few = _with_few(site, watchers, plan, say)
    own = [one["memory"]["pss"] for one in last]
    names = [one["names_memory"].get("pss", 0) for one in last]
    say(f"  memory: {statistics.median(own) / 1e6:.0f} MB and {statistics.median(names) / 1e6:.0f} MB for names")
    return {
        "endpoints": size.endpoints,
        "hosts": size.hosts,
        "each": size.each,
        "watchers": plan.watchers,
        "eager": last[0]["eager"],
        "peers": last[0]["peers"],
        "bugs": [one["bugs"] for one in (*last, *watchers.ask("look")) if one["bugs"]],
        "listed_s": listed,
        "start_cpu_s": summary(one["cpu"] for one in first),
        "start_bytes": summary(sum(one["received"].values()) for one in first),
        "list_json_bytes": site.list_bytes(),
        "list_wire_bytes": wire_list,
        "idle": _idle(idle, plan.idle),
        "memory": summary(own),
        "memory_anonymous": summary(one["memory"]["anonymous"] for one in last),
        "memory_rss": summary(one["memory"]["rss"] for one in last),
        "memory_names": summary(names),
        "rates": rates,
        "few": {"watchers": plan.few, **few},
    }


def _with_few(site: Site, watchers: Watchers, plan: Plan, say: Callable[[str], None]) -> dict[str, Any]:
    """The last rate, watched by few: when the sessions of the others have ended too."""
    watchers.keep(plan.few)
    wait_for("the others' sessions to end", 60, lambda: site.alive() == len(site.hosts) + plan.few, pause=0.5)
    _calm_down(watchers)
    idle = _spent(watchers, lambda: time.sleep(plan.idle))
    say(f"  watched by {plan.few}:")
    return _at_rate(*plan.rates[-1], site, watchers, idle, say)


def _at_rate(
    rate: float, seconds: float, site: Site, watchers: Watchers, idle: list[Spent], say: Callable[[str], None]
) -> dict[str, Any]:
    """So many changes a second, or as many as the machine carries: then it is busy for longer."""
    watchers.ask("mark")
    site.changes, site.late, site.took = 0, 0.0, 0.0

    def write() -> None:
        site.write(rate, seconds)
        time.sleep(min(3.0, 1.0 + seconds / 10))  # the last changes arrive

    row = _row(rate, site, _spent(watchers, write), idle) | {"reached": site.changes / max(seconds, site.took)}
    say(
        f"  {rate:>5g}/s ({row['reached']:.3g} reached): {row['bytes']['median'] / 1000:.1f} kB and"
        f" {row['cpu_ms']['median']:.2f} ms a change, there after {row['seconds']['p50'] * 1000:.0f} ms"
        f" (p99 {row['seconds']['p99'] * 1000:.0f})"
    )
    return row


def list_on_the_wire(site: Site) -> int:
    """Bytes that one host's list costs who fetches it, headers and all."""
    before = sum(counted.received.values()), sum(counted.sent.values())
    Records(site.store, "myoverlay", site.hosts[0].id).lists(OVERLAY, [site.hosts[0].id])
    return sum(counted.received.values()) - before[0] + sum(counted.sent.values()) - before[1]


class Spent(NamedTuple):
    """What one watcher spent over some seconds. `taken`: how long each change took to be there."""

    seconds: float
    cpu: float
    names_cpu: float
    threads: dict[str, float]
    watch: int
    all: int
    requests: int
    watch_requests: int
    asked: dict[str, int]
    rows: int
    taken: list[float]


def _spent(watchers: Watchers, act: Callable[[], None]) -> list[Spent]:
    before, began = watchers.ask("look"), time.monotonic()
    act()
    seconds, after = time.monotonic() - began, watchers.ask("look")
    return [_difference(one, other, seconds) for one, other in zip(before, after, strict=True)]


def _difference(before: dict[str, Any], after: dict[str, Any], seconds: float) -> Spent:
    def more(kind: str, only: str = "") -> int:
        keys = [key for key in after[kind] if not only or key.startswith(only)]
        return int(sum(after[kind][key] - before[kind].get(key, 0) for key in keys))

    threads = {name: after["threads"][name] - before["threads"].get(name, 0.0) for name in after["threads"]}
    return Spent(
        seconds,
        after["cpu"] - before["cpu"],
        after["names_cpu"] - before["names_cpu"],
        threads,
        more("received", "watch-") + more("sent", "watch-"),
        more("received") + more("sent"),
        more("requests"),
        more("requests", "watch-"),
        {name: count - before["requests"].get(name, 0) for name, count in after["requests"].items()},
        after["rows"] - before["rows"],
        after["taken"],
    )


def _idle(idle: list[Spent], seconds: float) -> dict[str, Any]:
    return {
        "seconds": seconds,
        "cpu_ms_per_s": summary(1000 * (one.cpu + one.names_cpu) / one.seconds for one in idle),
        "bytes_per_s": summary(one.all / one.seconds for one in idle),
        "requests_per_s": summary(one.requests / one.seconds for one in idle),
        "requests_by_thread": {
            name: round(statistics.median(one.asked.get(name, 0) / one.seconds for one in idle), 3)
            for name in sorted({name for one in idle for name, count in one.asked.items() if count})
        },
        "threads_ms_per_s": threads_of(idle, seconds),
    }


def _row(rate: float, site: Site, spent: list[Spent], idle: list[Spent]) -> dict[str, Any]:
    """Per change: what was spent less what is spent without any."""
    changes = site.changes
    calm = statistics.median((one.cpu + one.names_cpu) / one.seconds for one in idle)
    calm_way = statistics.median(_way(one) / one.seconds for one in idle)
    calm_names = statistics.median(one.names_cpu / one.seconds for one in idle)
    taken = sorted(one for each in spent for one in each.taken)
    return {
        "rate": rate,
        "changes": changes,
        "conflicts": sum(one.conflicts for one in site.hosts),
        "writer_late_s": site.late,
        # The threads that a change goes through, and the resolver's process; less what they spend without changes.
        "cpu_ms": summary(1000 * (_way(one) - calm_way * one.seconds) / changes for one in spent),
        "cpu_names_ms": summary(1000 * (one.names_cpu - calm_names * one.seconds) / changes for one in spent),
        "cpu_all_ms": summary(1000 * ((one.cpu + one.names_cpu) - calm * one.seconds) / changes for one in spent),
        "threads_ms": threads_of(spent, changes),
        "bytes": summary(one.watch / changes for one in spent),
        "bytes_all": summary(one.all / changes for one in spent),
        "requests": summary(one.requests / changes for one in spent),
        "watch_requests": summary(one.watch_requests / changes for one in spent),
        "rows": summary(one.rows / changes for one in spent),
        "seen": len(taken) / max(1, changes * len(spent)),
        "seconds": {f"p{q}": _at(taken, q / 100) for q in (50, 90, 99, 100)},
    }


def _way(one: Spent) -> float:
    """Seconds of CPU of the threads `watch-…` and `names`, and of the resolver's process."""
    return one.names_cpu + sum(used for name, used in one.threads.items() if name.startswith(("watch-", "names")))


def threads_of(spent: list[Spent], changes: float) -> dict[str, float]:
    """The median CPU of each thread that used any, ms per change (or, for one of `changes`, in all)."""
    names = {name for one in spent for name in one.threads}
    found = {
        name.partition("-")[0]: statistics.median(1000 * one.threads.get(name, 0.0) / changes for one in spent)
        for name in names
    }
    return {name: round(used, 3) for name, used in sorted(found.items()) if used >= 0.01}


def summary(values: Iterable[float]) -> dict[str, float]:
    """Of all watchers: the median, the least, the most."""
    known = list(values)
    return {"median": statistics.median(known), "min": min(known), "max": max(known)}


def _at(ordered: list[float], part: float) -> float:
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))] if ordered else float("nan")


def as_json(value: Any) -> bytes:
    return msgspec.json.format(msgspec.json.encode(value), indent=1)
