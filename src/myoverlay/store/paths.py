"""Questions that a few hosts answer, and their answers, as the store holds them: about a path, and about who is meant.

    <prefix>/incarnation/paths/<id>        a path is asked about; hosts wait there for questions of all kinds
    <prefix>/path-answers/<id>/<host>      what a host sees of its half
    <prefix>/incarnation/seeks/<id>        who is meant by a word
    <prefix>/seek-answers/<id>/<host>      the containers of a host that it means

Hosts of a version that knows no such question pass over it, and are named as those that did not answer.
"""

from __future__ import annotations

from typing import Generic, Protocol, TypeVar

import msgspec

from myoverlay.networks import check_id
from myoverlay.path import PathAnswer, PathQuestion, Seek, Sought
from myoverlay.store import MAX_OPS, Check, Conflict, Delete, Entry, Put, Reset, Store, Unchanged
from myoverlay.store.typed import Held, OfHost, Typed, tail
from myoverlay.values import HostId, encode


class _Question(Protocol):
    @property
    def id(self) -> str: ...
    @property
    def asker(self) -> HostId: ...


Q = TypeVar("Q", bound=_Question)
A = TypeVar("A", bound=OfHost)


class Answers(msgspec.Struct, Generic[A], frozen=True):
    """All answers to a question at an index."""

    answers: dict[HostId, A]
    index: int


class AskedRecords(Typed, Generic[Q, A]):
    """Typed reads and writes for one host. Every method may raise Unavailable."""

    def __init__(
        self, store: Store, prefix: str, me: HostId, kinds: tuple[type[Q], type[A]], places: tuple[str, str]
    ) -> None:
        """`kinds` of question and answer; `places`: where each lies, below `incarnation` and below the prefix."""
        super().__init__(store, prefix, me)
        self._question, self._answer = kinds
        self.places = places
        self._asked, self._answered = places

    def _ask_key(self, question: str) -> str:
        return self.key("incarnation", self._asked, question)

    def ask(self, question: Q, *, timeout: float = 3.0) -> None:
        self.store.commit([Put(self._ask_key(question.id), encode(question), index=0)], timeout=timeout)

    def question(self, entry: Entry) -> Held[Q] | None:
        """The question in what was found below `incarnation`; None for whatever else lies there."""
        if entry.key != self._ask_key(tail(entry.key)):
            return None
        held = self.read(self._question, entry)
        return self.named(entry, held.value.id if held else "", held)

    def answer(self, to: Held[Q], answer: A, *, timeout: float = 3.0) -> bool:
        """Answer a question that is still asked; False where it is not, so that no answer outlives its question."""
        put = Put(self.key(self._answered, to.value.id, self.me), encode(answer))
        asked = Check(self._ask_key(to.value.id), to.index)
        return not isinstance(self.store.commit([asked, put], timeout=timeout), Conflict)

    def answers(self, question: str, index: int, *, timeout: float) -> Answers[A] | Unchanged | Reset:
        """Wait until another answer came after `index`."""
        seen = self.store.wait(self.key(self._answered, check_id(question), ""), index, timeout=timeout)
        if isinstance(seen, Unchanged | Reset):
            return seen
        found = self.by_host(self._answer, self.direct(seen.entries, self._answered, question))
        return Answers({host: held.value for host, held in found.items()}, seen.index)

    def take_back(self, question: str, *, timeout: float = 3.0) -> None:
        """The question is asked no more, and its answers go. What changed meanwhile stays for whoever comes next."""
        asked = self.store.get(self._ask_key(check_id(question)), timeout=timeout)
        if asked is not None:
            self.store.commit([Delete(asked.key, asked.index)], timeout=timeout)
        entries = self.store.list(self.key(self._answered, question, ""), timeout=timeout).entries
        for start in range(0, len(entries), MAX_OPS // 2):
            chunk = entries[start : start + MAX_OPS // 2]
            self.store.commit([Delete(entry.key, entry.index) for entry in chunk], timeout=timeout)

    def answered(self, *, timeout: float = 3.0) -> set[str]:
        """Questions that have answers, by the names of the keys alone; what is no question's is left out."""
        below = self.key(self._answered, "")
        names = {key.removeprefix(below).partition("/")[0] for key in self.store.keys(below, timeout=timeout).keys}
        return {name for name in names if _is_id(name)}


class PathRecords(AskedRecords[PathQuestion, PathAnswer]):
    """Questions about a path."""

    def __init__(self, store: Store, prefix: str, me: HostId) -> None:
        super().__init__(store, prefix, me, (PathQuestion, PathAnswer), ("paths", "path-answers"))


class SeekRecords(AskedRecords[Seek, Sought]):
    """Questions about who is meant."""

    def __init__(self, store: Store, prefix: str, me: HostId) -> None:
        super().__init__(store, prefix, me, (Seek, Sought), ("seeks", "seek-answers"))


def _is_id(text: str) -> bool:
    try:
        check_id(text)
    except ValueError:
        return False
    return True
