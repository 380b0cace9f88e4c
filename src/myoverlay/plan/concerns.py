"""What needs a person, and what stands behind another host's state. Pure: a look in, sentences out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import msgspec

from myoverlay.plan.fates import State
from myoverlay.plan.pulse import LIMIT, ROTATION
from myoverlay.plan.sight import PeerSight, Sight

#: Seconds that an outage of the store lasts before a person is called; that a start may take; that the kernel may go
#: without being compared.
AWAY, START, UNCOMPARED = 10.0, 30.0, 60.0
#: A watch's question ends after 55 s at the latest; one that had no answer for so long, seconds, is stuck.
DEAF = 150.0
#: A fault that was counted calls a person for so long, seconds; a bug of ours longer.
RECENT, BUG = 600.0, 3600.0
#: So many rotations without an answer from a host whose session lives, and its kernel cannot be reached.
SILENT = 4


class Concern(NamedTuple):
    """Something that needs a person: what is so, and what helps."""

    what: str
    remedy: str


class Terms(NamedTuple):
    """What is allowed how long on this host, seconds, and the heartbeat's UDP port."""

    grace: float
    lease_grace: float
    port: int


def patience(hosts: int) -> float:
    """Seconds within which a host that answers has been heard, where so many are asked in turns."""
    return SILENT * max(ROTATION, hosts / LIMIT)


def explained(peer: PeerSight, hosts: int, mtu: int, terms: Terms) -> PeerSight:
    """The same with `why` and `wrong`. `hosts`: how many are asked in turns; `mtu`: the heartbeat's full size."""
    why, wrong = _why(peer, hosts, mtu, terms)
    return msgspec.structs.replace(peer, why=why, wrong=wrong)


def _why(peer: PeerSight, hosts: int, mtu: int, terms: Terms) -> tuple[str, bool]:
    if peer.state is State.DEAD:
        return f"no session, and its kernel is silent: {_consequences(peer.since, terms)}", True
    if peer.state is State.CUT_OFF:
        heard = f"its kernel answered {ago(peer.heard)}" if peer.heard is not None else "its kernel answers"
        return f"no session in the store; {heard}: rows, names and addresses stay", True
    if peer.state is State.PENDING:
        return "its session is gone; its kernel is being asked", False
    if peer.carries is False:
        return f"packets of {mtu} bytes do not come through, small ones do: the path's MTU is smaller", True
    limit = patience(hosts)
    if peer.heard is None and peer.since > limit:
        return f"in the store, but its kernel never answered through VXLAN: is UDP {terms.port} let through?", True
    if peer.heard is not None and peer.heard > limit:
        return f"in the store, but its kernel is silent since {ago(peer.heard)}: is UDP {terms.port} let through?", True
    return "in the store, and its kernel answers" if peer.heard is not None else "in the store; not asked yet", False


def _consequences(dead: float, terms: Terms) -> str:
    rows = "its rows went" if dead >= terms.grace else f"its rows go in {span(terms.grace - dead)}"
    free = dead >= terms.lease_grace
    return f"{rows}, its addresses {'may be given anew' if free else f'are kept for {span(terms.lease_grace - dead)}'}"


def concerns(sight: Sight) -> list[Concern]:
    """All that needs a person, the weightiest first; nothing on a host that is well."""
    return [concern for check in _CHECKS for concern in check(sight)]


def _barred(sight: Sight) -> Iterator[Concern]:
    if sight.barred is not None:
        yield Concern(f"this host takes no part: {sight.barred}", "see what the sentence says")


def _store(sight: Sight) -> Iterator[Concern]:
    store = sight.store
    if store.answers is False and store.since >= AWAY:
        what = f"{store.where} has not answered for {span(store.since)}: {store.failure}"
        yield Concern(what, "traffic goes on; new containers start from the reserve until it answers: see to Consul")
    elif store.failed is not None and store.failed < RECENT and "permission denied" in store.failure:
        yield Concern(
            f"{store.where} refused something {ago(store.failed)}: {store.failure}", "give the token that right"
        )
    if store.answers and not sight.session and sight.started > START and sight.barred is None:
        yield Concern("this host has no session in the store, so the others take it for away", "see the log of `alive`")
    if store.unreadable:
        key, why = next(iter(sorted(store.unreadable.items())))
        more = f", and {len(store.unreadable) - 1} more" if len(store.unreadable) > 1 else ""
        yield Concern(f"the key {key} in the store cannot be read ({why}){more}", "repair or delete it")


def _peers(sight: Sight) -> Iterator[Concern]:
    for state, remedy in (
        (State.DEAD, "bring them back, or `myoverlay host forget NAME` for those that will not be"),
        (State.CUT_OFF, "see to their plugin and their way to Consul"),
    ):
        names = [peer.name or peer.id[:12] for peer in sight.peers if peer.state is state]
        if names:
            yield Concern(f"{_counted(names, 'host')} {state.value}: {few(names)}", remedy)
    odd = [peer for peer in sight.peers if peer.wrong and peer.state is State.ALIVE]
    if odd:
        names = [peer.name or peer.id[:12] for peer in odd]
        what = f"{_counted(names, 'host')} not reached as they should be: {few(names)}: {odd[0].why}"
        yield Concern(what, "let VXLAN through between the hosts, or give the overlay a smaller `-o mtu=`")


