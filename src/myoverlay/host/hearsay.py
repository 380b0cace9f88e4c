"""What the other hosts' lists say of one overlay, and what they say now that they did not say before."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from myoverlay.plan import believe
from myoverlay.plan.claims import Accused, Said, accused_by, said_by
from myoverlay.plan.shared import Shared
from myoverlay.store.typed import Held
from myoverlay.values import Address, Definition, HostId, HostList

Lists = Mapping[HostId, Held[HostList]]


def heard(
    known: Lists | None, lists: Lists, anew: bool, left: Collection[HostId], incarnation: str, doubt: bool
) -> Shared[HostId, Held[HostList]]:
    """All lists, when these were read and these hosts have left. Arguments are as in `LocalOverlay.learn`."""
    before = known if isinstance(known, Shared) else Shared(known)
    if anew or left:
        before = Shared(
            {
                # In a new order any list is newer than what the old one left behind.
                host: Held(held.value, 0) if anew else held
                for host, held in before.items()
                if host not in left
            }
        )
    merged = before.edit()
    for host, held in lists.items():
        old = merged.get(host)
        if old is None:
            merged.set(host, held)
        elif held.index >= old.index:
            merged.set(host, Held(believe.latest(old.value, held.value, incarnation, doubt), held.index))
    return merged.done()


def news(definition: Definition, hosts: Collection[HostId], before: Lists | None, after: Lists) -> list[Said]:
    """What these hosts say otherwise than before, in the order in which they wrote it (Consul's: none forges it)."""
    ordered = sorted(hosts, key=lambda host: (held.index if (held := after.get(host)) is not None else 0, host))
    return [_news(definition, host, (before or {}).get(host), after.get(host)) for host in ordered]


def accused(known: Accused, hosts: Collection[HostId], before: Lists | None, after: Lists) -> Accused:
    """Whom all lists accuse, now that these hosts' are others; what was `known` itself where that says the same."""
    old, new = ([_accuses(lists.get(host)) for host in hosts] for lists in (before or {}, after))
    return known if old == new else accused_by(held.value for held in after.values())


def _accuses(held: Held[HostList] | None) -> tuple[HostId, ...]:
    return held.value.accuses if held is not None else ()


def have_moved(hosts: Collection[HostId], before: Lists | None, after: Lists) -> bool:
    """Is one of these hosts new, gone, or at another VTEP?"""
    return any(_vtep((before or {}).get(host)) != _vtep(after.get(host)) for host in hosts)


def _vtep(held: Held[HostList] | None) -> Address | None:
    return held.value.vtep if held is not None else None


def _news(definition: Definition, host: HostId, before: Held[HostList] | None, now: Held[HostList] | None) -> Said:
    return said_by(definition, host, before.value if before else None, now.value if now else None)
