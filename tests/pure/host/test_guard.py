"""The guard on a kernel of paper: what it writes when, what it takes over, and what it does without a kernel for it."""

from __future__ import annotations

import errno
from functools import partial
from typing import Any

import msgspec
import pytest

from myoverlay.errors import Clash, KernelRefused, Refused
from myoverlay.fence import At, Dropped, Fence, Pair, Way
from myoverlay.host.converge import Converger
from myoverlay.host.guard import HEARTBEAT, Guard, Standing
from myoverlay.host.leftovers import Leftovers
from myoverlay.plan import shape
from myoverlay.plan.guard import live_on
from myoverlay.tally import Tally
from myoverlay.values import Address, OverlayName
from tests.pure.kit import definition, network, soon
from tests.pure.model.kernel import FakeFenceTable, FakeGround, FakeLinks, FakePins, Kernel, free

ME, A, B, C = (Address(f"192.0.2.{number}") for number in (1, 2, 3, 4))
PROBE = Pair(4789, 0x6FFFFF)


class Paper(FakeFenceTable):
    """A table that may refuse, and remembers what it was asked to change."""

    def __init__(self, kernel: Kernel) -> None:
        super().__init__(kernel)
        self.refuses = False
        self.changes: list[tuple[Fence, Fence]] = []
        self.kept_out = Dropped()

    def lay(self, fence: Fence) -> None:
        if self.refuses:
            raise KernelRefused("making table myoverlay", errno.EOPNOTSUPP, "Operation not supported")
        super().lay(fence)

    def change(self, more: Fence, less: Fence) -> None:
        self.changes.append((more, less))
        super().change(more, less)

    def dropped(self) -> Dropped:
        return self.kept_out


class Site:
    """A host: its kernel outlives the guards that run on it."""

    def __init__(self) -> None:
        self.kernel, self.tally = Kernel(ME), Tally()
        self.begin()

    def begin(self, mode: str = "on") -> Guard:
        self.table = Paper(self.kernel)
        self.guard = Guard(self.table, mode, self.tally)
        self.guard.start()
        return self.guard

    def live(self, of: Any) -> frozenset[Address]:
        assert self.kernel.fence is not None
        return live_on(self.kernel.fence, Pair(of.definition.port, of.definition.vni))


@pytest.fixture
def site() -> Site:
    return Site()


def net(name: str, vni: int) -> Any:
    of = definition(overlay=OverlayName(name), vni=vni)
    return network(definition=of, overlay=of.overlay, vtep=ME, underlay="eth0")


WEB, DB = net("web", 0x700001), net("db", 0x700002)


def test_one_that_comes_is_one_element(site: Site) -> None:
    """A VTEP that is let in, or shut out, is all that is written; on its overlay alone."""
    site.guard.cover(WEB, strict=True)
    site.guard.cover(DB, strict=True)
    site.guard.admit("web", [A, B])
    site.table.changes.clear()
    site.guard.admit("web", [A, C])
    site.guard.keep("web", [A, C])
    site.guard.keep("web", [C, A])
    pair = Pair(WEB.definition.port, 0x700001)

    def only(vtep: Address) -> Fence:
        way = Way(pair, vtep, WEB.vtep, WEB.underlay)
        return Fence(live=frozenset({At(pair, vtep)}), ways=frozenset({way}))

    assert site.table.changes == [(only(C), Fence()), (Fence(), only(B))]
    assert (site.live(WEB), site.live(DB)) == ({A, C}, frozenset())


def test_a_former_run_s_friends_stay_until_all_is_known(site: Site) -> None:
    """After a restart who might send still may; what no overlay covers is dropped by the first comparison."""
    for of in (WEB, DB):
        site.guard.cover(of, strict=True)
    site.guard.admit("web", [A])
    site.guard.admit("db", [B])
    site.begin()
    assert (site.live(WEB), site.live(DB)) == ({A}, {B})
    site.guard.cover(WEB, strict=False)
    assert (site.live(WEB), site.live(DB)) == ({A}, {B})
    site.guard.check()
    assert (site.live(WEB), site.live(DB)) == ({A}, frozenset())
    site.guard.keep("web", [])
    assert site.live(WEB) == frozenset()


