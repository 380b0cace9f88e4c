"""Questions about one path, and their answers, as the store holds them.

    <prefix>/incarnation/paths/<id>        the question; hosts wait there for questions of all kinds
    <prefix>/path-answers/<id>/<host>      what a host sees of its half

Hosts of a version that knows no such question pass over it, and are named as those that did not answer.
"""

from __future__ import annotations

import msgspec

from myoverlay.networks import check_id
from myoverlay.path import PathAnswer, PathQuestion
from myoverlay.store import MAX_OPS, Check, Conflict, Delete, Entry, Put, Reset, Unchanged
from myoverlay.store.typed import Held, Typed
from myoverlay.values import HostId, encode


class PathAnswers(msgspec.Struct, frozen=True):
    """All answers to a question at an index."""

    answers: dict[HostId, PathAnswer]
    index: int


class PathRecords(Typed):
    """Typed reads and writes for one host. Every method may raise Unavailable."""

    def _ask_key(self, question: str) -> str:
        return self.key("incarnation", "paths", question)

    def ask(self, question: PathQuestion, *, timeout: float = 3.0) -> None:
        self.store.commit([Put(self._ask_key(question.id), encode(question), index=0)], timeout=timeout)

    def question(self, entry: Entry) -> Held[PathQuestion] | None:
        """The question in what was found below `incarnation`; None for whatever else lies there."""
        if not entry.key.startswith(self._ask_key("")):
            return None
        held = self.read(PathQuestion, entry)
        return self.named(entry, held.value.id if held else "", held)

    def answer(self, to: Held[PathQuestion], answer: PathAnswer, *, timeout: float = 3.0) -> bool:
        """Answer a question that is still asked; False where it is not, so that no answer outlives its question."""
        put = Put(self.key("path-answers", to.value.id, self.me), encode(answer))
        asked = Check(self._ask_key(to.value.id), to.index)
        return not isinstance(self.store.commit([asked, put], timeout=timeout), Conflict)

    def answers(self, question: str, index: int, *, timeout: float) -> PathAnswers | Unchanged | Reset:
        """Wait until another answer came after `index`."""
        seen = self.store.wait(self.key("path-answers", check_id(question), ""), index, timeout=timeout)
        if isinstance(seen, Unchanged | Reset):
            return seen
        found = self.by_host(PathAnswer, seen.entries)
        return PathAnswers({host: held.value for host, held in found.items()}, seen.index)

    def take_back(self, question: str, *, timeout: float = 3.0) -> None:
        """The question is asked no more, and its answers go. What changed meanwhile stays for whoever comes next."""
        asked = self.store.get(self._ask_key(check_id(question)), timeout=timeout)
        if asked is not None:
            self.store.commit([Delete(asked.key, asked.index)], timeout=timeout)
        entries = self.store.list(self.key("path-answers", question, ""), timeout=timeout).entries
        for start in range(0, len(entries), MAX_OPS // 2):
            chunk = entries[start : start + MAX_OPS // 2]
            self.store.commit([Delete(entry.key, entry.index) for entry in chunk], timeout=timeout)

    def answered(self, *, timeout: float = 3.0) -> set[str]:
        """Questions that have answers, by the names of the keys alone; what is no question's is left out."""
        below = self.key("path-answers", "")
        names = {key.removeprefix(below).partition("/")[0] for key in self.store.keys(below, timeout=timeout).keys}
        return {name for name in names if _is_id(name)}


def _is_id(text: str) -> bool:
    try:
        check_id(text)
    except ValueError:
        return False
    return True
