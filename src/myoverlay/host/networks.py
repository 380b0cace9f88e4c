"""Networks that are defined once for all hosts: what a person may do with them, from any host."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Iterator

import msgspec

from myoverlay.errors import Clash, Late, Refused, Unavailable, Unknown
from myoverlay.host.deadline import check, left
from myoverlay.host.preflight import Asked, Asker
from myoverlay.networks import HeldNetwork, NetworkPlan, Question, fresh_id, plain
from myoverlay.plan import blueprint, following, preflight
from myoverlay.plan.believe import believed
from myoverlay.plan.blueprint import Known, Wish
from myoverlay.plan.definition import Options
from myoverlay.store.networks import NetworkRecords
from myoverlay.store.presence import Presence
from myoverlay.store.records import Records
from myoverlay.store.typed import Held
from myoverlay.values import Address, HostId, Mac, OverlayName, Subnet

log = logging.getLogger(__name__)

#: How long hosts are waited for that are to have made, or removed, a network, seconds; what is left for the answer.
FOLLOWING, SPARE = 3.0, 0.7


class Made(msgspec.Struct, frozen=True):
    """A network was defined. `late`: names of hosts that follow and have not said what became of it yet."""

    plan: NetworkPlan
    warnings: tuple[str, ...]
    held: tuple[HeldNetwork, ...]
    late: tuple[str, ...]


class User(msgspec.Struct, frozen=True):
    """A container on a network's overlay. `names`: what it is called, where that is known; its own name first."""

    address: Address
    mac: Mac
    host: HostId
    names: tuple[str, ...] = ()

    @property
    def called(self) -> str:
        return f"{self.names[0]} at {self.address}" if self.names else self.address


class Shown(msgspec.Struct, frozen=True):
    """All that the store tells of a network, or what remains of one that is to be removed.

    `names`: of the hosts that are there, and of those that said something.
    """

    plan: NetworkPlan
    held: tuple[HeldNetwork, ...]
    users: tuple[User, ...]
    names: dict[HostId, str]
    present: frozenset[HostId]


