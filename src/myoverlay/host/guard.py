"""Who may send VXLAN to this host: the one writer of the guard's table, told before a link goes up and before a row is
written, and compared by the reconciler, for `nft flush ruleset` and firewalls that load themselves anew take it away.

A datagram is kept out where its sender is not known yet: so VTEPs are let in early, with the first word of them, and
are shut out late, when it is known to be complete that nobody names them.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, Protocol

import msgspec

from myoverlay.errors import KernelRefused, Refused
from myoverlay.fence import Dropped, Fence, Pair
from myoverlay.plan import guard as plan
from myoverlay.plan.guard import Cover
from myoverlay.tally import Tally
from myoverlay.values import Address, Network

log = logging.getLogger(__name__)

#: What the heartbeat's tunnel goes by; overlay names start with a letter or digit.
HEARTBEAT = "_probe"


class Table(Protocol):
    """What is needed of `kernel.fence.FenceTable`."""

    def held(self) -> Fence: ...
    def lay(self, fence: Fence) -> None: ...
    def change(self, more: Fence, less: Fence) -> None: ...
    def is_untouched(self) -> bool: ...
    def stands(self) -> bool: ...
    def look(self) -> Fence | None: ...
    def dropped(self) -> Dropped: ...
    def remove(self) -> None: ...
    def close(self) -> None: ...


class Standing(NamedTuple):
    """How the guard is, for `doctor`. `code`: the kernel's reason for the trouble; `there`: is its table as laid?"""

    tunnels: int
    vteps: int
    trouble: str
    code: int
    there: bool


