"""What the loops rely on of links, pins and tables: the same assertions on the model's kernel and on the real one."""

from __future__ import annotations

import errno
import time
from typing import Any

import pytest

from myoverlay.errors import KernelRefused
from myoverlay.fence import At, Fence, Pair, Way
from myoverlay.plan import shape
from myoverlay.values import Address, Bridge, Fdb, Mac, Neigh, Veth, Vxlan

BRIDGE = Bridge(name="br0", mac=Mac("02:6f:0a:05:00:01"), mtu=1450, address=Address("10.5.0.1"), prefixlen=24)
VXLAN = Vxlan(name="vxlan1", bridge="br0", vni=0x7ABCDE, port=4795, local=Address("192.0.2.1"), mtu=1450)
CABLE = Veth(port="p0123456789ab", link="mo0123456789ab", bridge="br0", mac=Mac("02:42:0a:05:00:02"), mtu=1450)
NEIGH = Neigh(address=Address("10.5.0.9"), mac=Mac("02:42:0a:05:00:09"))
FDB = Fdb(mac=NEIGH.mac, vtep=Address("192.0.2.9"))


def soon() -> float:
    return time.monotonic() + 8


PAIR = Pair(4795, 0x7ABCDE)
OTHER = At(PAIR, Address("192.0.2.9"))
FENCE = Fence(
    frozenset({4795}),
    frozenset({PAIR}),
    frozenset({"eth0"}),
    frozenset({At(PAIR, Address("192.0.2.1"))}),
    frozenset({At(PAIR, Address("192.0.2.2")), At(PAIR, Address("2001:db8::2"))}),
    frozenset(
        {
            Way(PAIR, Address("192.0.2.2"), Address("192.0.2.1"), "eth0"),
            Way(PAIR, Address("2001:db8::2"), Address("2001:db8::1"), "a-name-of-15-by"),
        }
    ),
)


class FenceContract:
    """Subclass it with a fixture `fences`: it makes another table object, as another run of the daemon would."""

    def test_what_was_laid_is_held(self, fences: Any) -> None:
        """A table holds what it was laid with, and, changed, what that makes of it; nobody touched it meanwhile."""
        table = fences()
        assert not table.held()
        assert table.look() is None
        table.lay(FENCE)
        assert table.held() == table.look() == FENCE
        more, less = Fence(live=frozenset({OTHER})), Fence(live=frozenset(list(FENCE.live)[:1]))
        table.change(more, less)
        assert table.is_untouched()
        assert table.stands()
        assert table.look() == FENCE.without(less).beside(more)
        table.change(more, Fence())  # what is there already stays
        assert table.look() == FENCE.without(less).beside(more)
        table.close()

    def test_all_or_nothing(self, fences: Any) -> None:
        """A change that cannot be made whole is not made: what is added stays out where what goes is not there."""
        table = fences()
        with pytest.raises(KernelRefused):
            table.change(Fence(live=frozenset({OTHER})), Fence())
        table.lay(FENCE)
        with pytest.raises(KernelRefused):
            table.change(Fence(ports=frozenset({8472})), Fence(live=frozenset({OTHER})))
        assert table.look() == FENCE
        table.close()

    def test_a_later_run_finds_it(self, fences: Any) -> None:
        """Another run reads what the table holds, trusts its rules only when it laid them itself, and removes it."""
        first, second = fences(), fences()
        first.lay(FENCE)
        assert second.held() == FENCE
        assert not second.is_untouched()
        assert not second.stands()
        assert second.look() is None
        second.lay(FENCE)
        assert second.look() == FENCE
        assert not first.is_untouched()
        second.remove()
        second.remove()
        assert not first.stands()
        assert first.look() is None
        assert not first.held()
        first.close()
        second.close()


