"""What this host sees of the others, told to whoever looks; and what the others see, asked for while a page is open.

Nobody is asked, and nothing written, while nobody looks. See `preflight` for the waiting for questions.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec

from myoverlay.errors import MyoverlayError
from myoverlay.host.deadline import left
from myoverlay.host.ground import Ground
from myoverlay.host.loop import WAIT, Loop
from myoverlay.host.overlays import Overlays
from myoverlay.host.peers import Fates, Heartbeat, PeerWatch
from myoverlay.kernel import netns
from myoverlay.kernel.neigh import SeenRow, Tables
from myoverlay.networks import ANSWERED, fresh_id, plain
from myoverlay.outlook import ABOUT, KEYS, PORTS, ROWS, TABLES, TEXT, WORD, About, Glance, Look, Outlook, TableRow
from myoverlay.outlook import Tables as Told
from myoverlay.store import Entry
from myoverlay.store.outlooks import OutlookRecords
from myoverlay.tally import Tally
from myoverlay.values import HostId, OverlayName

#: A question is asked anew after so many seconds: at least, for each host, and at most (others take it for forgotten
#: after 60). So the hosts together write ten times a second for one who looks, or, beyond 300 of them, a little more.
ROUND, EACH, SLOWEST = 10.0, 0.1, 30.0
#: Seconds after a question at which the answers are read, until all are there.
READ = (0.3, 1.0, 3.0)
#: Own tables that somebody looks at are read again after this, seconds.
OWN = 1.0
#: Who has not asked for a page for so long, seconds, does not look any more.
IDLE = 15.0
_LOCK = 1.0
#: Other hosts' tables that somebody looks at are asked for again after this, seconds.
TURN = 5.0
#: Whatever somebody chooses how fast, two questions are so many seconds apart.
LEAST = 0.5


class Observatory:
    """This host's own outlook. From any thread."""

    def __init__(
        self,
        me: HostId,
        name: str,
        version: str,
        overlays: Overlays,
        peers: PeerWatch,
        fates: Fates,
        beat: Heartbeat,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._me = me
        self._name = plain(name)
        self._version = version
        self._overlays = overlays
        self._peers = peers
        self._fates = fates
        self._beat = beat
        self._now = now

    def look(self, about: Iterable[About]) -> Outlook:
        """The others as this host sees them, and its tables of those overlays."""
        wanted: dict[OverlayName, tuple[str, ...]] = {}
        for one in about:
            wanted[one.overlay] = (*wanted.get(one.overlay, ()), *one.keys)
        return Outlook(
            host=self._me,
            name=self._name,
            version=self._version[:WORD],
            mtu=self._beat.state().mtu,
            glances=tuple(self._glance(host) for host in sorted(self._fates.all())[:ANSWERED]),
            tables=tuple(self._tables(overlay, keys) for overlay, keys in tuple(wanted.items())[:TABLES]),
        )

    def _glance(self, host: HostId) -> Glance:
        fate, pulse = self._fates.fate(host), self._beat.pulse(host)
        state = fate.state.value if fate is not None else "pending"
        return Glance(host, state, pulse.rtt, pulse.loss, pulse.carries)  # type: ignore[arg-type] # its four words

    def _tables(self, overlay: OverlayName, keys: Sequence[str]) -> Told:
        local = self._overlays.named(overlay)
        if local is None:
            return Told(overlay=overlay, trouble="this host is not on the overlay")
        ports = {one.address: one.port for one in local.endpoints()[:PORTS]}
        try:
            rows = self._rows(local.inside(lambda held: held.dup(), self._now() + _LOCK), local.ground)
        except MyoverlayError as error:
            return Told(overlay=overlay, ports=ports, trouble=plain(str(error), TEXT))
        if rows is None:
            return Told(overlay=overlay, ports=ports, trouble="its namespace is not there")
        first = set(keys)
        rows.sort(key=lambda row: (row.key not in first, row.table, len(row.key), row.key))
        shown = tuple(TableRow(row.table, row.key, row.to, row.state) for row in rows[:ROWS])  # type: ignore[arg-type]
        return Told(
            overlay=overlay,
            rows=shown,
            more=max(0, len(rows) - ROWS),
            keys=tuple(sorted(first))[: ABOUT * KEYS],
            ports=ports,
        )

    @staticmethod
    def _rows(ns: netns.Namespace | None, ground: Ground | None) -> list[SeenRow] | None:
        """All rows, by a socket of its own: nobody waits for them. Raises KernelRefused."""
        if ns is None:
            return None
        with ns:
            if ground is None:
                return None
            with Tables(ns, ground.ifindex) as tables:
                return tables.everything()


class OutlookAnswering:
    """Answers those who look, for the thread `preflight`, which waits for their questions with its own."""

    def __init__(
        self,
        records: OutlookRecords,
        look: Callable[[Iterable[About]], Outlook],
        tally: Tally,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._records = records
        self._look = look
        self._tally = tally
        self._now = now
        self._seen: dict[tuple[HostId, int], float] = {}
        self._answered: set[tuple[str, tuple[About, ...]]] = set()
        #: At first: a former run may have been killed while somebody looked.
        self._told = True

    def hear(self, entries: Iterable[Entry], may_answer: bool) -> None:
        """These lie where questions do now: answer those that are new to this host. Raises Unavailable."""
        looks, now = self._records.looks(entries), self._now()
        self._seen = {(who, held.index): self._seen.get((who, held.index), now) for who, held in looks.items()}
        others = [held for who, held in looks.items() if who != self._records.me]
        if not may_answer:
            return
        if not others and self._told:
            self._records.untell()
            self._told = False
        about = tuple(one for held in others for one in self._mine(held.value))
        asked = {(held.value.id, self._mine(held.value)): held for held in others}
        new = [held for what, held in asked.items() if what not in self._answered]
        self._answered &= asked.keys()
        if new:
            self._told = True
            done = self._records.tell(self._look(about), new[0])
            self._answered = set(asked)
            self._tally.add("asked", "answered" if done else "late")

    def _mine(self, look: Look) -> tuple[About, ...]:
        return tuple(one for one in look.about if one.host == self._records.me)

    def sweep(self, stale: float) -> None:
        """End questions that were not renewed for `stale` seconds: whoever looked was killed. Raises Unavailable."""
        now = self._now()
        for (host, index), since in tuple(self._seen.items()):
            if now - since >= stale:
                self._records.end_of(host, index)
                self._tally.add("asked", "stale")

    def retire(self, deadline: float) -> None:
        """This host leaves. Raises Unavailable or Late."""
        self._records.untell(timeout=left(deadline))
        self._records.end(timeout=left(deadline))


class Seen(msgspec.Struct, frozen=True):
    """An outlook, and when this host read it first, in seconds of the clock handed in."""

    outlook: Outlook
    at: float
    index: int


class Onlooker(Loop):
    """Owns the thread `onlooker`: asks all hosts what they see while somebody looks at a page of this one.

    `_lock` guards `_viewed` and `_wanted`, which pages set; `seen` is swapped whole.
    """

    def __init__(
        self,
        records: OutlookRecords,
        look: Callable[[Iterable[About]], Outlook],
        present: Callable[[], frozenset[HostId]],
        tally: Tally,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """`look`: this host's own; `present`: the other hosts that are there."""
        super().__init__("onlooker", tally)
        self._records = records
        self._look = look
        self._present = present
        self._now = now
        self._lock = threading.Lock()
        self._viewed = float("-inf")
        self._wanted: dict[About, float] = {}
        self._news = threading.Event()
        self._asked: tuple[About, ...] | None = None
        #: At first: a former run may have been killed while somebody looked.
        self._open = True
        self._id = ""
        self._turn = 0
        self._asked_at = self._turned_at = self._own_at = float("-inf")
        self._reads: tuple[float, ...] = ()
        #: What the hosts told, this one included.
        self.seen: Mapping[HostId, Seen] = {}

    def view(self, about: Sequence[About] = ()) -> None:
        """Somebody looks, now; at these tables too. From any thread."""
        now = self._now()
        with self._lock:
            idle = now - self._viewed > IDLE
            self._viewed = now
            new = any(one not in self._wanted for one in about)
            self._wanted |= dict.fromkeys(about, now)
        if idle or new:
            self._news.set()

    def wake(self) -> None:
        self._news.set()

    def round(self) -> None:
        """Ask, read, or end what was asked; then wait for what is due next. Raises Unavailable."""
        wait = self.step()
        self._news.wait(wait)
        self._news.clear()

    def step(self) -> float:
        """What is due now; the seconds until something is due again. Raises Unavailable."""
        now = self._now()
        about = self._about(now)
        if about is None:
            self._close()
            return WAIT
        self._ask(self._others(about), now)
        if self._reads and now >= self._reads[0]:
            self._reads = () if self._read(now) else self._reads[1:]
        if now - self._own_at >= OWN:
            self._own_at = now
            own = self._look([one for one in about if one.host == self._records.me])
            self.seen = {**self.seen, self._records.me: Seen(own, now, 0)}
        dues = [self._asked_at + self._pause(), self._own_at + OWN, *self._reads[:1]]
        if about:
            dues.append(self._turned_at + (TURN if self._asked == self._others(about) else LEAST))
        return max(0.02, min(dues) - self._now())

    def _others(self, about: Iterable[About]) -> tuple[About, ...]:
        return tuple(one for one in about if one.host != self._records.me)

    def _pause(self) -> float:
        return min(SLOWEST, max(ROUND, EACH * len(self._present())))

    def _ask(self, others: tuple[About, ...], now: float) -> None:
        """Ask all anew, or those for tables that are looked at, if one of both is due."""
        anew = now - self._asked_at >= self._pause()
        again = others != self._asked or (bool(others) and now - self._turned_at >= TURN)
        if now - self._turned_at < LEAST or not (anew or again):
            return
        if anew:
            self._id, self._asked_at = fresh_id(), now
        self._turned_at, self._turn, self._open = now, self._turn + 1, True
        about = tuple(msgspec.structs.replace(one, turn=self._turn) for one in others)
        self._records.ask(Look(id=self._id, asker=self._records.me, about=about))
        self._asked, self._reads = others, tuple(now + after for after in READ)

    def _about(self, now: float) -> tuple[About, ...] | None:
        """The tables that are looked at, those of the latest first; None where nobody looks."""
        with self._lock:
            if now - self._viewed > IDLE:
                self._wanted = {}
                return None
            latest = sorted(self._wanted.items(), key=lambda item: -item[1])
            self._wanted = {one: at for one, at in latest[:4] if now - at <= IDLE}
            return tuple(sorted(self._wanted, key=lambda one: (one.host, one.overlay, one.keys)))

    def _read(self, now: float) -> bool:
        """Read what was told; True where all that are there have told since the question."""
        before, found = self.seen, dict[HostId, Seen]()
        for host, held in self._records.told().items():
            old = before.get(host)
            same = old is not None and old.index == held.index
            found[host] = old if same and old is not None else Seen(held.value, now, held.index)
        if self._records.me in before:
            found[self._records.me] = before[self._records.me]
        self.seen = found
        since = dict.fromkeys(self._present(), self._asked_at)
        since |= {one.host: self._turned_at for one in self._asked or () if one.host in since}
        return all(host in found and found[host].at >= at for host, at in since.items())

    def _close(self) -> None:
        """Nobody looks: the question goes, and what hosts told that are not there any more. Raises Unavailable."""
        if not self._open:
            return
        self._records.end()
        present = self._present()
        for host, held in self._records.told().items():
            if host not in present and host != self._records.me:
                self._records.forget(host, held.index)
        self._open, self._asked, self._asked_at = False, None, float("-inf")
        self._reads, self.seen = (), {}
