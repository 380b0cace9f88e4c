"""The one writer of this host's records: its own lists, and their entries in the index for outsiders and misses.

What should be in the store is always computed from the journal, never queued: whatever was missed while the store was
away is in the next write. Docker's calls `offer` an overlay and may `wait`, bounded, for the write to be done.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Collection

import msgspec

from myoverlay.errors import Clash, Unavailable
from myoverlay.host.at_work import AtWork
from myoverlay.host.holders import Holder, Holders, is_ours
from myoverlay.host.local import LocalOverlay
from myoverlay.host.loop import Loop
from myoverlay.host.told import Known, Own, Told, first_chunk
from myoverlay.store import Entry
from myoverlay.store.pooled import MARK
from myoverlay.store.records import Claim, Published, Records
from myoverlay.tally import Tally
from myoverlay.values import Address, Definition, HostId, HostList, OverlayName, Record

log = logging.getLogger(__name__)

#: How long a claim is tried against a holder that may be about to withdraw, seconds.
CONTEST = 1.0
#: How often a claim that clashed is looked at again, seconds: its holder may have been about to withdraw all the same.
RECLAIM = 10.0
_RETRY = (0.2, 5.0)
#: Conflicts of one write before it is left for later. Parallel writers cost one or two; a store (or what is in between)
#: that tells another state than it holds would be asked without end.
_REFUSALS = 8
_CONTEST_ROUND = 0.05
#: The same while the store is in doubt and all write what they hold again.
_DOUBT_ROUND = 0.5


class Publisher(Loop):
    """Owns the thread `publish`.

    `_turn` guards the tickets, the clashes and `_distrusted`; everything else belongs to the thread.
    """

    def __init__(
        self,
        records: Records,
        find: Callable[[OverlayName], LocalOverlay | None],
        host_name: Callable[[HostId], str],
        tally: Tally,
        may_write: Callable[[], bool],
        vouched: Callable[[], str],
        is_gone: Callable[[HostId], bool],
        serial: Callable[[int], int],
        latest: Callable[[HostList, HostList], HostList],
        believes: Callable[[HostList], bool],
        contest: float = CONTEST,
        now: Callable[[], float] = time.monotonic,
        in_doubt: Callable[[], bool] = lambda: False,
        look: Callable[[], None] = lambda: None,
        has_left: Callable[[], bool] = lambda: False,
    ) -> None:
        """`serial` numbers this host's lists, above what it is given; `latest`: what a list says, known so and read so.

        `look`: find out whether the store lost something just now; `has_left`: nothing is written any more.
        """
        super().__init__("publish", tally)
        self._may_write = may_write
        self._has_left = has_left
        self._vouched = vouched
        self._serial = serial
        self._holders = Holders(records, host_name, is_gone, latest, believes)
        self._contest_time = contest
        self._in_doubt = in_doubt
        self._look_for_loss = look
        self._now = now
        self._records = records
        self._find = find
        self._turn = threading.Condition()
        self._asked: dict[OverlayName, int] = {}
        self._done: dict[OverlayName, int] = {}
        self._due: dict[OverlayName, float] = {}
        self._clashes: dict[tuple[OverlayName, Address], str] = {}
        self._contested: dict[tuple[OverlayName, Address], float] = {}
        #: Addresses of ours whose index keys somebody has taken, and when they are claimed again.
        self._disputed: dict[tuple[OverlayName, Address], float] = {}
        #: What each list said that this run wrote last, as it was granted.
        self._granted: dict[OverlayName, frozenset[Own]] = {}
        self._reclaim_at: dict[OverlayName, float] = {}
        self._distrusted: set[OverlayName] = set()
        self._known: dict[OverlayName, Known] = {}
        self._delay: dict[OverlayName, float] = {}
        self.at_work = AtWork()
        self.told = Told()
        #: Called when a list was written, or found to be as it should.
        self.on_told: Callable[[], None] = lambda: None

    def wake(self) -> None:
        with self._turn:
            self._turn.notify_all()

    # -- asked by Docker's calls -----------------------------------------------------------------------------------

    def offer(self, overlay: OverlayName) -> int:
        """Something changed in this overlay; the number says which write will hold it."""
        with self._turn:
            ticket = self._asked.get(overlay, 0) + 1
            self._asked[overlay] = ticket
            self._due[overlay] = 0.0
            self.told.begin(overlay)
            self._turn.notify_all()
            return ticket

    def distrust(self, overlay: OverlayName) -> None:
        """What the store holds of ours there is to be read anew: it may have lost it."""
        with self._turn:
            self._distrusted.add(overlay)
            for key in [key for key in self._clashes if key[0] == overlay]:
                del self._clashes[key]  # it is tried again, whoever was in the way
        self.offer(overlay)

    def wait(self, overlay: OverlayName, ticket: int, address: Address, patience: float) -> None:
        """Wait until the write is done, at most `patience` seconds (longer only while the address is contested).

        Raises Clash where another host has the address. Returns all the same when the store is away: what was
        offered is written when it is back.
        """
        until = self._now() + patience
        with self._turn:
            while True:
                clash = self._clashes.get((overlay, address))
                if clash is not None:
                    raise Clash(clash)
                if self._done.get(overlay, 0) >= ticket:
                    return
                limit = until + (2 * self._contest_time if (overlay, address) in self._contested else 0.0)
                if not self._turn.wait(limit - self._now()) and self._now() >= limit:
                    return

    def forget(self, overlay: OverlayName) -> None:
        """The overlay is no longer on this host."""
        self.told.forget(overlay)
        with self._turn:
            for table in (self._asked, self._done, self._due):
                table.pop(overlay, None)
            for found in (self._clashes, self._contested, self._disputed):
                for key in [key for key in found if key[0] == overlay]:
                    found.pop(key, None)

    # -- the thread ------------------------------------------------------------------------------------------------

    def round(self) -> None:
        overlay = self._next()
        if overlay is not None:
            with self.at_work.on(overlay):
                self._write(overlay)

    def step(self) -> float | None:
        """What is due, without waiting; returns when something is due next."""
        while (overlay := self._take()) is not None:
            with self.at_work.on(overlay):
                self._write(overlay)
        with self._turn:
            return min(self._due.values(), default=None)

    def _write(self, overlay: OverlayName) -> None:
        with self._turn:
            ticket = self._asked.get(overlay, 0)
            if overlay in self._distrusted:
                self._distrusted.discard(overlay)
                self._known.pop(overlay, None)
        local = self._find(overlay)
        if local is None or self._has_left():
            self._known.pop(overlay, None)
            self._granted.pop(overlay, None)
            self.told.forget(overlay)
            return
        try:
            if not self._may_write():
                raise Unavailable("this host is not announced in the store yet")
            contested = self._publish(local)
        except Exception as error:
            self.tally.add("published", "failed")
            self._known.pop(overlay, None)
            self._later(overlay, error)
            if not isinstance(error, Unavailable):
                raise
            return
        self._delay.pop(overlay, None)
        with self._turn:
            if contested:
                self._due[overlay] = self._now() + (_DOUBT_ROUND if self._lasts(overlay) else _CONTEST_ROUND)
            else:
                self._done[overlay] = ticket
                if any(key[0] == overlay for key in (*self._clashes, *self._disputed)):
                    self._due.setdefault(overlay, self._now() + RECLAIM)
            self._turn.notify_all()
        self.on_told()

    def _next(self) -> OverlayName | None:
        """The next overlay that is due; None when stopping."""
        with self._turn:
            while not self.stopping.is_set():
                overlay = self._take()
                if overlay is not None:
                    return overlay
                due = min(self._due.values(), default=None)
                self._turn.wait(due - self._now() if due is not None else None)
            return None

    def _take(self) -> OverlayName | None:
        """The overlay that has been due the longest, if one is."""
        with self._turn:
            due = min(self._due.items(), key=lambda item: item[1], default=None)
            if due is None or due[1] > self._now():
                return None
            del self._due[due[0]]
            return due[0]

    def _later(self, overlay: OverlayName, error: Exception) -> None:
        delay = min(_RETRY[1], self._delay.get(overlay, _RETRY[0] / 2) * 2)
        self._delay[overlay] = delay
        log.warning("overlay %s is published again in %.1f s: %s", overlay, delay, error)
        with self._turn:
            if overlay in self._asked:  # what was offered meanwhile does not wait for that
                self._due.setdefault(overlay, self._now() + delay * random.uniform(0.5, 1.0))

    def _publish(self, local: LocalOverlay) -> bool:
        """Write until the store holds what the journal says; True while an address is contested.

        Raises Unavailable where the store goes on refusing what fits to all that it tells.
        """
        definition, overlay = local.network.definition, local.network.overlay
        self._reclaim(local)
        refusals = 0
        while refusals < _REFUSALS:
            known = self._known.get(overlay)
            if known is None:
                known = self._known[overlay] = self._look(local)
            new, mine = self._list(local, known), known.granted
            claims, drops = self._claims(definition, new, known), self._drops(definition, new, known)
            if known.listed is not None and known.listed.value == new and not claims and not drops:
                self.told.note(new)
                self._end_contest(overlay)
                return False
            if (contested := self._contest(local, claims, mine)) is not None:
                if contested:
                    return self._put_off(local)
                continue
            claims, drops, later = first_chunk(claims, drops)
            untold = tuple(one.record.address for one in later if (one.record.address, one.record.mac) not in mine)
            new = self._numbered(msgspec.structs.replace(new, tentative=untold))
            self.told.expect(new)
            outcome = self._records.publish(definition, new, known.listed, known.ring, claims, drops)
            if isinstance(outcome, Published):
                self.tally.add("published", "done")
                known.note(outcome, drops)
                self._granted[overlay] = known.granted
                self.told.note(new)
                for claim in claims:
                    self._disputed.pop((overlay, claim.record.address), None)
                continue
            self.tally.add("published", "retried")
            refusals += 1
            if outcome.claims:
                judged = [self._judge(local, claim.record, mine) for claim in outcome.claims]
                self._known.pop(overlay)
                if any(judged):
                    return self._put_off(local)
            elif outcome.ring and not outcome.listed:
                known.ring = self._records.ring(overlay)
            else:
                self._known.pop(overlay)
        raise Unavailable(f"the store refused {_REFUSALS} writes in a row though nothing it tells stands against them")

    def _contest(self, local: LocalOverlay, claims: list[Claim], mine: Collection[Own]) -> bool | None:
        """Judge what is new here and told by others, before it is written. None: nothing is. True: it is contested."""
        fresh = [one.record for one in claims if (one.record.address, one.record.mac) not in mine]
        found = [one for one in fresh if self._holders.told_elsewhere(local, one) and self._holders.of(local, one)]
        if not found:
            return None
        judged = [self._judge(local, record, mine) for record in found]
        return any(judged)

    def _put_off(self, local: LocalOverlay) -> bool:
        """An address is contested: what is sure meanwhile is told, where that may last."""
        if self._lasts(local.network.overlay):
            self._tell(local)
        return True

    def _list(self, local: LocalOverlay, known: Known) -> HostList:
        """What should be in the store; numbered as what is there, for as long as it does not differ from that."""
        overlay = local.network.overlay
        return HostList(
            host=self._records.me,
            overlay=overlay,
            vtep=local.network.vtep,
            records=tuple(r for r in local.records() if (overlay, r.address) not in self._clashes),
            incarnation=self._vouched(),
            serial=known.listed.value.serial if known.listed else 0,
            accuses=self._holders.accused(local),
        )

    def _numbered(self, new: HostList) -> HostList:
        """The list with a number higher than what the store holds, and than any before."""
        return msgspec.structs.replace(new, serial=self._serial(new.serial))

    def _tell(self, local: LocalOverlay) -> None:
        """Write the list without the index, and take out of that what is ours no more.

        After a rollback two hosts may each wait for the other's stale list and keys to go: the lists are the truth.
        """
        definition, known = local.network.definition, self._look(local)
        new = self._list(local, known)
        # What has not joined, and the index never took, may be another's by right: his rows would go for it everywhere.
        agreed = {*local.present(), *(known.listed.value.records if known.listed else ())}
        mine, records = known.granted, tuple(record for record in new.records if record in agreed)
        untold = tuple(record.address for record in records if (record.address, record.mac) not in mine)
        new = msgspec.structs.replace(new, records=records, tentative=untold)
        _, drops, _ = first_chunk([], self._drops(definition, new, known))
        if drops or known.listed is None or known.listed.value != new:
            new = self._numbered(new)
            self.told.expect(new)
            self._known.pop(local.network.overlay, None)  # the next round is not to compare with what was there before
            if isinstance(self._records.publish(definition, new, known.listed, known.ring, (), drops), Published):
                self.told.note(new)

    def _look(self, local: LocalOverlay) -> Known:
        """Read what the store holds of ours: after a start, a conflict or a failure."""
        definition, overlay = local.network.definition, local.network.overlay
        listed = self._records.own_list(overlay, local.network.vtep)
        records = {*local.records(), *(listed.value.records if listed else ())}
        entries = self._records.index_entries(definition, records)
        ours = {}
        for record in records:
            arp = entries.get(self._records.arp(definition, record.address))
            fib = entries.get(self._records.fib(definition, record.mac))
            if fib is not None and is_ours(fib, local.network.vtep):
                ours[fib.key] = fib
                if arp is not None and arp.flags == MARK and arp.value == record.mac.encode():
                    ours[arp.key] = arp
        return Known(listed, self._records.ring(overlay), ours)

    def _claims(self, definition: Definition, new: HostList, known: Known) -> list[Claim]:
        """Records whose index keys are not as they should be, and which nobody has taken just now."""
        claims = []
        for record in new.records:
            if self._disputed.get((definition.overlay, record.address), 0.0) > self._now():
                continue
            arp = known.entries.get(self._records.arp(definition, record.address))
            fib = known.entries.get(self._records.fib(definition, record.mac))
            right = arp is not None and fib is not None and arp.value == record.mac.encode()
            if not right or fib is None or fib.value != new.vtep.encode():
                claims.append(Claim(record, arp.index if arp else 0, fib.index if fib else 0))
        return claims

    def _drops(self, definition: Definition, new: HostList, known: Known) -> list[Entry]:
        """Index keys of ours that stand for no record any more."""
        keep = {self._records.arp(definition, r.address) for r in new.records}
        keep |= {self._records.fib(definition, r.mac) for r in new.records}
        return [entry for key, entry in sorted(known.entries.items()) if key not in keep]

    # -- clashes ---------------------------------------------------------------------------------------------------

    def _judge(self, local: LocalOverlay, record: Record, mine: Collection[Own]) -> bool:
        """Somebody has what is claimed. True while it is contested: its holder may be about to withdraw.

        Held by an outsider, or by a host that goes on listing it, it is a clash. A marked key that no host lists is
        a leftover and is taken out of the way. While the store is in doubt, and until the holder has written again, its
        list may be a snapshot's, and what runs here is no clash: a list without it would withdraw it everywhere.
        Nor is what is `mine` already: it was nobody else's when it was claimed, and the others hold to that.
        """
        overlay = local.network.overlay
        holder = self._holders.of(local, record)
        with self._turn:
            since = self._contested.get((overlay, record.address))
        if holder is not None and since is not None and self._now() - since >= self._contest_time:
            self._look_for_loss()  # what runs here is not given up to a snapshot of a moment ago
        spared = (self._in_doubt() or (holder is not None and not holder.sure)) and record in local.present()
        with self._turn:
            if holder is None:
                self._contested.pop((overlay, record.address), None)
                return False
            if (record.address, record.mac) in mine:
                self._dispute(overlay, record.address, holder)
                return False
            since = self._contested.setdefault((overlay, record.address), self._now())
            if spared or self._now() - since < self._contest_time:
                return True
            del self._contested[overlay, record.address]
            if self._was_granted(overlay, record):
                self._dispute(overlay, record.address, holder)
                return False
            self._clashes[overlay, record.address] = holder.sentence
            self.tally.add("published", "clash")
            log.error("overlay %s: %s", overlay, holder.sentence)
            self._turn.notify_all()
            return False

    def _was_granted(self, overlay: OverlayName, record: Record) -> bool:
        """Did this run publish it, in a store that was rolled back since, to where another had it?"""
        return (record.address, record.mac) in self._granted.get(overlay, ())

    def _dispute(self, overlay: OverlayName, address: Address, holder: Holder) -> None:
        """What is ours is told without its index keys, which are tried again later. With `_turn` held."""
        if (overlay, address) not in self._disputed:
            self.tally.add("published", "disputed")
            log.error(
                "overlay %s: %s, which a container of this host has, is claimed by %s as well: it stays here, and the"
                " other hosts go by who had it first; find out who writes that",
                overlay, address, holder.who,
            )  # fmt: skip
        self._disputed[overlay, address] = self._now() + RECLAIM

    def _lasts(self, overlay: OverlayName) -> bool:
        """Is it contested for as long as the store is in doubt, or a host has not written again?"""
        with self._turn:
            since = [at for (of, _), at in self._contested.items() if of == overlay]
        return self._in_doubt() or any(self._now() - at > self._contest_time for at in since)

    def _reclaim(self, local: LocalOverlay) -> None:
        """Claim anew what clashed and is nobody's any more: the container started while the store was away."""
        overlay, now = local.network.overlay, self._now()
        if now < self._reclaim_at.get(overlay, 0.0):
            return
        self._reclaim_at[overlay] = now + RECLAIM / 2
        for record in local.records():
            if (overlay, record.address) in self._clashes and self._holders.of(local, record) is None:
                with self._turn:
                    self._clashes.pop((overlay, record.address), None)

    def pardon(self, overlay: OverlayName, address: Address) -> None:
        """The endpoint that clashed is gone."""
        with self._turn:
            for found in (self._clashes, self._contested, self._disputed):
                found.pop((overlay, address), None)

    def _end_contest(self, overlay: OverlayName) -> None:
        """All that this host wants there is written: whoever was in the way has withdrawn."""
        with self._turn:
            for key in [key for key in self._contested if key[0] == overlay]:
                del self._contested[key]