class KernelContract:
    """Subclass it with fixtures `links`, `pins` and `open_ground` of one machine."""

    def build(self, links: Any, pins: Any, name: str = "demo", tunnel: Vxlan = VXLAN) -> Any:
        space = pins.create(name)
        for thing in (BRIDGE, tunnel, CABLE) if name == "demo" else (BRIDGE, tunnel):
            links.ensure(space, thing, deadline=soon())
        return space

    def ground(self, links: Any, space: Any, open_ground: Any) -> Any:
        index = links.ifindex(space, shape.VXLAN, deadline=soon())
        assert index is not None
        return open_ground(space, index, [CABLE.port])

    def test_pins_come_and_go(self, pins: Any) -> None:
        """What is pinned is found by its name, again under the same one; deleting what is absent succeeds."""
        assert not pins.is_there("demo")
        first, again = pins.create("demo"), pins.create("demo")
        assert pins.is_there("demo")
        assert pins.names() == {"demo"}
        assert not pins.keep("demo", first)
        for space in (first, again):
            space.close()
        pins.delete("demo")
        pins.delete("demo")
        assert not pins.is_there("demo")

    def test_links_are_what_was_asked_for(self, links: Any, pins: Any) -> None:
        """What was ensured is observed as that very value without faults; doing it again changes nothing."""
        with self.build(links, pins) as space:
            before = links.ifindex(space, shape.VXLAN, deadline=soon())
            for thing in (BRIDGE, VXLAN, CABLE):
                links.ensure(space, thing, deadline=soon())
            seen = {link.name: link for link in links.observe(space, deadline=soon())}
            assert {name: link.value for name, link in seen.items()} == {
                "br0": BRIDGE,
                "vxlan1": VXLAN,
                CABLE.port: CABLE,
            }
            assert not any(link.faults for link in seen.values())
            assert links.ifindex(space, shape.VXLAN, deadline=soon()) == before
            assert CABLE.link in links.names()
            assert links.far_ends(space, deadline=soon()) == {CABLE.port: CABLE.link}

    def test_a_removed_cable_has_no_ends(self, links: Any, pins: Any) -> None:
        """A veth goes by either end, with both; removing what is absent succeeds."""
        with self.build(links, pins) as space:
            links.remove(space, CABLE.port, deadline=soon())
            links.remove(space, CABLE.port, deadline=soon())
            assert links.ifindex(space, CABLE.port, deadline=soon()) is None
            assert CABLE.link not in links.names()
            links.ensure(space, CABLE, deadline=soon())
            links.remove_here(CABLE.link, deadline=soon())
            links.remove_here(CABLE.link, deadline=soon())
            assert links.ifindex(space, CABLE.port, deadline=soon()) is None

    def test_a_tunnel_that_differs_is_another(self, links: Any, pins: Any, open_ground: Any) -> None:
        """Another VNI, port or local address makes the device anew: another index, and none of its rows."""
        with self.build(links, pins) as space:
            before = links.ifindex(space, shape.VXLAN, deadline=soon())
            ground = self.ground(links, space.dup(), open_ground)
            assert ground.tables.set([FDB, NEIGH]) == []
            changed = Vxlan(**{name: getattr(VXLAN, name) for name in VXLAN.__struct_fields__} | {"vni": 0x7ABCDF})
            links.ensure(space, changed, deadline=soon())
            assert links.ifindex(space, shape.VXLAN, deadline=soon()) != before
            refused = ground.tables.set([NEIGH])
            assert [row for row, _ in refused] == [NEIGH]
            ground.close()
            new = self.ground(links, space.dup(), open_ground)
            assert new.tables.dump() == (set(), set())
            new.close()

    def test_a_vni_is_taken_once(self, links: Any, pins: Any) -> None:
        """A second device with VNI and port of the first is refused with EEXIST, and the holder is found."""
        with self.build(links, pins), pins.create("other") as other:
            links.ensure(other, BRIDGE, deadline=soon())
            with pytest.raises(KernelRefused) as refused:
                links.ensure(other, VXLAN, deadline=soon())
            assert refused.value.code == errno.EEXIST
            assert links.holder_of(VXLAN.vni, VXLAN.port, search=(pins.folder,), deadline=soon())

    def test_rows_are_replaced_and_taken_out_exactly(self, links: Any, pins: Any, open_ground: Any) -> None:
        """Setting writes over what is there; taking out takes that very row; absent is success; all twice is once."""
        with self.build(links, pins) as space:
            ground = self.ground(links, space.dup(), open_ground)
            tables = ground.tables
            moved = Neigh(address=NEIGH.address, mac=Mac("02:42:0a:05:00:99"))
            elsewhere = Fdb(mac=FDB.mac, vtep=Address("192.0.2.8"))
            for _ in range(2):
                assert tables.set([FDB, NEIGH]) == []
                assert tables.dump() == ({NEIGH}, {FDB})
            assert tables.set([elsewhere, moved]) == []
            assert tables.dump() == ({moved}, {elsewhere})
            assert tables.unset([NEIGH, FDB]) == []
            assert tables.dump() == ({moved}, {elsewhere})
            for _ in range(2):
                assert tables.unset([moved, elsewhere]) == []
                assert tables.dump() == (set(), set())
            ground.close()

    def test_a_ground_tells_its_links(self, links: Any, pins: Any, open_ground: Any) -> None:
        """The names of all links as they are now, and whether the devices are those that it was opened on."""
        with self.build(links, pins) as space:
            ground = self.ground(links, space.dup(), open_ground)
            assert ground.link_names() == {"lo", "br0", "vxlan1", CABLE.port}
            links.remove(space, CABLE.port, deadline=soon())
            assert CABLE.port not in ground.link_names()
            assert ground.is_bound()
            links.remove(space, shape.VXLAN, deadline=soon())
            assert not ground.is_bound()
            links.ensure(space, VXLAN, deadline=soon())
            assert not ground.is_bound()
            ground.close()