def test_what_somebody_took_away_is_laid_again(site: Site) -> None:
    """A flushed table is found by the comparison and by the next change, and counted each time; a quiet one is not."""
    site.guard.cover(WEB, strict=True)
    site.guard.check()
    assert site.tally.get("repairs", "guard") == 0
    for act in (site.guard.check, lambda: site.guard.admit("web", [A])):
        before = site.tally.get("repairs", "guard")
        site.kernel.fence, site.kernel.generation = None, site.kernel.generation + 1
        act()
        assert site.kernel.fence is not None
        assert site.tally.get("repairs", "guard") == before + 1
    assert site.live(WEB) == {A}


def test_what_is_taken_away_before_the_first_round_is_counted(site: Site) -> None:
    """After a restart the first comparison takes a former run's surplus away and says nothing; a flush is a repair."""
    for of in (WEB, DB):
        site.guard.cover(of, strict=True)
    for flushed in (False, True):
        guard = site.begin()
        guard.cover(WEB, strict=False)
        if flushed:
            site.kernel.fence, site.kernel.generation = None, site.kernel.generation + 1
        guard.check()
        assert site.tally.get("repairs", "guard") == int(flushed)
        assert site.kernel.fence is not None
        assert len(site.kernel.fence.pairs) == 1


def test_a_repair_is_told(site: Site) -> None:
    """Of each overlay that is guarded, with the counter's reason; the heartbeat is none, and quiet is not told."""
    told: list[tuple[str, str]] = []
    site.guard.on_repair = lambda overlay, reason, things: told.extend((overlay, reason) for _ in things)
    for of in (WEB, DB):
        site.guard.cover(of, strict=True)
    site.guard.cover_heartbeat(PROBE, ME, "eth0")
    site.guard.check()
    assert told == []
    site.kernel.fence, site.kernel.generation = None, site.kernel.generation + 1
    site.guard.check()
    assert told == [("db", "guard"), ("web", "guard")]
    assert site.tally.get("repairs", "guard") == 1


def test_how_it_stands(site: Site) -> None:
    """Tunnels and who may send are counted; a table that is gone, or has other elements, is not as it was laid."""
    assert site.guard.standing() == Standing(0, 0, "", 0, False)
    site.guard.cover(WEB, strict=True)
    site.guard.admit("web", [A, B])
    assert site.guard.standing() == Standing(1, 2, "", 0, True)
    assert site.kernel.fence is not None
    site.kernel.fence = site.kernel.fence.beside(Fence(live=frozenset({At(PROBE, C)})))
    assert not site.guard.standing().there
    site.kernel.fence = None
    assert not site.guard.standing().there


def test_an_overlay_that_was_refused_is_not_guarded_later(site: Site) -> None:
    """Its network was not made for want of nf_tables: when that comes, its VNI is nobody's business of ours."""
    site.table.refuses = True
    with pytest.raises(Refused):
        site.guard.cover(WEB, strict=True)
    site.table.refuses = False
    site.guard.check()
    assert site.kernel.fence is None
    assert site.guard.standing() == Standing(0, 0, "", 0, False)


def test_somebody_s_element_goes(site: Site) -> None:
    """A VTEP that somebody else wrote into the table is taken out of it."""
    site.guard.cover(WEB, strict=True)
    assert site.kernel.fence is not None
    pair = Pair(WEB.definition.port, 0x700001)
    site.kernel.fence = site.kernel.fence.beside(Fence(live=frozenset({At(pair, C)})))
    site.kernel.generation += 1
    site.guard.check()
    assert site.live(WEB) == frozenset()
    assert site.tally.get("repairs", "guard") == 1


def test_the_heartbeat_hears_all_that_any_overlay_knows(site: Site) -> None:
    """Hosts that are there and VTEPs of every overlay may ask; who is neither may no more after a comparison."""
    site.guard.cover(WEB, strict=True)
    site.guard.admit("web", [A])
    site.guard.cover_heartbeat(PROBE, ME, "eth0")
    site.guard.know([B])
    site.guard.admit(HEARTBEAT, [C])
    assert site.kernel.fence is not None
    assert live_on(site.kernel.fence, PROBE) == {A, B, C}
    assert site.live(WEB) == {A}
    site.guard.check()
    assert live_on(site.kernel.fence, PROBE) == {A, B}


