"""Mappings that never change, of which the next one shares with the one before all that is the same.

Readers hold one as long as they like, without a lock; the next one costs what differs and a few µs, whatever the size.
One that grows lies in twice as many pieces now and then, which costs all of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import chain, compress
from operator import is_not
from typing import Any, TypeVar, overload

K = TypeVar("K")
V = TypeVar("V")
D = TypeVar("D")

#: Entries lie in small dictionaries, the pieces, and those in rows of so many (a power of two); a change copies a row
#: and a piece of it.
_ROW, _BITS = 64, 6
_IN_ROW = _ROW - 1
#: With more entries than this to a piece, on average, there are twice as many pieces.
_FULL = 16
#: A look at so many pieces takes about as long as setting one entry.
_FEW = 8
#: Of two sequences with more objects than this together it is not remembered what only one of them holds.
_REMEMBERED = 1000
_ABSENT: Any = object()
#: The piece of all mappings that have nothing there; no piece is ever changed once it is in a mapping.
_NOTHING: dict[Any, Any] = {}
_EMPTY = (_NOTHING,) * _ROW


class _Pieces(Mapping[K, V]):
    """What both of them read in the same way. `_mask`: the number of pieces, a power of two, less one."""

    __slots__ = ("_mask", "_rows", "_size")

    _rows: Sequence[Sequence[dict[K, V]]]
    _mask: int
    _size: int

    def __getitem__(self, key: K) -> V:
        at = hash(key) & self._mask
        return self._rows[at >> _BITS][at & _IN_ROW][key]

    @overload
    def get(self, key: K, /) -> V | None: ...
    @overload
    def get(self, key: K, default: V | D, /) -> V | D: ...
    def get(self, key: K, default: Any = None, /) -> Any:
        at = hash(key) & self._mask
        return self._rows[at >> _BITS][at & _IN_ROW].get(key, default)

    def __contains__(self, key: object) -> bool:
        at = hash(key) & self._mask
        return key in self._rows[at >> _BITS][at & _IN_ROW]

    def __iter__(self) -> Iterator[K]:
        # Most mappings are small, and most of their pieces empty: those are passed over at once.
        return chain.from_iterable(filter(None, chain.from_iterable(self._rows))) if self._size else iter(())

    def __len__(self) -> int:
        return self._size

    def _entries(self) -> Iterator[tuple[K, V]]:
        """All of them, without a look-up for each."""
        return chain.from_iterable(map(dict.items, chain.from_iterable(self._rows)))


class Shared(_Pieces[K, V]):
    """A frozen mapping in pieces. `edit` begins the next one."""

    __slots__ = ()

    def __init__(self, known: Mapping[K, V] | None = None) -> None:
        self._rows, self._mask, self._size = (_EMPTY,), _IN_ROW, 0
        if known:
            draft = self.edit()
            draft.put(known)
            made = draft.done()
            self._rows, self._mask, self._size = made._rows, made._mask, made._size

    def __repr__(self) -> str:
        return f"Shared({dict(self)!r})"

    def edit(self) -> Draft[K, V]:
        return Draft(self._rows, self._mask, self._size)

    def differing(self, other: Shared[K, V]) -> set[K]:
        """The keys whose values are not the same object in both, or which only one has: looks only where it may be."""
        if self._mask != other._mask:
            return _unlike(dict(self._entries()), dict(other._entries()))
        found: set[K] = set()
        for row, their_row in _others(self._rows, other._rows):
            for mine, theirs in _others(row, their_row):
                found.update([key for key, value in mine.items() if theirs.get(key, _ABSENT) is not value])
                found.update(theirs.keys() - mine.keys())
        return found


def _others(some: Sequence[V], those: Sequence[V]) -> Iterator[tuple[V, V]]:
    """What lies at the same place of both and is not the same object."""
    return compress(zip(some, those, strict=True), map(is_not, some, those))


class Draft(_Pieces[K, V]):
    """The next mapping, while it is written: for one thread. Its own rows are lists, its own pieces are noted."""

    __slots__ = ("_own",)

    _rows: list[Sequence[dict[K, V]]]

    def __init__(self, rows: Sequence[Sequence[dict[K, V]]], mask: int, size: int) -> None:
        self._rows, self._mask, self._size = list(rows), mask, size
        self._own = bytearray(mask + 1)

    def set(self, key: K, value: V) -> None:
        piece = self._piece(hash(key) & self._mask)
        if key not in piece:
            self._size += 1
            if self._size > _FULL * (self._mask + 1):
                self._spread(self._size)
                piece = self._piece(hash(key) & self._mask)
        piece[key] = value

    def put(self, values: Mapping[K, V]) -> None:
        """Set many: their number is what it costs, and a look at all pieces; few are set one by one."""
        if len(values) * _FEW <= self._mask:
            for key, value in values.items():
                self.set(key, value)
            return
        self._spread(self._size + len(values))
        pieces, own, mask = list(chain.from_iterable(self._rows)), self._own[:], self._mask
        for key, value in values.items():
            at = hash(key) & mask
            if not own[at]:
                own[at] = 1
                pieces[at] = pieces[at].copy()
            pieces[at][key] = value
        self._own, self._size = own, sum(map(len, pieces))
        self._rows = _in_rows(pieces)

    def drop(self, key: K) -> None:
        """Absent is success."""
        if key in self:
            del self._piece(hash(key) & self._mask)[key]
            self._size -= 1

    def done(self) -> Shared[K, V]:
        """The mapping as it is now; the draft may not be used any more."""
        made: Shared[K, V] = Shared.__new__(Shared)
        made._rows, made._mask, made._size = tuple(map(tuple, self._rows)), self._mask, self._size
        del self._rows
        return made

    def _piece(self, at: int) -> dict[K, V]:
        """A piece that may be changed."""
        row = self._rows[at >> _BITS]
        if not isinstance(row, list):
            row = self._rows[at >> _BITS] = list(row)
        if not self._own[at]:
            row[at & _IN_ROW] = row[at & _IN_ROW].copy()
            self._own[at] = 1
        return row[at & _IN_ROW]

    def _spread(self, size: int) -> None:
        """Have as many pieces as so many entries need: what is there lies in others then."""
        count = self._mask + 1
        while size > _FULL * count:
            count *= 2
        if count == self._mask + 1:
            return
        pieces: list[dict[K, V]] = [{} for _ in range(count)]
        for key, value in self._entries():
            pieces[hash(key) & count - 1][key] = value
        self._rows, self._mask, self._own = _in_rows(pieces), count - 1, bytearray(b"\1") * count


def _in_rows(pieces: list[dict[K, V]]) -> list[Sequence[dict[K, V]]]:
    return [pieces[at : at + _ROW] for at in range(0, len(pieces), _ROW)]


def differing(before: Mapping[K, V], after: Mapping[K, V]) -> set[K]:
    """The keys under which two mappings do not hold the same object."""
    if isinstance(before, Shared) and isinstance(after, Shared):
        return before.differing(after)
    return _unlike(before, after)


def _unlike(before: Mapping[K, V], after: Mapping[K, V]) -> set[K]:
    found = {key for key, value in before.items() if after.get(key, _ABSENT) is not value}
    found.update(key for key in after if key not in before)
    return found


def apart(before: Sequence[V], after: Sequence[V]) -> tuple[Sequence[V], Sequence[V]]:
    """The objects that only the one holds, and those that only the other does, each in its order.

    Neither may ever change. Of a list that was read several ask one after the other: it is found out once.
    """
    if before is after:
        return (), ()
    if not before or not after:
        return before, after
    seen = _Same(before), _Same(after)
    return _remembered(*seen) if len(before) + len(after) <= _REMEMBERED else _apart(*seen)


class _Same:
    """One object, equal to itself alone."""

    __slots__ = ("it",)

    def __init__(self, it: Sequence[Any]) -> None:
        self.it = it

    def __hash__(self) -> int:
        return id(self.it)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.it is other.it


def _apart(before: _Same, after: _Same) -> tuple[Sequence[Any], Sequence[Any]]:
    old, new = set(map(id, before.it)), set(map(id, after.it))
    return tuple(one for one in before.it if id(one) not in new), tuple(one for one in after.it if id(one) not in old)


#: What changed with one answer of the store; it keeps the lists of before, so there are few.
_remembered = lru_cache(maxsize=32)(_apart)