def _kernel(sight: Sight) -> Iterator[Concern]:
    if (away := [one.overlay for one in sight.overlays if not one.built]) and sight.started > START:
        yield Concern(f"not built on this host: {few(away)}", "the log says what the kernel refuses")
    if (deaf := [one.overlay for one in sight.overlays if one.heard is not None and one.heard > DEAF]) and (
        sight.store.answers
    ):
        yield Concern(f"what changes elsewhere is not heard of: {few(deaf)}", "see the log of `watch`; report it")
    if sight.compared is not None and sight.compared > UNCOMPARED:
        yield Concern(f"the kernel was compared last {ago(sight.compared)}", "see the log of `reconcile`; report it")
    if sight.heartbeat_trouble:
        yield Concern(f"the other hosts cannot be asked: {sight.heartbeat_trouble}", "see what the sentence says")
    if sight.unguarded:
        yield Concern(
            f"VXLAN is taken from anyone: {sight.unguarded}", "load the kernel's nf_tables (`modprobe nf_tables`)"
        )
    if loose := [one for one in sight.overlays if one.unbound]:
        what = f"containers may speak under any address: {few([one.overlay for one in loose])}: {loose[0].unbound}"
        yield Concern(what, "load the kernel's nf_tables (`modprobe nf_tables`)")
    if sight.held:
        count = sum(one.count for one in sight.held)
        yield Concern(
            f"{count} things nobody asks for wait for a word", "`myoverlay gc` shows them, `gc --yes` lets them go"
        )


#: Counters whose rise within RECENT calls a person: name, label (None: any), what is so, what helps.
RISING: tuple[tuple[str, str | None, float, str, str], ...] = (
    ("bugs", None, BUG, "a thread failed for a reason nobody foresaw", "report it, with the log"),
    ("misses", "late", RECENT, "rows that should have been there were missing", "see who else changes the tables"),
    ("row_failures", None, RECENT, "the kernel refused rows", "the log names them"),
    ("contradictions", None, RECENT, "the store contradicts what runs here", "the log says in what"),
    ("published", "disputed", RECENT, "somebody else claims what this host has", "the log names him; see SECURITY.md"),
    ("undecided", None, RECENT, "living hosts claim the same addresses", "the log names the overlay; see SECURITY.md"),
    ("mirror", "failed", RECENT, "the state could not be copied", "see that MYOVERLAY_RUN can be written"),
    ("underlay", "lost", RECENT, "this host lost its VTEP", "give it back, or set MYOVERLAY_VTEP"),
)  # fmt: skip


def _counters(sight: Sight) -> Iterator[Concern]:
    for name, label, recent, what, remedy in RISING:
        age = sight.age(name, label)
        if age is not None and age < recent:
            yield Concern(f"{what}: {sight.count(name, label)} since the start, the last {ago(age)}", remedy)


def _names(sight: Sight) -> Iterator[Concern]:
    resolver, docker, catalogue = (sight.names.get(part) for part in ("resolver", "docker", "catalogue"))
    if resolver is not None and sight.started > START:
        if not resolver["process"]:
            yield Concern("names are not answered just now", "see the log of `names`")
        for trouble in resolver["troubles"]:
            yield Concern(f"names: {trouble}", "see what the sentence says")
    if docker is not None and not docker["followed"]:
        yield Concern(f"Docker is not heard: {docker['trouble']}", "see MYOVERLAY_DOCKER_SOCKET in README")
    if catalogue is not None and catalogue["trouble"]:
        yield Concern(f"Consul's catalogue: {catalogue['trouble']}", "see the rights of the token in README")
    if sight.metrics_trouble:
        yield Concern(f"metrics are not served at {sight.metrics_at}: {sight.metrics_trouble}", "see MYOVERLAY_METRICS")


_CHECKS: tuple[Callable[[Sight], Iterator[Concern]], ...] = (_barred, _store, _peers, _kernel, _counters, _names)


def span(seconds: float) -> str:
    """A time as a person reads it: 0.4 s, 12 s, 3 min, 5 h, 2 d."""
    for unit, size, least in (("d", 86400.0, 172800.0), ("h", 3600.0, 7200.0), ("min", 60.0, 120.0)):
        if seconds >= least:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{max(0.0, seconds):.1f} s"


def ago(seconds: float | None) -> str:
    return "never" if seconds is None else f"{span(seconds)} ago"


def few(names: Sequence[str]) -> str:
    """The first three, and how many more."""
    first = sorted(names)[:3]
    return ", ".join(first) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _counted(names: Sequence[str], what: str) -> str:
    return f"1 {what} is" if len(names) == 1 else f"{len(names)} {what}s are"
