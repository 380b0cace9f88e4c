"""What stops a removal that nothing but "nobody asks for it" speaks for: a wrong idea of what is asked for takes all.

Without a recorded cause at most 50 objects of a kind go within a minute, and at most half of an overlay's. Above that
they are held until a person has looked. What Docker deleted, what its owner withdrew, what belongs to a dead host after
its grace, a cable that died with its container, and rows once the wanted set is complete are never brought here: they
have a cause.
"""

from __future__ import annotations

from collections.abc import Collection

import msgspec

#: So many of one kind may go, whatever the overlay, within WINDOW seconds.
LIMIT = 50
WINDOW = 60.0
#: Half of an overlay's objects says something only from so many on: one leftover of one needs no person.
FLOOR = 4


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """What is held. `overlay` is empty where the objects are the host's; `of`: how many of the kind there were."""

    kind: str
    overlay: str
    names: tuple[str, ...]
    of: int


def is_too_much(count: int, of: int) -> bool:
    """Would this take too much to be believed? `count` objects would go, of so many that are there."""
    return count > LIMIT or (of >= FLOOR and 2 * count > of)


class Brake:
    """Holds and lets go. Time is an argument. Not safe for many threads: its owner locks.

    What was held once stays held, also when others of its kind have gone meanwhile, until it is no candidate any more
    or a person lets it go.
    """

    def __init__(self) -> None:
        self._held: dict[tuple[str, str], Held] = {}
        self._word: dict[tuple[str, str], frozenset[str]] = {}
        self._gone: dict[str, dict[tuple[str, str], float]] = {}

    def release(
        self, kind: str, overlay: str, candidates: Collection[str], of: int, now: float, in_use: Collection[str] = ()
    ) -> frozenset[str]:
        """Those of the candidates that may go now; the others are held.

        `candidates` are *all* objects of the kind that nobody asks for in this overlay, by name, each time anew: what
        is no longer among them is no longer held. `of`: how many of the kind are there, the candidates with them.
        `in_use`: candidates that somebody visibly uses; they go by a person's word alone.
        """
        key, names = (kind, overlay), frozenset(candidates)
        if not names:
            self._held.pop(key, None)
            self._word.pop(key, None)
            return names
        word = self._word.get(key, frozenset()) & names
        self._word[key] = word
        unasked = names - word
        before = self._held.pop(key, None)
        held_still = before is not None and not unasked.isdisjoint(before.names)
        lately = self._with_recent(kind, overlay, unasked, now)
        stopped = held_still or lately > LIMIT or is_too_much(len(unasked), of)
        held = unasked if stopped else unasked.intersection(in_use)
        if held:
            self._held[key] = Held(kind=kind, overlay=overlay, names=tuple(sorted(held)), of=of)
        free = unasked - held
        self._gone[kind].update({(overlay, name): now for name in free})
        return free | word

    def _with_recent(self, kind: str, overlay: str, names: frozenset[str], now: float) -> int:
        """How many of the kind would have gone within the window, with these. One tried again counts once."""
        recent = {what: at for what, at in self._gone.get(kind, {}).items() if now - at < WINDOW}
        self._gone[kind] = recent
        return len(recent.keys() | {(overlay, name) for name in names})

    def held(self) -> tuple[Held, ...]:
        """All that is held, in a fixed order."""
        return tuple(self._held[key] for key in sorted(self._held))

    def names(self, kind: str, overlay: str) -> frozenset[str]:
        """What is held of a kind in an overlay."""
        held = self._held.get((kind, overlay))
        return frozenset(held.names) if held is not None else frozenset()

    def let_go(self) -> tuple[Held, ...]:
        """A person's word: what is held now may go when it is brought here again. Returns what that is."""
        gone = self.held()
        for key, held in self._held.items():
            self._word[key] = self._word.get(key, frozenset()) | frozenset(held.names)
        self._held.clear()
        return gone

    def forget(self, overlay: str) -> None:
        """The overlay is no longer on this host: nothing of it waits."""
        for table in (self._held, self._word):
            for key in [key for key in table if key[1] == overlay]:
                table.pop(key)
