"""Networks that are defined for all hosts become Docker's networks here, in the background."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Protocol

import msgspec

from myoverlay.errors import Late, MyoverlayError, Refused, Unavailable
from myoverlay.host.loop import COALESCE, WAIT, Loop
from myoverlay.networks import LONG, Became, HeldNetwork, NetworkPlan, plain
from myoverlay.plan import following as plan
from myoverlay.plan.definition import read_options
from myoverlay.store import Reset, Unchanged
from myoverlay.store.networks import NetworkRecords, Plans
from myoverlay.tally import Tally
from myoverlay.values import OverlayName

log = logging.getLogger(__name__)

#: Docker's networks are compared again after this, seconds; sooner where something failed: at first, at most.
RESYNC, AGAIN = 30.0, (1.0, 30.0)
#: Plans that are to be removed are looked at after this, seconds, where nothing was removed here.
BURY = 600.0


class Engine(Protocol):
    """What is needed of Docker. Each raises Unavailable where it does not answer, Refused where it says no."""

    def list(self) -> tuple[plan.Found, ...]: ...
    def make(self, plan: NetworkPlan) -> None: ...
    def remove(self, network: plan.Found, forced: bool) -> None: ...
    def close(self) -> None: ...


class NetworkFollower(Loop):
    """Owns the thread `follow`, which alone uses `engine`."""

    def __init__(
        self,
        networks: NetworkRecords,
        engine: Engine,
        host_name: str,
        may_act: Callable[[], bool],
        in_doubt: Callable[[], bool],
        on_loss: Callable[[], None],
        tally: Tally,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """`may_act`: is this host announced, and may it take part? `on_loss`: the store's index went back."""
        super().__init__("follow", tally)
        self._networks = networks
        self._engine = engine
        self._host_name = plain(host_name)
        self._may_act = may_act
        self._in_doubt = in_doubt
        self._on_loss = on_loss
        self._now = now
        self._index = 0
        self._plans: Plans | None = None
        self._due = 0.0
        self._pause = AGAIN[0]
        self._buried_at = now()
        self._told_orphans: frozenset[str] = frozenset()

    def round(self) -> None:
        if self.step():
            self.stopping.wait(COALESCE)

    def stop(self, timeout: float) -> None:
        super().stop(timeout)
        self._engine.close()

    def step(self) -> bool:
        """One answer of the store, and what it asks for; True where it told of a change. Raises Unavailable or Late."""
        if not self._may_act():
            self.stopping.wait(AGAIN[0])
            return False
        news = self._look()
        if self._plans is None or not (news or self._now() >= self._due):
            return False
        try:
            settled = self._converge(self._plans)
        except (Unavailable, Late):
            self._put_off(settled=False)
            raise
        self._put_off(settled)
        return news

    def _look(self) -> bool:
        """Wait for a change of the plans, or until Docker's networks are to be compared again."""
        if self._index == 0 or self._plans is None or not self._plans.mark:
            self._networks.mark()  # without it, and without a plan, the store wakes a wait for whatever is written
        left = max(0.1, self._due - self._now())
        seen = self._networks.wait(self._index, timeout=3.0 if self._index == 0 else min(WAIT, left))
        if isinstance(seen, Unchanged):
            return False
        if isinstance(seen, Reset):
            self._on_loss()
            self._index = 0
            return False
        self._plans, self._index = seen, seen.index
        self._pause = AGAIN[0]
        return True

    def _put_off(self, settled: bool) -> None:
        self._due = self._now() + (RESYNC if settled else self._pause)
        self._pause = AGAIN[0] if settled else min(AGAIN[1], self._pause * 2)

    # -- one comparison --------------------------------------------------------------------------------------------

    def _converge(self, seen: Plans) -> bool:
        """Compare and act; False where something is to be tried again soon."""
        plans = {name: held.value for name, held in seen.plans.items()}
        before = self._networks.held()
        try:
            there = self._engine.list()
        except MyoverlayError as error:
            self._excuse(plans, before, str(error))
            raise Unavailable(str(error)) from error
        decided = plan.decide(plans, seen.unreadable, there, set(before), self._in_doubt())
        self._tell_orphans(decided.orphans)
        said, unsaid, failed = self._act(decided)
        for held in (told := plan.news(before, said, unsaid))[0]:
            self._networks.say(held)
            if held.became is not Became.HELD:
                log.warning("network %s: %s", held.network, held.said)
        for name in told[1]:
            self._networks.unsay(name)
        if told[1] or self._now() - self._buried_at >= BURY:
            self._bury(seen)
        return not failed

    def _act(self, decided: plan.Decided) -> tuple[list[HeldNetwork], list[str], bool]:
        """Do it, in order; what is to be said and unsaid, and whether something failed. Raises Unavailable."""
        said: dict[OverlayName, HeldNetwork] = {}
        unsaid: list[str] = []
        failed = False
        for step in decided.steps:
            if self.stopping.is_set():
                break
            if isinstance(step, plan.Say):
                failed |= step.became is not Became.HELD
                said[step.plan.name] = self._held(step.plan, step.became, step.said)
            elif isinstance(step, plan.Unsay):
                if step.name not in said:
                    unsaid.append(step.name)
            elif isinstance(step, plan.Restore):
                self._restore(step.plan)
            elif step.plan.name not in said:
                outcome = self._do(step)
                failed |= outcome is not None and outcome.became is not Became.HELD
                if outcome is not None:
                    said[step.plan.name] = outcome
        return list(said.values()), unsaid, failed

    def _do(self, step: plan.Make | plan.Remove) -> HeldNetwork | None:
        """Make or remove a network; what is to be said of it. Docker may be away again at any of them."""
        making = isinstance(step, plan.Make)
        try:
            if isinstance(step, plan.Make):
                _check(step.plan)
                self._engine.make(step.plan)
            else:
                self._engine.remove(step.network, step.forced)
        except MyoverlayError as error:
            self.tally.add("followed", "failed")
            return self._held(step.plan, Became.FAILED if making else Became.REMAINS, str(error))
        self.tally.add("followed", "made" if making else "removed")
        log.info("network %s is %s", step.plan.name, "made" if making else "removed")
        return self._held(step.plan, Became.HELD) if making else None

    def _excuse(self, plans: dict[OverlayName, NetworkPlan], before: Mapping[str, object], why: str) -> None:
        """Docker cannot be asked: of plans that nothing was said of yet the reason is said."""
        for one in plans.values():
            if one.name not in before and not one.going:
                self._networks.say(self._held(one, Became.FAILED, why))

    def _held(self, of: NetworkPlan, became: Became, said: str = "") -> HeldNetwork:
        return HeldNetwork(
            host=self._networks.me,
            network=of.name,
            plan=of.id,
            became=became,
            said=plain(said, 2 * LONG),
            host_name=self._host_name,
        )

    def _restore(self, lost: NetworkPlan) -> None:
        restored = msgspec.structs.replace(lost, going=False, forced=False)
        if self._networks.write(None, restored):
            self.tally.add("followed", "restored")
            log.warning("network %s: the store had lost its plan, which is written again", lost.name)

    def _tell_orphans(self, orphans: tuple[plan.Found, ...]) -> None:
        """Once for each: nobody asks for it any more, and nobody asked for its removal."""
        for found in orphans:
            if found.id not in self._told_orphans:
                log.warning(
                    "network %s of this host was made for all hosts, and the store has no such network any more: it"
                    " stays; `docker network rm %s` removes it",
                    found.name,
                    found.name,
                )
        self._told_orphans = frozenset(found.id for found in orphans)

    def _bury(self, seen: Plans) -> None:
        """A plan that was to be removed, and that no host has any more, goes.

        Whoever was the last sees to it; of a host that was buried meanwhile whoever comes by. It costs the names of all
        keys of all hosts.
        """
        self._buried_at = self._now()
        going = [held for held in seen.plans.values() if held.value.going]
        if going and not self._in_doubt():
            everywhere = self._networks.everywhere()
            for held in going:
                if plan.is_over(held.value, everywhere):
                    self._networks.drop(held)


def _check(plan: NetworkPlan) -> None:
    """Raises Refused where a plan's options are none: a newer version may know more."""
    try:
        read_options(plan.options)
    except ValueError as error:
        raise Refused(str(error)) from error
