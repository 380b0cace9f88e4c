"""Counters: every outcome has one, faults beside their benign twins. One table gives name and meaning.

Beside them durations, as how many were at most so long, which is what a histogram of Prometheus is.
"""

from __future__ import annotations

import bisect
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Container
from dataclasses import dataclass, field

#: name: meaning. `{…}` is what the label of the counter stands for.
COUNTERS = {
    "docker_calls": "calls on the plugin's sockets, Docker's and our own commands', by {method} and outcome",
    "repairs": "kernel objects put right, by {reason}",
    "braked": "objects that nobody asks for and that wait for `myoverlay gc --yes`, by {kind}",
    "row_failures": "rows the kernel refused, by {table}",
    "misses": "the kernel's questions, by {kind}: local, late, pull, asked, found, unknown, limited",
    "overruns": "times the miss socket overran, so that rows were compared instead",
    "announcements": "ARP announcements sent into an overlay namespace, by {reason}",
    "watch_rounds": "answers of the store's watch, by {kind}: change, listing, unchanged, reset",
    "loop_failures": "rounds of a background thread that the store or a deadline failed, by {thread}",
    "bugs": "rounds of a background thread that failed for a reason nobody foresaw, by {thread}",
    "published": "writes of this host's own list, by {outcome}: done, retried, clash, disputed, failed",
    "beats": "the heartbeat's questions and answers, by {outcome}: sent, answered, unanswered, unsent (no route, no"
    " device), full (of full size), carried (its answer), unasked (an answer to nothing), invalid",
    "beat_builds": "making sure of the heartbeat's device, by {outcome}: built, failed",
    "contradictions": "times the store was found to say of an overlay, pool or lease what contradicts what runs here",
    "undecided": "addresses and MACs that several living hosts claim, and nobody told this one who had them first",
    "quarantined": "values in the store that were not what they should be, and were left out",
    "doubts": "times the store was found to have lost something: emptied, restored, replaced",
    "fates": "what was found of other hosts, by {state}: alive, pending, cut off, dead",
    "mirror": "copies of the journal in the mounted directory, by {outcome}: made, failed",
    "underlay": "what became of a network's VTEP, by {outcome}: moved, lost, found",
    "asked": "questions of other hosts, before a network is made for all or about a path, by {outcome}: answered, late"
    " (taken back by then), stale (left by whoever asked, and taken away)",
    "followed": "networks that are defined for all hosts, by {outcome} here: made, removed, failed, restored (the plan,"
    " which the store had lost)",
    "names": "questions to the resolver, by {outcome}: answered, nobody, refused, forwarded; ignored, malformed,"
    " unsent, doubted (the daemon was silent); and of those forwarded: late, unreachable, no server, too many, false"
    " answers",
    "resolver": "what became of the resolver's process, by {outcome}: started, frozen, ended",
    "docker_events": "what Docker was heard to say of containers on our networks, by {kind}: listed, changed, lost",
    "catalogue": "names in Consul's catalogue, by what became of them: registered, withdrawn, refused; collected (hosts"
    " that are dead)",
    "guard": "VXLAN datagrams that were kept out, by {reason}: unknown (its source is no live VTEP of that overlay),"
    " door (it came out of a container's network under a VTEP's address), local (a process of this host sent it);"
    " spoofed: frames of containers under a MAC or an address that is not theirs",
    "session": "what became of the host's session, by {outcome}: opened, renewed, lost",
}

#: name: meaning, as with counters.
DURATIONS = {
    "docker_call": "calls on the plugin's sockets, by {method}",
    "store_call": "calls to the store that wait for no change, by {operation} and outcome (answered, failed)",
}
#: Upper bounds of durations, seconds; Docker's calls end within 8, the store's within 3 mostly.
BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
#: So many labels a name may have. Labels come from our own code, so that this is a belt beside the braces.
LABELS = 200
#: What stands for the labels beyond that.
OTHER = "other"


@dataclass(slots=True)
class Spread:
    """How many durations were at most as long as each of BOUNDS but longer than the one before, and beyond the last."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS) + 1))
    total: float = 0.0


class Tally:
    """Counts by (name, label); safe for many threads. `now`: seconds that only grow."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._counts: Counter[tuple[str, str]] = Counter()
        self._last: dict[tuple[str, str], float] = {}
        self._spreads: defaultdict[tuple[str, str], Spread] = defaultdict(Spread)
        self._labels: Counter[str] = Counter()

    def add(self, name: str, label: str = "", by: int = 1) -> None:
        if name not in COUNTERS:
            raise KeyError(name)
        with self._lock:
            key = self._known(name, label, self._counts)
            self._counts[key] += by
            if by:
                self._last[key] = self._now()

    def took(self, name: str, label: str, seconds: float) -> None:
        """Something lasted so long."""
        if name not in DURATIONS:
            raise KeyError(name)
        with self._lock:
            spread = self._spreads[self._known(name, label, self._spreads)]
            spread.counts[bisect.bisect_left(BOUNDS, seconds)] += 1
            spread.total += seconds

    def _known(self, name: str, label: str, table: Container[tuple[str, str]]) -> tuple[str, str]:
        key = (name, label)
        if key in table:
            return key
        if self._labels[name] >= LABELS:
            return name, OTHER
        self._labels[name] += 1
        return key

    def get(self, name: str, label: str = "") -> int:
        with self._lock:
            return self._counts[name, label]

    def total(self, name: str) -> int:
        """The counts of all labels together."""
        with self._lock:
            return sum(count for (one, _), count in self._counts.items() if one == name)

    def all(self) -> dict[tuple[str, str], int]:
        with self._lock:
            return dict(self._counts)

    def ages(self) -> dict[tuple[str, str], float]:
        """Seconds since each was counted last."""
        with self._lock:
            now = self._now()
            return {key: now - at for key, at in self._last.items()}

    def durations(self) -> dict[tuple[str, str], Spread]:
        """A copy of all durations, by (name, label)."""
        with self._lock:
            return {key: Spread(list(one.counts), one.total) for key, one in self._spreads.items()}