def test_a_vtep_that_moves_is_guarded_at_its_new_address(site: Site) -> None:
    """This host's own new address is guarded in place of the old one; its friends stay."""
    site.guard.cover(WEB, strict=True)
    site.guard.admit("web", [A])
    site.guard.cover(msgspec.structs.replace(WEB, vtep=B, underlay="eth1"), strict=False)
    assert site.kernel.fence is not None
    assert {at.vtep for at in site.kernel.fence.own} == {B}
    assert site.kernel.fence.doors == {"eth1"}
    assert site.live(WEB) == {A}


def test_the_last_overlay_takes_the_table_along(site: Site) -> None:
    """Without a tunnel there is nothing to guard; what is uncovered twice, or never was covered, is no matter."""
    site.guard.cover(WEB, strict=True)
    for name in ("web", "web", "db"):
        site.guard.uncover(name)
    assert site.kernel.fence is None
    site.guard.check()
    assert site.kernel.fence is None


def test_a_kernel_that_cannot(site: Site) -> None:
    """`on` refuses a new overlay in one sentence and keeps what runs; `warn` makes it; both say so till it is cured."""
    for mode, strict in (("on", False), ("warn", True)):
        guard = site.begin(mode)
        site.table.refuses = True
        guard.cover(WEB, strict=strict)
        assert "Operation not supported" in guard.trouble
        site.table.refuses = False
        guard.check()
        assert guard.trouble == ""
        assert site.kernel.fence is not None
        site.kernel.power_off()
    guard = site.begin("on")
    site.table.refuses = True
    with pytest.raises(Refused, match=r"overlay web cannot be guarded .*not supported.*MYOVERLAY_GUARD=warn"):
        guard.cover(WEB, strict=True)


def test_off_means_off(site: Site) -> None:
    """Where nothing is to be guarded, what a former run guarded with goes, and nothing is written."""
    site.guard.cover(WEB, strict=True)
    guard = site.begin("off")
    assert site.kernel.fence is None
    guard.cover(WEB, strict=True)
    guard.admit("web", [A])
    guard.check()
    assert site.kernel.fence is None
    assert guard.trouble == ""


def test_what_was_kept_out_is_counted_once(site: Site) -> None:
    """The counters are the table's differences; one that began anew counts from nothing."""
    site.guard.cover(WEB, strict=True)
    for packets in (3, 5, 5, 2):
        site.table.kept_out = Dropped(unknown=packets)
        site.guard.check()
    assert site.tally.get("guard", "unknown") == 3 + 2 + 0 + 2


def test_a_refused_overlay_is_guarded_no_more(site: Site) -> None:
    """Where the device cannot be made, for somebody else has its VNI, that one's packets are kept out no longer."""
    pins, links = FakePins(site.kernel), FakeLinks(site.kernel)
    with pins.create("others") as others:
        links.ensure(others, shape.vxlan(WEB), deadline=soon())
    ground: Any = partial(FakeGround, site.kernel, free)
    leftovers = Leftovers(site.tally)
    converger = Converger(links, pins, site.tally, leftovers, ground, guard=site.guard)  # type: ignore[arg-type]
    with pytest.raises(Clash):
        converger.overlay(WEB, [], soon())
    assert site.kernel.fence is None
    converger.overlay(DB, [], soon()).close()
    assert site.kernel.fence is not None


def test_a_host_that_leaves_leaves_no_table(site: Site) -> None:
    """Its last network may go before the first comparison after a start, while what a former run let in still holds."""
    site.guard.cover(WEB, strict=True)
    site.guard.admit(WEB.overlay, [A])
    guard = site.begin()
    guard.cover(WEB, strict=False)
    guard.uncover(WEB.overlay)
    assert site.kernel.fence is not None
    guard.leave()
    assert site.kernel.fence is None


def test_a_host_that_leaves_keeps_the_guard_of_running_containers(site: Site) -> None:
    """Whoever left by force has overlays still; what a former run let in besides goes."""
    site.guard.cover(WEB, strict=True)
    site.guard.cover(DB, strict=True)
    guard = site.begin()
    guard.cover(WEB, strict=False)
    guard.leave()
    assert site.kernel.fence is not None
    assert site.kernel.fence.pairs == {Pair(WEB.definition.port, WEB.definition.vni)}
