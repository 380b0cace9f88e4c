"""Mappings that never change, of which the next one shares with the one before all that is the same.

Readers hold one as long as they like, without a lock; the next one costs what differs and a few µs, whatever the size.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, TypeVar, overload

K = TypeVar("K")
V = TypeVar("V")
D = TypeVar("D")

#: Pieces of a mapping, a power of two: a change copies one of them, 100 entries where there are 100,000.
_PIECES = 1024
_MASK = _PIECES - 1
#: The piece of all mappings that have nothing there; no piece is ever changed once it is in a mapping.
_NOTHING: dict[Any, Any] = {}


class _Pieces(Mapping[K, V]):
    """What both of them read in the same way."""

    __slots__ = ("_pieces", "_size")

    _pieces: Sequence[dict[K, V]]
    _size: int

    def __getitem__(self, key: K) -> V:
        return self._pieces[hash(key) & _MASK][key]

    @overload
    def get(self, key: K, /) -> V | None: ...
    @overload
    def get(self, key: K, default: V | D, /) -> V | D: ...
    def get(self, key: K, default: Any = None, /) -> Any:
        return self._pieces[hash(key) & _MASK].get(key, default)

    def __contains__(self, key: object) -> bool:
        return key in self._pieces[hash(key) & _MASK]

    def __iter__(self) -> Iterator[K]:
        # Most mappings are small, and most of their pieces empty: those are passed over at once.
        return chain.from_iterable(filter(None, self._pieces)) if self._size else iter(())

    def __len__(self) -> int:
        return self._size


class Shared(_Pieces[K, V]):
    """A frozen mapping in pieces. `edit` begins the next one."""

    __slots__ = ()

    def __init__(self, known: Mapping[K, V] | None = None) -> None:
        self._pieces, self._size = (_NOTHING,) * _PIECES, 0
        if known:
            draft = self.edit()
            for key, value in known.items():
                draft.set(key, value)
            made = draft.done()
            self._pieces, self._size = made._pieces, made._size

    def __repr__(self) -> str:
        return f"Shared({dict(self)!r})"

    def edit(self) -> Draft[K, V]:
        return Draft(self._pieces, self._size)

    def differing(self, other: Shared[K, V]) -> set[K]:
        """The keys whose values are not the same object in both, or which only one has: looks only where it may be."""
        found: set[K] = set()
        for mine, theirs in zip(self._pieces, other._pieces, strict=True):
            if mine is not theirs:
                found.update(key for key, value in mine.items() if theirs.get(key) is not value)
                found.update(key for key in theirs if key not in mine)
        return found


class Draft(_Pieces[K, V]):
    """The next mapping, while it is written: for one thread."""

    __slots__ = ("_next", "_own")

    def __init__(self, pieces: Sequence[dict[K, V]], size: int) -> None:
        self._pieces = self._next = list(pieces)
        self._own = bytearray(_PIECES)
        self._size = size

    def set(self, key: K, value: V) -> None:
        at = hash(key) & _MASK
        if self._own[at]:
            piece = self._next[at]
        else:
            self._own[at] = 1
            piece = self._next[at] = self._next[at].copy()
        before = len(piece)
        piece[key] = value
        self._size += len(piece) - before

    def put(self, values: Mapping[K, V]) -> None:
        """Set many: their number is what it costs, and a count of all pieces."""
        own, pieces = self._own, self._next
        for key, value in values.items():
            at = hash(key) & _MASK
            if not own[at]:
                own[at] = 1
                pieces[at] = pieces[at].copy()
            pieces[at][key] = value
        if values:
            self._size = sum(map(len, pieces))

    def drop(self, key: K) -> None:
        """Absent is success."""
        if key not in self:
            return
        at = hash(key) & _MASK
        if not self._own[at]:
            self._own[at] = 1
            self._next[at] = self._next[at].copy()
        del self._next[at][key]
        self._size -= 1

    def done(self) -> Shared[K, V]:
        """The mapping as it is now; the draft may not be used any more."""
        made: Shared[K, V] = Shared.__new__(Shared)
        made._pieces, made._size = tuple(self._next), self._size
        return made


def differing(before: Mapping[K, V], after: Mapping[K, V]) -> set[K]:
    """The keys under which two mappings do not hold the same object."""
    if isinstance(before, Shared) and isinstance(after, Shared):
        return before.differing(after)
    return {key for key in before.keys() | after.keys() if before.get(key) is not after.get(key)}


def apart(before: Sequence[V], after: Sequence[V]) -> tuple[list[V], list[V]]:
    """The objects that only the one holds, and those that only the other does, each in its order."""
    old, new = set(map(id, before)), set(map(id, after))
    return [one for one in before if id(one) not in new], [one for one in after if id(one) not in old]