class Guard:
    """The guard of one host. `_lock` guards all below; it is held across no call but the kernel's, and taken last.

    What was put right is told with it held: whoever hears that takes no lock of ours but his own.
    """

    def __init__(self, table: Table, mode: str, tally: Tally) -> None:
        """`mode`: `on` refuses overlays that cannot be guarded, `warn` says so, `off` guards none."""
        self.mode = mode
        #: Why this host is not guarded, in one sentence; empty while it is, and where it is not to be.
        self.trouble = ""
        #: Called with what was put right: overlay ("" for none), reason, in words.
        self.on_repair: Callable[[str, str, Sequence[str]], None] = lambda *_: None
        self._table = table
        self._tally = tally
        self._lock = threading.Lock()
        self._covers: dict[str, Cover] = {}
        #: What a former run left: it holds until all overlays of this one are covered.
        self._inherited = Fence()
        #: VTEPs of hosts that are there, whether they share an overlay with this one or not.
        self._hosts: frozenset[Address] = frozenset()
        self._is_laid = False
        self._counted = Dropped()
        self._code = 0

    def start(self) -> None:
        """Take over what a former run left, by our own rules; where nothing is to be guarded it goes."""
        with self._lock:
            try:
                if self.mode == plan.OFF:
                    self._table.remove()
                    return
                self._inherited, self._counted = self._table.held(), self._table.dropped()
                if self._inherited:
                    self._lay()
            except KernelRefused as error:
                self._fails(error)

    def cover(self, network: Network, *, strict: bool) -> None:
        """Guard an overlay, or go on doing so, by what it is now. Raises Refused, with `strict`, where it cannot be."""
        self._cover(network.overlay, plan.cover(network), strict, f"overlay {network.overlay}")

    def cover_heartbeat(self, pair: Pair, vtep: Address, door: str) -> None:
        """Guard the heartbeat's tunnel: who is known by any overlay may ask. Raises Refused where it cannot be."""
        with self._lock:
            known = self._hosts.union(*(one.live for one in self._covers.values()))
        self._cover(HEARTBEAT, Cover(pair, vtep, door, known), True, "the heartbeat")

    def _cover(self, name: str, cover: Cover, strict: bool, what: str) -> None:
        if self.mode == plan.OFF:
            return
        with self._lock:
            before = self._covers.get(name)
            kept = plan.live_on(self._inherited, cover.pair)
            kept |= before.live if before is not None and before.pair == cover.pair else frozenset()
            said = self._put(name, msgspec.structs.replace(cover, live=cover.live | kept))
            if said is not None and strict and self.mode == plan.ON and before is None:
                del self._covers[name]  # it will not be: later it may be somebody else's pair
        if said is not None and strict and self.mode == plan.ON:
            raise Refused(
                f"{what} cannot be guarded against VXLAN from strangers ({said}): {plan.remedy(said.code)}, or set"
                " MYOVERLAY_GUARD=warn to do without"
            )

    def admit(self, name: str, vteps: Iterable[Address]) -> None:
        """These may send too, from now on."""
        with self._lock:
            known, more = self._covers.get(name), frozenset(vteps)
            if known is not None and not more <= known.live:
                self._put(name, msgspec.structs.replace(known, live=known.live | more))
                beat = self._covers.get(HEARTBEAT)
                if beat is not None and name != HEARTBEAT:
                    self._put(HEARTBEAT, msgspec.structs.replace(beat, live=beat.live | more))

    def keep(self, name: str, vteps: Iterable[Address]) -> None:
        """These and no others may send, from now on."""
        with self._lock:
            known, all_of_them = self._covers.get(name), frozenset(vteps)
            if known is not None and known.live != all_of_them:
                self._put(name, msgspec.structs.replace(known, live=all_of_them))

    def know(self, vteps: Iterable[Address]) -> None:
        """The VTEPs of the hosts that are there: they may ask whether this one is."""
        with self._lock:
            self._hosts = frozenset(vteps)
            beat = self._covers.get(HEARTBEAT)
            if beat is not None and not self._hosts <= beat.live:
                self._put(HEARTBEAT, msgspec.structs.replace(beat, live=beat.live | self._hosts))

    def uncover(self, name: str) -> None:
        """There is no such tunnel any more."""
        with self._lock:
            if name in self._covers:
                self._put(name, None)

    def leave(self) -> None:
        """This host has left: what a former run let in goes too, and the table with it. Raises KernelRefused.

        Overlays that are still covered, since containers run on there, stay so.
        """
        with self._lock:
            self._inherited = Fence()
            self._compare(anew=True)

    def check(self) -> None:
        """Compare the table with what it should be, and put it right; count what it kept out. Raises KernelRefused."""
        if self.mode == plan.OFF:
            return
        with self._lock:
            before, self._inherited = self._inherited, Fence()
            beat = self._covers.get(HEARTBEAT)
            if beat is not None:
                known = self._hosts.union(*(one.live for name, one in self._covers.items() if name != HEARTBEAT))
                if beat.live != known:
                    self._put(HEARTBEAT, msgspec.structs.replace(beat, live=known))
            self._compare(anew=bool(before))
            if self._is_laid:
                self._count()

    def standing(self) -> Standing:
        """How it is just now. Raises KernelRefused."""
        with self._lock:
            there = self._is_laid and self._table.stands() and self._table.held() == self._wanted()
            return Standing(len(self._covers), len(self._wanted().live), self.trouble, self._code, there)

    def close(self) -> None:
        """Let go of the table, which stays: it guards while nobody of ours runs."""
        self._table.close()

    # -- with the lock held ------------------------------------------------------------------------------------------

    def _put(self, name: str, cover: Cover | None) -> KernelRefused | None:
        """From now on this is covered so, and the table says so; what keeps it from that is noted, and tried again."""
        before, old = dict(self._covers), self._covers.get(name)
        if cover is None:
            del self._covers[name]
        else:
            self._covers[name] = cover
        if old == cover and self._is_laid and not self.trouble:
            return None
        try:
            if not self._covers and not self._inherited:
                self._clear()
            elif self.trouble or not self._is_laid:
                self._lay()
            else:
                self._change(_frame(before.values()), old, cover)
        except KernelRefused as error:
            return self._fails(error)
        self._is_well()
        return None

    def _change(self, before: Fence, old: Cover | None, new: Cover | None) -> None:
        """What differs, in one step: of an overlay with a thousand hosts the one that came."""
        now = _frame(self._covers.values())
        was, there = plan.fence_of([old] if old else ()), plan.fence_of([new] if new else ())
        came, went = there.without(was), was.without(there)
        more = msgspec.structs.replace(now.without(before), live=came.live, ways=came.ways)
        less = before.without(now.beside(self._inherited))
        less = msgspec.structs.replace(less, live=went.live, ways=went.ways)
        try:
            self._table.change(more, less)
        except KernelRefused as error:
            self._repaired(f"{error}: it is made anew")  # somebody flushed the ruleset, or an element of it
            self._lay()

    def _lay(self) -> None:
        self._table.lay(self._wanted())
        self._is_laid = True

    def _clear(self) -> None:
        self._table.remove()
        self._is_laid = False

    def _wanted(self) -> Fence:
        return plan.fence_of(self._covers.values()).beside(self._inherited)

    def _compare(self, anew: bool) -> None:
        """`anew`: there may be more in the table than is wanted, by nobody's fault."""
        want = self._wanted()
        try:
            if not want:
                if self._is_laid:
                    self._clear()
            elif not self._is_laid:
                self._lay()
            elif anew or not self._table.is_untouched():
                held = self._table.look()
                if held is None:
                    self._repaired("its table was another, or gone: it is made anew")
                    self._lay()
                elif held != want:
                    if not anew or want.without(held):
                        self._repaired("its sets were others, and are put right")
                    self._table.change(want.without(held), held.without(want))
        except KernelRefused as error:
            self._fails(error)
            raise
        self._is_well()

    def _repaired(self, what: str) -> None:
        self._tally.add("repairs", "guard")
        log.warning("guard: %s", what)
        for name in sorted(self._covers.keys() - {HEARTBEAT}) or ("",):
            self.on_repair(name, "guard", [what])

    def _count(self) -> None:
        now, before = self._table.dropped(), self._counted
        for reason, packets, known in zip(Dropped._fields, now, before, strict=True):
            # Who flushed the ruleset flushed its counters.
            self._tally.add("guard", reason, packets - known if packets >= known else packets)
        self._counted = now

    def _fails(self, error: KernelRefused) -> KernelRefused:
        self._code = error.code
        if self.trouble != str(error):
            log.error("this host takes VXLAN from anyone: %s", error)
            self.trouble = str(error)
        return error

    def _is_well(self) -> None:
        if self.trouble:
            log.warning("this host is guarded again" if self._covers else "nothing on this host is to be guarded")
            self.trouble, self._code = "", 0


def _frame(covers: Iterable[Cover]) -> Fence:
    """All but the peers, of whom there may be thousands."""
    return plan.fence_of(msgspec.structs.replace(one, live=frozenset()) for one in covers)


class HeartbeatGuard:
    """What the heartbeat's device tells the guard."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard

    def cover(self, port: int, vni: int, vtep: Address, door: str) -> None:
        self._guard.cover_heartbeat(Pair(port, vni), vtep, door)

    def admit(self, vteps: Iterable[Address]) -> None:
        self._guard.admit(HEARTBEAT, vteps)

    def uncover(self) -> None:
        self._guard.uncover(HEARTBEAT)
