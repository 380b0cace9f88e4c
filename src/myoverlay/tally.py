"""Counters: every outcome has one, faults beside their benign twins. One table gives name and meaning."""

from __future__ import annotations

import threading
from collections import Counter

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
    "published": "writes of this host's own list, by {outcome}: done, retried, clash, failed",
    "beats": "the heartbeat's questions and answers, by {outcome}: sent, answered, unanswered, unsent (no route, no"
    " device), full (of full size), carried (its answer), unasked (an answer to nothing), invalid",
    "beat_builds": "making sure of the heartbeat's device, by {outcome}: built, failed",
    "contradictions": "times the store was found to say of an overlay, pool or lease what contradicts what runs here",
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
    "session": "what became of the host's session, by {outcome}: opened, renewed, lost",
}


class Tally:
    """Counts by (name, label); safe for many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[tuple[str, str]] = Counter()

    def add(self, name: str, label: str = "", by: int = 1) -> None:
        if name not in COUNTERS:
            raise KeyError(name)
        with self._lock:
            self._counts[name, label] += by

    def get(self, name: str, label: str = "") -> int:
        with self._lock:
            return self._counts[name, label]

    def all(self) -> dict[tuple[str, str], int]:
        with self._lock:
            return dict(self._counts)