class ClusterNetworks:
    """For a person's requests, from any thread."""

    def __init__(
        self,
        networks: NetworkRecords,
        records: Records,
        presence: Presence,
        asker: Asker,
        allowed: Callable[[], None],
        in_doubt: Callable[[], bool],
        carried: Callable[[str, float], int],
        base: Subnet,
        port: int,
        host_name: str,
        now: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """`allowed`: raises Clash while this host may not take part; `in_doubt`: did the store lose something lately;
        `carried`: what MTU fits through this host's underlay; `base`: where subnets come from when none is given;
        `port`: VXLAN's without `-o port=`.
        """
        self._networks = networks
        self._records = records
        self._presence = presence
        self._asker = asker
        self._allowed = allowed
        self._in_doubt = in_doubt
        self._carried = carried
        self._base = base
        self._port = port
        self._host_name = host_name
        self._now = now
        self._wall = wall

    # -- making ----------------------------------------------------------------------------------------------------

    def create(self, wish: Wish, force: bool, deadline: float) -> Made:
        """Define a network for all hosts, once all that are there were asked what speaks against it.

        Raises Refused or Clash with what does; `force` lets pass what only speaks against it on some host.
        """
        self._allowed()
        options = blueprint.check(wish)
        if self._in_doubt() and not force:
            raise Clash(
                "the store lost something lately, and not every host has written again what it holds: try again in a"
                " minute (--force defines the network all the same)"
            )
        held = self._networks.plan(wish.name, timeout=left(deadline))
        self._check_free(wish.name, held, force, deadline)
        known = self._known(wish, deadline)
        blueprint.agree(wish, options, known)
        plan, asked, verdict = self._choose(wish, options, known, force, deadline)
        self._define(held, plan, known, deadline)
        waits_for = {host for host, answer in asked.answers.items() if answer.follows}
        said, unheard = self._await_followers(plan, waits_for, deadline)
        late = tuple(sorted(asked.names[host] for host in waits_for - {one.host for one in said}))
        none = () if waits_for else ("no host that answered follows (MYOVERLAY_FOLLOW=on): none makes the network",)
        return Made(plan, (*verdict, *none, *unheard), said, late)

    def _check_free(self, name: OverlayName, held: Held[NetworkPlan] | None, force: bool, deadline: float) -> None:
        if held is None:
            return
        if not held.value.going:
            raise Clash(
                f"network {name} exists already, made on host {held.value.maker}: `myoverlay network inspect {name}`"
            )
        rest = following.remaining(held.value, self._networks.everywhere(timeout=left(deadline)))
        if rest and not force:
            where = ", ".join(one.host_name or one.host.short for one in rest)
            raise Clash(
                f"network {name} is still being removed on {where}: wait, or --force replaces what is left there"
            )

    def _known(self, wish: Wish, deadline: float) -> Known:
        """What the store holds that a new network must fit."""
        overlay = blueprint.overlay_of(wish)
        definition = self._records.definition(overlay, strict=True, timeout=left(deadline))
        return Known(
            plans=tuple(held.value for held in self._networks.plans(timeout=left(deadline)).plans.values()),
            pools=tuple(held.value for held in self._records.pools(timeout=left(deadline))),
            vnis={
                vni: (holder.overlay, holder.subnet) if holder is not None else None
                for vni, holder in self._records.vnis(timeout=left(deadline)).items()
            },
            definition=definition.value if definition is not None else None,
        )

    def _choose(
        self, wish: Wish, options: Options, known: Known, force: bool, deadline: float
    ) -> tuple[NetworkPlan, Asked, tuple[str, ...]]:
        """Ask all hosts, and choose what was left open. Raises Refused with what speaks against it."""
        mtu = blueprint.mtu_of(options, known)
        question = Question(
            id=fresh_id(),
            asker=self._networks.me,
            overlay=blueprint.overlay_of(wish),
            area=blueprint.subnet_of(wish, known) or self._base,
            vnis=blueprint.vnis_of(wish, options, known),
            port=blueprint.port_of(options, known) or self._port,
            mtu=mtu or self._carried(options.vtep or "", deadline),
            vtep=options.vtep or "",
        )
        asked = self._asker.ask(question, deadline)
        least = preflight.least_mtu(question, asked.answers)
        if mtu is None and least < question.mtu:
            # Some underlay is smaller than this host's, so the size that was tried is none that will be used.
            question = msgspec.structs.replace(question, id=fresh_id(), mtu=least)
            asked = self._asker.ask(question, deadline)
        subnet = blueprint.subnet_of(wish, known) or preflight.choose_subnet(
            self._base, blueprint.taken(known), asked.answers
        )
        plan = blueprint.complete(
            wish,
            subnet=subnet,
            vni=preflight.choose_vni(question.vnis, asked.answers),
            mtu=mtu or least,
            known=known,
            maker=self._host_name,
            made_at=self._wall(),
        )
        return plan, asked, self._passed(question, plan, asked, force)

    @staticmethod
    def _passed(question: Question, plan: NetworkPlan, asked: Asked, force: bool) -> tuple[str, ...]:
        verdict = preflight.judge(
            question, plan.subnet, int(plan.options["vni"]), int(plan.options["mtu"]), asked.answers, asked.names
        )
        if verdict.refusals and not force:
            raise Refused(f"{'; '.join(verdict.refusals)} (--force defines the network all the same)")
        return (*verdict.refusals, *verdict.warnings)

    def _define(self, held: Held[NetworkPlan] | None, plan: NetworkPlan, known: Known, deadline: float) -> None:
        """Write the plan. Raises Clash where somebody changed its name's, or was given what it was to have.

        Of two at once, of whatever names, the store lets one pass; the other looks at what that one took. So no host
        ever hears of a plan that is to be taken back.
        """
        looked_at = {one.id for one in known.plans}
        for tries in itertools.count(1):
            seen = self._networks.plans(timeout=left(deadline))
            now = seen.plans.get(plan.name)
            if (now.index if now else 0) != (held.index if held else 0):
                raise Clash(f"network {plan.name} was defined or removed by another host just now: look and try again")
            others = (one.value for one in seen.plans.values())
            blueprint.check_newcomers(plan, (one for one in others if one.id not in looked_at))
            if self._networks.define(held, plan, seen.mark, timeout=left(deadline)):
                return
            check(deadline, f"network {plan.name}", tries)

    def _await_followers(
        self, plan: NetworkPlan, hosts: set[HostId], deadline: float
    ) -> tuple[tuple[HeldNetwork, ...], tuple[str, ...]]:
        """What the hosts say became of the plan, once all have said something, or the time is over.

        And why no more is known: the plan is written, so a store that goes away now makes nothing undone.
        """
        said: tuple[HeldNetwork, ...] = ()
        try:
            for everywhere in self._rounds(deadline):
                said = tuple(one for one in following.remaining(plan, everywhere) if one.plan == plan.id)
                if hosts <= {one.host for one in said}:
                    break
        except (Late, Unavailable) as error:
            return said, (f"the network is defined, and what became of it is not known: {error}",)
        return said, ()

    def _rounds(self, deadline: float) -> Iterator[dict[OverlayName, dict[HostId, HeldNetwork]]]:
        """What all hosts say, now and at each change, for as long as hosts are waited for."""
        until = min(self._now() + FOLLOWING, deadline - SPARE)
        index = 0
        while True:
            index = self._networks.wait_held(index, timeout=max(0.1, until - self._now()))
            yield self._networks.everywhere(timeout=left(deadline))
            if self._now() >= until:
                return

    # -- looking ---------------------------------------------------------------------------------------------------

    def list(self, deadline: float) -> tuple[tuple[NetworkPlan, tuple[HeldNetwork, ...]], ...]:
        """All networks that are defined for all hosts, with what hosts say of each."""
        everywhere = self._networks.everywhere(timeout=left(deadline))
        plans = self._networks.plans(timeout=left(deadline)).plans
        return tuple((plan, following.remaining(plan, everywhere)) for _, (plan, _) in _sorted(plans))

    def inspect(self, name: OverlayName, deadline: float) -> Shown:
        """One of them. Raises Unknown."""
        plan = self._find(name, deadline).value
        alive = self._presence.alive(timeout=left(deadline))
        held = following.remaining(plan, self._networks.everywhere(timeout=left(deadline)))
        users = self._users(plan, deadline)
        names = {one.host: one.host_name for one in held} | {host: plain(one.value.name) for host, one in alive.items()}
        return Shown(plan, held, users, self._members(plan, deadline) | names, frozenset(alive))

    def _find(self, name: OverlayName, deadline: float) -> Held[NetworkPlan]:
        held = self._networks.plan(name, timeout=left(deadline))
        if held is None:
            raise Unknown(
                f"no network {name} is defined for all hosts: `myoverlay network ls` names those that are (one made by"
                " `docker network create` is its host's own)"
            )
        return held

    def _users(self, plan: NetworkPlan, deadline: float) -> tuple[User, ...]:
        """The containers on the network's overlay, by the lists of their hosts."""
        definition = self._records.definition(plan.overlay, timeout=left(deadline))
        if definition is None:
            return ()
        hosts = self._records.hosts_of(plan.overlay, timeout=left(deadline))
        lists = self._records.lists(plan.overlay, hosts, timeout=left(deadline))
        known = {host: held.value for host, held in lists.items()}
        names = {(host, one.address): one.names for host, listed in known.items() for one in listed.records}
        users = [
            User(one.address, one.mac, one.host, names[one.host, one.address])
            for one in believed(definition.value, known)
            if one.host is not None
        ]
        return tuple(sorted(users, key=lambda user: user.address.number))

    def _members(self, plan: NetworkPlan, deadline: float) -> dict[HostId, str]:
        members = self._records.members(plan.overlay, timeout=left(deadline))
        return {host: plain(member.name) for host, member in members.items()}

    # -- removing --------------------------------------------------------------------------------------------------

    def remove(self, name: OverlayName, force: bool, deadline: float) -> Shown:
        """Have all hosts remove a network; what is still held after a moment is told, and goes when it can.

        Raises Clash, naming the users, while containers are on it and `force` is not given; with it they are taken off.
        """
        self._allowed()
        held = self._find(name, deadline)
        shown = self.inspect(name, deadline)
        if shown.users and not force:
            raise Clash(
                f"network {name} is in use by {_where(shown.users, shown.names)}: stop them, or --force takes them off"
            )
        tries = 0
        while not held.value.going or (force and not held.value.forced):
            going = msgspec.structs.replace(held.value, going=True, forced=force)
            if not self._networks.write(held, going, timeout=left(deadline)):
                tries += 1
                check(deadline, f"network {name}", tries)
            held = self._find(name, deadline)
        return self._await_removal(held, shown, deadline)

    def _await_removal(self, held: Held[NetworkPlan], shown: Shown, deadline: float) -> Shown:
        """What remains, as far as it is known: `shown` was before. The plan says already that it is to go."""
        rest = shown.held
        try:
            for everywhere in self._rounds(deadline):
                rest = following.remaining(held.value, everywhere)
                if not rest:
                    self._networks.drop(held, timeout=left(deadline))
                    break
            alive = self._presence.alive(timeout=left(deadline))
            names = self._members(held.value, deadline) | {host: plain(one.value.name) for host, one in alive.items()}
            return Shown(held.value, rest, self._users(held.value, deadline), names, frozenset(alive))
        except (Late, Unavailable) as error:
            log.warning("network %s is to be removed, and what remains of it is not known: %s", held.value.name, error)
            return msgspec.structs.replace(shown, plan=held.value, held=rest)


def _sorted(plans: dict[OverlayName, Held[NetworkPlan]]) -> list[tuple[OverlayName, tuple[NetworkPlan, int]]]:
    return sorted((name, (held.value, held.index)) for name, held in plans.items())


def _where(users: tuple[User, ...], names: dict[HostId, str]) -> str:
    """A few of the users, each with its host."""
    few = [f"{user.called} on host {names.get(user.host) or user.host.short}" for user in users[:8]]
    return ", ".join(few) + (f" and {len(users) - 8} more" if len(users) > 8 else "")
