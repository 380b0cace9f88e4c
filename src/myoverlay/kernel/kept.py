"""A table of ours that is kept as it should be: laid whole, changed by elements, seen when somebody else changed it."""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import ClassVar, Generic, TypeVar

from myoverlay.kernel import nft
from myoverlay.kernel.netns import Namespace
from myoverlay.kernel.rtnetlink import Request

V = TypeVar("V")


class Kept(Generic[V]):
    """One table of one namespace, which holds a value in its sets. Safe from several threads."""

    table: ClassVar[nft.Table]
    sets: ClassVar[Mapping[str, nft.Form]]
    counters: ClassVar[tuple[str, ...]]
    #: Chains that others go to; then those that the kernel calls: name, hook, priority, and their kind if another.
    chains: ClassVar[tuple[str, ...]]
    hooks: ClassVar[tuple[tuple[str, int, int] | tuple[str, int, int, str], ...]]
    #: Chain and expressions of each rule, in their order.
    rules: ClassVar[tuple[tuple[str, tuple[bytes, ...]], ...]]

    def __init__(self, home: Callable[[], Namespace]) -> None:
        """`home`: the namespace, asked for when it is first needed."""
        self._home = home
        self._lock = threading.Lock()  # guards all below
        self._door: nft.Door | None = None
        #: Chains and rules as the kernel told them when they had just been laid, and the generation they were then.
        self._form: object = None
        self._generation: int | None = None

    @abstractmethod
    def _keys(self, door: nft.Door, held: V) -> Iterable[tuple[str, list[bytes]]]:
        """What is in each set."""

    @abstractmethod
    def _read(self, door: nft.Door) -> V:
        """The value that the sets hold."""

    def _still_holds(self, _door: nft.Door) -> bool:
        """Is what the keys go by, beside the value, as it was when they were written?"""
        return True

    def close(self) -> None:
        with self._lock:
            if self._door is not None:
                self._door.close()
                self._door = None

    def held(self) -> V:
        """What the sets hold, whatever the rules are; nothing where there is no table. Raises KernelRefused."""
        with self._lock:
            return self._read(self._open())

    def lay(self, value: V) -> None:
        """Make the table anew, rules and all, in one step: nothing gets through meanwhile. Raises KernelRefused."""
        with self._lock:
            door = self._open()
            before = [self.table.delete()] if door.is_there(self.table) else []
            door.commit([*before, *self._laid(door, value)], f"making table {self.table.name}")
            self._form, self._generation = self._shape(door), door.generation()

    def change(self, more: V, less: V) -> None:
        """Add and delete elements of the table, in one step. Raises KernelRefused: then it is as it was."""
        with self._lock:
            door = self._open()
            requests = [*self._elements(door, nft.NEWELEMENT, more), *self._elements(door, nft.DELELEMENT, less)]
            if not requests:
                return
            untouched = self._generation is not None and door.generation() == self._generation
            door.commit(requests, f"changing table {self.table.name}")
            # Whoever changed a rule at the very same time is found by the next look: there is a generation more.
            self._generation = self._generation + 1 if untouched and self._generation is not None else None

    def is_untouched(self) -> bool:
        """Has nobody changed any rule of the namespace since the last look? Cheap. Raises KernelRefused."""
        with self._lock:
            door = self._open()
            return self._generation is not None and door.generation() == self._generation and self._still_holds(door)

    def stands(self) -> bool:
        """Are chains and rules as laid? What changed is still found by the next look. Raises KernelRefused."""
        with self._lock:
            return self._is_as_laid(self._open())

    def look(self) -> V | None:
        """What the sets hold; None where the table is not as it was laid. Raises KernelRefused."""
        with self._lock:
            door = self._open()
            generation = door.generation()
            if not self._is_as_laid(door):
                return None
            try:
                held = self._read(door)
            except ValueError:  # somebody put an element there that can be none of ours, such as a multicast MAC
                return None
            self._generation = generation
            return held

    def counts(self) -> dict[str, int]:
        """Packets by counter. Raises KernelRefused."""
        with self._lock:
            found = self._open().counters(self.table)
        return {name: found.get(name, 0) for name in self.counters}

    def remove(self) -> None:
        """Take the table away. Absent is success. Raises KernelRefused."""
        with self._lock:
            door = self._open()
            if door.is_there(self.table):
                door.commit([self.table.delete()], f"removing table {self.table.name}")
            self._form = self._generation = None

    def _open(self) -> nft.Door:
        if self._door is None:
            self._door = nft.Door(self._home())
        return self._door

    def _is_as_laid(self, door: nft.Door) -> bool:
        return self._form is not None and self._shape(door) == self._form and self._still_holds(door)

    def _shape(self, door: nft.Door) -> tuple[object, object]:
        return door.chains(self.table), door.rules(self.table)

    def _laid(self, door: nft.Door, value: V) -> list[Request]:
        """The whole table, in an order in which each thing is there before it is named."""
        table, counted = self.table, door.counters(self.table)
        requests = [table.create()]
        requests += [table.counter(name, counted.get(name, 0)) for name in self.counters]
        requests += [table.set(name, place, form) for place, (name, form) in enumerate(self.sets.items(), 1)]
        requests += [table.chain(name) for name in self.chains]
        requests += self._elements(door, nft.NEWELEMENT, value)
        requests += [table.base_chain(*hook) for hook in self.hooks]
        return [*requests, *(table.rule(chain, *expressions) for chain, expressions in self.rules)]

    def _elements(self, door: nft.Door, kind: int, value: V) -> list[Request]:
        return [one for name, keys in self._keys(door, value) for one in self.table.elements(kind, name, keys)]
