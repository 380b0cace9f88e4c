"""The flight recorder: the last calls of Docker, misses and events of the kernel, and changes of the store, in bounded
memory.

Whoever follows it (`myoverlay watch NETWORK`) asks with the number of the last note it has. What the ring has let go by
then is counted for it. Notes are JSON from the moment they are made: what they cost is known, and nothing else is held.
"""

from __future__ import annotations

import itertools
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import msgspec

#: Notes at most, whatever they weigh: one costs a hundred bytes beside its text.
COUNT = 20_000
#: Notes in one answer, so that a reader who is far behind is given them piece by piece.
PIECE = 500
#: Characters of one text in a note; what people and programs call things is shorter.
LONG = 256
#: What a note costs beside its bytes: the tuple, the string of its overlay, its place in the ring.
_OVERHEAD = 160
#: Readers that may wait at once: each holds one of the threads that answer Docker.
WAITING = 4
#: Seconds that one may wait.
PATIENCE = 5.0

CALL, STORE, MISS, KERNEL = "call", "store", "miss", "kernel"
KINDS = (CALL, STORE, MISS, KERNEL)


class Note(NamedTuple):
    """One note. `raw`: what it says, as JSON."""

    number: int
    kind: str
    overlay: str
    raw: bytes


class Piece(NamedTuple):
    """What a reader is given: notes, the number to go on from, and how many notes of any kind it has missed."""

    notes: list[Note]
    last: int
    dropped: int


class Recorder:
    """For many who write and few who read. `_turn` guards all of it, and is held for no call of anybody's."""

    def __init__(self, limit: int, wall: Callable[[], float] = time.time) -> None:
        """`limit`: bytes that all notes may take together; 0: nothing is noted."""
        self.limit = limit
        #: Another in each run, so that a reader sees that the numbers began again.
        self.run = secrets.token_hex(8)
        self._wall = wall
        self._turn = threading.Condition()
        self._notes: deque[Note] = deque()
        self._size = 0
        self._last = 0
        self._waiting = 0

    def note(self, kind: str, overlay: str, **said: Any) -> None:
        """Note something. Texts are cut at LONG characters."""
        if not self.limit:
            return
        said = {name: text[:LONG] if isinstance(text, str) else text for name, text in said.items()}
        raw = msgspec.json.encode(
            {"at": round(self._wall(), 6), "kind": kind, "overlay": overlay, **said}, enc_hook=str
        )
        with self._turn:
            self._last += 1
            self._notes.append(Note(self._last, kind, overlay, raw))
            self._size += len(raw) + _OVERHEAD
            while self._size > self.limit or len(self._notes) > COUNT:
                self._size -= len(self._notes.popleft().raw) + _OVERHEAD
            if self._waiting:
                self._turn.notify_all()

    @property
    def size(self) -> int:
        """Bytes that the notes take now."""
        with self._turn:
            return self._size

    def everything(self) -> list[bytes]:
        """All notes there are, oldest first, as JSON: for a report."""
        with self._turn:
            return [note.raw for note in self._notes]

    def since(self, after: int, kinds: Collection[str], overlay: str = "", wait: float = 0.0) -> Piece:
        """The notes behind number `after` (below 0: none, only where the end is), of these kinds and this overlay ("":
        of all), at most PIECE of them. Waits up to `wait` seconds for one where there is none.

        More readers than WAITING are not made to wait, they are answered at once.
        """
        deadline = time.monotonic() + min(wait, PATIENCE)
        with self._turn:
            if after < 0:
                return Piece([], self._last, 0)
            first = self._notes[0].number if self._notes else self._last + 1
            dropped = max(0, first - after - 1)
            after = max(after, first - 1)
            patient = self._waiting < WAITING
            while True:
                piece, reached = self._some(after, kinds, overlay)
                left = deadline - time.monotonic()
                if piece or dropped or left <= 0 or not patient:
                    return Piece(piece, reached, dropped)
                after = reached
                self._waiting += 1
                try:
                    self._turn.wait(left)
                finally:
                    self._waiting -= 1

    def _some(self, after: int, kinds: Collection[str], overlay: str) -> tuple[list[Note], int]:
        """Notes that fit, and the number up to which was looked. The ring's numbers have no gaps."""
        found: list[Note] = []
        skipped = after + 1 - self._notes[0].number if self._notes else 0
        for note in itertools.islice(self._notes, max(0, skipped), None):
            if len(found) == PIECE:
                return found, note.number - 1
            if note.kind in kinds and overlay in ("", note.overlay):
                found.append(note)
        return found, self._last
