"""Networks that are defined once for all hosts, as the store holds them, and the questions asked of all hosts.

    <prefix>/networks                        the mark: that somebody waits for plans, and which was the last defined
    <prefix>/networks/<name>                 the plan; one that is to be removed stays until no host has it any more
    <prefix>/hosts/<host>/networks/<name>    what became of it there, written by that host alone
    <prefix>/incarnation/asks/<id>           a question to all hosts
    <prefix>/answers/<id>/<host>             what each found

A plan that is merely missing withdraws nothing: the store may have lost it. Hosts wait for plans and questions all the
time, so each lie beside a key that is always there: while there is none below a prefix, Consul (1.8.7) wakes whoever
waits there for each key that is written anywhere.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from myoverlay.networks import Answer, HeldNetwork, NetworkPlan, Question, check_id
from myoverlay.store import MAX_OPS, Check, Conflict, Delete, Entry, Put, Reset, Unchanged
from myoverlay.store.typed import Held, Typed, tail
from myoverlay.values import HostId, OverlayName, encode


class Plans(msgspec.Struct, frozen=True):
    """All plans at an index. `unreadable` are names whose key is there, and which nothing is known of.

    `mark`: the index of the key that lets a wait sleep though there is no plan; 0: it is not there.
    """

    plans: dict[OverlayName, Held[NetworkPlan]]
    unreadable: frozenset[str]
    index: int
    mark: int = 0


class Questions(msgspec.Struct, frozen=True):
    """All questions at an index. `entries`: all that lies there, for those who know questions of other kinds."""

    questions: dict[str, Held[Question]]
    index: int
    entries: tuple[Entry, ...] = ()


class Answers(msgspec.Struct, frozen=True):
    """All answers to a question at an index."""

    answers: dict[HostId, Answer]
    index: int


class NetworkRecords(Typed):
    """Typed reads and writes for one host. Every method may raise Unavailable."""

    # -- plans -----------------------------------------------------------------------------------------------------

    def _plan_key(self, name: str) -> str:
        return self.key("networks", name)

    def plans(self, *, timeout: float = 3.0) -> Plans:
        """All plans."""
        listing = self.store.list(self.key("networks"), timeout=timeout)
        return self._plans_in(listing.entries, listing.index)

    def wait(self, index: int, *, timeout: float) -> Plans | Unchanged | Reset:
        """Wait until a plan changed after `index` (0: answer at once). Sleeps only where there is a `mark`."""
        seen = self.store.wait(self.key("networks"), index, timeout=timeout)
        return seen if isinstance(seen, Unchanged | Reset) else self._plans_in(seen.entries, seen.index)

    def mark(self, *, timeout: float = 3.0) -> None:
        """Put the key that a wait needs to sleep; another host may be faster."""
        self.store.commit([Put(self.key("networks"), b"", index=0)], timeout=timeout)

    def _plans_in(self, entries: Iterable[Entry], index: int) -> Plans:
        plans: dict[OverlayName, Held[NetworkPlan]] = {}
        unreadable = set()
        below = {entry.key: entry for entry in entries}
        mark = below.pop(self.key("networks"), None)
        for entry in below.values():
            if not entry.key.startswith(self._plan_key("")):
                continue  # the prefix of a wait is that of words that begin alike, too
            held = self._read_plan(entry)
            if held is not None:
                plans[held.value.name] = held
            else:
                unreadable.add(entry.key.removeprefix(self.key("networks", "")))
        return Plans(plans, frozenset(unreadable), index, mark.index if mark is not None else 0)

    def _read_plan(self, entry: Entry | None) -> Held[NetworkPlan] | None:
        held = self.read(NetworkPlan, entry)
        if entry is None or held is None or entry.key == self._plan_key(held.value.name):
            return held
        self.distrust(entry.key, f"it is about {held.value.name}")
        return None

    def plan(self, name: OverlayName, *, timeout: float = 3.0) -> Held[NetworkPlan] | None:
        """A plan. Raises Unreadable where there is a key and nothing could be read from it."""
        entry = self.store.get(self._plan_key(name), timeout=timeout)
        return self.firmly(entry, self._read_plan(entry))

    def define(self, held: Held[NetworkPlan] | None, new: NetworkPlan, mark: int, *, timeout: float = 3.0) -> bool:
        """Write a plan and the mark beside it, by compare-and-set of both: whoever looked at the plans before another
        was defined is not told True. (A value of its own: Consul keeps the index of a key that is written as it is.)
        """
        marked = Put(self.key("networks"), new.id.encode(), index=mark)
        put = Put(self._plan_key(new.name), encode(new), index=held.index if held else 0)
        return not isinstance(self.store.commit([marked, put], timeout=timeout), Conflict)

    def write(self, held: Held[NetworkPlan] | None, new: NetworkPlan, *, timeout: float = 3.0) -> bool:
        """By compare-and-set; False where somebody was faster."""
        put = Put(self._plan_key(new.name), encode(new), index=held.index if held else 0)
        return not isinstance(self.store.commit([put], timeout=timeout), Conflict)

    def drop(self, held: Held[NetworkPlan], *, timeout: float = 3.0) -> bool:
        """Take a plan away that no host has any more; False where it changed meanwhile."""
        key = self._plan_key(held.value.name)
        return not isinstance(self.store.commit([Delete(key, held.index)], timeout=timeout), Conflict)

    # -- what became of them ---------------------------------------------------------------------------------------

    def _held_key(self, host: HostId, name: str) -> str:
        return self.key("hosts", host, "networks", name)

    def held(self, *, timeout: float = 3.0) -> dict[str, HeldNetwork | None]:
        """What this host has said, by the network's name; None for what cannot be read, and is to be written over."""
        below = self._held_key(self.me, "")
        entries = self.store.list(below, timeout=timeout).entries
        found = {entry.key.removeprefix(below): self._read_held(entry) for entry in entries}
        return {name: held.value if held is not None else None for name, held in found.items()}

    def everywhere(self, *, timeout: float = 3.0) -> dict[OverlayName, dict[HostId, HeldNetwork]]:
        """What all hosts have said, by the network's name."""
        keys = [key for key in self.store.keys(self.key("hosts", ""), timeout=timeout).keys if self._is_held(key)]
        found: dict[OverlayName, dict[HostId, HeldNetwork]] = {}
        for entry in self.store.get_many(keys, timeout=timeout).values():
            held = self._read_held(entry)
            if held is not None:
                found.setdefault(held.value.network, {})[held.value.host] = held.value
        return found

    def _is_held(self, key: str) -> bool:
        return key.removeprefix(self.key("hosts", "")).split("/")[1:2] == ["networks"]

    def _read_held(self, entry: Entry) -> Held[HeldNetwork] | None:
        held = self.read(HeldNetwork, entry)
        if held is None or entry.key == self._held_key(held.value.host, held.value.network):
            return held
        self.distrust(entry.key, "it is about another host or network")
        return None

    def called(self, *, timeout: float = 3.0) -> dict[HostId, str]:
        """The hosts that have said something, with the names they gave."""
        said = self.everywhere(timeout=timeout)
        return {host: held.host_name for hosts in said.values() for host, held in hosts.items()}

    def wait_held(self, index: int, *, timeout: float) -> int:
        """Wait until some host began or ended to say something; the index to go on with."""
        seen = self.store.wait_keys(self.key("hosts", ""), index, timeout=timeout)
        return 0 if isinstance(seen, Reset) else seen.index

    def say(self, held: HeldNetwork, *, timeout: float = 3.0) -> None:
        """What became of a plan here: nobody else writes that key."""
        self.store.commit([Put(self._held_key(self.me, held.network), encode(held))], timeout=timeout)

    def unsay(self, name: str, *, timeout: float = 3.0) -> None:
        """Nothing is here any more of the network."""
        entry = self.store.get(self._held_key(self.me, name), timeout=timeout)
        if entry is not None:
            self.store.commit([Delete(entry.key, entry.index)], timeout=timeout)

    # -- questions -------------------------------------------------------------------------------------------------

    def _ask_key(self, question: str) -> str:
        return self.key("incarnation", "asks", question)

    def ask(self, question: Question, *, timeout: float = 3.0) -> None:
        self.store.commit([Put(self._ask_key(question.id), encode(question), index=0)], timeout=timeout)

    def questions(self, index: int, *, timeout: float) -> Questions | Unchanged | Reset:
        """Wait until a question was asked or taken back after `index`; now and then it is woken for nothing."""
        seen = self.store.wait(self.key("incarnation"), index, timeout=timeout)
        if isinstance(seen, Unchanged | Reset):
            return seen
        found = {}
        for entry in seen.entries:
            held = self.read(Question, entry) if entry.key == self._ask_key(tail(entry.key)) else None
            held = self.named(entry, held.value.id if held else "", held)
            if held is not None:
                found[held.value.id] = held
        return Questions(found, seen.index, tuple(seen.entries))

    def answer(self, to: Held[Question], answer: Answer, *, timeout: float = 3.0) -> bool:
        """Answer a question that is still asked; False where it is not, so that no answer outlives its question."""
        put = Put(self.key("answers", to.value.id, self.me), encode(answer))
        asked = Check(self._ask_key(to.value.id), to.index)
        return not isinstance(self.store.commit([asked, put], timeout=timeout), Conflict)

    def answers(self, question: str, index: int, *, timeout: float) -> Answers | Unchanged | Reset:
        """Wait until another answer came after `index`."""
        seen = self.store.wait(self.key("answers", check_id(question), ""), index, timeout=timeout)
        if isinstance(seen, Unchanged | Reset):
            return seen
        found = self.by_host(Answer, self.direct(seen.entries, "answers", question))
        return Answers({host: held.value for host, held in found.items()}, seen.index)

    def take_back(self, question: str, *, timeout: float = 3.0) -> None:
        """The question is asked no more, and its answers go. What changed meanwhile stays for whoever comes next."""
        asked = self.store.get(self._ask_key(check_id(question)), timeout=timeout)
        if asked is not None:
            self.store.commit([Delete(asked.key, asked.index)], timeout=timeout)
        entries = self.store.list(self.key("answers", question, ""), timeout=timeout).entries
        for start in range(0, len(entries), MAX_OPS // 2):
            chunk = entries[start : start + MAX_OPS // 2]
            self.store.commit([Delete(entry.key, entry.index) for entry in chunk], timeout=timeout)

    def answered(self, *, timeout: float = 3.0) -> set[str]:
        """Questions that have answers, by the names of the keys alone."""
        below = self.key("answers", "")
        keys = self.store.keys(below, timeout=timeout).keys
        return {key.removeprefix(below).partition("/")[0] for key in keys}
